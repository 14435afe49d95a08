//! Retention: the change log of a running installation loses what is old, and nothing else.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use terrace::app::App;
use terrace::jobs::Retention;
use terrace::telemetry::Telemetry;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{ITEMS, item};

const INTERVAL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_changes_go_in_the_background_while_records_and_young_changes_stay() {
    let server = Server::fixture();
    server.create_items((0..20).map(|number| item(&format!("A{number}"), "a"))).await;
    let mut database = Database::of(&server);
    let before = database.stored();
    database.execute("UPDATE changes SET at = '2020-01-01T00:00:00.000000Z' WHERE id <> 'A3'");

    let app = App::open(server.settings.clone()).await.unwrap();
    let telemetry = Telemetry::new().unwrap();
    let retention = Retention::new(app.store().clone(), server.settings.changes.retention, telemetry.meter());
    let task = tokio::spawn(retention.every(INTERVAL).run());
    let counted = format!("terrace_changes_removed_total {}", before.changes - 1);
    server.eventually("the metric", async || telemetry.encode().unwrap().contains(&counted)).await;
    task.abort();

    let after = database.stored();
    assert_eq!((after.records, after.changes), (before.records, 1));
    assert_eq!(database.number("SELECT count(*) AS value FROM changes WHERE id = 'A3'"), 1);
    // Written over 10 minutes ago, and still what is served: the log is not the records.
    assert_eq!(server.get("/api/items/A5").await.expect(200)["category"], "a");
    server.put("/api/items/A5", &json!({"sku": "A5", "name": "x", "category": "b"})).await;
    assert_eq!(database.number("SELECT count(*) AS value FROM changes"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_younger_than_ten_minutes_goes_whatever_is_asked_for() {
    let server = Server::fixture();
    server.create_items([item("OLD", "a"), item("YOUNG", "a")]).await;
    let mut database = Database::of(&server);
    database.execute("UPDATE changes SET at = '2020-01-01T00:00:00.000000Z' WHERE id = 'OLD'");
    let app = App::open(server.settings.clone()).await.unwrap();
    let telemetry = Telemetry::new().unwrap();
    let retention = Retention::new(app.store().clone(), Duration::ZERO, telemetry.meter());
    let task = tokio::spawn(retention.every(INTERVAL).run());
    server
        .eventually("the old one's end", async || telemetry.encode().unwrap().contains("terrace_changes_removed_total 1\n"))
        .await;
    task.abort();
    assert_eq!(database.number("SELECT count(*) AS value FROM changes WHERE id = 'YOUNG'"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_may_ask_for_any_more_go() {
    let server = Server::fixture();
    for key in ["old", "young"] {
        let sent = server.send_with(Method::POST, ITEMS, &[("idempotency-key", key)], Some(&item(key, "a"))).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
    }
    let mut database = Database::of(&server);
    database.execute("UPDATE idempotency SET created_at = '2020-01-01T00:00:00.000000Z' WHERE key = 'old'");
    let app = App::open(server.settings.clone()).await.unwrap();
    let telemetry = Telemetry::new().unwrap();
    let retention = Retention::new(app.store().clone(), server.settings.changes.retention, telemetry.meter());
    let task = tokio::spawn(retention.every(INTERVAL).run());
    let database = std::sync::Mutex::new(database);
    let left = async || database.lock().unwrap().number("SELECT count(*) AS value FROM idempotency") == 1;
    server.eventually("the old one's end", left).await;
    task.abort();
    let again = server.send_with(Method::POST, ITEMS, &[("idempotency-key", "young")], Some(&item("young", "a"))).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    let anew = server.send_with(Method::POST, ITEMS, &[("idempotency-key", "old")], Some(&item("old", "a"))).await;
    anew.problem(409, "already_exists");
}
