//! A database server that is no longer the one that was read: it was restarted, recovered from a crash, or a standby took
//! over. The cache must not believe that it has seen what is new.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use terrace::cache::{Cache, Reconciler};
use terrace::catalog::Catalog;
use terrace::config::Settings;
use terrace::records::CatalogedLog;
use terrace::store::Store;
use terrace::telemetry::Telemetry;

use super::ready;
use crate::support::fixture::{declare, item};
use crate::support::postgres::{PrivatePostgres, Stop};
use crate::support::{DEADLINE, Server, settings_on};

/// The tables and partitions of the fixture on a server, and a reader of its log.
async fn reader(settings: &Settings) -> (Store, Reconciler) {
    let telemetry = Telemetry::new().unwrap();
    let catalog = Arc::new(Catalog::load(&settings.collections, terrace::records::check_list).unwrap());
    let store = Store::open(&settings.database, Duration::from_secs(60), &telemetry).await.unwrap();
    store.migrate().await.unwrap();
    let collections: Vec<_> = catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect();
    store.apply(&store.plan(&collections).await.unwrap()).await.unwrap();
    let cache = Cache::new(&settings.cache, &telemetry).unwrap();
    let log = CatalogedLog::new(store.clone(), catalog);
    let seen = store.snapshot().await.unwrap();
    (store, Reconciler::new(cache, Box::new(log), seen))
}

fn settings(postgres: &PrivatePostgres, directory: &TempDir) -> Settings {
    let mut settings = settings_on(postgres.url());
    settings.database.min_connections = 0;
    declare(&mut settings, directory.path());
    settings
}

/// How often the log was read.
const POLLS: &str = "terrace_database_operation_duration_seconds_count{operation=\"changes_since\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_a_crashed_server_gives_out_again_hide_no_change() {
    // Nothing but a commit brings its log to the disk.
    let mut postgres = PrivatePostgres::planned().line("wal_writer_delay = 10s").start();
    let directory = TempDir::new().unwrap();
    let (store, reconciler) = reader(&settings(&postgres, &directory)).await;
    postgres.sql("INSERT INTO records (collection, id, data) VALUES ('items', 'OLD', '{\"sku\": \"OLD\"}')");
    assert_eq!(reconciler.reconcile().await.unwrap(), 1);
    let mut session = postgres.session();
    (0..5).for_each(|_| session.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK"));
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
    let before = store.snapshot().await.unwrap();
    drop(session);
    postgres.stop(Stop::Immediate);
    postgres.start_again();
    assert!(store.snapshot().await.unwrap().next < before.next, "no number is given out again: there is nothing to see here");
    // Before anybody reads the log, so many that the numbers are higher than before.
    let mut session = postgres.session();
    for number in 0..10 {
        let insert = "INSERT INTO records (collection, id, data) VALUES";
        session.execute(&format!("{insert} ('items', 'N{number}', '{{\"sku\": \"N{number}\"}}')"));
    }
    assert!(store.snapshot().await.unwrap().next > before.next);
    // And not OLD, which is read again and known.
    assert_eq!(reconciler.reconcile().await.unwrap(), 10);
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_of_a_server_is_told_from_the_last() {
    let mut postgres = PrivatePostgres::start();
    let directory = TempDir::new().unwrap();
    let (store, _) = reader(&settings(&postgres, &directory)).await;
    let mut runs = vec![store.snapshot().await.unwrap().server];
    assert_eq!(runs[0].timeline, 1, "the role of an installation cannot read the timeline");
    assert_eq!(store.snapshot().await.unwrap().server, runs[0]);
    for stop in [Stop::Fast, Stop::Immediate] {
        postgres.stop(stop);
        postgres.start_again();
        runs.push(store.snapshot().await.unwrap().server);
    }
    // Its main process goes on, and so does the time when it was started.
    let id = postgres.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'terrace'")[0][0].clone().unwrap();
    postgres.kill_process(&id);
    let deadline = Instant::now() + DEADLINE;
    let recovered = loop {
        assert!(Instant::now() < deadline, "it does not recover:\n{}", postgres.log());
        if let Ok(snapshot) = store.snapshot().await
            && Some(&snapshot.server) != runs.last()
        {
            break snapshot.server;
        }
    };
    runs.push(recovered);
    assert!(runs.iter().all(|run| run.timeline == 1), "{runs:?}");
    let mut numbers: Vec<i64> = runs.iter().map(|run| run.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "{runs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_takes_over_is_not_served_for_the_server_that_was() {
    let mut postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| settings.cache.reconcile_interval = Duration::from_millis(50));
    ready(&server).await;
    server.create_item(item("A", "a")).await;
    server.get("/api/items/A").await.expect(200);
    // A change that the log has not shown yet is applied again after a restart, which costs its entries a miss.
    let polls = async || {
        let metrics = server.get("/metrics").await.text;
        let count = metrics.lines().find_map(|line| line.strip_prefix(POLLS)).map_or("0", str::trim);
        count.parse::<u64>().unwrap()
    };
    let before = polls().await;
    server.eventually("the log has shown the change", async || polls().await >= before + 2).await;
    postgres.stop(Stop::Fast);
    postgres.become_standby();
    postgres.start_again();
    ready(&server).await;
    assert_eq!(server.get("/api/items/A").await.cache(), "HIT", "a standby of the same history is the same database");
    // What the new server never had: no change of its log says so.
    postgres.sql("SELECT pg_promote()");
    postgres.sql(
        "SET session_replication_role = replica; \
         UPDATE records SET data = jsonb_set(data, '{tier}', '7') WHERE id = 'A'",
    );
    let is_gone = async || server.get("/api/items/A").await.expect(200)["tier"] == json!(7);
    server.eventually("the state of the new server", is_gone).await;
}
