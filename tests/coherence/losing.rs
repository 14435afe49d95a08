//! Messages get lost, Redis goes and comes, writers say nothing: the log tells.

use std::time::{Duration, Instant};

use serde_json::json;
use terrace::app::App;
use terrace::model::{Caller, Position, RecordId};
use terrace::records::Precondition;

use super::*;
use crate::support::postgres::PrivatePostgres;
use crate::support::redis::PrivateRedis;
use crate::support::schema::{Session, Tested};

const OFTEN: Duration = Duration::from_millis(200);
/// What a busy machine may add to any bound.
const MARGIN: Duration = Duration::from_secs(5);

/// Something beside the servers that writes and tells nobody, as a server that is killed after its commit.
struct Silent(App);

impl Silent {
    async fn beside(server: &Server) -> Self {
        let mut settings = server.settings.clone();
        settings.redis.url = String::new();
        Self(App::open(settings).await.unwrap())
    }

    async fn rename(&self, id: &str, name: &str) -> Position {
        let items = self.0.records().resource("items").unwrap();
        let id = RecordId::parse(id).unwrap();
        let written = self.0.records().patch(items, &Caller::OPERATOR, id, json!({"name": name}), Precondition::None, None).await;
        written.unwrap().done().unwrap().position.unwrap()
    }
}

fn suspicions(reason: &str) -> String {
    format!("terrace_bus_suspicions_total{{reason=\"{reason}\"}}")
}

async fn name(server: &Server, id: usize) -> String {
    server.get(&item(id)).await.json()["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_nobody_announced_is_found_by_one_server_and_told_to_all() {
    let redis = PrivateRedis::start();
    let mut fleet = Fleet::with(1, |settings| settings.redis.url = redis.url()).await;
    let often = fleet.first().beside(|settings| settings.cache.reconcile_interval = OFTEN);
    fleet.0.push(often);
    fleet.is_well().await;
    let (seldom, often) = (fleet.first(), &fleet.0[1]);
    seldom.put(&item(1), &named("old")).await.expect(201);
    warm(seldom, &item(1)).await;
    warm(often, "/api/items?category=a").await;
    let silent = Silent::beside(often).await;
    let unannounced = async |server: &Server| metric(server, "terrace_reconcile_unannounced_total").await;
    let before = (unannounced(seldom).await, unannounced(often).await);
    let written = Instant::now();
    silent.rename("I-1", "new").await;
    seldom.eventually("what was found", async || name(seldom, 1).await == "new").await;
    assert_eq!(name(often, 1).await, "new");
    assert!(written.elapsed() < OFTEN + MARGIN, "{:?}", written.elapsed());
    let after = (unannounced(seldom).await, unannounced(often).await);
    assert_eq!(after, (before.0, before.1 + 1.0), "who looks seldom looked by itself");
}

#[tokio::test]
async fn a_token_of_a_change_that_nobody_announced_is_good_at_once() {
    let fleet = Fleet::of(2).await;
    fleet.first().put(&item(1), &named("0")).await.expect(201);
    let silent = Silent::beside(fleet.first()).await;
    for round in 1..=10 {
        for server in &fleet.0 {
            warm(server, &item(1)).await;
            warm(server, "/api/items?category=a").await;
        }
        let token = silent.rename("I-1", &round.to_string()).await.to_string();
        for server in &fleet.0 {
            let list = server.get_with("/api/items?category=a", &[("consistency-token", &token)]).await;
            assert_eq!(list.json()["data"][0]["name"], round.to_string(), "{}", list.cache());
            let reply = server.get_with(&item(1), &[("consistency-token", &token)]).await;
            assert_eq!(reply.json()["name"], round.to_string(), "{}", reply.cache());
        }
    }
    // Of another database, or of the future: right, and not for ever.
    let asked = Instant::now();
    let reply = fleet.first().get_with(&item(1), &[("consistency-token", "9000000000000000000-1")]).await;
    assert_eq!((reply.json()["name"].as_str(), reply.cache()), (Some("10"), "BYPASS"));
    assert!(asked.elapsed() < MARGIN);
    assert_eq!(fleet.first().get(&item(1)).await.cache(), "HIT");
}

#[tokio::test]
async fn a_subscription_that_is_cut_is_suspicious_until_the_log_was_read() {
    let redis = PrivateRedis::start();
    let fleet = Fleet::with(2, |settings| settings.redis.url = redis.url()).await;
    fleet.first().put(&item(1), &named("old")).await.expect(201);
    let silent = Silent::beside(fleet.first()).await;
    for round in 0..3 {
        for server in &fleet.0 {
            warm(server, &item(1)).await;
        }
        let before = metric(fleet.first(), &suspicions("connected")).await;
        let new = format!("new {round}");
        silent.rename("I-1", &new).await;
        redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for server in &fleet.0 {
            server.eventually("the suspicion to be answered", async || name(server, 1).await == new).await;
            server.eventually("a suspicion", async || metric(server, &suspicions("connected")).await > before).await;
        }
        fleet.is_well().await;
    }
    assert!(metric(fleet.first(), &suspicions("disconnected")).await >= 3.0);
    assert_eq!(metric(fleet.first(), &suspicions("other_server")).await, 0.0);
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_empty_costs_the_bus_and_nothing_else() {
    let mut redis = PrivateRedis::start();
    let url = redis.url();
    let fleet = Fleet::with(2, |settings| {
        settings.redis.url = url;
        settings.cache.reconcile_interval = OFTEN;
    })
    .await;
    for round in 0..2 {
        for server in &fleet.0 {
            let id = item(round);
            assert!(server.put(&id, &named("with Redis")).await.status.is_success());
        }
        redis.stop();
        for (at, server) in fleet.0.iter().enumerate() {
            server.eventually("the bus is missed", async || metric(server, "terrace_bus_up").await == 0.0).await;
            let without = format!("without Redis {at}");
            let written = Instant::now();
            assert_eq!(server.put(&item(round), &named(&without)).await.status, 200);
            assert_eq!(name(server, round).await, without, "its own write");
            for other in &fleet.0 {
                other.eventually("a write without Redis", async || name(other, round).await == without).await;
            }
            assert!(written.elapsed() < OFTEN + MARGIN, "{:?}", written.elapsed());
            server.eventually("debts", async || metric(server, "terrace_bus_owed").await > 0.0).await;
            assert_eq!(warm(server, &item(round)).await.json()["name"], without, "what is in the process is trusted");
        }
        redis.start_again();
        fleet.is_well().await;
        fleet.first().put(&item(round), &named("again")).await.expect(200);
        for server in &fleet.0 {
            server.eventually("the bus works again", async || name(server, round).await == "again").await;
        }
    }
    assert!(metric(fleet.first(), &suspicions("other_server")).await >= 2.0);
}

#[tokio::test]
async fn a_redis_that_hangs_holds_a_writer_up_for_its_timeout_and_silence_is_noticed() {
    let redis = PrivateRedis::start();
    let fleet = Fleet::with(2, |settings| {
        settings.redis.url = redis.url();
        settings.cache.reconcile_interval = OFTEN;
    })
    .await;
    fleet.first().put(&item(1), &named("old")).await.expect(201);
    for server in &fleet.0 {
        warm(server, &item(1)).await;
    }
    redis.pause();
    let written = Instant::now();
    fleet.first().put(&item(1), &named("new")).await.expect(200);
    assert!(written.elapsed() < MARGIN, "{:?}", written.elapsed());
    assert_eq!(name(fleet.first(), 1).await, "new");
    let other = &fleet.others()[0];
    other.eventually("the write while Redis hangs", async || name(other, 1).await == "new").await;
    other.eventually("silence", async || metric(other, &suspicions("silence")).await > 0.0).await;
    redis.resume();
    fleet.is_well().await;
    assert_eq!(name(other, 1).await, "new", "Redis had the old value, and its deletion came late");
}

#[tokio::test]
async fn who_starts_again_finds_in_redis_what_nobody_changed_and_not_what_somebody_did() {
    let redis = PrivateRedis::start();
    let mut fleet = Fleet::with(1, |settings| settings.redis.url = redis.url()).await;
    let mut server = fleet.0.remove(0);
    for id in [1, 2] {
        server.put(&item(id), &named("old")).await.expect(201);
        warm(&server, &item(id)).await;
    }
    let covered = || redis.command::<Vec<String>>(&["KEYS", "*covered*"]);
    // What it has written itself is covered with the next heartbeat.
    let beats = metric(&server, "terrace_bus_messages_total{direction=\"sent\",kind=\"heartbeat\"}").await;
    let sent = async || metric(&server, "terrace_bus_messages_total{direction=\"sent\",kind=\"heartbeat\"}").await;
    server.eventually("a heartbeat", async || sent().await >= beats + 2.0).await;
    assert_eq!(covered().len(), 1);
    let (settings, files) = (server.settings.clone(), server.keep_files());
    let silent = Silent::beside(&server).await;
    server.stop();
    silent.rename("I-1", "new").await;
    drop(silent);
    let server = Server::start_again(files, settings);
    let fleet = Fleet(vec![server]);
    fleet.is_well().await;
    assert_eq!(name(fleet.first(), 1).await, "new", "what was changed while nobody was there");
    let reply = fleet.first().get(&item(2)).await;
    assert!(reply.header("cache-status").contains("detail=l2"), "{:?}", reply.header("cache-status"));
    assert_eq!(reply.json()["name"], "old");
}

#[tokio::test]
async fn servers_that_index_other_fields_understand_each_other() {
    let fleet = Fleet::of(1).await;
    let mut settings = fleet.first().settings.clone();
    let directory = tempfile::TempDir::new().unwrap();
    let copy = directory.path().join("collections");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&settings.collections.dir).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path())
            .unwrap()
            .replace("\"category\", \"tier\"", "\"category\", \"unindexed\", \"tier\"");
        std::fs::write(copy.join(file.file_name()), text).unwrap();
    }
    settings.collections.dir = copy;
    let newer = Fleet(vec![fleet.first().beside(|own| *own = settings)]);
    newer.is_well().await;
    let with = |value: &str| json!({"name": "x", "category": "a", "unindexed": value});
    fleet.first().put(&item(1), &with("one")).await.expect(201);
    let list = "/api/items?unindexed=one";
    let total = async || newer.first().get(list).await.json()["pagination"]["total"].as_u64();
    newer.first().eventually("the first one", async || total().await == Some(1)).await;
    for round in 0..3 {
        warm(newer.first(), list).await;
        // The older one does not know that this is a term.
        fleet.first().put(&item(1), &with("two")).await.expect(200);
        newer.first().eventually(&format!("a term of the newer one, {round}"), async || total().await == Some(0)).await;
        warm(newer.first(), list).await;
        fleet.first().put(&item(1), &with("one")).await.expect(200);
        newer.first().eventually(&format!("and back, {round}"), async || total().await == Some(1)).await;
    }
}

#[tokio::test]
async fn what_psql_writes_is_announced_by_who_finds_it() {
    if Tested::now() != Tested::Postgres {
        // Only PostgreSQL has other writers: there a trigger logs what they do. Another process on SQLite is tested above.
        return;
    }
    let redis = PrivateRedis::start();
    let postgres = PrivatePostgres::start();
    let mut fleet = Fleet::with(1, |settings| {
        settings.redis.url = redis.url();
        settings.database.url = postgres.url();
    })
    .await;
    let often = fleet.first().beside(|settings| settings.cache.reconcile_interval = OFTEN);
    fleet.0.push(often);
    fleet.is_well().await;
    fleet.first().put(&item(1), &named("old")).await.expect(201);
    for server in &fleet.0 {
        warm(server, &item(1)).await;
    }
    let mut session = Session::open(&postgres.url()).unwrap();
    session.execute("UPDATE records SET data = data || '{\"name\": \"psql\"}' WHERE collection = 'items' AND id = 'I-1'");
    for server in &fleet.0 {
        server.eventually("what psql wrote", async || name(server, 1).await == "psql").await;
    }
}
