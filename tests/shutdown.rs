//! Stopping: requests in flight end, new connections are refused, and what was acknowledged is stored.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::fixture::item;
use crate::support::{DEADLINE, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_ends_while_the_server_stops() {
    let mut server = Server::fixture();
    server.create_item(item("A", "a")).await;
    let again = server.settings.clone();
    let address = server.address;
    // The body is still on its way when the server is told to stop.
    let body = json!({"tier": 7}).to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PATCH /api/items/A HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..3]).await.unwrap();
    let in_flight = async || server.get("/metrics").await.text.contains("terrace_http_requests_in_flight 2\n");
    server.eventually("the request has begun", in_flight).await;

    let keep = server.keep_files();
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while TcpStream::connect(address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the server still takes connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!stopping.is_finished(), "it waits for the request in flight");
    stream.write_all(&body.as_bytes()[3..]).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["tier"], 7, "{answer}");
    tokio::time::timeout(DEADLINE, stopping).await.expect("it stops once the request has ended").unwrap();

    let next = Server::start_again(keep, again);
    assert_eq!(next.get("/api/items/A").await.expect(200)["tier"], 7);
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_stop_up() {
    let server = Server::fixture();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let begun = std::time::Instant::now();
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
