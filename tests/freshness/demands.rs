//! What a request demands of the age of its answer: each directive of RFC 9111, 5.2.1, tokens, and `max_lag`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fixture::{ITEMS, item};
use crate::support::{Reply, Server};

const A: &str = "/api/items/A";
const LIST: &str = "/api/items?category=a";
const STATS: &str = "/api/items/_stats?by=category";
const VIEW: &str = "/api/totals";
const ALL: [&str; 4] = [A, LIST, STATS, VIEW];

/// A server that learns of nothing that it does not do itself, or is asked to look for.
async fn incurious() -> Server {
    let server = Server::fixture_with(|settings| settings.cache.reconcile_interval = Duration::from_secs(3600));
    server.create_item(item("A", "a")).await;
    server
}

async fn asking(server: &Server, path: &str, demand: &str) -> Reply {
    server.get_with(path, &[("cache-control", demand)]).await
}

async fn with_token(server: &Server, path: &str, token: &str) -> Reply {
    server.get_with(path, &[("consistency-token", token)]).await
}

/// The tier of A, wherever the answer has it.
fn tier(path: &str, reply: &Reply) -> Value {
    let body = reply.expect(200);
    if path == A { body["tier"].clone() } else { body["data"][0]["tier"].clone() }
}

#[tokio::test]
async fn no_cache_shows_what_another_process_wrote_and_renews_what_is_stored() {
    let server = incurious().await;
    let other = server.beside(|_| {});
    for path in [A, LIST] {
        server.get(path).await.expect(200);
    }
    other.patch(A, &json!({"tier": 7})).await.expect(200);
    for path in [A, LIST] {
        let before = server.get(path).await;
        assert_eq!((before.cache(), tier(path, &before)), ("HIT", Value::Null), "{path}");
        let reloaded = asking(&server, path, "no-cache").await;
        assert_eq!((reloaded.cache(), tier(path, &reloaded)), ("MISS", json!(7)), "{path}");
        assert_eq!(reloaded.header("cache-status"), "terrace; fwd=request; stored", "{path}");
        let after = server.get(path).await;
        assert_eq!((after.cache(), tier(path, &after)), ("HIT", json!(7)), "{path}");
    }
}

#[tokio::test]
async fn no_cache_counts_again_what_its_page_says_the_total_is() {
    let server = incurious().await;
    server.create_items((0..4).map(|number| item(&format!("I{number}"), "a"))).await;
    let other = server.beside(|_| {});
    let page = "/api/items?limit=1";
    assert_eq!(server.get(page).await.expect(200)["pagination"]["total"], 5);
    other.create_item(item("Z", "a")).await;
    assert_eq!(asking(&server, page, "no-cache").await.expect(200)["pagination"]["total"], 6);
}

#[tokio::test]
async fn ages_and_times_that_are_left_decide_whether_what_is_stored_will_do() {
    let server = incurious().await;
    for path in ALL {
        server.get(path).await.expect(200);
        for (demand, expected) in [
            ("max-age=3600", "HIT"),
            ("min-fresh=1", "HIT"),
            ("max-age=\"3600\", unknown=1", "HIT"),
            ("max-stale", "HIT"),
            ("max-age=0", "MISS"),
            ("max-age=soon", "MISS"),
            ("min-fresh=3600", "MISS"),
        ] {
            let reply = asking(&server, path, demand).await;
            reply.expect(200);
            assert_eq!(reply.cache(), expected, "{path} {demand}");
        }
        assert_eq!(server.get_with(path, &[("pragma", "no-cache")]).await.cache(), "HIT", "RFC 9111, 5.4");
        let lines = server.get_with(path, &[("cache-control", "max-age=3600"), ("cache-control", "no-cache")]).await;
        assert_eq!(lines.cache(), "MISS", "{path}");
    }
}

#[tokio::test]
async fn only_if_cached_never_loads() {
    let server = incurious().await;
    for path in ALL {
        asking(&server, path, "only-if-cached").await.problem(504, "not_cached");
        server.get(path).await.expect(200);
        assert_eq!(asking(&server, path, "only-if-cached").await.cache(), "HIT", "{path}");
        asking(&server, path, "only-if-cached, no-cache").await.problem(504, "not_cached");
        asking(&server, path, "only-if-cached, min-fresh=3600").await.problem(504, "not_cached");
    }
    server.patch(A, &json!({"tier": 1})).await.expect(200);
    for path in ALL {
        asking(&server, path, "only-if-cached").await.problem(504, "not_cached");
        let allowed = asking(&server, path, "only-if-cached, max-stale=60").await;
        assert_eq!((allowed.status.as_u16(), allowed.cache()), (200, "STALE"), "{path}");
    }
}

#[tokio::test]
async fn no_store_leaves_nothing_behind_and_takes_what_is_there() {
    let server = incurious().await;
    for path in ALL {
        for _ in 0..2 {
            let reply = asking(&server, path, "no-store").await;
            reply.expect(200);
            assert_eq!((reply.cache(), reply.header("cache-status")), ("BYPASS", "terrace; fwd=uri-miss"), "{path}");
        }
        assert_eq!(server.get(path).await.cache(), "MISS", "{path}");
        assert_eq!(asking(&server, path, "no-store").await.cache(), "HIT", "{path}");
    }
}

#[tokio::test]
async fn max_stale_allows_what_a_change_outdated_and_a_token_does_not() {
    let server = incurious().await;
    for path in ALL {
        server.get(path).await.expect(200);
    }
    let written = server.patch(A, &json!({"tier": 1})).await;
    let token = written.header("consistency-token");
    for path in ALL {
        let stale = asking(&server, path, "max-stale=60").await;
        stale.expect(200);
        assert_eq!(stale.cache(), "STALE", "{path}");
        let status = stale.header("cache-status");
        assert!(status.starts_with("terrace; hit; ttl=-") && status.ends_with("; detail=l1"), "{status}");
        let fresh = server.get_with(path, &[("cache-control", "max-stale=60"), ("consistency-token", token)]).await;
        fresh.expect(200);
        assert_eq!(fresh.header("cache-status"), "terrace; fwd=stale; stored", "{path}");
        assert_eq!(fresh.cache(), "MISS", "{path}");
    }
    assert_eq!(server.get(A).await.json()["tier"], 1);
}

#[tokio::test]
async fn a_token_shows_its_write_on_an_instance_that_did_not_know_of_it() {
    let server = incurious().await;
    let other = server.beside(|_| {});
    for path in ALL {
        server.get(path).await.expect(200);
    }
    let written = other.patch(A, &json!({"tier": 9})).await;
    assert_eq!(server.get(A).await.cache(), "HIT", "it does not know yet");
    let token = written.header("consistency-token").to_owned();
    for path in [A, LIST] {
        let reply = with_token(&server, path, &token).await;
        assert_eq!(tier(path, &reply), json!(9), "{path}");
    }
    assert_eq!(with_token(&server, STATS, &token).await.cache(), "MISS");
    assert_eq!(with_token(&server, STATS, &token).await.cache(), "HIT", "what is new enough is a hit with a token too");
}

#[tokio::test]
async fn what_is_no_token_is_refused_and_one_of_the_future_goes_past_the_caches() {
    let server = incurious().await;
    for bad in ["", "12", "a-b", "1-2-3", "-1", "99999999999999999999-1"] {
        with_token(&server, A, bad).await.problem(400, "invalid_consistency_token");
    }
    let twice = server.get_with(A, &[("consistency-token", "1-1"), ("consistency-token", "1-2")]).await;
    twice.problem(400, "invalid_consistency_token");
    server.get(A).await.expect(200);
    for path in ALL {
        server.get(path).await.expect(200);
        let reply = with_token(&server, path, "999999999999-1").await;
        reply.expect(200);
        assert_eq!((reply.cache(), reply.header("cache-status")), ("BYPASS", "terrace; fwd=request"), "{path}");
        let nothing = [("consistency-token", "999999999999-1"), ("cache-control", "only-if-cached")];
        server.get_with(path, &nothing).await.problem(504, "not_cached");
    }
    assert_eq!(server.get(A).await.cache(), "HIT", "what goes past leaves alone what is there");
}

#[tokio::test]
async fn an_installation_can_ignore_directives_and_never_tokens() {
    let server = Server::fixture_with(|settings| {
        settings.cache.honor_request_directives = false;
        settings.cache.reconcile_interval = Duration::from_secs(3600);
    });
    server.create_item(item("A", "a")).await;
    let other = server.beside(|_| {});
    asking(&server, A, "only-if-cached").await.expect(200);
    for demand in ["no-cache", "max-age=0", "no-store", "min-fresh=3600"] {
        assert_eq!(asking(&server, A, demand).await.cache(), "HIT", "{demand}");
    }
    let written = other.patch(A, &json!({"tier": 3})).await;
    assert_eq!(tier(A, &with_token(&server, A, written.header("consistency-token")).await), json!(3));
    with_token(&server, A, "x").await.problem(400, "invalid_consistency_token");
}

#[tokio::test]
async fn lists_may_lag_behind_a_change_for_as_long_as_the_collection_says_and_records_never() {
    let server = Server::fixture_edited("stale_if_error = \"1h\"", "stale_if_error = \"1h\"\nmax_lag = \"10m\"", |_| {});
    server.create_item(item("A", "a")).await;
    let lagging = [LIST, STATS, VIEW, ITEMS, "/api/items?q=item"];
    let mut before = Vec::new();
    for path in lagging {
        before.push(server.get(path).await);
    }
    server.get(A).await.expect(200);
    let written = server.create_item(item("B", "a")).await;
    let token = written.header("consistency-token");
    server.patch(A, &json!({"tier": 2})).await.expect(200);
    assert_eq!(tier(A, &server.get(A).await), json!(2), "a record does not lag");
    for (path, before) in lagging.into_iter().zip(before) {
        let lags = server.get(path).await;
        assert_eq!((lags.status.as_u16(), lags.cache(), &lags.text), (200, "STALE", &before.text), "{path}");
        server
            .eventually("the load behind it", async || {
                let reply = server.get(path).await;
                reply.cache() == "HIT" && reply.text != before.text
            })
            .await;
    }
    // Read your writes holds whatever the lag, and so does what the request asks for.
    let third = server.create_item(item("C", "a")).await;
    assert!(token != third.header("consistency-token"));
    let own = with_token(&server, LIST, third.header("consistency-token")).await;
    assert_eq!(own.expect(200)["pagination"]["total"], 3);
    server.create_item(item("D", "a")).await;
    assert_eq!(asking(&server, LIST, "max-age=600").await.expect(200)["pagination"]["total"], 4);
}
