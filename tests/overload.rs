//! More than the server can do: what is in memory is answered, and the rest is refused at once; nobody holds a connection
//! for longer than honest clients need.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use terrace::config::Settings;
use terrace::model::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::observability::{metrics, value};
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::PrivatePostgres;
use crate::support::{DEADLINE, Reply, Server};

/// Refused because there is too much to do.
fn overloaded(reply: &Reply, setting: &str) {
    let problem = reply.problem(503, "overloaded");
    assert!(problem["detail"].as_str().unwrap().contains(setting), "{problem}");
    assert_eq!(reply.header("retry-after"), "1");
}

async fn gauge(server: &Server, name: &str) -> f64 {
    value(&metrics(server).await, name, &[])
}

/// A request whose answer nobody has waited for yet.
fn started(server: &Server, path: &str) -> tokio::task::JoinHandle<Reply> {
    tokio::spawn(Reply::read(server.request(Method::GET, path)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_is_answered_while_a_slow_database_has_all_that_may_wait_for_it() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.http.max_in_flight = 3;
        settings.database.acquire_timeout = Duration::from_secs(60);
    });
    super::outages::ready(&server).await;
    server.create_items((0..9).map(|number| item(&format!("I{number}"), "a"))).await;
    for path in ["/api/items/I0", "/api/items?category=a", "/api/totals"] {
        server.get(path).await.expect(200);
    }
    // From here on it is known who that is.
    let admin = server.key_for(Role::Admin, &[]).await;
    server.get_as(&admin, "/api/items/_changes").await.expect(200);
    let mut holder = postgres.session();
    holder.execute("BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE");
    // Two loads, and one who waits for the first of them.
    let waiting = ["/api/items/I1", "/api/items?category=b", "/api/items/I1"].map(|path| started(&server, path));
    server.eventually("three wait", async || gauge(&server, "terrace_in_flight").await == 3.0).await;

    let begun = Instant::now();
    for path in ["/api/items/I2", "/api/items?category=c", "/api/items/_stats?by=tier", "/api/items/I1"] {
        overloaded(&server.get(path).await, "http.max_in_flight");
    }
    overloaded(&server.get_as(&admin, "/api/items/_changes").await, "http.max_in_flight");
    overloaded(&server.post(ITEMS, &item("X", "a")).await, "http.max_in_flight");
    overloaded(&server.patch("/api/items/I0", &json!({"tier": 9})).await, "http.max_in_flight");
    overloaded(&server.delete("/api/items/I0").await, "http.max_in_flight");
    overloaded(
        &server.post("/api/items/_batch", &json!({"operations": [{"op": "delete", "id": "I0"}]})).await,
        "http.max_in_flight",
    );
    for path in ["/api/items/I0", "/api/items?category=a", "/api/totals"] {
        for _ in 0..20 {
            assert_eq!(server.get(path).await.cache(), "HIT", "{path}");
        }
    }
    // What is malformed is found out without the database.
    server.get("/api/items?nothing=1").await.problem(400, "invalid_parameter");
    assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits: {:?}", begun.elapsed());
    assert!(value(&metrics(&server).await, "terrace_in_flight_refusals_total", &[]) == 9.0);

    holder.execute("COMMIT");
    let [first, list, joined] = waiting;
    assert_eq!(first.await.unwrap().cache(), "MISS");
    list.await.unwrap().expect(200);
    joined.await.unwrap().expect(200);
    server.eventually("all slots are free", async || gauge(&server, "terrace_in_flight").await == 0.0).await;
    server.get("/api/items/I2").await.expect(200);
    server.patch("/api/items/I0", &json!({"tier": 9})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_only_expired_stands_in_where_the_collection_allows_it() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.http.max_in_flight = 1;
        settings.database.acquire_timeout = Duration::from_secs(60);
        settings.cache.max_ttl = Duration::from_millis(1);
        settings.cache.jitter_percent = 0;
    });
    super::outages::ready(&server).await;
    server.create_items([item("A", "a"), item("B", "b")]).await;
    server.get("/api/items/A").await.expect(200);
    let mut holder = postgres.session();
    holder.execute("BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE");
    let waiting = started(&server, "/api/items/B");
    server.eventually("it waits", async || gauge(&server, "terrace_in_flight").await == 1.0).await;
    assert_eq!(server.get("/api/items/A").await.cache(), "STALE");
    overloaded(&server.get_with("/api/items/A", &[("cache-control", "no-cache")]).await, "http.max_in_flight");
    holder.execute("COMMIT");
    waiting.await.unwrap().expect(200);
}

/// A connection by hand.
struct Connection(TcpStream);

impl Connection {
    async fn to(server: &Server) -> Self {
        Self(TcpStream::connect(server.address).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request without a body, and reads its answer.
    async fn ask(&mut self, line: &str) -> (String, Value) {
        self.send(format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.answer().await
    }

    /// The head of an answer, and its body.
    async fn answer(&mut self) -> (String, Value) {
        let mut bytes = Vec::new();
        let read = async {
            while !bytes.ends_with(b"\r\n\r\n") {
                bytes.push(self.0.read_u8().await.unwrap());
            }
            let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            (head, serde_json::from_slice(&body).unwrap_or(Value::Null))
        };
        tokio::time::timeout(DEADLINE, read).await.expect("no answer")
    }

    /// Everything that still comes, once the server has closed the connection.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // It may be closed with a reset: that is an end too.
        let _ = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut rest)).await.expect("the server holds the connection");
        rest
    }
}

#[tokio::test]
async fn one_connection_too_many_gets_what_is_in_memory_and_is_closed() {
    let server = Server::fixture_with(|settings| settings.http.max_connections = 3);
    server.create_items([item("A", "a"), item("B", "b")]).await;
    server.get("/api/items/A").await.expect(200);
    // The client of these tests holds one of them.
    let mut honest = [Connection::to(&server).await, Connection::to(&server).await];
    for connection in &mut honest {
        assert!(connection.ask("GET /api/items/B").await.0.starts_with("http/1.1 200"));
    }
    for (line, status) in [
        ("GET /api/items/A", "200"),
        ("GET /health/live", "200"),
        ("GET /api/items/none", "503"),
        ("GET /api/items?category=b", "503"),
        ("DELETE /api/items/A", "503"),
        ("GET /nothing", "404"),
    ] {
        let mut surplus = Connection::to(&server).await;
        let (head, body) = surplus.ask(line).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{line}: {head}");
        assert!(head.contains("connection: close"), "{line}: {head}");
        if status == "503" {
            assert_eq!(body["code"], "overloaded", "{body}");
            assert!(body["detail"].as_str().unwrap().contains("http.max_connections"), "{body}");
            assert!(head.contains("retry-after: 1"), "{head}");
        }
        assert!(surplus.rest().await.is_empty());
    }
    assert_eq!(value(&metrics(&server).await, "terrace_surplus_connections_total", &[]), 6.0);
    assert_eq!(gauge(&server, "terrace_connections").await, 3.0);
    // Those who were there are served as ever; and when one goes, another is welcome.
    let [mut first, second] = honest;
    assert!(first.ask("GET /api/items?category=b").await.0.starts_with("http/1.1 200"));
    drop(second);
    server.eventually("one has gone", async || gauge(&server, "terrace_connections").await == 2.0).await;
    let (head, _) = Connection::to(&server).await.ask("GET /api/items?category=c").await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
}

/// Patient enough for honest requests on a machine with much else to do.
fn impatient(settings: &mut Settings) {
    settings.http.head_timeout = Duration::from_secs(2);
    settings.http.keep_alive = Duration::from_secs(2);
}

/// Sends a byte now and then until the connection is closed; returns when that was, and what came.
async fn drip(slow: Connection) -> (Duration, String) {
    let begun = Instant::now();
    let (mut reading, mut writing) = slow.0.into_split();
    let dripping = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The end of it is what the other one reads.
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = dripping => unreachable!(),
        ended = tokio::time::timeout(DEADLINE, reading.read_to_end(&mut answer)) => {
            // With a reset, perhaps.
            let _ = ended.expect("the server holds the connection");
        }
    }
    (begun.elapsed(), String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off() {
    let server = Server::fixture_with(impatient);
    let mut slow = Connection::to(&server).await;
    slow.send("GET /api/items HTTP/1.1\r\nhost: ").await;
    let (elapsed, answer) = drip(slow).await;
    assert!(elapsed >= Duration::from_millis(1_500), "{elapsed:?}");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_second_head_that_comes_byte_by_byte_is_cut_off_too() {
    let server = Server::fixture_with(impatient);
    let mut slow = Connection::to(&server).await;
    slow.ask("GET /health/live").await;
    slow.send("GET /api/items HTTP/1.1\r\nhost: ").await;
    let (elapsed, answer) = drip(slow).await;
    assert!(elapsed >= Duration::from_millis(2_000), "{elapsed:?}");
    assert!(answer.is_empty(), "{answer}");
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_refused_and_stores_nothing() {
    let server = Server::fixture_with(|settings| settings.http.body_timeout = Duration::from_millis(300));
    for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
        for line in ["POST /api/items", "PUT /api/items/A", "PATCH /api/items/A", "POST /api/items/_batch"] {
            let mut slow = Connection::to(&server).await;
            let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n");
            slow.send(head).await;
            slow.send(if framing.starts_with("content") { "{" } else { "1\r\n{\r\n" }).await;
            let (head, body) = slow.answer().await;
            assert!(head.starts_with("http/1.1 408"), "{line} {framing}: {head}");
            assert_eq!(body["code"], "body_timeout", "{body}");
            slow.rest().await;
        }
    }
    assert_eq!(server.get(ITEMS).await.expect(200)["pagination"]["total"], 0);
}

#[tokio::test]
async fn who_does_not_read_its_answer_and_who_says_nothing_is_cut_off() {
    let server = Server::fixture_with(impatient);
    let text = "x".repeat(500_000);
    for number in 0..20 {
        server.create_item(json!({"sku": format!("I{number}"), "name": "n", "category": "a", "unindexed": text})).await;
    }
    let connections = async || gauge(&server, "terrace_connections").await;
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.set_recv_buffer_size(4_096).unwrap();
    let mut deaf = Connection(deaf.connect(server.address).await.unwrap());
    deaf.send("GET /api/items HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let silent = Connection::to(&server).await;
    let mut used = Connection::to(&server).await;
    used.ask("GET /health/live").await;
    // Only the client of this test, which goes on asking.
    server.eventually("all are gone", async || connections().await == 1.0).await;
    let answer = deaf.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() < 10_000_000, "{} bytes were sent", answer.len());
    for mut connection in [silent, used] {
        connection.rest().await;
    }
}

#[tokio::test]
async fn who_listens_to_a_feed_is_not_idle() {
    let server = Server::fixture_with(|settings| {
        impatient(settings);
        settings.changes.heartbeat = Duration::from_millis(200);
    });
    let request = server.anonymous_request(Method::GET, "/api/items/_changes?live");
    let mut feed = request.header("authorization", server.admin.as_ref().unwrap()).send().await.unwrap();
    assert_eq!(feed.status(), 200);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        feed.chunk().await.unwrap().expect("the feed was cut off");
    }
}

#[tokio::test]
async fn an_address_that_is_too_long_is_refused() {
    let server = Server::fixture();
    let long = |length: usize| format!("/api/items?q={}", "x".repeat(length));
    server.get(&long(16 * 1024)).await.problem(414, "uri_too_long");
    server.get(&format!("/{}", "x".repeat(17_000))).await.problem(414, "uri_too_long");
    server.get(&long(15 * 1024)).await.problem(400, "invalid_parameter");
}
