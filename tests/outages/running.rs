//! A database that goes away, or changes its mind, under a server that is serving.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{ready, refused};
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::{PrivatePostgres, Stop};
use crate::support::{Reply, Server};

/// Nobody but the test's own requests uses the database.
async fn quiet(postgres: &PrivatePostgres) -> Server {
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.cache.reconcile_interval = Duration::from_secs(3600);
        settings.database.min_connections = 0;
        settings.database.acquire_timeout = Duration::from_secs(1);
    });
    ready(&server).await;
    server
}

/// What clients saw while the database was restarted.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    hits: AtomicUsize,
    reads: AtomicUsize,
    acknowledged: Mutex<BTreeSet<String>>,
    refusals: AtomicUsize,
}

impl Load {
    /// Either it worked, or it was refused politely. Says whether it worked.
    fn count(&self, reply: &Reply) -> bool {
        if reply.status.is_success() {
            return true;
        }
        refused(reply, "atabase");
        self.refusals.fetch_add(1, Ordering::Relaxed);
        false
    }

    async fn write(&self, server: &Server, writer: usize) {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let sku = format!("W{writer}-{number}");
            if self.count(&server.post(ITEMS, &item(&sku, "b")).await) {
                self.acknowledged.lock().unwrap().insert(sku);
            }
        }
    }

    async fn read(&self, server: &Server) {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            if self.count(
                &server
                    .get(&format!("{ITEMS}?category=c&price[gt]={number}&count=none").replace("price[gt]", "filter[price][gt]"))
                    .await,
            ) {
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn hit(&self, server: &Server) {
        let mut reloads = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let reply = server.get("/api/items/HOT").await;
            // After a crash the cache may begin anew, once: what the server lost nobody can tell.
            if reply.status == 200 && reply.cache() == "MISS" && reloads < 3 {
                reloads += 1;
                continue;
            }
            assert_eq!((reply.status.as_u16(), reply.cache()), (200, "HIT"), "{}", reply.text);
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until another `more` of what `figure` counts have happened.
    async fn until_more(&self, server: &Server, what: &str, more: usize, figure: impl Fn(&Self) -> usize) {
        let before = figure(self);
        server.eventually(what, async || figure(self) >= before + more).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_loses_nothing_that_was_acknowledged() {
    let durable = PrivatePostgres::planned().line("fsync = on").line("synchronous_commit = on").line("full_page_writes = on");
    let mut postgres = durable.start();
    let server = Server::fixture_on(postgres.url(), |_| {});
    ready(&server).await;
    server.create_item(item("HOT", "a")).await;
    server.get("/api/items/HOT").await.expect(200);
    let (server, load) = (Arc::new(server), Arc::new(Load::default()));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (server, load) = (Arc::clone(&server), Arc::clone(&load));
        tasks.spawn(async move { load.write(&server, writer).await });
    }
    for _ in 0..2 {
        let (own, counted) = (Arc::clone(&server), Arc::clone(&load));
        tasks.spawn(async move { counted.read(&own).await });
    }
    let (own, counted) = (Arc::clone(&server), Arc::clone(&load));
    tasks.spawn(async move { counted.hit(&own).await });
    let acknowledged = |load: &Load| load.acknowledged.lock().unwrap().len();
    for stop in [Stop::Immediate, Stop::Fast, Stop::Immediate] {
        load.until_more(&server, "writes", 50, acknowledged).await;
        load.until_more(&server, "reads", 50, |load| load.reads.load(Ordering::Relaxed)).await;
        postgres.stop(stop);
        load.until_more(&server, "refusals", 5, |load| load.refusals.load(Ordering::Relaxed)).await;
        load.until_more(&server, "hits", 50, |load| load.hits.load(Ordering::Relaxed)).await;
        assert_eq!(server.get("/health/live").await.status, 200);
        let reason = server.get("/health/ready").await.expect(503)["reason"].clone();
        assert!(reason.as_str().unwrap().starts_with("the database does not answer: "), "{reason}");
        postgres.start_again();
    }
    load.until_more(&server, "writes", 50, acknowledged).await;
    load.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    ready(&server).await;
    let stored = postgres.sql("SELECT id FROM records WHERE collection = 'items'");
    let stored: BTreeSet<String> = stored.into_iter().map(|row| row[0].clone().unwrap()).collect();
    let logged = postgres.sql("SELECT id FROM changes WHERE collection = 'items' AND operation = 'create'");
    let logged: BTreeSet<String> = logged.into_iter().map(|row| row[0].clone().unwrap()).collect();
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    let lost: Vec<&String> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(stored, logged, "a record and its change are one transaction");
    let total = server.get(&format!("{ITEMS}?limit=1")).await.expect(200)["pagination"]["total"].clone();
    assert_eq!(total, json!(stored.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_died_is_replaced_and_its_reads_are_run_again() {
    let postgres = PrivatePostgres::start();
    let server = Arc::new(quiet(&postgres).await);
    server.create_items((0..20).map(|number| item(&format!("I{number}"), "a"))).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'terrace'";
    for number in 0..10 {
        // Idle ones, which the pool believes to be well.
        postgres.sql(end);
        server.get(&format!("/api/items/I{number}")).await.expect(200);
        postgres.sql(end);
        assert_eq!(server.post(ITEMS, &item(&format!("N{number}"), "b")).await.status, 201);
    }
    // And one in the middle of a read: the read waits for a lock when its connection is cut.
    let mut holder = postgres.session();
    holder.execute("BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE");
    let reading = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.get("/api/items/I15").await }
    });
    let waiting = format!("{end} AND wait_event_type = 'Lock'");
    server.eventually("a read that waits", async || postgres.sql(&waiting)[0][0].as_deref() != Some("0")).await;
    holder.execute("COMMIT");
    reading.await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_says_nothing_more_is_given_up_and_taken_up_again() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.database.statement_timeout = Duration::from_millis(500);
        settings.database.acquire_timeout = Duration::from_secs(1);
    });
    ready(&server).await;
    server.create_items((0..3).map(|number| item(&format!("I{number}"), "a"))).await;
    server.get("/api/items/I0").await.expect(200);
    // One for each request below: what waits for a new one is refused with other words.
    let idle = "SELECT count(*) >= 4 FROM pg_stat_activity WHERE application_name = 'terrace' AND state = 'idle'";
    server.eventually("spare connections", async || postgres.sql(idle)[0][0].as_deref() == Some("t")).await;
    postgres.pause();
    let change = json!({"tier": 1});
    let (read, write) = tokio::join!(server.get("/api/items/I1"), server.patch("/api/items/I2", &change));
    refused(&read, "PostgreSQL did not answer within database.");
    refused(&write, "the write may or may not have happened");
    assert_eq!(server.get("/api/items/I0").await.cache(), "HIT");
    assert_eq!(server.get("/health/ready").await.status, 503);
    postgres.resume();
    ready(&server).await;
    server.get("/api/items/I1").await.expect(200);
    server.patch("/api/items/I2", &json!({"tier": 2})).await.expect(200);
    assert_eq!(server.get("/api/items/I2").await.json()["tier"], 2);
}

#[tokio::test]
async fn a_database_that_becomes_read_only_goes_on_being_read() {
    let mut postgres = PrivatePostgres::start();
    let server = quiet(&postgres).await;
    server.create_items((0..3).map(|number| item(&format!("I{number}"), "a"))).await;
    server.get("/api/items/I0").await.expect(200);
    postgres.configure("default_transaction_read_only = on");
    postgres.reload();
    let is_refused = async || server.post(ITEMS, &item("X", "a")).await.status == 503;
    server.eventually("the first refusal", is_refused).await;
    refused(&server.patch("/api/items/I0", &json!({"tier": 1})).await, "takes no writes");
    refused(&server.delete("/api/items/I0").await, "takes no writes");
    assert_eq!(server.get("/api/items/I0").await.cache(), "HIT");
    server.get("/api/items/I1").await.expect(200);
    server.get(&format!("{ITEMS}?sort=name")).await.expect(200);
    assert_eq!(server.get("/health/ready").await.status, 200);
    // A server that starts now finds nothing to do, and serves what there is.
    let second = Server::fixture_on(postgres.url(), |_| {});
    ready(&second).await;
    second.get("/api/items/I2").await.expect(200);
    postgres.configure("default_transaction_read_only = off");
    postgres.reload();
    let is_taken = async || server.send(Method::PUT, "/api/items/I0", &json!({"name": "n", "category": "b"})).await.status == 200;
    server.eventually("the first write", is_taken).await;
    assert_eq!(server.get("/api/items/I0").await.json()["category"], "b");
}
