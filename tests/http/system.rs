//! Health, metrics, request ids, the API description and its page.

use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, Server};

#[tokio::test]
async fn health_is_reported() {
    let server = Server::start();
    let health = server.get("/health").await;
    assert_eq!((&health.expect(200)["status"], &health.json()["database"]["status"]), (&json!("healthy"), &json!("up")));
    assert_eq!(health.header("cache-control"), "no-store");
    assert_eq!(server.get("/health/live").await.expect(200)["status"], "alive");
    assert_eq!(server.get("/health/ready").await.expect(200)["status"], "ready");
}

#[tokio::test]
async fn requests_are_counted_by_template_and_never_by_path() {
    let server = Server::start();
    for number in 0..5 {
        server.get(&format!("/api/v1/metrics/NONE-{number}")).await;
        server.get(&format!("/nowhere/{number}")).await;
    }
    Reply::read(server.request(Method::from_bytes(b"BREW").unwrap(), "/api/v1/metrics")).await;
    let text = server.get("/metrics").await.text;
    for line in [
        "terrace_http_requests_total{method=\"GET\",route=\"/api/v1/metrics/{id}\",status=\"404\"} 5",
        "terrace_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 5",
        "terrace_http_requests_total{method=\"other\",route=\"/api/v1/metrics\",status=\"405\"} 1",
        "terrace_http_requests_in_flight 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("nowhere") && !text.contains("NONE-"), "{text}");
}

#[tokio::test]
async fn a_request_id_is_taken_if_it_is_harmless_and_always_answered() {
    let server = Server::start();
    let ask = async |id: &str| Reply::read(server.request(Method::GET, "/nothing").header("x-request-id", id)).await;
    assert_eq!(ask("abc-1.2_Z").await.problem(404, "not_found")["request_id"], "abc-1.2_Z");
    for bad in ["a b", "\"x\"", &"x".repeat(129)] {
        let reply = ask(bad).await;
        assert_eq!(reply.header("x-request-id").len(), 36, "{bad}");
        reply.problem(404, "not_found");
    }
}

#[tokio::test]
async fn the_description_and_its_page_come_from_this_server_alone() {
    let server = Server::start();
    let description = server.get("/openapi.json").await;
    assert_eq!(description.expect(200)["openapi"], "3.1.0");
    let again = server.request(Method::GET, "/openapi.json").header("if-none-match", description.header("etag"));
    assert_eq!(Reply::read(again).await.status, 304);
    // The client follows the redirect from /docs to /docs/.
    let page = server.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger-ui") && !page.text.contains("http"), "{}", page.text);
    assert!(page.header("content-security-policy").starts_with("default-src 'self'"));
    assert!(server.get("/docs/swagger-initializer.js").await.text.contains("../openapi.json"));
    server.get("/docs/../x").await.problem(404, "not_found");
    server.get("/docs/none.js").await.problem(404, "not_found");
}
