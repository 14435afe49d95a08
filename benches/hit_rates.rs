//! How many reads find what they ask for in the cache, with 5 % writes among Zipf-distributed reads of 100,000 records: beside
//! a cache that drops every list of the collection at every write, and an oracle that drops exactly the entries whose bytes
//! have changed. All three get the same requests; nothing is evicted.
//!
//! `cargo bench --bench hit_rates` (arguments: requests per run, requests per second, number of records). On PostgreSQL, and then also
//! with all writes on another instance, which tells of them over Redis: `scripts/with-servers cargo bench --bench hit_rates`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::requests::{Request, Requests};
use terrace::app::{App, Running};
use terrace::config::Settings;
use terrace::model::{Caller, Freshness, Position, RecordId};
use terrace::records::{Answer, Encoding, Outcome, Precondition, Records, Resource, WriteOutcome};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u64 = 2026;
/// The first part of each run fills the caches and is not counted.
const WARM_UP: f64 = 0.25;
/// Every so many hits are compared with what the database says.
const PROBE: u64 = 20;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let requests = arguments.next().unwrap_or(40_000);
    let rate = arguments.next().unwrap_or(400);
    let count = usize::try_from(arguments.next().unwrap_or(100_000)).unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    actix_web::rt::System::new().block_on(async {
        let mut settings = support::installation::settings(directory.path()).await;
        let app = App::open(settings.clone()).await.unwrap();
        app.migrate().await.unwrap();
        support::installation::import(&app, SEED, count).await;
        println!("{count} records; {requests} requests a run, {rate} per second; hit rates after the first quarter\n");
        for (sort, max_lag) in [("", 0), ("name", 0), ("", 2), ("name", 2)] {
            let mut settings = settings.clone();
            if max_lag > 0 {
                support::installation::declare(&mut settings, directory.path(), &format!("max_lag = \"{max_lag}s\""));
            }
            let order = if sort.is_empty() { "default sort" } else { "sort=name" };
            println!("{order}, max_lag = {max_lag} s");
            Run::open(settings).await.drive(Requests::new(SEED, count, sort), requests, rate).await;
        }
        if let Ok(redis) = std::env::var("TEST_REDIS") {
            settings.redis.url = redis;
            for sort in ["", "name"] {
                settings.redis.prefix = format!("bench-{}-{sort}", std::process::id());
                let order = if sort.is_empty() { "default sort" } else { "sort=name" };
                println!("{order}, max_lag = 0 s, written on another instance");
                Run::open(settings.clone()).await.drive(Requests::new(SEED, count, sort), requests, rate).await;
            }
        }
    });
}

/// One run over all requests, with an empty cache at its start.
struct Run {
    terrace: Side,
    /// Where writes go if there is a Redis to tell of them, and not there.
    writer: Option<Side>,
    /// The same database, past all caches.
    truth: Side,
    kinds: [Kind; 3],
    /// The number of the write after which a list or search, or a record, was loaded last, for the cache that drops all lists.
    loaded_after: HashMap<String, u64>,
    written_at: HashMap<String, u64>,
    /// What each answer was when it was asked for last, for the oracle.
    bytes: HashMap<String, u128>,
    writes: u64,
    hits: u64,
    outdated: u64,
}

struct Side {
    records: Arc<Records>,
    metrics: Arc<Resource>,
    /// What follows the others, if there are any.
    _running: Option<Running>,
}

/// Counts of one kind of read.
#[derive(Default)]
struct Kind {
    reads: u64,
    terrace: u64,
    stale: u64,
    drops_lists: u64,
    oracle: u64,
}

impl Side {
    async fn open(settings: Settings) -> Self {
        let has_others = !settings.redis.url.is_empty();
        let app = App::open(settings).await.unwrap();
        let records = Arc::clone(app.records());
        let metrics = Arc::clone(records.resource("metrics").unwrap());
        let running = if has_others { Some(app.serve().await.unwrap()) } else { None };
        Self { records, metrics, _running: running }
    }

    /// Waits until it has applied the change at `token`: by asking for what there is not, so that nothing is loaded.
    async fn apply(&self, token: Option<Position>) {
        let nothing = RecordId::parse("nothing").unwrap();
        let freshness = Freshness { token, ..Freshness::ANY };
        self.records.record(&self.metrics, &Caller::ANONYMOUS, &nothing, "", &freshness).await.unwrap();
    }

    async fn read(&self, request: &Request) -> Answer {
        let answer = match request {
            Request::Record(id) => {
                self.records.record(&self.metrics, &Caller::ANONYMOUS, &RecordId::parse(id).unwrap(), "", &Freshness::ANY).await
            }
            Request::List(query) | Request::Search(query) => {
                self.records.list(&self.metrics, &Caller::ANONYMOUS, query, &Freshness::ANY).await
            }
            Request::Write(..) => unreachable!("writes are not read"),
        };
        answer.unwrap()
    }
}

fn digest(answer: &Answer) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&answer.ready(Encoding::Identity).unwrap().body)
}

impl Run {
    async fn open(settings: Settings) -> Self {
        let mut uncached = settings.clone();
        uncached.cache.enabled = false;
        let has_others = !settings.redis.url.is_empty();
        let writer = if has_others { Some(Side::open(settings.clone()).await) } else { None };
        Self {
            terrace: Side::open(settings).await,
            writer,
            truth: Side::open(uncached).await,
            kinds: Default::default(),
            loaded_after: HashMap::new(),
            written_at: HashMap::new(),
            bytes: HashMap::new(),
            writes: 0,
            hits: 0,
            outdated: 0,
        }
    }

    /// Each request is sent when it is due, or when the one before has been answered.
    async fn drive(mut self, requests: Requests, count: u64, rate: u64) {
        let warm_up = (count as f64 * WARM_UP) as u64;
        let started = Instant::now();
        for (number, request) in (0..count).zip(requests) {
            tokio::time::sleep_until((started + Duration::from_micros(number * 1_000_000 / rate)).into()).await;
            match &request {
                Request::Write(id, patch) => self.write(id, patch.clone()).await,
                Request::Record(_) | Request::List(_) | Request::Search(_) => self.read(&request, number >= warm_up).await,
            }
        }
        self.report(count as f64 / started.elapsed().as_secs_f64());
    }

    async fn write(&mut self, id: &str, patch: serde_json::Value) {
        let Side { records, metrics, .. } = self.writer.as_ref().unwrap_or(&self.terrace);
        let id_of = RecordId::parse(id).unwrap();
        let written =
            records.patch(metrics, &Caller::ANONYMOUS, id_of, patch, Precondition::None, None).await.unwrap().done().unwrap();
        if written.outcome == WriteOutcome::Updated {
            self.writes += 1;
            self.written_at.insert(id.to_owned(), self.writes);
            self.terrace.apply(written.position).await;
        }
    }

    async fn read(&mut self, request: &Request, is_counted: bool) {
        let (kind, key) = match request {
            Request::Record(id) => (0, id),
            Request::List(query) => (1, query),
            Request::Search(query) => (2, query),
            Request::Write(..) => unreachable!("writes are not read"),
        };
        let answer = self.terrace.read(request).await;
        let outcome = answer.outcome();
        let bytes = self.true_bytes(request, &answer).await;
        let last_change = if kind == 0 { self.written_at.get(key).copied().unwrap_or(0) } else { self.writes };
        let kept = self.loaded_after.insert(key.clone(), self.writes).is_some_and(|loaded| loaded >= last_change);
        let unchanged = self.bytes.insert(key.clone(), bytes) == Some(bytes);
        if is_counted {
            let counts = &mut self.kinds[kind];
            counts.reads += 1;
            counts.terrace += u64::from(outcome == Outcome::Hit);
            counts.stale += u64::from(outcome == Outcome::Stale);
            counts.drops_lists += u64::from(kept);
            counts.oracle += u64::from(unchanged);
        }
    }

    /// What the database says at the moment. What was loaded for this request is that, and a fresh hit must be: every so many
    /// are compared.
    async fn true_bytes(&mut self, request: &Request, answer: &Answer) -> u128 {
        let given = digest(answer);
        let is_fresh = answer.outcome() != Outcome::Stale;
        self.hits += u64::from(answer.outcome() == Outcome::Hit);
        if is_fresh && (answer.outcome() != Outcome::Hit || !self.hits.is_multiple_of(PROBE)) {
            return given;
        }
        let bytes = digest(&self.truth.read(request).await);
        self.outdated += u64::from(is_fresh && bytes != given);
        bytes
    }

    fn report(&self, rate: f64) {
        println!(
            "  {:<10}{:>8}{:>10}{:>10}{:>14}{:>9}{:>14}",
            "", "reads", "Terrace", "STALE", "drops lists", "oracle", "of oracle"
        );
        for (name, counts) in ["records", "lists", "searches"].iter().zip(&self.kinds) {
            let part = |count: u64| count as f64 / counts.reads as f64;
            let terrace = part(counts.terrace + counts.stale);
            println!(
                "  {name:<10}{:>8}{terrace:>10.3}{:>10.3}{:>14.3}{:>9.3}{:>14.3}",
                counts.reads,
                part(counts.stale),
                part(counts.drops_lists),
                part(counts.oracle),
                terrace / part(counts.oracle),
            );
        }
        println!(
            "  {} writes that changed something; {rate:.0} requests per second; {} of {} compared hits were outdated\n",
            self.writes,
            self.outdated,
            self.hits / PROBE
        );
        assert_eq!(self.outdated, 0, "a hit differs from what the database says");
    }
}
