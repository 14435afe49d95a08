//! A database that has too little: connections, disk, or patience for a lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use terrace::config::Settings;

use super::{ready, refused};
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::PrivatePostgres;
use crate::support::process::Process;
use crate::support::schema::Session;
use crate::support::{DEADLINE, Server};

/// Takes every connection that clients who are no superusers may have, also those of Terrace, which must not need them
/// meanwhile. The superuser's own goes with them: it would leave room for one more.
fn take_all(postgres: &PrivatePostgres) -> Vec<Session> {
    let mut operator = postgres.session();
    let mut limit =
        |name: &str| -> usize { operator.query(&format!("SHOW {name}")).unwrap()[0][0].as_ref().unwrap().parse().unwrap() };
    let others = limit("max_connections") - limit("superuser_reserved_connections") - 1;
    let mut sessions = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while sessions.len() < others {
        assert!(Instant::now() < deadline, "{} of {others} taken", sessions.len());
        // Who has ended holds its place for a moment longer, and this one is refused.
        match Session::open(&postgres.url()) {
            Ok(session) => sessions.push(session),
            Err(refusal) => assert!(refusal.0.starts_with("53300"), "{refusal}"),
        }
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'terrace'");
    }
    sessions.push(operator);
    sessions
}

#[tokio::test]
async fn out_of_connections_is_told_and_over_when_they_are_back() {
    let postgres = PrivatePostgres::planned().line("max_connections = 10").start();
    let few = |settings: &mut Settings| {
        settings.cache.reconcile_interval = Duration::from_secs(3600);
        settings.database.min_connections = 0;
        settings.database.acquire_timeout = Duration::from_secs(1);
    };
    let server = Server::fixture_on(postgres.url(), few);
    ready(&server).await;
    server.create_items((0..3).map(|number| item(&format!("I{number}"), "a"))).await;
    server.get("/api/items/I0").await.expect(200);
    let taken = take_all(&postgres);
    assert_eq!(server.get("/api/items/I0").await.cache(), "HIT");
    refused(&server.get("/api/items/I1").await, "database.max_connections");
    refused(&server.post(ITEMS, &item("X", "a")).await, "database.max_connections");
    let reason = server.get("/health/ready").await.expect(503)["reason"].clone();
    assert!(reason.as_str().unwrap().contains("database.max_connections"), "{reason}");
    // One that starts now waits.
    let second = Server::fixture_on(postgres.url(), few);
    super::waits_because(&second, "database.max_connections").await;
    drop(taken);
    ready(&server).await;
    server.get("/api/items/I1").await.expect(200);
    server.create_item(item("X", "a")).await;
    ready(&second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_used_up_is_told_once_and_counted_each_time() {
    let postgres = PrivatePostgres::start();
    let process = Process::serve(
        &postgres.url(),
        &[
            ("TERRACE_DATABASE__MAX_CONNECTIONS", "2"),
            // Longer than anything takes that does not wait, also on a machine with much else to do.
            ("TERRACE_DATABASE__ACQUIRE_TIMEOUT", "1500ms"),
            ("TERRACE_CACHE__RECONCILE_INTERVAL", "1m"),
        ],
    );
    let process = Arc::new(process);
    process.answers("/health/ready", 200).await;
    // Two writes that take until they are let go keep both connections.
    postgres.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$; \
         CREATE TRIGGER linger BEFORE INSERT ON records FOR EACH ROW WHEN (NEW.id LIKE 'SLOW%') EXECUTE FUNCTION linger()",
    );
    let slow = ["SLOW1", "SLOW2"].map(|sku| {
        let process = Arc::clone(&process);
        tokio::spawn(async move { process.send(Method::POST, ITEMS, &item(sku, "a")).await })
    });
    let sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let deadline = Instant::now() + DEADLINE;
    while postgres.sql(&format!("SELECT {sleeping}")).len() < 2 {
        assert!(Instant::now() < deadline, "no slow writes");
    }
    let waiting = async {
        let deadline = Instant::now() + DEADLINE;
        while !process.get("/metrics").await.text.contains("terrace_database_connections{state=\"waiting\"} 1") {
            assert!(Instant::now() < deadline, "nobody is said to wait");
        }
    };
    let (first, ()) = tokio::join!(process.get("/api/items/I0"), waiting);
    refused(&first, "database.acquire_timeout");
    for number in 1..3 {
        refused(&process.get(&format!("/api/items/I{number}")).await, "database.acquire_timeout");
    }
    let metric = "terrace_database_acquire_timeouts_total{resource=\"connection\"}";
    let counted = process.get("/metrics").await.text;
    assert!(counted.contains(&format!("{metric} 3")), "{counted}");
    assert_eq!(process.told("no database connection became free"), 1, "{}", process.log());
    let warning = process.log();
    assert!(warning.contains("raise database.max_connections") && warning.contains("max_connections=2"), "{warning}");
    postgres.sql(&format!("SELECT pg_cancel_backend(pid) {sleeping}"));
    for reply in slow {
        refused(&reply.await.unwrap(), "database.url");
    }
    process.get("/api/items/I9").await.problem(404, "not_found");
    process.until("the end of the shortage", |log| log.contains("a shortage in the database is over"));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let postgres = PrivatePostgres::planned().small_disk(48).start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.cache.reconcile_interval = Duration::from_secs(3600);
    });
    ready(&server).await;
    server.create_items((0..3).map(|number| item(&format!("I{number}"), "a"))).await;
    server.get("/api/items/I0").await.expect(200);
    postgres.fill_disk();
    // Pages that are there may have room for a little: text that does not compress soon finds the end of it.
    let big = |sku: &str| {
        let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(200_000).collect();
        json!({"sku": sku, "name": sku, "category": "a", "unindexed": text})
    };
    let mut taken = 0;
    let refusal = loop {
        let reply = server.post(ITEMS, &big(&format!("B{taken}"))).await;
        if reply.status != 201 {
            break reply;
        }
        taken += 1;
        assert!(taken < 100, "the disk does not get full");
    };
    refused(&refusal, "The disk of PostgreSQL, which database.url names, is full.");
    assert_eq!(server.get("/api/items/I0").await.cache(), "HIT");
    server.get("/api/items/I1").await.expect(200);
    assert_eq!(server.get(&format!("{ITEMS}?limit=1")).await.expect(200)["pagination"]["total"], 3 + taken);
    postgres.free_disk();
    assert_eq!(server.post(ITEMS, &big("AFTER")).await.status, 201);
    assert_eq!(server.get(&format!("{ITEMS}?limit=1")).await.expect(200)["pagination"]["total"], 4 + taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_locks_holds_up_its_own_writers_only() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.database.max_connections = 4;
        settings.database.acquire_timeout = Duration::from_secs(2);
    });
    ready(&server).await;
    server.create_items((0..40).map(|number| item(&format!("I{number}"), "a"))).await;
    let mut holder = postgres.session();
    holder.execute("BEGIN; SELECT FROM records WHERE collection = 'items' AND id = 'I0' FOR UPDATE");
    let server = Arc::new(server);
    // More writers of that record than there are connections, again and again.
    let mut writers = tokio::task::JoinSet::new();
    for tier in 0..12 {
        let server = Arc::clone(&server);
        writers.spawn(async move {
            for _ in 0..2 {
                let reply = server.patch("/api/items/I0", &json!({"tier": tier})).await;
                refused(&reply, "database.acquire_timeout");
            }
        });
    }
    // Others go on meanwhile, and none of them waits for a connection for long.
    let mut slowest = Duration::ZERO;
    for number in 1..40 {
        let begun = Instant::now();
        server.get(&format!("/api/items/I{number}")).await.expect(200);
        server.patch(&format!("/api/items/I{number}"), &json!({"tier": 1})).await.expect(200);
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(slowest < Duration::from_millis(1_800), "{slowest:?}");
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    holder.execute("COMMIT");
    server.patch("/api/items/I0", &json!({"tier": 99})).await.expect(200);
    assert_eq!(server.get("/api/items/I0").await.json()["version"], 2, "what was refused was not written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_followed_while_requests_hold_every_connection() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.cache.reconcile_interval = Duration::from_millis(50);
        settings.database.min_connections = 0;
        settings.database.max_connections = 1;
        settings.database.acquire_timeout = Duration::from_secs(60);
    });
    ready(&server).await;
    server.create_item(item("A", "a")).await;
    server.get("/api/items/A").await.expect(200);
    let server = Arc::new(server);
    let mut holder = postgres.session();
    holder.execute("BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE");
    let asked = Arc::clone(&server);
    let reading = tokio::spawn(async move { asked.get("/api/items/B").await });
    let waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'terrace' AND wait_event_type = 'Lock'";
    server.eventually("a read that holds the connection", async || !postgres.sql(waiting).is_empty()).await;
    postgres.sql(
        "INSERT INTO changes (collection, id, operation, version, actor, at, before, after) \
         VALUES ('items', 'A', 'update', 2, 'x', '2026-01-01T00:00:00.000000Z', '{}', '{}')",
    );
    // What is no hit waits for the connection.
    let is_hit = async || tokio::time::timeout(Duration::from_millis(300), server.get("/api/items/A")).await.is_ok();
    server.eventually("the end of what the log outdates", async || !is_hit().await).await;
    holder.execute("COMMIT");
    assert_eq!(reading.await.unwrap().status, 404);
    server.get("/api/items/A").await.expect(200);
}
