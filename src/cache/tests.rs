//! The races of one process, each made deterministic: loaders wait at a gate until the test has done what shall
//! happen in between.

mod demands;
mod leaving;
mod overload;
mod standing_in;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::oneshot;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::model::{Change, CollectionName, Freshness, Guard, Operation, Position, RecordId, Scalar, Term};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) struct Bench {
    pub(super) cache: Arc<Cache>,
    scope: Arc<Scope>,
    key: CacheKey,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(CacheSettings { jitter_percent: 0, ..CacheSettings::default() }, HOUR, HOUR)
    }

    fn with(settings: CacheSettings, ttl: Duration, stale_if_error: Duration) -> Self {
        Self::over(Cache::new(&settings, &Telemetry::new().unwrap()).unwrap(), ttl, stale_if_error)
    }

    /// A cache that lets `most` wait for loads.
    fn bounded(most: usize, ttl: Duration) -> Self {
        let (settings, telemetry) = (CacheSettings { jitter_percent: 0, ..CacheSettings::default() }, Telemetry::new().unwrap());
        let capacity = Capacity::in_flight(most, telemetry.registry()).unwrap();
        Self::over(Cache::bounded(&settings, &telemetry, capacity).unwrap(), ttl, HOUR)
    }

    fn over(cache: Arc<Cache>, ttl: Duration, stale_if_error: Duration) -> Self {
        let scope = cache.scope(Kind::Record, "metrics", Lifetimes::uniform(ttl, stale_if_error), Fingerprint::of(&[]));
        let key = CacheKey::of_record(&scope, "M-1", "");
        Self { cache, scope, key }
    }

    /// Reads through the cache with a loader that returns `body` at once.
    pub(super) async fn read(&self, body: &'static str) -> Result<Lookup> {
        self.cache
            .get_or_load(&self.scope, &self.key, &[record("M-1")], &Freshness::ANY, || async move { Ok(content(body)) })
            .await
    }

    pub(super) async fn body(&self, fallback: &'static str) -> Bytes {
        self.read(fallback).await.unwrap().entry.identity().body.clone()
    }

    /// Starts a read in a task of its own. Its loader reports that it runs, waits at the gate, and returns what comes through.
    fn gated(&self) -> Gated {
        let (started, has_started) = oneshot::channel();
        let (gate, opened) = oneshot::channel::<Result<Content>>();
        let (cache, scope, key) = (Arc::clone(&self.cache), Arc::clone(&self.scope), self.key.clone());
        let caller = tokio::spawn(async move {
            let loader = || async move {
                started.send(()).unwrap();
                opened.await.unwrap()
            };
            cache.get_or_load(&scope, &key, &[record("M-1")], &Freshness::ANY, loader).await
        });
        Gated { has_started, gate, caller }
    }

    fn write(&self) {
        let change = change(1, 1, "M-1");
        let moved = Move::now(Cause::Change { position: change.position, by: None });
        self.cache.advance(&Target::of_changes(&[change]), &moved);
    }
}

struct Gated {
    has_started: oneshot::Receiver<()>,
    gate: oneshot::Sender<Result<Content>>,
    caller: tokio::task::JoinHandle<Result<Lookup>>,
}

pub(super) fn record(id: &str) -> Guard {
    Guard::Record(CollectionName::parse("metrics").unwrap(), RecordId::parse(id).unwrap())
}

pub(super) fn change(transaction: u64, sequence: i64, id: &str) -> Change {
    Change {
        position: Position { transaction, sequence },
        collection: CollectionName::parse("metrics").unwrap(),
        id: RecordId::parse(id).unwrap(),
        operation: Operation::Update,
        terms: vec![Term { field: "tier".into(), value: Scalar::Integer(1) }],
        members: None,
        words: None,
    }
}

fn content(body: &'static str) -> Content {
    Content {
        presence: Presence::Found,
        body: Bytes::from_static(body.as_bytes()),
        etag: HeaderValue::from_static("\"tag\""),
        headers: Vec::new(),
        basis: Basis::Loaded,
    }
}

fn away() -> Error {
    Error::unavailable("The database is away.", Duration::from_secs(1), "test")
}

#[tokio::test]
async fn a_second_read_is_a_hit() {
    let bench = Bench::new();
    assert_eq!(bench.read("one").await.unwrap().outcome, Outcome::Miss);
    assert_eq!(bench.read("two").await.unwrap().outcome, Outcome::Hit);
    assert_eq!(bench.body("two").await, "one");
}

#[tokio::test]
async fn a_write_invalidates_its_record_its_terms_and_its_collection_and_nothing_else() {
    let bench = Bench::new();
    let collection = CollectionName::parse("metrics").unwrap();
    let term = |tier| Guard::Term(collection.clone(), Term { field: "tier".into(), value: Scalar::Integer(tier) });
    let cases = [
        (record("M-1"), false),
        (record("M-2"), true),
        (term(1), false),
        (term(2), true),
        (Guard::Collection(collection.clone()), false),
        (Guard::Collection(CollectionName::parse("domains").unwrap()), true),
    ];
    let captured: Vec<_> = cases.iter().map(|(guard, _)| bench.cache.guards.capture(guard, Duration::ZERO)).collect();
    bench.write();
    for ((guard, stays), captured) in cases.iter().zip(captured) {
        assert_eq!(captured.is_current(), *stays, "{guard:?}");
    }
}

#[tokio::test]
async fn an_invalidation_during_a_load_discards_the_loaded_value() {
    let bench = Bench::new();
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    bench.write();
    gated.gate.send(Ok(content("old"))).unwrap();
    // Who asked before the write may get the old value, ...
    assert_eq!(gated.caller.await.unwrap().unwrap().entry.identity().body, "old");
    // ... who asks after it must not.
    assert_eq!(bench.body("new").await, "new");
}

#[tokio::test]
async fn a_read_after_a_write_does_not_join_a_load_from_before_it() {
    let bench = Bench::new();
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    bench.write();
    // The old load is still in the air; this read must start its own and not wait.
    assert_eq!(bench.body("new").await, "new");
    gated.gate.send(Ok(content("old"))).unwrap();
    gated.caller.await.unwrap().unwrap();
    assert_eq!(bench.body("unused").await, "new", "the late old load displaced the new entry");
}

#[tokio::test]
async fn two_hundred_readers_of_one_missing_key_cause_one_load() {
    let bench = Bench::new();
    let loads = Arc::new(AtomicUsize::new(0));
    let (gate, opened) = oneshot::channel::<()>();
    let opened = std::sync::Mutex::new(Some(opened));
    let readers: Vec<_> = (0..200)
        .map(|_| {
            let loads = Arc::clone(&loads);
            let opened = opened.lock().unwrap().take();
            let (cache, scope, key) = (Arc::clone(&bench.cache), Arc::clone(&bench.scope), bench.key.clone());
            tokio::spawn(async move {
                let loader = || async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    if let Some(opened) = opened {
                        opened.await.unwrap();
                    }
                    Ok(content("one"))
                };
                cache.get_or_load(&scope, &key, &[record("M-1")], &Freshness::ANY, loader).await.unwrap().outcome
            })
        })
        .collect();
    while loads.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    gate.send(()).unwrap();
    let mut missed = 0;
    for reader in readers {
        missed += usize::from(reader.await.unwrap() == Outcome::Miss);
    }
    assert_eq!((loads.load(Ordering::Relaxed), missed), (1, 1));
}

#[tokio::test]
async fn a_load_survives_its_cancelled_caller() {
    let bench = Bench::new();
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    gated.caller.abort();
    assert!(gated.caller.await.unwrap_err().is_cancelled());
    gated.gate.send(Ok(content("one"))).unwrap();
    assert_eq!(bench.body("a second load").await, "one");
}

#[tokio::test]
async fn what_has_landed_since_somebody_looked_is_not_loaded_again() {
    let bench = Bench::new();
    let found = bench.cache.find(&bench.key);
    bench.read("one").await.unwrap();
    let again = || async { Ok(content("two")) };
    let lookup =
        bench.cache.take_or_load(found, &bench.scope, &bench.key, &[record("M-1")], &Freshness::ANY, again).await.unwrap();
    assert_eq!((lookup.outcome, lookup.entry.identity().body.as_ref()), (Outcome::Hit, b"one".as_ref()));
}

#[test]
fn who_waits_for_a_load_whose_runtime_ends_is_told_so() {
    let bench = Bench::new();
    let [loading, waiting] = [(); 2].map(|()| tokio::runtime::Builder::new_current_thread().build().unwrap());
    let gated = loading.block_on(async {
        let mut gated = bench.gated();
        (&mut gated.has_started).await.unwrap();
        gated
    });
    let waits = std::thread::scope(|threads| {
        let waits = threads.spawn(|| waiting.block_on(bench.read("two")));
        while bench.scope.metrics().joined.get() == 0 {
            std::thread::yield_now();
        }
        drop(loading);
        waits.join().unwrap()
    });
    assert_eq!(waits.unwrap_err().kind(), ErrorKind::Internal);
    assert!(gated.gate.is_closed(), "the load is gone");
    assert_eq!(waiting.block_on(bench.body("three")), "three");
}

#[tokio::test]
async fn a_loader_that_panics_fails_its_callers_and_is_not_waited_for_again() {
    let bench = Bench::new();
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    drop(gated.gate);
    assert_eq!(gated.caller.await.unwrap().unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(bench.body("one").await, "one");
}

#[tokio::test]
async fn an_error_is_not_cached() {
    let bench = Bench::new();
    let failed =
        bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &Freshness::ANY, || async { Err(away()) }).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(bench.body("one").await, "one");
}

#[tokio::test]
async fn an_expired_entry_stands_in_while_the_database_is_away() {
    let bench = Bench::with(CacheSettings::default(), Duration::ZERO, HOUR);
    bench.read("one").await.unwrap();
    let lookup = bench
        .cache
        .get_or_load(&bench.scope, &bench.key, &[record("M-1")], &Freshness::ANY, || async { Err(away()) })
        .await
        .unwrap();
    assert_eq!((lookup.outcome, lookup.entry.identity().body.as_ref()), (Outcome::Stale, b"one".as_ref()));
    assert!(lookup.entry.fresh_for(lookup.age).is_zero());
}

#[tokio::test]
async fn an_invalidated_entry_never_stands_in() {
    let bench = Bench::new();
    bench.read("one").await.unwrap();
    bench.write();
    let failed =
        bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &Freshness::ANY, || async { Err(away()) }).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn nothing_stands_in_where_the_collection_allows_no_stale_time() {
    let bench = Bench::with(CacheSettings::default(), Duration::ZERO, Duration::ZERO);
    bench.read("one").await.unwrap();
    let failed =
        bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &Freshness::ANY, || async { Err(away()) }).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_hot_entry_is_refreshed_once_before_it_expires() {
    let ttl = Duration::from_millis(400);
    let bench = Bench::with(CacheSettings { jitter_percent: 0, ..CacheSettings::default() }, ttl, HOUR);
    let first = bench.read("one").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // A test that is not scheduled between 90 % and 100 % of the time to live sees a miss, which is right as well.
    while bench.body("two").await == "one" {
        assert!(Instant::now() < deadline, "neither refreshed nor expired");
        tokio::task::yield_now().await;
    }
    assert!(first.entry.age() >= ttl.mul_f64(0.9));
}

#[tokio::test]
async fn no_entry_outlives_the_maximum_of_the_installation() {
    let settings = CacheSettings { max_ttl: Duration::from_secs(60), jitter_percent: 50, ..CacheSettings::default() };
    let bench = Bench::with(settings, HOUR, HOUR);
    let mut lifetimes = Vec::new();
    for _ in 0..20 {
        bench.write();
        lifetimes.push(bench.read("one").await.unwrap().entry.fresh_for(Duration::ZERO));
    }
    assert!(lifetimes.iter().all(|lifetime| (29..=60).contains(&lifetime.as_secs())), "{lifetimes:?}");
    assert!(lifetimes.iter().max() > lifetimes.iter().min(), "no jitter");
}

#[tokio::test]
async fn a_disabled_cache_keeps_nothing() {
    let bench = Bench::with(CacheSettings { enabled: false, ..CacheSettings::default() }, HOUR, HOUR);
    assert_eq!(bench.read("one").await.unwrap().outcome, Outcome::Bypass);
    assert_eq!(bench.body("two").await, "two");
    assert_eq!(bench.cache.occupancy().entries, 0);
}

#[tokio::test]
async fn an_encoding_is_made_once_and_counts_as_memory() {
    let bench = Bench::new();
    let body: &'static str = Box::leak("terrace ".repeat(1_000).into_boxed_str());
    let entry = bench.read(body).await.unwrap().entry;
    let before = entry.size_bytes();
    let first = entry.representation(Encoding::Brotli).await.unwrap().clone();
    let second = entry.representation(Encoding::Brotli).await.unwrap();
    assert_eq!(first.body.as_ptr(), second.body.as_ptr(), "made twice");
    assert!(first.etag.as_bytes().ends_with(b"-br\"") && entry.size_bytes() >= before + first.body.len());
    let weighed = bench.cache.occupancy().size_bytes;
    bench.cache.grown(&bench.key, &entry);
    assert!(bench.cache.occupancy().size_bytes >= weighed + first.body.len() as u64);
}

#[test]
fn an_entry_without_encodings_is_a_small_part_of_its_measured_overhead() {
    assert!(size_of::<Entry>() <= 256, "{} bytes: measure the overhead again", size_of::<Entry>());
}

#[tokio::test]
async fn the_tier_stays_within_its_bytes() {
    let capacity = bytesize::ByteSize::kib(64);
    let bench = Bench::with(CacheSettings { l1_bytes: capacity, ..CacheSettings::default() }, HOUR, HOUR);
    for number in 0..1_000 {
        let key = CacheKey::of_record(&bench.scope, &number.to_string(), "");
        let body = Bytes::from(vec![b' '; 500]);
        let loaded = Content {
            presence: Presence::Found,
            body,
            etag: HeaderValue::from_static("\"tag\""),
            headers: Vec::new(),
            basis: Basis::Loaded,
        };
        bench.cache.get_or_load(&bench.scope, &key, &[record("M-1")], &Freshness::ANY, || async { Ok(loaded) }).await.unwrap();
    }
    let occupancy = bench.cache.occupancy();
    assert!(occupancy.size_bytes <= capacity.as_u64() && occupancy.entries > 10, "{occupancy:?}");
}

#[tokio::test]
async fn what_nobody_can_name_is_outdated_with_everything_else_also_while_it_is_loaded() {
    let bench = Bench::new();
    bench.read("one").await.unwrap();
    bench.cache.advance(&[Target::All], &Move::now(Cause::Unknown));
    assert_eq!(bench.cache.occupancy().entries, 0);
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    bench.cache.advance(&[Target::All], &Move::now(Cause::Unknown));
    gated.gate.send(Ok(content("old"))).unwrap();
    gated.caller.await.unwrap().unwrap();
    assert_eq!(bench.body("new").await, "new", "a load from before was kept");
    assert_eq!(bench.read("other").await.unwrap().outcome, Outcome::Hit);
}
