//! Conditional requests: tags, 304, 412.

use reqwest::Method;
use serde_json::json;

use crate::support::Server;
use crate::support::fixture::{ITEMS, item};

#[tokio::test]
async fn a_client_that_has_the_entity_gets_304_without_a_body() {
    let server = Server::fixture();
    server.create_items((0..40).map(|number| item(&format!("I{number}"), "a"))).await;
    for path in ["/api/items/I1", "/api/items", "/api/items/_stats?by=category", "/api/totals"] {
        let full = server.get(path).await;
        let etag = full.header("etag").to_owned();
        let bare = etag.trim_matches('"');
        for condition in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            "*".to_owned(),
            format!("\"{bare}-br\""),
            format!("W/\"x\",W/\"{bare}-gzip\""),
        ] {
            let reply = server.get_with(path, &[("if-none-match", &condition)]).await;
            assert_eq!((reply.status.as_u16(), reply.text.as_str()), (304, ""), "{path} {condition}");
            assert_eq!(reply.header("etag"), etag, "{path}");
            assert_eq!(reply.header("cache-control"), full.header("cache-control"), "{path}");
            assert_eq!(reply.header("vary"), "accept-encoding", "{path}");
        }
        for condition in ["\"other\"", "other", "W/\"other\""] {
            let reply = server.get_with(path, &[("if-none-match", condition)]).await;
            assert_eq!(reply.text, full.text, "{path} {condition}");
            reply.expect(200);
        }
    }
}

#[tokio::test]
async fn a_tag_that_came_with_an_encoding_is_known_later_without_it() {
    let server = Server::fixture();
    server.create_items((0..40).map(|number| item(&format!("I{number}"), "a"))).await;
    let coded = server.request(Method::GET, ITEMS).header("accept-encoding", "zstd").send().await.unwrap();
    let etag = coded.headers()["etag"].to_str().unwrap().to_owned();
    assert!(etag.ends_with("-zstd\""), "{etag}");
    for accept in ["zstd", "br", "identity"] {
        let reply = server.get_with(ITEMS, &[("if-none-match", &etag), ("accept-encoding", accept)]).await;
        assert_eq!(reply.status, 304, "{accept}");
    }
}

#[tokio::test]
async fn a_tag_changes_with_the_entity_and_only_with_it() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "b")]).await;
    let (record, list) = (server.get("/api/items/A").await, server.get("/api/items?category=a").await);
    server.patch("/api/items/B", &json!({"tier": 3})).await.expect(200);
    assert_eq!(server.get("/api/items/A").await.header("etag"), record.header("etag"));
    assert_eq!(server.get("/api/items?category=a").await.header("etag"), list.header("etag"));
    server.patch("/api/items/A", &json!({"tier": 3})).await.expect(200);
    for (path, before) in [("/api/items/A", &record), ("/api/items?category=a", &list)] {
        let reply = server.get_with(path, &[("if-none-match", before.header("etag"))]).await;
        reply.expect(200);
        assert_ne!(reply.header("etag"), before.header("etag"), "{path}");
    }
}

#[tokio::test]
async fn if_match_lets_only_the_state_that_it_names_be_written() {
    let server = Server::fixture();
    let path = "/api/items/A";
    let first = server.create_item(item("A", "a")).await.header("etag").to_owned();
    let updated = server.send_with(Method::PATCH, path, &[("if-match", &first)], Some(&json!({"tier": 1}))).await;
    updated.expect(200);
    let second = updated.header("etag").to_owned();
    let body = item("A", "b");
    for (method, body) in [(Method::PUT, Some(&body)), (Method::PATCH, Some(&body)), (Method::DELETE, None)] {
        let refused = server.send_with(method.clone(), path, &[("if-match", &first)], body).await;
        let problem = refused.problem(412, "precondition_failed");
        assert_eq!(refused.header("etag"), second, "{method}");
        assert_eq!(problem["current_etag"], second.as_str(), "{method}");
        assert_eq!(problem["detail"], "The record has another entity tag; it was changed since.");
        let weak = server.send_with(method.clone(), path, &[("if-match", &format!("W/{second}"))], body).await;
        weak.problem(412, "precondition_failed");
    }
    assert_eq!(server.get(path).await.header("etag"), second);
    let with_list = format!("\"no\", {second}");
    server.send_with(Method::PATCH, path, &[("if-match", &with_list)], Some(&json!({"tier": 2}))).await.expect(200);
    // The tag of any encoding of the record is a tag of the record.
    let current = server.get(path).await.header("etag").to_owned();
    let coded = format!("\"{}-br\"", current.trim_matches('"'));
    let deleted = server.send_with(Method::DELETE, path, &[("if-match", &coded)], None).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
}

#[tokio::test]
async fn if_match_star_demands_a_record_and_if_none_match_star_that_there_is_none() {
    let server = Server::fixture();
    let (path, body) = ("/api/items/A", item("A", "a"));
    let absent = server.send_with(Method::PUT, path, &[("if-match", "*")], Some(&body)).await;
    let problem = absent.problem(412, "precondition_failed");
    assert!(problem.get("current_etag").is_none(), "{problem}");
    assert_eq!(problem["detail"], "There is no such record to match.");
    server.send_with(Method::PUT, path, &[("if-none-match", "*")], Some(&body)).await.expect(201);
    let present = server.send_with(Method::PUT, path, &[("if-none-match", "*")], Some(&item("A", "b"))).await;
    assert_eq!(present.problem(412, "precondition_failed")["detail"], "There is a record already.");
    assert_eq!(present.header("etag"), server.get(path).await.header("etag"));
    assert_eq!(server.get(path).await.json()["category"], "a");
    server.send_with(Method::PUT, path, &[("if-match", "*")], Some(&item("A", "b"))).await.expect(200);
}

#[tokio::test]
async fn a_condition_that_cannot_be_held_against_a_record_is_refused_and_not_ignored() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    let body = item("A", "b");
    for headers in [
        &[("if-match", "no-quotes")][..],
        &[("if-none-match", "\"x\"")],
        &[("if-match", "*"), ("if-none-match", "*")],
        &[("if-match", "")],
    ] {
        let reply = server.send_with(Method::PUT, "/api/items/A", headers, Some(&body)).await;
        reply.problem(400, "invalid_precondition");
    }
    for path in ["/api/items", "/api/items/_batch"] {
        let reply = server.send_with(Method::POST, path, &[("if-match", "*")], Some(&item("B", "b"))).await;
        reply.problem(400, "invalid_precondition");
    }
    assert_eq!(server.get("/api/items/A").await.json()["category"], "a");
}

#[tokio::test]
async fn of_two_writers_with_the_same_tag_exactly_one_wins() {
    let server = Server::fixture();
    let etag = server.create_item(item("A", "a")).await.header("etag").to_owned();
    let writes = (0..8).map(|number| {
        let (server, etag) = (&server, &etag);
        async move {
            let patch = json!({"tier": number});
            server.send_with(Method::PATCH, "/api/items/A", &[("if-match", etag)], Some(&patch)).await.status.as_u16()
        }
    });
    let mut statuses = futures_util::future::join_all(writes).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    assert_eq!(server.get("/api/items/A").await.json()["version"], 2);
}
