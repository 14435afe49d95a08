//! Methods, media types and preferences.

use reqwest::Method;
use serde_json::json;

use crate::support::Server;
use crate::support::fixture::{ITEMS, item};

const READS: &str = "GET, HEAD, OPTIONS";
const ALLOWED: [(&str, &str); 10] = [
    ("/api/items", "GET, HEAD, POST, OPTIONS"),
    ("/api/items/A", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
    ("/api/items/_batch", "POST, OPTIONS"),
    ("/api/items/_stats", READS),
    ("/api/totals", READS),
    ("/health", READS),
    ("/health/live", READS),
    ("/health/ready", READS),
    ("/metrics", READS),
    ("/openapi.json", READS),
];

#[tokio::test]
async fn a_method_that_a_resource_does_not_take_is_a_405_with_allow() {
    let server = Server::fixture();
    for (path, allowed) in ALLOWED {
        let options = server.send_with(Method::OPTIONS, path, &[], None).await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, allowed), "{path}");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            if allowed.split(", ").any(|one| one == method) {
                continue;
            }
            let reply = server.send_with(Method::from_bytes(method.as_bytes()).unwrap(), path, &[], None).await;
            assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, allowed), "{method} {path}");
            if method != "HEAD" {
                reply.problem(405, "method_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_404_for_every_method() {
    let server = Server::fixture();
    for path in [
        "/",
        "/api",
        "/api/none",
        "/api/items/",
        "/api/items/A/B",
        "/api/items/_none",
        "/api/totals/x",
        "/health/x",
        "//api/items",
        "/API/items",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            server.send_with(method, path, &[], None).await.problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn an_accept_header_that_excludes_json_is_a_406_before_anything_is_written() {
    let server = Server::fixture();
    let one = item("A", "a");
    let html = [("accept", "text/html")];
    let problem = server.send_with(Method::POST, ITEMS, &html, Some(&one)).await.problem(406, "not_acceptable");
    assert_eq!(problem["allowed"], json!(["application/json"]));
    server.get("/api/items/A").await.problem(404, "not_found");
    for path in ["/api/items", "/api/items/A", "/api/items/_stats", "/api/totals"] {
        server.get_with(path, &html).await.problem(406, "not_acceptable");
    }
    for accept in ["application/json", "*/*", "text/html, application/*;q=0.1", "application/json;q=0.5, text/html"] {
        server.get_with(ITEMS, &[("accept", accept)]).await.expect(200);
    }
}

#[tokio::test]
async fn a_body_of_another_media_type_is_a_415_with_those_that_are_taken() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    for (method, path, allowed) in [
        (Method::POST, "/api/items", json!(["application/json"])),
        (Method::PUT, "/api/items/A", json!(["application/json"])),
        (Method::PATCH, "/api/items/A", json!(["application/merge-patch+json", "application/json"])),
        (Method::POST, "/api/items/_batch", json!(["application/json"])),
    ] {
        for content_type in ["text/plain", "application/xml", "multipart/form-data", "application/json-patch+json", ""] {
            let request = server.request(method.clone(), path).header("content-type", content_type).body("{}");
            let reply = crate::support::Reply::read(request).await;
            assert_eq!(reply.problem(415, "unsupported_media_type")["allowed"], allowed, "{method} {path} {content_type}");
        }
        let request = server.request(method.clone(), path).body("{}");
        crate::support::Reply::read(request).await.problem(415, "unsupported_media_type");
        let coded = server.request(method, path).header("content-type", "application/json").header("content-encoding", "gzip");
        crate::support::Reply::read(coded.body("{}")).await.problem(415, "unsupported_media_type");
    }
    let request = server.request(Method::POST, ITEMS).header("content-type", "application/json; charset=utf-8");
    crate::support::Reply::read(request.body(item("B", "b").to_string())).await.expect(201);
}

#[tokio::test]
async fn a_write_takes_no_query_parameters() {
    let server = Server::fixture();
    let problem = server.post("/api/items?upsert=true", &item("A", "a")).await.problem(400, "invalid_parameter");
    assert_eq!(problem["parameter"], "upsert");
    server.get("/api/items/A").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_batch_answers_the_documents_if_that_is_preferred() {
    let server = Server::fixture();
    let batch = |op: &str| json!({"operations": [{"op": op, "data": item("A", "a")}]});
    let minimal = server.post("/api/items/_batch", &batch("create")).await;
    assert!(minimal.expect(200)["results"][0].get("data").is_none(), "{}", minimal.text);
    let headers = [("prefer", "return=representation")];
    let full = server.send_with(Method::POST, "/api/items/_batch", &headers, Some(&batch("upsert"))).await;
    assert_eq!(full.header("preference-applied"), "return=representation");
    assert_eq!(full.expect(200)["results"][0]["data"], server.get("/api/items/A").await.json());
}

#[tokio::test]
async fn reads_say_how_they_may_be_cached() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    for path in ["/api/items", "/api/items/A", "/api/items/_stats", "/api/totals"] {
        for (cache, status) in [("MISS", "terrace; fwd=uri-miss; stored"), ("HIT", "terrace; hit; ttl=")] {
            let reply = server.get(path).await;
            assert_eq!(reply.cache(), cache, "{path}");
            assert!(reply.header("cache-status").starts_with(status), "{path}: {}", reply.header("cache-status"));
            assert_eq!(reply.header("cache-control"), "public, max-age=0, stale-if-error=3600", "{path}");
            assert_eq!(reply.header("age"), "0", "{path}");
            assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        }
        let hit = server.get(path).await;
        assert!(hit.header("cache-status").ends_with("; detail=l1"), "{}", hit.header("cache-status"));
    }
}

#[tokio::test]
async fn without_a_cache_every_read_is_a_bypass_with_the_same_answer() {
    let cached = Server::fixture();
    cached.create_items([item("A", "a"), item("B", "b")]).await;
    let server = cached.beside(|settings| settings.cache.enabled = false);
    for path in ["/api/items", "/api/items/A", "/api/items/_stats?by=category", "/api/totals", "/api/items?limit=1&cursor="] {
        for _ in 0..2 {
            let reply = server.get(path).await;
            assert_eq!(reply.cache(), "BYPASS", "{path}");
            assert_eq!(reply.header("cache-status"), "terrace; fwd=bypass", "{path}");
            let other = cached.get(path).await;
            assert_eq!((&reply.text, reply.header("etag")), (&other.text, other.header("etag")), "{path}");
        }
    }
}
