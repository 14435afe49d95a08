//! Bad requests: each is a problem with a code, none is a failure of the server, nothing is stored.

use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, Server};

const METRICS: &str = "/api/v1/metrics";

#[tokio::test]
async fn an_id_is_decoded_exactly_once() {
    let server = Server::with_collections(&[(
        "notes",
        "name = \"notes\"\n[schema.properties.text]\ntype = \"string\"\n[access]\nread = \"public\"\nwrite = \"public\"\n",
    )]);
    for (segment, id) in [("%2541", "%41"), ("%252F", "%2F"), ("%F0%9F%A6%80", "🦀"), ("a%20b+c", "a b+c"), ("x%5F", "x_")] {
        let path = format!("/api/v1/notes/{segment}");
        let created = server.send(Method::PUT, &path, &json!({"text": "x"})).await;
        assert_eq!(created.expect(201)["id"], id);
        let location = created.header("location").to_owned();
        assert_eq!(server.get(&location).await.expect(200)["id"], id);
        assert_eq!(server.get(&path).await.expect(200)["id"], id);
    }
    server.get("/api/v1/notes/%41").await.problem(404, "not_found");
}

#[tokio::test]
async fn hostile_ids_are_refused_by_every_method() {
    let server = Server::start();
    let long = "x".repeat(1024);
    for segment in ["%2F", "..%2f", "%2e%2e%2f", "%00", "a%0ab", "%ff", "%C0%AF", "%zz", "%5Fbatch", &long] {
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            let head = format!("{method} {METRICS}/{segment} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
            let request = format!("{head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}");
            let answer = server.raw(request.as_bytes()).await;
            assert!(
                answer.starts_with("HTTP/1.1 400") && answer.contains("\"code\":\"invalid_id\""),
                "{method} {segment} {answer}"
            );
        }
    }
    for path in ["/", "/_x", "/a/b", "/../metrics", "//"] {
        let request = format!("GET {METRICS}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path} {answer}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_and_store_nothing() {
    let server = Server::start();
    let before = server.get("/api/v1/metrics/_stats").await.expect(200)["total"].clone();
    let send = async |content_type: &str, body: Vec<u8>| {
        Reply::read(server.request(Method::POST, METRICS).header("content-type", content_type).body(body)).await
    };
    let json = "application/json";
    for (content_type, body, status, code) in [
        (json, b"{\"a\":".to_vec(), 400, "malformed_json"),
        (json, Vec::new(), 400, "malformed_json"),
        (json, b"{\"a\":\"\xff\"}".to_vec(), 400, "invalid_utf8"),
        (json, b"[".repeat(5_000), 400, "too_deep"),
        (json, b"[1]".to_vec(), 422, "validation_failed"),
        (json, b"{\"metric_id\":1}".to_vec(), 422, "validation_failed"),
        ("text/plain", b"{}".to_vec(), 415, "unsupported_media_type"),
        (json, vec![b' '; 3_000_000], 413, "payload_too_large"),
    ] {
        send(content_type, body).await.problem(status, code);
    }
    // The server closes this connection: the rest of a refused body may have no end.
    let chunked = format!(
        "POST {METRICS} HTTP/1.1\r\nhost: x\r\ncontent-type: {json}\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n{}\r\n0\r\n\r\n",
        " ".repeat(0x20_0000)
    );
    assert!(server.raw(chunked.as_bytes()).await.starts_with("HTTP/1.1 413"));
    assert_eq!(server.get("/api/v1/metrics/_stats").await.expect(200)["total"], before);
}

#[tokio::test]
async fn methods_that_a_resource_does_not_take_are_named() {
    let server = Server::start();
    for (method, path, allow) in [
        ("DELETE", METRICS, "GET, HEAD, POST, OPTIONS"),
        ("BREW", "/api/v1/metrics/x", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        ("GET", "/api/v1/metrics/_batch", "POST, OPTIONS"),
        ("POST", "/api/v1/metrics/_stats", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
    ] {
        let reply = Reply::read(server.request(Method::from_bytes(method.as_bytes()).unwrap(), path)).await;
        let problem = reply.problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), allow);
        assert_eq!(problem["allowed"], json!(allow.split(", ").collect::<Vec<_>>()));
        let options = Reply::read(server.request(Method::OPTIONS, path)).await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, allow));
    }
}

#[tokio::test]
async fn what_is_not_understood_is_never_ignored() {
    let server = Server::start();
    let unknown = server.get("/api/v1/metrics?colour=red").await.problem(400, "invalid_parameter");
    assert_eq!(unknown["parameter"], "colour");
    assert!(unknown["allowed"].as_array().unwrap().contains(&json!("category")));
    server.post("/api/v1/metrics?dry_run=true", &json!({})).await.problem(400, "invalid_parameter");
    server.get("/api/v1/overview?x=1").await.problem(400, "invalid_parameter");
    let accepts = Reply::read(server.request(Method::GET, METRICS).header("accept", "text/html")).await;
    accepts.problem(406, "not_acceptable");
    let unquoted = server.request(Method::DELETE, "/api/v1/metrics/x").header("if-match", "abc");
    Reply::read(unquoted).await.problem(400, "invalid_precondition");
    let missing = server.get("/api/v1/unknown").await.problem(404, "not_found");
    assert!(missing["allowed"].as_array().unwrap().contains(&json!(METRICS)), "{missing}");
}
