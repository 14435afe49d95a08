//! Walking through pages, by `Link` and by cursor.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::support::fixture::{item, skus};
use crate::support::{Reply, Server};

/// The targets of a `Link` header (RFC 8288) by relation.
fn links(reply: &Reply) -> BTreeMap<String, String> {
    let header = reply.header("link");
    let link = |part: &str| {
        let (target, relation) = part.split_once(">; rel=\"").unwrap_or_else(|| panic!("no link: {part:?} in {header}"));
        (relation.trim_end_matches('"').to_owned(), target.trim_start_matches('<').to_owned())
    };
    header.split(", ").filter(|part| !part.is_empty()).map(link).collect()
}

/// Follows `next` from `path` to the end.
async fn walk(server: &Server, path: &str) -> Vec<String> {
    let (mut next, mut seen) = (Some(path.to_owned()), Vec::new());
    for _ in 0..100 {
        let Some(path) = next.take() else { return seen };
        let reply = server.get(&path).await;
        let page = reply.expect(200);
        seen.extend(skus(&page));
        next = links(&reply).remove("next");
        assert_eq!(page["pagination"]["hasNext"], next.is_some(), "{path}");
    }
    panic!("{path} does not end");
}

/// Items with ties and gaps in `tier` and `price`.
fn uneven(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| {
        let mut one = item(&format!("I{number:02}"), if number % 3 == 0 { "a" } else { "b" });
        if number % 4 != 0 {
            one["tier"] = json!(number % 5);
        }
        if number % 5 != 0 {
            one["price"] = json!((number % 7) as f64 / 2.0);
        }
        one["active"] = json!(number % 2 == 0);
        one
    })
}

#[tokio::test]
async fn a_client_that_follows_next_sees_each_record_exactly_once() {
    let server = Server::fixture();
    server.create_items(uneven(41)).await;
    let all: Vec<String> = (0..41).map(|number| format!("I{number:02}")).collect();
    for path in ["/api/items?limit=7", "/api/items?limit=41", "/api/items?limit=1&count=none", "/api/items?limit=10&cursor="] {
        let mut seen = walk(&server, path).await;
        seen.sort();
        assert_eq!(seen, all, "{path}");
    }
}

#[tokio::test]
async fn a_walk_by_cursor_meets_the_same_records_in_the_same_order_as_one_by_page() {
    let server = Server::fixture();
    server.create_items(uneven(23)).await;
    for sort in [
        "sku",
        "-sku",
        "tier",
        "-tier",
        "tier,-price",
        "-tier,price",
        "-price,-tier",
        "active,price",
        "-active",
        "-updated_at",
        "name",
    ] {
        for filter in ["", "&category=b", "&filter[tier][null]=true", "&filter[price][gte]=1"] {
            let by_page = walk(&server, &format!("/api/items?sort={sort}{filter}&limit=4")).await;
            let by_cursor = walk(&server, &format!("/api/items?sort={sort}{filter}&limit=4&cursor=")).await;
            assert!(!by_page.is_empty());
            assert_eq!(by_cursor, by_page, "sort={sort}{filter}");
        }
    }
}

#[tokio::test]
async fn a_cursor_does_not_skip_or_repeat_what_others_insert_and_delete_meanwhile() {
    let server = Server::fixture();
    server.create_items(uneven(9)).await;
    let first = server.get("/api/items?sort=sku&limit=3&cursor=").await;
    assert_eq!(skus(&first.json()), ["I00", "I01", "I02"]);
    server.create_item(item("H", "a")).await;
    server.delete("/api/items/I01").await;
    server.delete("/api/items/I02").await;
    let rest = walk(&server, &links(&first)["next"]).await;
    assert_eq!(rest, ["I03", "I04", "I05", "I06", "I07", "I08"]);
}

#[tokio::test]
async fn links_keep_every_other_parameter() {
    let server = Server::fixture();
    server
        .create_items((0..6).map(|number| {
            let mut one = item(&format!("I{number}"), "a");
            one["tags"] = json!(["a&b=c d", "ä"]);
            one
        }))
        .await;
    let path = "/api/items?tags=a%26b%3Dc+d&tags=%C3%A4&filter[category][in]=a,b&limit=2&page=2&sort=-sku&fields=name&filter=%7B%22category%22%3A%22a%22%7D";
    let reply = server.get(path).await;
    assert_eq!(skus(&reply.expect(200)), ["I3", "I2"]);
    let found = links(&reply);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["first", "last", "next", "prev"]);
    let sent = |target: &str| {
        let query = target.strip_prefix("/api/items?").unwrap_or_else(|| panic!("{target}"));
        let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        pairs.sort();
        pairs
    };
    for (relation, page, expected) in
        [("first", "1", ["I5", "I4"]), ("prev", "1", ["I5", "I4"]), ("next", "3", ["I1", "I0"]), ("last", "3", ["I1", "I0"])]
    {
        let target = &found[relation];
        let mut wanted = sent(path);
        wanted.retain(|(name, _)| name != "page" && name != "filter");
        wanted.extend([("page".to_owned(), page.to_owned()), ("category".to_owned(), "a".to_owned())]);
        wanted.sort();
        assert_eq!(sent(target), wanted, "{relation}");
        assert!(percent_decode_str(target).decode_utf8().is_ok());
        assert_eq!(skus(&server.get(target).await.expect(200)), expected, "{relation}");
    }
}

#[tokio::test]
async fn nobody_pads_the_links_of_others() {
    let server = Server::fixture();
    server.create_items(uneven(4)).await;
    let padding = format!("{{\"and\":[{}{{}}]}}", "{},".repeat(1_500));
    let padded = format!(
        "/api/items?prefix=true&limit=2&filter={}",
        percent_encoding::utf8_percent_encode(&padding, percent_encoding::NON_ALPHANUMERIC)
    );
    server.get(&padded).await.expect(200);
    let reply = server.get("/api/items?limit=2").await;
    assert_eq!(reply.cache(), "HIT");
    let expected = "</api/items?limit=2&page=1>; rel=\"first\", </api/items?limit=2&page=2>; rel=\"next\", </api/items?limit=2&page=2>; rel=\"last\"";
    assert_eq!(reply.header("link"), expected);
}

#[tokio::test]
async fn the_first_page_has_no_prev_and_the_last_no_next() {
    let server = Server::fixture();
    server.create_items(uneven(4)).await;
    let relations = async |path: &str| links(&server.get(path).await).into_keys().collect::<Vec<_>>();
    assert_eq!(relations("/api/items?limit=2").await, ["first", "last", "next"]);
    assert_eq!(relations("/api/items?limit=2&page=2").await, ["first", "last", "prev"]);
    assert_eq!(relations("/api/items?limit=4").await, ["first", "last"]);
    assert_eq!(relations("/api/items?limit=2&cursor=").await, ["first", "next"]);
}

#[tokio::test]
async fn a_cursor_of_one_order_is_refused_under_another() {
    let server = Server::fixture();
    server.create_items(uneven(6)).await;
    let first = server.get("/api/items?sort=tier&limit=2&cursor=").await.expect(200);
    let cursor = first["pagination"]["nextCursor"].as_str().unwrap().to_owned();
    server.get(&format!("/api/items?sort=tier&limit=2&cursor={cursor}")).await.expect(200);
    for other in ["-tier", "price", "tier,price", "sku"] {
        let problem = server.get(&format!("/api/items?sort={other}&cursor={cursor}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], "cursor", "{other}");
    }
    let end = server.get("/api/items?sort=tier&limit=6&cursor=").await.expect(200);
    assert_eq!(end["pagination"]["nextCursor"], Value::Null);
}
