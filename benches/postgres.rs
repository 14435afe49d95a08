//! Terrace on PostgreSQL, with 100,000 records: what a miss costs this process beside the bare statement through
//! `tokio-postgres` and the same one through `diesel-async`, how long an import takes, and the latencies of each shape of query. This
//! process has one processor, and PostgreSQL another; what a miss costs is also measured with both on one.
//!
//! `scripts/with-servers cargo bench --bench postgres` (arguments: number of records; `bare`, `diesel` or `miss` to read single
//! records in this way and do nothing else, for a profiler)

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use support::cpu::{Ratio, measured};
use support::processors::{self, Processors};
use terrace::app::App;
use terrace::config::Settings;
use terrace::jobs::Tallying;
use terrace::model::{Caller, Freshness, RecordId};
use terrace::records::{ImportMode, Outcome, Precondition, Records, Resource};
use tokio_postgres::{Client, NoTls, Statement};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u64 = 2026;
/// Runs of the two sides in turn, so that what else the machine does meets both.
const ROUNDS: usize = 41;
const RECORDS_PER_ROUND: usize = 500;
const PAGES_PER_ROUND: usize = 60;

diesel::table! {
    /// What the bare statement selects from.
    bare (id) {
        /// The record's.
        id -> Text,
        /// The document.
        data -> Text,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let only = Way::ALL.into_iter().find(|way| arguments.iter().any(|argument| argument == way.name()));
    let directory = tempfile::TempDir::new().unwrap();
    // One thread for everything: a wake-up across threads would be counted or not, as the machine likes.
    actix_web::rt::System::new().block_on(async {
        let (bare, settings) = schema(directory.path()).await;
        let Processors { first, second } = Processors::allowed();
        processors::keep(std::process::id(), first);
        processors::keep_server(&bare, second).await;
        let diesel = AsyncPgConnection::establish(&settings.database.url).await.unwrap();
        let app = App::open(settings).await.unwrap();
        app.migrate().await.unwrap();
        import(&app, count).await;
        // A server does it every two seconds.
        let started = Instant::now();
        Tallying::new(app.store().clone()).round().await.unwrap();
        println!("summing up the tallies of the import: {:.1} s", started.elapsed().as_secs_f64());
        bare.batch_execute("CREATE VIEW bare AS SELECT id, data::text AS data FROM records WHERE collection = 'metrics'")
            .await
            .unwrap();
        let metrics = Arc::clone(app.records().resource("metrics").unwrap());
        let one = bare.prepare("SELECT data::text FROM records WHERE collection = 'metrics' AND id = $1").await.unwrap();
        let mut misses = Misses { bare, one, diesel, records: Arc::clone(app.records()), metrics, count };
        if let Some(way) = only {
            return misses.profile(way).await;
        }
        println!("\nPostgreSQL on a processor of its own:");
        misses.beside_bare_statements().await;
        println!("PostgreSQL and this process on one processor:");
        processors::keep_server(&misses.bare, first).await;
        misses.beside_bare_statements().await;
        processors::keep_server(&misses.bare, second).await;
        println!();
        misses.latencies().await;
        misses.writes().await;
    });
}

/// A schema of its own on the server of `scripts/with-servers`, with a bare connection to it.
async fn schema(directory: &std::path::Path) -> (Client, Settings) {
    let server = std::env::var("TEST_POSTGRES").expect("run it as: scripts/with-servers cargo bench --bench postgres");
    let schema = format!("bench_{}", std::process::id());
    let url = format!("{server}?options=-c%20search_path%3D{schema}");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE SCHEMA {schema}; SET jit = off")).await.unwrap();
    let mut settings = support::settings(directory);
    settings.database.url = url;
    // Entries expire as they are made, so each read is a whole miss: guards, flight, store, body, insertion.
    settings.cache.max_ttl = Duration::from_nanos(1);
    (client, settings)
}

async fn import(app: &App, count: usize) {
    let metrics: Vec<_> = support::corpus::metrics(SEED, count).collect();
    let resource = app.records().resource("metrics").unwrap();
    let started = Instant::now();
    for batch in metrics.chunks(1_000) {
        let results = app.records().import(resource, &Caller::OPERATOR, batch.to_vec(), ImportMode::Create).await.unwrap();
        assert!(results.iter().all(Result::is_ok));
    }
    let loaded = started.elapsed().as_secs_f64();
    app.store().analyze(&resource.collection().name).await.unwrap();
    let whole = started.elapsed().as_secs_f64();
    println!("import of {count} records: {loaded:.1} s, {:.0} records/s; with statistics {whole:.1} s", count as f64 / loaded);
}

/// How a record is read.
#[derive(Clone, Copy)]
enum Way {
    /// Through `tokio-postgres`.
    Bare,
    /// Through `diesel-async`.
    Diesel,
    /// Through Terrace, which has not cached it.
    Miss,
}

impl Way {
    const ALL: [Self; 3] = [Self::Bare, Self::Diesel, Self::Miss];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Diesel => "diesel",
            Self::Miss => "miss",
        }
    }
}

struct Misses {
    bare: Client,
    /// Selects a record.
    one: Statement,
    diesel: AsyncPgConnection,
    records: Arc<Records>,
    metrics: Arc<Resource>,
    count: usize,
}

impl Misses {
    async fn beside_bare_statements(&mut self) {
        let page = "SELECT data::text FROM records WHERE collection = 'metrics' \
                    ORDER BY updated_at DESC, id LIMIT 50";
        let page = self.bare.prepare(page).await.unwrap();
        let mut ids = self.ids();
        let (mut records, mut rows, mut pages) = (Ratio::default(), Ratio::default(), Ratio::default());
        for _ in 0..ROUNDS {
            let next: Vec<String> = ids.by_ref().take(RECORDS_PER_ROUND).collect();
            let bare_cost = self.read(Way::Bare, &next).await;
            records.add(bare_cost, self.read(Way::Miss, &next).await);
            rows.add(bare_cost, self.read(Way::Diesel, &next).await);
            let statements = measured(PAGES_PER_ROUND, async || {
                for _ in 0..PAGES_PER_ROUND {
                    let rows = self.bare.query(&page, &[]).await.unwrap();
                    assert_eq!(rows.iter().filter(|row| !row.get::<_, String>(0).is_empty()).count(), 50);
                }
            });
            let bare_cost = statements.await;
            let misses = measured(PAGES_PER_ROUND, async || {
                for _ in 0..PAGES_PER_ROUND {
                    let answer = self
                        .records
                        .list(&self.metrics, &Caller::ANONYMOUS, "limit=50&count=none", &Freshness::ANY)
                        .await
                        .unwrap();
                    assert_eq!(answer.outcome(), Outcome::Miss);
                }
            });
            pages.add(bare_cost, misses.await);
        }
        records.report("record miss", "bare");
        rows.report("the same row, through diesel-async alone", "bare");
        pages.report("page of 50, no count", "bare");
    }

    /// As many reads as all rounds have, in one way.
    async fn profile(&mut self, way: Way) {
        let ids: Vec<String> = self.ids().take(ROUNDS * RECORDS_PER_ROUND).collect();
        println!("{}: {:.2} us of CPU", way.name(), self.read(way, &ids).await * 1e6);
    }

    fn ids(&self) -> impl Iterator<Item = String> + use<> {
        let count = self.count;
        (0..).map(move |number| support::corpus::metric_id(number * 7_919 % count))
    }

    /// Reads these records one after the other; what one costs.
    async fn read(&mut self, way: Way, ids: &[String]) -> f64 {
        match way {
            Way::Bare => {
                let statements = measured(ids.len(), async || {
                    for id in ids {
                        let row = self.bare.query_one(&self.one, &[id]).await.unwrap();
                        assert!(!row.get::<_, String>(0).is_empty());
                    }
                });
                statements.await
            }
            Way::Diesel => {
                let statements = measured(ids.len(), async || {
                    for id in ids {
                        let query = bare::table.filter(bare::id.eq(id)).select(bare::data);
                        let rows: Vec<String> = query.load(&mut self.diesel).await.unwrap();
                        assert!(!rows[0].is_empty());
                    }
                });
                statements.await
            }
            Way::Miss => {
                let misses = measured(ids.len(), async || {
                    for id in ids {
                        let id = RecordId::parse(id).unwrap();
                        let answer =
                            self.records.record(&self.metrics, &Caller::ANONYMOUS, &id, "", &Freshness::ANY).await.unwrap();
                        assert_eq!(answer.outcome(), Outcome::Miss);
                    }
                });
                misses.await
            }
        }
    }

    /// Each shape over and over with other values, one at a time.
    async fn latencies(&self) {
        println!("{:<40} {:>9} {:>9} {:>9}", "query", "p50 ms", "p95 ms", "max ms");
        for (name, query) in SHAPES {
            let mut times = Vec::new();
            for number in 0..100 {
                let raw = query(number);
                let started = Instant::now();
                let answer = self.records.list(&self.metrics, &Caller::ANONYMOUS, &raw, &Freshness::ANY).await.unwrap();
                times.push(started.elapsed().as_secs_f64() * 1e3);
                assert_eq!(answer.outcome(), Outcome::Miss, "{raw}");
            }
            report_latencies(name, times);
        }
        for (name, raw) in STATISTICS {
            let mut times = Vec::new();
            for _ in 0..20 {
                let started = Instant::now();
                self.records.stats(&self.metrics, &Caller::ANONYMOUS, raw, &Freshness::ANY).await.unwrap();
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            report_latencies(name, times);
        }
    }

    /// One record at a time: what tallies have to follow and what they have not.
    async fn writes(&self) {
        let mut patches = [Vec::new(), Vec::new()];
        let mut creations = Vec::new();
        for number in 0..WRITES {
            for (times, name) in patches.iter_mut().zip(["formula", "owner"]) {
                let id = RecordId::parse(&support::corpus::metric_id(number * 7_919 % self.count)).unwrap();
                let patch = serde_json::json!({ name: format!("changed-{}", number % 50) });
                let started = Instant::now();
                let patched = self.records.patch(&self.metrics, &Caller::OPERATOR, id, patch, Precondition::None, None);
                patched.await.unwrap().done().unwrap();
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            let mut created = support::corpus::metrics(number as u64, 1).next().unwrap();
            created["metric_id"] = format!("NEW-{number}").into();
            let started = Instant::now();
            self.records.create(&self.metrics, &Caller::OPERATOR, created, None).await.unwrap().done().unwrap();
            creations.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let [untallied, tallied] = patches;
        report_latencies("update of no indexed field", untallied);
        report_latencies("update of an indexed field", tallied);
        report_latencies("creation", creations);
    }
}

const WRITES: usize = 1_000;

/// The last is counted, the others are read from tallies.
const STATISTICS: [(&str, &str); 4] = [
    ("total alone, as statistics", ""),
    ("statistics by category and tier", "by=category,tier"),
    ("statistics by seven fields", "by=category,tier,owner,business_domain,domain_id,tags,deprecated"),
    ("statistics by category, filtered", "by=category&owner=team-07"),
];

type Shape = (&'static str, fn(usize) -> String);

/// Every shape that the sample collection allows, each with the count that it asks for.
const SHAPES: &[Shape] = &[
    ("first page", |_| "limit=50&count=none".to_owned()),
    ("first page and total", |_| "limit=50".to_owned()),
    ("page 200", |number| format!("page={}&limit=50&count=none", 200 + number)),
    ("one term", |number| format!("owner=team-{:02}&count=none", number % 50)),
    ("one term and total", |number| format!("owner=team-{:02}", number % 50)),
    ("frequent term and total", |number| format!("tier={}", number % 3 + 1)),
    ("array element and total", |number| format!("tags={}", tag(number))),
    ("two terms", |number| format!("category=operational&tier={}&count=none", number % 3 + 1)),
    ("filter and sort", |number| format!("owner=team-{:02}&sort=name&count=none", number % 50)),
    ("frequent filter and sort", |number| format!("tier={}&sort=name&count=none", number % 3 + 1)),
    ("sort by name", |number| format!("sort=name&page={}&count=none", number + 1)),
    ("falling order", |number| format!("sort=-name&page={}&count=none", number + 1)),
    ("range of numbers", |number| format!("filter[tier][gte]={}&count=none", number % 2 + 2)),
    ("list of numbers", |number| format!("filter[tier][in]=3,{}&count=none", number % 2 + 1)),
    ("all but one value", |_| "filter[category][ne]=operational&count=none".to_owned()),
    ("no value", |number| format!("filter[domain_id][null]=true&page={}&count=none", number + 1)),
    ("embedded records", |number| format!("include=domain_id&page={}&count=none", number + 1)),
    ("list of values", |number| format!("filter[owner][in]=team-{:02},team-{:02}&count=none", number % 50, (number + 7) % 50)),
    ("array element", |number| format!("tags={}&count=none", tag(number))),
    ("two array elements", |number| format!("filter[tags][all]={},{}&count=none", tag(number), tag(number + 1))),
    ("range of time", |_| "filter[updated_at][gte]=2026-01-01T00:00:00Z&count=none".to_owned()),
    ("one of two terms", |number| {
        format!(
            "filter={{\"or\":[{{\"owner\":{{\"eq\":\"team-{:02}\"}}}},{{\"tags\":{{\"eq\":\"{}\"}}}}]}}&count=none",
            number % 50,
            tag(number)
        )
    }),
    ("cursor", |_| "cursor=&limit=50".to_owned()),
    ("ranked search, rare words", |number| format!("q={}+{}&count=none", word(number), word(number + 3))),
    ("ranked search, one word", |number| format!("q={}&count=none", word(number))),
    ("ranked search and total", |number| format!("q={}", word(number))),
    ("search, sorted by name", |number| format!("q={}&sort=name&count=none", word(number))),
    ("highlighted search", |number| format!("q={}&highlight=true&count=none", word(number))),
    ("search and filter", |number| format!("q={}&owner=team-{:02}&count=none", word(number), number % 50)),
    ("search by prefix", |number| format!("q={}&prefix=true&count=none", &word(number)[..3])),
];

fn word(number: usize) -> &'static str {
    support::corpus::SUBJECTS[number % support::corpus::SUBJECTS.len()]
}

fn tag(number: usize) -> &'static str {
    support::corpus::TAGS[number % support::corpus::TAGS.len()]
}

fn report_latencies(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    println!("{name:<40} {:>9.2} {:>9.2} {:>9.2}", at(0.5), at(0.95), at(1.0));
}
