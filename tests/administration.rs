//! Administration of the caches: what there is, why a request is answered as it is, and dropping something by hand.

use reqwest::Method;
use serde_json::{Value, json};
use terrace::model::Role;

use crate::support::fixture::{ITEMS, item};
use crate::support::{Reply, Server};

const OVERVIEW: &str = "/admin/cache";
const INVALIDATE: &str = "/admin/cache/invalidate";

async fn explained(server: &Server, path: &str) -> Value {
    let asked: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    let reply = server.get(&format!("/admin/cache/explain?path={asked}")).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    reply.expect(200)
}

async fn invalidated(server: &Server, body: Value) -> Value {
    let reply = server.post(INVALIDATE, &body).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    reply.expect(200)
}

async fn warm(server: &Server, paths: &[&str]) {
    for path in paths {
        server.get(path).await.expect(200);
        assert_eq!(server.get(path).await.cache(), "HIT", "{path}");
    }
}

/// Which of `paths` are still there.
async fn hits<'a>(server: &Server, paths: &[&'a str]) -> Vec<&'a str> {
    let mut hits = Vec::new();
    for path in paths {
        if explained(server, path).await["would"] == "hit_l1" {
            hits.push(*path);
        }
    }
    hits
}

#[tokio::test]
async fn administration_is_for_administrators_wherever_they_sit() {
    let server = Server::fixture();
    let (viewer, editor) = (server.key_for(Role::Viewer, &[]).await, server.key_for(Role::Editor, &[]).await);
    let (narrow, reader) = (server.key_for(Role::Admin, &["items:*"]).await, server.key_for(Role::Admin, &["*:read"]).await);
    let everything = json!({"all": true});
    let requests = [
        (Method::GET, OVERVIEW, None),
        (Method::GET, "/admin/cache/explain?path=/api/items", None),
        (Method::POST, INVALIDATE, Some(&everything)),
    ];
    for (method, path, body) in requests {
        let request = server.anonymous_request(method.clone(), path).json(&body);
        Reply::read(request).await.problem(401, "unauthenticated");
        for key in [&viewer, &editor] {
            server.send_as(key, method.clone(), path, body).await.problem(403, "forbidden");
        }
        server.send_as(&narrow, method.clone(), path, body).await.problem(403, "insufficient_scope");
        let by_reader = server.send_as(&reader, method.clone(), path, body).await;
        assert_eq!(by_reader.status, if method == Method::GET { 200 } else { 403 }, "{method} {path}");
        // Through a proxy as well.
        let request = server.request(method, path).header("x-forwarded-for", "10.0.0.1").json(&body);
        assert_eq!(Reply::read(request).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_overview_has_each_kind_of_entry_of_each_collection() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "b")]).await;
    for path in ["/api/items/A", "/api/items/A", "/api/items/A", "/api/items/B", "/api/items?limit=1", "/api/totals"] {
        server.get(path).await.expect(200);
    }
    let reply = server.get(OVERVIEW).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let overview = reply.expect(200);
    let scopes = overview["cache"]["scopes"].as_array().unwrap();
    let scope = |kind: &str, name: &str| scopes.iter().find(|scope| scope["kind"] == kind && scope["name"] == name).unwrap();
    let records = &scope("record", "items")["l1"];
    assert_eq!((&records["entries"], &records["hits"], &records["misses"]), (&json!(2), &json!(2), &json!(2)));
    assert_eq!(records["hit_rate"], 0.5);
    assert!(records["size_bytes"].as_u64().unwrap() > 100);
    assert_eq!(scope("list", "items")["l1"]["entries"], 1);
    assert_eq!(scope("count", "items")["l1"]["entries"], 1);
    assert_eq!(scope("view", "totals")["loads"], 1);
    assert_eq!(scope("record", "notes")["l1"]["hit_rate"], Value::Null);
    // One of them is who is asking.
    assert_eq!(overview["cache"]["l1"]["entries"], 6);
    assert_eq!((&overview["cache"]["trusted"], &overview["cache"]["l2"]), (&json!(true), &Value::Null));
    assert!(overview["coherence"]["log"]["read_ago_ms"].is_u64(), "{overview}");
    server.get("/admin/cache?x=1").await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn an_explanation_says_what_the_next_request_gets() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "b")]).await;
    let paths = [
        "/api/items/A",
        "/api/items/A?fields=name",
        "/api/items/none",
        "/api/items?category=a&q=item",
        "/api/items/_stats?by=tier",
        "/api/totals",
    ];
    for path in paths {
        for _ in 0..3 {
            let would = explained(&server, path).await["would"].clone();
            let expected = if would == "hit_l1" { "HIT" } else { "MISS" };
            assert_eq!(server.get(path).await.cache(), expected, "{path}");
        }
        let explanation = explained(&server, path).await;
        assert_eq!((&explanation["would"], &explanation["path"]), (&json!("hit_l1"), &json!(path)));
        assert_eq!(explanation["entry"]["loaded_by"], server.get(OVERVIEW).await.json()["cache"]["instance"]);
    }
    let stored = server.get(OVERVIEW).await.json()["cache"]["l1"]["entries"].clone();
    explained(&server, "/api/items?category=b").await;
    assert_eq!(server.get(OVERVIEW).await.json()["cache"]["l1"]["entries"], stored, "explaining stores nothing");
}

#[tokio::test]
async fn an_explanation_names_the_change_that_killed_an_entry() {
    let server = Server::fixture();
    server.create_items([item("A", "a")]).await;
    warm(&server, &["/api/items?category=a"]).await;
    let before = explained(&server, "/api/items?category=a").await;
    assert_eq!(before["guards"][0]["last_move"], Value::Null, "{before}");
    let written = server.patch("/api/items/A", &json!({"tier": 1})).await;
    let after = explained(&server, "/api/items?category=a").await;
    let guard = &after["guards"][0];
    assert_eq!((&after["would"], &after["entry"]["is_current"]), (&json!("miss"), &json!(false)), "{after}");
    assert_eq!(guard["guard"], "t:items:8:category=t:a");
    assert_eq!(guard["last_move"]["cause"]["kind"], "change", "{after}");
    assert_eq!(guard["last_move"]["cause"]["position"], written.header("consistency-token"));
    assert_eq!(guard["last_move"]["cause"]["by"], server.get(OVERVIEW).await.json()["cache"]["instance"]);
    let numbers = |name: &str| guard[name].as_u64().unwrap();
    assert!(numbers("captured") < numbers("generation"), "{after}");

    warm(&server, &["/api/items?category=a"]).await;
    invalidated(&server, json!({"collection": "items"})).await;
    let dropped = explained(&server, "/api/items?category=a").await;
    assert_eq!(dropped["guards"][0]["last_move"]["cause"]["kind"], "invalidated", "{dropped}");
}

#[tokio::test]
async fn an_explanation_needs_the_path_of_a_read() {
    let server = Server::fixture();
    for path in ["/nothing", "/health", "/admin/cache", "/api/items/_batch", "/api/totals?x=1"] {
        let asked: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
        let problem = server.get(&format!("/admin/cache/explain?path={asked}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], "path", "{path}");
    }
    server.get("/admin/cache/explain?path=/api/items%3Fcolour%3Dred").await.problem(400, "invalid_parameter");
    server.get("/admin/cache/explain?path=/api/items/%252e%252e").await.problem(400, "invalid_id");
    server.get("/admin/cache/explain").await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn each_target_drops_what_it_names_and_nothing_else() {
    let server = Server::fixture();
    server.create_items([item("A-1", "a"), item("A-2", "a"), item("B-1", "b")]).await;
    server.post("/api/notes", &json!({"text": "t"})).await.expect(201);
    let paths = [
        "/api/items/A-1",
        "/api/items/A-2",
        "/api/items/B-1",
        "/api/items?category=a",
        "/api/items?category=b",
        ITEMS,
        "/api/totals",
        "/api/notes",
    ];
    let (a1, a2, b1, list_a, list_b, list, view, notes) =
        (paths[0], paths[1], paths[2], paths[3], paths[4], paths[5], paths[6], paths[7]);
    for (body, target, rest) in [
        (json!({"record": {"collection": "items", "id": "A-1"}}), "r:items:A-1", vec![a2, b1, list_a, list_b, list, view, notes]),
        (
            json!({"term": {"collection": "items", "field": "category", "value": "a"}}),
            "t:items:8:category=t:a",
            vec![a1, a2, b1, list_b, list, view, notes],
        ),
        (
            json!({"records": {"collection": "items", "pattern": "A-?"}}),
            "p:items:A-?",
            vec![b1, list_a, list_b, list, view, notes],
        ),
        (json!({"collection": "items"}), "b:items", vec![notes]),
        (json!({"all": true}), "*", vec![]),
    ] {
        warm(&server, &paths).await;
        let answer = invalidated(&server, body.clone()).await;
        assert_eq!((&answer["invalidated"], &answer["reach"]), (&json!(target), &json!("alone")), "{body}");
        assert_eq!(hits(&server, &paths).await, rest, "{body}");
    }
}

#[tokio::test]
async fn a_body_that_names_nothing_is_told_what_it_may_name() {
    let server = Server::fixture();
    let pointer = |reply: &Reply| reply.problem(422, "validation_failed")["errors"][0].clone();
    for (body, at, says) in [
        (json!({}), "", "record, term, collection, records, all"),
        (json!({"all": true, "collection": "items"}), "", "Exactly one"),
        (json!({"everything": true}), "/everything", "record, term, collection, records, all"),
        (json!({"all": false}), "/all", "true"),
        (json!({"collection": "nothing"}), "/collection", "items, notes, shelves"),
        (json!({"collection": 5}), "/collection", "string"),
        (json!({"record": "A"}), "/record", "collection, id"),
        (json!({"record": {"collection": "items"}}), "/record/id", "required"),
        (json!({"record": {"collection": "items", "id": "A", "x": 1}}), "/record/x", "collection, id"),
        (json!({"record": {"collection": "items", "id": "a/b"}}), "/record/id", "slash"),
        (json!({"term": {"collection": "items", "field": "unindexed", "value": "a"}}), "/term/field", "category"),
        (json!({"term": {"collection": "items", "field": "tier", "value": "one"}}), "/term/value", "integer"),
        (json!({"records": {"collection": "items", "pattern": ""}}), "/records/pattern", "*"),
    ] {
        let error = pointer(&server.post(INVALIDATE, &body).await);
        assert_eq!(error["pointer"], at, "{body}");
        assert!(error["detail"].as_str().unwrap().contains(says), "{error}");
    }
    server.post(INVALIDATE, &json!([])).await.problem(422, "validation_failed");
    server.get(INVALIDATE).await.problem(405, "method_not_allowed");
}
