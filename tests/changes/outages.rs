//! Live feeds while the servers behind them have a bad day: nothing is lost, and nothing is told twice.

use std::time::{Duration, Instant};

use super::events::Events;
use super::public_with;
use crate::outages::ready;
use crate::support::DEADLINE;
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::{PrivatePostgres, Stop};
use crate::support::redis::PrivateRedis;

const LIVE: &str = "/api/items/_changes?live";

/// The feed need not have passed the numbers that are then given out again, so this says nothing of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_goes_on_behind_a_crash_of_the_database_and_so_does_a_client_that_comes_back() {
    // Nothing but a commit brings its log to the disk.
    let mut postgres = PrivatePostgres::planned().line("wal_writer_delay = 10s").start();
    let server = public_with(|settings| {
        settings.database.url = postgres.url();
        settings.cache.reconcile_interval = Duration::from_millis(50);
        settings.changes.heartbeat = Duration::from_millis(30);
    });
    ready(&server).await;
    let mut feed = Events::open(&server, LIVE, None).await;
    server.create_item(item("OLD", "a")).await;
    assert_eq!(feed.ids(1).await, ["OLD"]);
    let told = feed.last.clone();
    let mut session = postgres.session();
    (0..5).for_each(|_| session.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK"));
    drop(session);
    let deadline = Instant::now() + DEADLINE;
    while feed.last == told {
        assert!(Instant::now() < deadline, "the feed does not pass what left nothing behind");
        feed.beat().await;
    }
    let passed = feed.last.clone();
    postgres.stop(Stop::Immediate);
    postgres.start_again();
    let mut session = postgres.session();
    let expected: Vec<String> = (0..10).map(|number| format!("N{number}")).collect();
    for id in &expected {
        let insert = "INSERT INTO records (collection, id, data) VALUES";
        session.execute(&format!("{insert} ('items', '{id}', '{{\"sku\": \"{id}\", \"name\": \"x\", \"category\": \"a\"}}')"));
    }
    assert_eq!(feed.ids(10).await, expected);
    let mut again = Events::open(&server, LIVE, passed.as_deref()).await;
    assert_eq!(again.ids(10).await, expected);
    ready(&server).await;
    server.create_item(item("LAST", "a")).await;
    assert_eq!((feed.ids(1).await, again.ids(1).await), (vec!["LAST".to_owned()], vec!["LAST".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_on_another_instance_goes_on_without_redis() {
    let mut redis = PrivateRedis::start();
    let writer = public_with(|settings| settings.redis.url = redis.url());
    let reader = writer.beside(|_| {});
    let mut feed = Events::open(&reader, LIVE, None).await;
    writer.create_item(item("A", "a")).await;
    redis.stop();
    writer.create_item(item("B", "a")).await;
    writer.patch(&format!("{ITEMS}/A"), &serde_json::json!({"tier": 1})).await.expect(200);
    assert_eq!(feed.ids(3).await, ["A", "B", "A"]);
    redis.start_again();
    writer.create_item(item("C", "a")).await;
    assert_eq!(feed.ids(1).await, ["C"]);
}
