//! The second tier and several instances: what a hit in Redis costs beside a bare MGET of the same keys, how long a write takes to
//! reach the other instances, and how many loads 200 clients cause who ask three instances for one expired key.
//!
//! `scripts/with-servers cargo bench --bench tiers` (arguments: any of cost, delay, loads; none is all). For callgrind the
//! arguments `hits COUNT` and `mgets COUNT` do nothing but that.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::load::Connection;
use support::process::{self, Process};
use terrace::app::App;
use terrace::config::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u64 = 2026;
const RECORDS: usize = 20_000;
const WRITES_PER_SECOND: u64 = 500;
/// How long writes go on.
const DURATION: Duration = Duration::from_secs(20);
const WRITERS: u64 = 8;
/// Every so many writes are watched from the other instances.
const WATCHED: u64 = 10;
const CLIENTS: usize = 200;
const INSTANCES: usize = 3;
const EXPIRIES: usize = 20;

fn main() {
    if let Some("server") = process::role().as_deref() {
        return server();
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |part: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == part);
    if let [what @ ("hits" | "mgets"), count] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return support::second_tier::only(what, count.parse().unwrap());
    }
    if wants("cost") {
        support::second_tier::compare();
    }
    if wants("delay") || wants("loads") {
        let directory = tempfile::TempDir::new().unwrap();
        let fleet = Fleet::start(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if wants("delay") {
            runtime.block_on(fleet.delay());
        }
        if wants("loads") {
            runtime.block_on(fleet.loads());
        }
    }
}

/// One instance: arguments are the URL of the database and the directory of the collection files.
fn server() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut settings = support::settings(Path::new("unused"));
    settings.database.url.clone_from(&arguments[0]);
    settings.collections.dir = arguments[1].clone().into();
    settings.redis = redis_settings();
    settings.http.workers = 1;
    settings.cache.jitter_percent = 0;
    settings.http.shutdown_timeout = Duration::ZERO;
    actix_web::rt::System::new().block_on(async {
        let running = App::open(settings).await.unwrap().serve().await.unwrap();
        let address = running.addresses()[0];
        tokio::task::spawn_blocking(move || process::serve_until_parent_ends(address)).await.unwrap();
        running.stop().await.unwrap();
    });
}

fn redis_settings() -> terrace::config::RedisSettings {
    let mut settings = Settings::default().redis;
    settings.url = std::env::var("TEST_REDIS").expect("run it as: scripts/with-servers cargo bench --bench tiers");
    settings
}

/// Three instances in processes of their own, on one PostgreSQL and one Redis.
struct Fleet {
    instances: Vec<Process>,
}

impl Fleet {
    fn start(directory: &Path) -> Self {
        let (url, collections) = actix_web::rt::System::new().block_on(async {
            let mut settings = support::installation::settings(directory).await;
            // A list that expires while the bench waits for it.
            support::installation::declare(&mut settings, directory, "list_ttl = \"1s\"");
            let (url, collections) = (settings.database.url.clone(), settings.collections.dir.clone());
            let app = App::open(settings).await.unwrap();
            app.migrate().await.unwrap();
            support::installation::import(&app, SEED, RECORDS).await;
            (url, collections)
        });
        assert!(url.starts_with("postgres"), "run it as: scripts/with-servers cargo bench --bench tiers");
        let start = || Process::start("server", &[&url, collections.to_str().unwrap()]);
        Self { instances: (0..INSTANCES).map(|_| start()).collect() }
    }

    /// Writers on the first instance; from the moment a watched write is answered, clients of the others ask for its record
    /// over and over until they get it as it was written. They had it in their caches before.
    async fn delay(&self) {
        let started = Instant::now();
        let writers = (0..WRITERS).map(|writer| {
            let addresses: Vec<_> = self.instances.iter().map(|instance| instance.address).collect();
            tokio::task::spawn_local(async move { Writer::open(&addresses, writer).await.run(started).await })
        });
        let local = tokio::task::LocalSet::new();
        let results = local.run_until(async { futures_util::future::join_all(writers.collect::<Vec<_>>()).await }).await;
        let (mut delays, mut writes, mut ended) = (Vec::new(), 0, Duration::ZERO);
        for writer in results.into_iter().map(Result::unwrap) {
            delays.extend(writer.delays);
            writes += writer.writes;
            ended = ended.max(writer.ended);
        }
        delays.sort();
        let at = |part: f64| delays[((delays.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1e3;
        println!(
            "invalidation, {:.0} writes per second on one instance, {} watched reads on {} others: from the answer to the writer to the \
             end of the first fresh read p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, longest {:.2}",
            writes as f64 / ended.as_secs_f64(),
            delays.len(),
            INSTANCES - 1,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
        );
        let told = self.told_within().await;
        let bound = |part: f64| &told.iter().find(|(_, within)| *within >= part).unwrap().0;
        println!(
            "of that, from the announcement until another instance had applied it (seconds, by the buckets of its histogram): p50 at most {}, \
             p90 {}, p99 {}, p99.9 {}, all {}",
            bound(0.5),
            bound(0.9),
            bound(0.99),
            bound(0.999),
            bound(1.0)
        );
    }

    /// Which part of what the first instance announced the others had applied within the bounds of their histogram.
    async fn told_within(&self) -> Vec<(String, f64)> {
        let mut counts: Vec<(String, f64)> = Vec::new();
        for instance in &self.instances[1..] {
            for line in metrics(instance).await.lines() {
                let Some(rest) = line.strip_prefix("terrace_bus_invalidation_delay_seconds_bucket{le=\"") else { continue };
                let (bound, count) = rest.split_once("\"} ").unwrap();
                let count: f64 = count.parse().unwrap();
                match counts.iter_mut().find(|(known, _)| known == bound) {
                    Some((_, sum)) => *sum += count,
                    None => counts.push((bound.to_owned(), count)),
                }
            }
        }
        let all = counts.last().unwrap().1;
        counts.into_iter().map(|(bound, count)| (bound, count / all)).collect()
    }

    /// All clients ask at once, as soon as the entry has expired in both tiers.
    async fn loads(&self) {
        let path = "/api/v1/metrics?category=operational&sort=name&limit=100";
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(Connection::open(self.instances[number % INSTANCES].address).await);
        }
        let mut loads = Vec::new();
        for _ in 0..EXPIRIES {
            for client in clients.iter_mut().take(INSTANCES) {
                client.get(path).await;
            }
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            let before = self.list_loads().await;
            futures_util::future::join_all(clients.iter_mut().map(|client| client.get(path))).await;
            loads.push(self.list_loads().await - before);
        }
        let once = loads.iter().filter(|loads| **loads == 1).count();
        println!(
            "{CLIENTS} clients, {INSTANCES} instances, one expired key: one load in {once} of {EXPIRIES} times, at most {}",
            loads.iter().max().unwrap()
        );
    }

    /// How many lists all instances have loaded.
    async fn list_loads(&self) -> u64 {
        let mut loads = 0;
        for instance in &self.instances {
            let metrics = metrics(instance).await;
            let counts = metrics
                .lines()
                .filter(|line| line.starts_with("terrace_cache_load_duration_seconds_count{") && line.contains("kind=\"list\""));
            loads += counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>();
        }
        loads
    }
}

async fn metrics(instance: &Process) -> String {
    String::from_utf8(Connection::open(instance.address).await.get("/metrics").await.to_vec()).unwrap()
}

/// A client that writes to one instance and watches the others. Its records are its own.
struct Writer {
    number: u64,
    first: Connection,
    others: Vec<Connection>,
    delays: Vec<Duration>,
    writes: u64,
    ended: Duration,
}

impl Writer {
    async fn open(addresses: &[std::net::SocketAddr], number: u64) -> Self {
        let mut others = Vec::new();
        for address in &addresses[1..] {
            others.push(Connection::open(*address).await);
        }
        let first = Connection::open(addresses[0]).await;
        Self { number, first, others, delays: Vec::new(), writes: 0, ended: Duration::ZERO }
    }

    async fn run(mut self, started: Instant) -> Self {
        let pause = Duration::from_secs(1) * u32::try_from(WRITERS).unwrap() / u32::try_from(WRITES_PER_SECOND).unwrap();
        let offset = pause * u32::try_from(self.number).unwrap() / u32::try_from(WRITERS).unwrap();
        while started.elapsed() < DURATION {
            let due = started + offset + pause * u32::try_from(self.writes).unwrap();
            tokio::time::sleep_until(due.into()).await;
            self.write().await;
        }
        self.ended = started.elapsed();
        self
    }

    async fn write(&mut self) {
        let record = self.writes * WRITERS + self.number;
        let path = format!("/api/v1/metrics/{}", support::corpus::metric_id(usize::try_from(record).unwrap() % RECORDS));
        let is_watched = self.writes.is_multiple_of(WATCHED);
        if is_watched {
            for other in &mut self.others {
                other.get(&path).await;
            }
        }
        let unit = format!("unit {record}");
        let body = format!("{{\"unit\":\"{unit}\"}}");
        self.first.patch(&path, &body).await;
        self.writes += 1;
        if is_watched {
            let answered = Instant::now();
            let reads = self.others.iter_mut().map(|other| async {
                while !contains(other.get(&path).await, unit.as_bytes()) {}
                answered.elapsed()
            });
            self.delays.extend(futures_util::future::join_all(reads).await);
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
