//! Clients that hang up in the middle of a write leave nothing stale behind.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::database::Database;
use crate::support::fixture::item;
use crate::support::{DEADLINE, Server};

/// Sends a whole PATCH of `A` and does not wait for the answer.
async fn send(server: &Server, tier: usize) -> TcpStream {
    let body = json!({"tier": tier, "category": (["a", "b"][tier % 2])}).to_string();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PATCH /api/items/A HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Waits until just `count` requests are being answered; the scrape itself is one more.
async fn in_flight(server: &Server, count: usize) {
    let line = format!("terrace_http_requests_in_flight {}\n", count + 1);
    server.eventually("the number of requests in flight", async || server.get("/metrics").await.text.contains(&line)).await;
}

const READS: [&str; 4] = ["/api/items/A", "/api/items?category=a", "/api/items?category=b", "/api/items/_stats?by=tier,category"];

/// Reconciling would repair within its interval what a lost announcement broke, so it is as good as off.
fn without_reconciling() -> Server {
    Server::fixture_with(|settings| settings.cache.reconcile_interval = Duration::from_secs(3600))
}

#[tokio::test]
async fn a_write_whose_client_is_gone_before_it_commits_is_announced_all_the_same() {
    let server = without_reconciling();
    let truth = server.beside(|settings| settings.cache.enabled = false);
    server.create_item(item("A", "a")).await;
    let (mut lock, mut database) = (Database::of(&server), Database::of(&server));
    for tier in 1..=4 {
        for path in READS {
            server.get(path).await.expect(200);
        }
        let changes = database.stored().changes;
        lock.hold_writers();
        let stream = send(&server, tier).await;
        in_flight(&server, 1).await;
        // A reset, and not just an end: the server gives the request up.
        stream.set_zero_linger().unwrap();
        drop(stream);
        in_flight(&server, 0).await;
        assert_eq!(database.stored().changes, changes, "it still waits for the lock");
        lock.let_writers_go();
        server.eventually("the abandoned write", async || truth.get("/api/items/A").await.json()["tier"] == tier).await;
        for path in READS {
            let agrees = async || server.get(path).await.text == truth.get(path).await.text;
            server.eventually(&format!("{path} after an abandoned write"), agrees).await;
        }
    }
}

#[tokio::test]
async fn clients_that_hang_up_at_any_moment_leave_nothing_stale() {
    let server = without_reconciling();
    let truth = server.beside(|settings| settings.cache.enabled = false);
    server.create_item(item("A", "a")).await;
    let deadline = Instant::now() + DEADLINE;
    for tier in 0.. {
        // How many of them arrive is for the machine to say.
        if tier >= 30 && tier % 10 == 0 {
            in_flight(&server, 0).await;
            // A later write queues behind all earlier ones; when it is answered, none is under way.
            server.create_item(item(&format!("LAST{tier}"), "c")).await;
            let written = Database::of(&server).number("SELECT count(*) AS value FROM changes WHERE id = 'A'");
            if written > 5 {
                break;
            }
            assert!(Instant::now() < deadline, "too few writes arrived to tell: {written}");
        }
        for path in READS {
            server.get(path).await.expect(200);
        }
        let stream = send(&server, tier).await;
        // Some hang up at once, some while the transaction runs, some about when it ends.
        tokio::time::sleep(Duration::from_micros(tier as u64 % 30 * 150)).await;
        if tier % 3 > 0 {
            stream.set_zero_linger().unwrap();
        }
    }
    for path in READS {
        let agrees = async || server.get(path).await.text == truth.get(path).await.text;
        server.eventually(&format!("{path} after abandoned writes"), agrees).await;
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
    in_flight(&server, 0).await;
    assert_eq!(database.stored(), stored);
    server.get("/api/items/H").await.problem(404, "not_found");
}
