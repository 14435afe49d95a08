//! Clients that hang up in the middle of a write leave nothing stale behind.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::item;

/// Sends a whole PATCH of `A` and hangs up without reading the answer.
async fn abandon(server: &Server, tier: usize) {
    let body = json!({"tier": tier, "category": (["a", "b"][tier % 2])}).to_string();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PATCH /api/items/A HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Some hang up at once, some while the transaction runs, some about when it ends.
    tokio::time::sleep(std::time::Duration::from_micros(tier as u64 * 150)).await;
    drop(stream);
}

#[tokio::test]
async fn a_client_that_hangs_up_during_its_write_leaves_nothing_stale() {
    // Reconciling would repair within its interval what a lost announcement broke, so it is as good as off.
    let server = Server::fixture_with(|settings| settings.cache.reconcile_interval = std::time::Duration::from_secs(3600));
    let truth = server.beside(|settings| settings.cache.enabled = false);
    server.create_item(item("A", "a")).await;
    let mut database = Database::of(&server);
    let paths = ["/api/items/A", "/api/items?category=a", "/api/items?category=b", "/api/items/_stats?by=tier,category"];
    for tier in 0..30 {
        for path in paths {
            server.get(path).await.expect(200);
        }
        abandon(&server, tier).await;
    }
    // A later write queues behind all earlier ones; when it is answered, none is under way.
    server.create_item(item("LAST", "c")).await;
    let in_flight = async || server.get("/metrics").await.text.contains("terrace_http_requests_in_flight 1\n");
    server.eventually("all abandoned requests have ended", in_flight).await;
    assert!(database.number("SELECT count(*) AS value FROM changes WHERE id = 'A'") > 5, "too few writes arrived to tell");
    for path in paths {
        assert_eq!(server.get(path).await.text, truth.get(path).await.text, "{path}");
    }
}

#[tokio::test]
async fn half_a_body_is_no_write() {
    let server = Server::fixture();
    let mut database = Database::of(&server);
    let stored = database.stored();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            b"POST /api/items HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 200\r\n\r\n{\"sku\":\"H\"";
        stream.write_all(head).await.unwrap();
        drop(stream);
    }
    let in_flight = async || server.get("/metrics").await.text.contains("terrace_http_requests_in_flight 1\n");
    server.eventually("all abandoned requests have ended", in_flight).await;
    assert_eq!(database.stored(), stored);
    server.get("/api/items/H").await.problem(404, "not_found");
}
