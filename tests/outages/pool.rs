//! What the pool of connections does by itself, and what time does to statements and locks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ready, refused};
use crate::support::Server;
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::PrivatePostgres;

/// How many sessions Terrace has.
fn sessions(postgres: &PrivatePostgres) -> usize {
    postgres.sql("SELECT FROM pg_stat_activity WHERE application_name = 'terrace'").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_connections_are_kept_and_those_of_a_burst_are_closed() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.database.min_connections = 3;
        settings.database.max_connections = 8;
        settings.database.idle_timeout = Duration::from_millis(300);
    });
    ready(&server).await;
    // And one that follows the log.
    let kept = 3 + 1;
    server.eventually("the connections that are always kept", async || sessions(&postgres) == kept).await;
    let mut holder = postgres.session();
    holder.execute("BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE");
    let server = Arc::new(server);
    let mut reads = tokio::task::JoinSet::new();
    for number in 0..7 {
        let server = Arc::clone(&server);
        reads.spawn(async move { server.get(&format!("/api/items/I{number}")).await });
    }
    server.eventually("a burst", async || sessions(&postgres) > kept + 2).await;
    holder.execute("COMMIT");
    while let Some(read) = reads.join_next().await {
        read.unwrap().problem(404, "not_found");
    }
    server.eventually("the end of what the burst left over", async || sessions(&postgres) == kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_cannot_be_made_do_not_keep_anybody_from_those_that_are_there() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| {
        settings.cache.reconcile_interval = Duration::from_secs(3600);
        settings.database.min_connections = 3;
        settings.database.max_connections = 4;
        settings.database.acquire_timeout = Duration::from_secs(1);
        settings.database.connect_timeout = Duration::from_secs(60);
        settings.database.idle_timeout = Duration::from_millis(200);
    });
    ready(&server).await;
    server.eventually("the connections that are always kept", async || sessions(&postgres) == 3 + 1).await;
    let mut operator = postgres.session();
    // From here on nobody answers who connects, and those who are connected are served.
    postgres.pause_listener();
    operator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'terrace' ORDER BY backend_start DESC \
         LIMIT 1",
    );
    let begun = Instant::now();
    let mut number = 0;
    // Long enough for the pool to notice that one is missing, several times.
    while begun.elapsed() < Duration::from_secs(2) {
        number += 1;
        let reply = server.get(&format!("/api/items/I{number}")).await;
        assert_eq!(reply.status, 404, "after {:?}: {}", begun.elapsed(), reply.text);
    }
    postgres.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_ended_and_said_to_have_been() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |settings| settings.database.statement_timeout = Duration::from_millis(400));
    ready(&server).await;
    postgres.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$; \
         CREATE TRIGGER linger BEFORE INSERT ON records FOR EACH ROW WHEN (NEW.id LIKE 'SLOW%') EXECUTE FUNCTION linger()",
    );
    let begun = Instant::now();
    refused(&server.post(ITEMS, &item("SLOW", "a")).await, "database.statement_timeout");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(postgres.log().contains("canceling statement due to statement timeout"), "{}", postgres.log());
    assert!(postgres.sql("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").is_empty(), "it goes on");
    server.get("/api/items/SLOW").await.problem(404, "not_found");
    server.create_item(item("FAST", "a")).await;
}

/// With all settings as they are by default, and in real time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_for_a_minute_costs_what_it_covers_and_nothing_afterwards() {
    let postgres = PrivatePostgres::start();
    let server = Server::fixture_on(postgres.url(), |_| {});
    ready(&server).await;
    server.create_items((0..3).map(|number| item(&format!("I{number}"), "a"))).await;
    server.get("/api/items/I0").await.expect(200);
    let patience = server.settings.database.acquire_timeout;
    let mut holder = postgres.session();
    holder.execute("BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE");
    let begun = Instant::now();
    let mut refusals = 0;
    while begun.elapsed() < Duration::from_secs(60) {
        assert_eq!(server.get("/api/items/I0").await.cache(), "HIT", "after {:?}", begun.elapsed());
        let asked = Instant::now();
        let (read, write) =
            tokio::join!(server.get("/api/items/I1"), async { server.patch("/api/items/I2", &json!({"tier": refusals})).await });
        for reply in [read, write] {
            refused(&reply, "database.acquire_timeout");
        }
        // A write may wait for its turn and for the row.
        assert!(asked.elapsed() < 2 * patience + Duration::from_secs(2), "{:?}", asked.elapsed());
        refusals += 1;
    }
    assert!(refusals > 2, "they waited for the lock: {refusals}");
    holder.execute("COMMIT");
    server.get("/api/items/I1").await.expect(200);
    assert_eq!(server.get("/api/items/I2").await.json()["version"], 1, "what was refused was not written");
    server.patch("/api/items/I2", &json!({"tier": 99})).await.expect(200);
    ready(&server).await;
}
