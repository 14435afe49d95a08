//! Live feeds while the servers behind them have a bad day: nothing is lost, and nothing is told twice.

use std::time::{Duration, Instant};

use super::events::Events;
use super::public_with;
use crate::outages::ready;
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::{PrivatePostgres, Stop};
use crate::support::redis::PrivateRedis;
use crate::support::schema::Session;
use crate::support::{DEADLINE, Server};

const LIVE: &str = "/api/items/_changes?live";
const OFTEN: Duration = Duration::from_millis(50);

/// A database, and a feed of it that has passed numbers of transactions which the database, after a crash, gives out again.
struct Crashed {
    postgres: PrivatePostgres,
    server: Server,
    feed: Events,
    /// The feed's place before the crash.
    last: Option<String>,
}

impl Crashed {
    /// With this `cache.reconcile_interval`.
    async fn start(interval: Duration) -> Self {
        // Nothing but a commit brings its log to the disk.
        let mut postgres = PrivatePostgres::planned().line("wal_writer_delay = 10s").start();
        let server = public_with(|settings| {
            settings.database.url = postgres.url();
            settings.cache.reconcile_interval = interval;
            settings.changes.heartbeat = Duration::from_millis(30);
        });
        ready(&server).await;
        let mut feed = Events::open(&server, LIVE, None).await;
        server.create_item(item("OLD", "a")).await;
        assert_eq!(feed.ids(1).await, ["OLD"]);
        // What the server does behind a write is a transaction, too.
        let deadline = Instant::now() + DEADLINE;
        while !postgres.sql("SELECT 1 FROM tally_changes LIMIT 1").is_empty() {
            assert!(Instant::now() < deadline, "tallies are not summed up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut session = postgres.session();
        (0..5).for_each(|_| session.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK"));
        drop(session);
        let given_out = next_transaction(&postgres);
        until(&mut feed, "pass what left nothing behind", |place| place.next >= given_out).await;
        let last = feed.last.clone();
        postgres.stop(Stop::Immediate);
        postgres.start_again();
        assert_eq!(next_transaction(&postgres), given_out - 5, "no number is given out again: there is nothing to see here");
        Self { postgres, server, feed, last }
    }

    /// Until the feed has found the database again.
    async fn found_again(&mut self) {
        let before = Place::of(&self.feed);
        until(&mut self.feed, "find the database again", |place| place.run != before.run).await;
        assert!(Place::of(&self.feed).next < before.next, "the numbers have been passed again");
    }

    /// Inserts records past the server, each in a transaction of its own.
    fn insert_all(&self) {
        let mut session = self.postgres.session();
        ids().iter().for_each(|id| session.execute(&insert(id)));
    }

    /// The same beside a transaction that has inserted `OPEN` before them, and is still open.
    fn insert_all_beside(&self) -> Session {
        let mut open = self.postgres.session();
        open.execute("BEGIN");
        open.execute(&insert("OPEN"));
        self.insert_all();
        open
    }

    /// A client that comes back to where the feed was.
    async fn come_back(&self) -> Events {
        Events::open(&self.server, LIVE, self.last.as_deref()).await
    }

    /// The feed, and a client that comes back, are told what is inserted now, each once and in its order.
    async fn told_all(&mut self) {
        self.insert_all();
        assert_eq!(self.feed.ids(10).await, ids());
        let mut again = self.come_back().await;
        assert_eq!(again.ids(10).await, ids());
        self.end(again).await;
    }

    /// Nothing is told twice: what comes next is what is written next.
    async fn end(&mut self, mut again: Events) {
        ready(&self.server).await;
        self.server.create_item(item("LAST", "a")).await;
        assert_eq!((self.feed.ids(1).await, again.ids(1).await), (vec!["LAST".to_owned()], vec!["LAST".to_owned()]));
    }
}

/// The number of the next transaction.
fn next_transaction(postgres: &PrivatePostgres) -> u64 {
    postgres.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())")[0][0].as_deref().unwrap().parse().unwrap()
}

/// What a feed says of where it is: the run of the server, and the number of the transaction that it has seen all before.
struct Place {
    run: u64,
    next: u64,
}

impl Place {
    fn of(feed: &Events) -> Self {
        let parts: Vec<&str> = feed.last.as_deref().unwrap().split('.').collect();
        Self { run: parts[1].parse().unwrap(), next: parts[4].parse().unwrap() }
    }
}

async fn until(feed: &mut Events, what: &str, reached: impl Fn(&Place) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached(&Place::of(feed)) {
        assert!(Instant::now() < deadline, "the feed does not {what}");
        feed.beat().await;
    }
}

fn insert(id: &str) -> String {
    let data = format!("{{\"sku\": \"{id}\", \"name\": \"x\", \"category\": \"a\"}}");
    format!("INSERT INTO records (collection, id, data) VALUES ('items', '{id}', '{data}')")
}

fn ids() -> Vec<String> {
    (0..10).map(|number| format!("N{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_goes_on_behind_a_crash_of_the_database_and_so_does_a_client_that_comes_back() {
    Crashed::start(OFTEN).await.told_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_finds_the_database_at_smaller_numbers_goes_on() {
    let mut crashed = Crashed::start(OFTEN).await;
    crashed.found_again().await;
    crashed.told_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_given_out_again_that_is_open_when_a_feed_finds_the_database_is_told_when_it_commits() {
    let mut crashed = Crashed::start(OFTEN).await;
    let mut open = crashed.insert_all_beside();
    assert_eq!(crashed.feed.ids(10).await, ids());
    open.execute("COMMIT");
    assert_eq!(crashed.feed.ids(1).await, ["OPEN"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_before_the_server_has_noticed_the_crash_is_told_everything_once() {
    let mut crashed = Crashed::start(Duration::from_secs(3)).await;
    let mut open = crashed.insert_all_beside();
    let mut again = crashed.come_back().await;
    assert_eq!(again.ids(10).await, ids());
    // What the others of this server follow has still another run of the database.
    open.execute("COMMIT");
    assert_eq!(again.ids(1).await, ["OPEN"]);
    let mut told = crashed.feed.ids(11).await;
    told.sort();
    assert_eq!(told, [ids(), vec!["OPEN".to_owned()]].concat());
    crashed.end(again).await;
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
