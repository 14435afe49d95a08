//! Warming: what the collection files name is there before anybody asks, under the keys of the requests that will come.

use std::time::Duration;

use serde_json::json;
use terrace::config::Settings;

use crate::observability::{metrics, value};
use crate::stale::Mortal;
use crate::support::Server;
use crate::support::fixture::{ITEMS, item};

/// A server beside `server`, whose items are warmed as `warm` says. Its cache is its own.
fn beside(server: &Server, directory: &tempfile::TempDir, warm: &str, change: impl FnOnce(&mut Settings)) -> Server {
    let declared = &server.settings.collections.dir;
    for file in std::fs::read_dir(declared).unwrap().map(|file| file.unwrap()) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let is_warm = file.file_name() == "items.toml";
        let text = if is_warm { format!("{text}\n[cache.warm]\n{warm}\n") } else { text };
        std::fs::write(directory.path().join(file.file_name()), text).unwrap();
    }
    server.beside(|settings| {
        settings.collections.dir = directory.path().to_owned();
        change(settings);
    })
}

async fn rounds(server: &Server, outcome: &str) -> f64 {
    let text = metrics(server).await;
    let series = format!("terrace_cache_warm_rounds_total{{collection=\"items\",outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0.0, |count| count.parse().unwrap())
}

async fn warmed(server: &Server, kind: &str, outcome: &str) -> f64 {
    let labels = ["collection=\"items\"", &*format!("kind=\"{kind}\""), &*format!("outcome=\"{outcome}\"")];
    value(&metrics(server).await, "terrace_cache_warmed_total", &labels)
}

#[tokio::test]
async fn the_newest_records_and_the_named_lists_are_hits_at_the_first_request() {
    let (server, directory) = (Server::fixture(), tempfile::tempdir().unwrap());
    for number in 0..6 {
        server.create_item(item(&format!("I{number}"), "a")).await;
    }
    let warm = beside(&server, &directory, "records = 3\nlists = [\"category=a&limit=2\", \"\", \"q=item\"]", |_| {});
    warm.eventually("a round", async || rounds(&warm, "whole").await == 1.0).await;
    assert_eq!((warmed(&warm, "record", "loaded").await, warmed(&warm, "list", "loaded").await), (3.0, 3.0));
    for path in ["/api/items/I5", "/api/items/I3", ITEMS, "/api/items?limit=2&category=a", "/api/items?q=item"] {
        assert_eq!(warm.get(path).await.cache(), "HIT", "{path}");
    }
    for path in ["/api/items/I2", "/api/items?category=a", "/api/items/I5?fields=name"] {
        assert_eq!(warm.get(path).await.cache(), "MISS", "{path}");
    }
}

#[tokio::test]
async fn a_later_round_loads_a_list_that_lags() {
    let (server, directory) =
        (Server::fixture_edited("[cache]\n", "[cache]\nmax_lag = \"1m\"\n", |_| {}), tempfile::tempdir().unwrap());
    server.create_item(item("A", "a")).await;
    let warm = beside(&server, &directory, "records = 1\nlists = [\"category=a\"]\nevery = \"1s\"", |_| {});
    warm.eventually("a round", async || rounds(&warm, "whole").await >= 1.0).await;
    server.create_item(item("B", "a")).await;
    warm.eventually("the list anew", async || warmed(&warm, "list", "loaded").await == 2.0).await;
    warm.eventually("the record as well", async || warmed(&warm, "record", "loaded").await == 2.0).await;
    assert_eq!(rounds(&warm, "away").await, 0.0, "a list that lags was taken for an outage");
}

#[tokio::test]
async fn a_later_round_loads_what_a_write_outdated_and_leaves_the_rest_alone() {
    let (server, directory) = (Server::fixture(), tempfile::tempdir().unwrap());
    server.create_items([item("A", "a"), item("B", "b")]).await;
    let warm = beside(&server, &directory, "records = 2\nevery = \"1s\"", |_| {});
    warm.eventually("a round", async || rounds(&warm, "whole").await == 1.0).await;
    warm.patch("/api/items/A", &json!({"tier": 5})).await.expect(200);
    warm.eventually("the next one", async || rounds(&warm, "whole").await == 2.0).await;
    assert_eq!((warmed(&warm, "record", "loaded").await, warmed(&warm, "record", "present").await), (3.0, 1.0));
    let read = warm.get("/api/items/A").await;
    assert_eq!((read.cache(), &read.json()["tier"]), ("HIT", &json!(5)));
}

#[tokio::test]
async fn readiness_waits_for_the_first_round_while_requests_are_served() {
    let (server, directory) = (Server::fixture(), tempfile::tempdir().unwrap());
    server.create_items([item("A", "a"), item("B", "b")]).await;
    let warm = beside(&server, &directory, "records = 2", |settings| {
        settings.cache.warm_loads_per_second = 1;
        settings.cache.warm_before_ready = Duration::from_secs(600);
    });
    let waiting = warm.get("/health/ready").await.expect(503);
    assert!(waiting["reason"].as_str().unwrap().contains("cache.warm_before_ready"), "{waiting}");
    warm.get("/api/items/A").await.expect(200);
    warm.eventually("readiness", async || warm.get("/health/ready").await.status == 200).await;
    assert_eq!(rounds(&warm, "whole").await, 1.0);
}

#[tokio::test]
async fn readiness_waits_no_longer_than_it_is_told_to() {
    let (server, directory) = (Server::fixture(), tempfile::tempdir().unwrap());
    server.create_items((0..100).map(|number| item(&format!("I{number}"), "a"))).await;
    let warm = beside(&server, &directory, "records = 100", |settings| {
        settings.cache.warm_loads_per_second = 1;
        settings.cache.warm_before_ready = Duration::from_millis(1);
    });
    warm.eventually("readiness", async || warm.get("/health/ready").await.status == 200).await;
    assert_eq!(rounds(&warm, "whole").await, 0.0, "it was ready before all was warm");
}

#[tokio::test]
async fn warming_stops_before_it_would_displace_anything() {
    let (server, directory) = (Server::fixture(), tempfile::tempdir().unwrap());
    server.create_items((0..200).map(|number| item(&format!("I{number}"), "a"))).await;
    let warm = beside(&server, &directory, "records = 200", |settings| {
        settings.cache.l1_bytes = bytesize::ByteSize::kib(64);
        settings.cache.warm_loads_per_second = 100_000;
    });
    warm.eventually("the end", async || rounds(&warm, "full").await == 1.0).await;
    let text = metrics(&warm).await;
    let size = value(&text, "terrace_cache_size_bytes", &[]);
    assert!((0.8..0.9).contains(&(size / 65_536.0)), "{size}");
    assert_eq!(value(&text, "terrace_cache_evictions_total", &["cause=\"size\""]), 0.0, "{text}");
}

#[tokio::test]
async fn nothing_is_warmed_while_the_database_is_away_and_all_of_it_afterwards() {
    let warm = "stale_if_error = \"1h\"\n\n[cache.warm]\nrecords = 5\nevery = \"1s\"\n\n[access]";
    let mut mortal = Mortal::start("stale_if_error = \"1h\"\n\n[access]", warm, |settings| {
        settings.database.acquire_timeout = Duration::from_millis(300);
    });
    mortal.server.create_items([item("A", "a")]).await;
    mortal.begin_outage();
    let server = &mortal.server;
    server.eventually("a round in vain", async || rounds(server, "away").await >= 1.0).await;
    mortal.end_outage();
    let server = &mortal.server;
    server.eventually("the record", async || metrics(server).await.contains("kind=\"record\",outcome=\"loaded\"")).await;
    assert_eq!(server.get("/api/items/A").await.cache(), "HIT");
}

#[tokio::test]
async fn an_installation_without_a_cache_warms_nothing() {
    let (server, directory) = (Server::fixture(), tempfile::tempdir().unwrap());
    let cold = beside(&server, &directory, "records = 5", |settings| {
        settings.cache.enabled = false;
        settings.cache.warm_before_ready = Duration::from_secs(600);
    });
    assert_eq!(cold.get("/health/ready").await.status, 200);
    assert_eq!(rounds(&cold, "whole").await, 0.0);
}
