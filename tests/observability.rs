//! What operators see: metrics with closed sets of labels, request ids, health.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::support::Server;
use crate::support::fixture::{ITEMS, item};

pub async fn metrics(server: &Server) -> String {
    let reply = server.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"), "{}", reply.header("content-type"));
    reply.text
}

/// The value of the series that has all of `labels`.
pub fn value(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let series = metrics.lines().filter(|line| {
        let own = line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '));
        own && labels.iter().all(|label| line.contains(label))
    });
    let values: Vec<&str> = series.map(|line| line.rsplit_once(' ').unwrap().1).collect();
    assert_eq!(values.len(), 1, "{name} {labels:?} in\n{metrics}");
    values[0].parse().unwrap()
}

#[tokio::test]
async fn requests_are_counted_by_route_method_and_status() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "a")]).await;
    for path in ["/api/items/A", "/api/items/B", "/api/items/A", "/api/items/none", "/api/items?category=a", "/nothing"] {
        server.get(path).await;
    }
    server.post(ITEMS, &json!({})).await;
    let text = metrics(&server).await;
    for (route, method, status, count) in [
        ("/api/items/{id}", "GET", "200", 3.0),
        ("/api/items/{id}", "GET", "404", 1.0),
        ("/api/items", "GET", "200", 1.0),
        ("/api/items", "POST", "422", 1.0),
        ("/api/items/_batch", "POST", "200", 1.0),
        ("unmatched", "GET", "404", 1.0),
    ] {
        let labels = [&*format!("route=\"{route}\""), &format!("method=\"{method}\""), &format!("status=\"{status}\"")];
        assert_eq!(value(&text, "terrace_http_requests_total", &labels), count, "{labels:?}");
        assert_eq!(value(&text, "terrace_http_request_duration_seconds_count", &labels), count, "{labels:?}");
        assert!(value(&text, "terrace_http_request_duration_seconds_sum", &labels) > 0.0, "{labels:?}");
    }
    assert_eq!(value(&text, "terrace_http_requests_in_flight", &[]), 1.0, "the scrape itself");
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&text, "terrace_build_info", &[&version]), 1.0);
}

#[tokio::test]
async fn the_cache_is_counted_by_tier_kind_collection_and_outcome() {
    let server = Server::fixture();
    server.create_items([item("A", "a")]).await;
    for path in
        ["/api/items/A", "/api/items?category=a", "/api/items/_stats?by=tier", "/api/totals", "/api/items?category=a&page=2"]
    {
        server.get(path).await;
        server.get(path).await;
    }
    let text = metrics(&server).await;
    for (kind, collection, outcome, count) in [
        ("record", "items", "miss", 1.0),
        ("record", "items", "hit", 1.0),
        ("list", "items", "miss", 2.0),
        ("list", "items", "hit", 2.0),
        ("count", "items", "miss", 1.0),
        ("count", "items", "hit", 1.0),
        ("stats", "items", "miss", 1.0),
        ("view", "totals", "hit", 1.0),
        ("record", "notes", "hit", 0.0),
        ("record", "items", "stale", 0.0),
    ] {
        let labels = [
            "tier=\"l1\"",
            &*format!("kind=\"{kind}\""),
            &format!("collection=\"{collection}\""),
            &format!("outcome=\"{outcome}\""),
        ];
        assert_eq!(value(&text, "terrace_cache_requests_total", &labels), count, "{labels:?}");
    }
    let items = ["collection=\"items\"", "kind=\"list\""];
    assert_eq!(value(&text, "terrace_cache_load_duration_seconds_count", &items), 2.0);
    assert_eq!(value(&text, "terrace_cache_load_errors_total", &items), 0.0);
    assert!(value(&text, "terrace_cache_entries", &[]) >= 6.0, "{text}");
    assert!(value(&text, "terrace_cache_size_bytes", &[]) > 1_000.0);
    assert_eq!(value(&text, "terrace_cache_capacity_bytes", &[]), 256.0 * 1024.0 * 1024.0);
}

#[tokio::test]
async fn a_full_cache_evicts_and_stays_within_its_bound() {
    let server = Server::fixture_with(|settings| settings.cache.l1_bytes = bytesize::ByteSize::kib(64));
    server.create_items((0..200).map(|number| item(&format!("I{number}"), "a"))).await;
    for number in 0..200 {
        server.get(&format!("/api/items/I{number}")).await.expect(200);
    }
    let health = server.get("/health").await.expect(200);
    let size = health["cache"]["size_bytes"].as_u64().unwrap();
    assert!((1..=64 * 1024).contains(&size), "{health}");
    assert_eq!(health["cache"]["capacity_bytes"], 64 * 1024);
    let text = metrics(&server).await;
    assert!(value(&text, "terrace_cache_evictions_total", &["cause=\"size\""]) > 10.0, "{text}");
    server.get("/api/items/I0").await.expect(200);
}

#[tokio::test]
async fn the_database_is_measured_by_operation_and_the_pool_by_state() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "a")]).await;
    server.get("/api/items/A").await;
    // A page that does not show its own end is counted.
    server.get(&format!("{ITEMS}?limit=1")).await;
    let text = metrics(&server).await;
    for operation in ["record_read", "record_list", "record_count", "record_write"] {
        let labels = [&*format!("operation=\"{operation}\"")];
        assert!(value(&text, "terrace_database_operation_duration_seconds_count", &labels) >= 1.0, "{operation}");
    }
    for state in ["idle", "used", "waiting"] {
        value(&text, "terrace_database_connections", &[&format!("state=\"{state}\"")]);
    }
}

#[tokio::test]
async fn no_client_can_make_new_time_series() {
    let server = Server::fixture();
    server.create_items([item("A", "a")]).await;
    let ask = async |number: usize| {
        for path in [
            format!("/nothing/{number}"),
            format!("/api/items/id-{number}"),
            format!("/api/items?q=word{number}"),
            format!("/docs/{number}"),
        ] {
            server.get(&path).await;
            server.send_with(Method::from_bytes(format!("M{number}").as_bytes()).unwrap(), &path, &[], None).await;
        }
        let id = format!("request-{number}");
        server.get_with("/api/items/A", &[("x-request-id", &id), ("user-agent", &id), ("host", &id)]).await;
    };
    let series = async || {
        let text = metrics(&server).await;
        let names = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.collect::<BTreeSet<String>>()
    };
    ask(0).await;
    // What the server does by itself has series too.
    server.eventually("following the log", async || series().await.iter().any(|name| name.contains("changes_since"))).await;
    let few = series().await;
    for number in 1..30 {
        ask(number).await;
    }
    let many = series().await;
    let new: Vec<_> = many.difference(&few).collect();
    // The scrape itself is the only request that was not there before.
    assert!(new.iter().all(|name| name.contains("route=\"/metrics\"")), "{new:?}");
    assert!(!many.iter().any(|name| name.contains("M7") || name.contains("id-7")), "{many:?}");
}

#[tokio::test]
async fn a_request_has_an_id_that_the_client_may_choose() {
    let server = Server::fixture();
    let given = server.get_with(ITEMS, &[("x-request-id", "my.id_42-x")]).await;
    assert_eq!(given.header("x-request-id"), "my.id_42-x");
    let problem = server.get_with("/nothing", &[("x-request-id", "my.id")]).await;
    assert_eq!(problem.problem(404, "not_found")["request_id"], "my.id");
    let mut made = BTreeSet::new();
    for bad in ["", "has space", "quote\"", &"x".repeat(129), "a,b"] {
        let reply = server.get_with(ITEMS, &[("x-request-id", bad)]).await;
        let id = reply.header("x-request-id").to_owned();
        assert_ne!(id, bad);
        uuid::Uuid::parse_str(&id).unwrap();
        made.insert(id);
    }
    assert_eq!(made.len(), 5, "an id is made once");
}

#[tokio::test]
async fn health_tells_what_the_server_stands_on() {
    let server = Server::fixture();
    let health = server.get("/health").await;
    let answer = health.expect(200);
    assert_eq!((&answer["status"], &answer["database"]["status"]), (&json!("healthy"), &json!("up")));
    assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer["cache"]["enabled"], true);
    for (path, status) in [("/health/live", "alive"), ("/health/ready", "ready")] {
        let reply = server.get(path).await;
        assert_eq!(reply.expect(200)["status"], status);
        assert_eq!(reply.header("cache-control"), "no-store");
    }
}

/// The binary, because a process has one log.
#[tokio::test]
async fn slow_requests_and_slow_queries_are_warnings_with_the_id_of_their_request() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let directory = tempfile::tempdir().unwrap();
    let settings = crate::support::settings(directory.path());
    let _schema = crate::support::schema::Schema::of(&settings.database.url);
    let mut server = crate::support::terrace(&crate::support::root(), &["serve"])
        .env("TERRACE_DATABASE__URL", &settings.database.url)
        .env("TERRACE_HTTP__LISTEN", "127.0.0.1:0")
        .env("TERRACE_LOG__FORMAT", "json")
        .env("TERRACE_LOG__SLOW_REQUEST", "1us")
        .env("TERRACE_LOG__SLOW_QUERY", "1us")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut banner = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address =
        banner.find_map(|line| line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)).unwrap();
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/metrics?category=strategic&sort=name", address.trim_end_matches('/'));
    let response = client.get(url).header("x-request-id", "the-slow-one").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let stopped = std::process::Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0), "{log}");

    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let warning = |message: &str, holds: &dyn Fn(&serde_json::Value) -> bool| {
        lines.iter().any(|line| line["level"] == "WARN" && line["message"] == message && holds(line))
    };
    let of_request = |line: &serde_json::Value| line["route"] == "/api/v1/metrics" && line["request_id"] == "the-slow-one";
    assert!(warning("slow request", &of_request), "{log}");
    let of_query = |line: &serde_json::Value| line["operation"] == "record_list" && line["collection"] == "metrics";
    assert!(warning("slow database operation", &of_query), "{log}");
    assert!(!log.contains("strategic"), "the values of a query may be private: {log}");
}
