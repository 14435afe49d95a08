//! The second tier on a real Redis: several caches in one process are the instances.

mod bad_days;
mod costs;
mod leases;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use super::*;
use crate::cache::tests::record;
use crate::cache::trust::Suspicion;
use crate::cache::{Basis, Cause, Content, Fingerprint, Kind, Lifetimes, Lookup, Move, Outcome, Presence, Tier};
use crate::config::{CacheSettings, RedisSettings};
use crate::error::{Error, Result};
use crate::model::Freshness;
use crate::telemetry::Telemetry;

const HOUR: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(20);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by scripts/test, or by scripts/with-servers"))
}

/// What the instances of one test share.
#[derive(Clone)]
struct Installation {
    url: String,
    id: String,
    fingerprint: Fingerprint,
    lifetimes: Lifetimes,
}

/// One of several.
struct Instance {
    cache: Arc<Cache>,
    tier: Arc<SecondTier>,
    scope: Arc<Scope>,
}

impl Installation {
    fn new() -> Self {
        Self::at(variable("TEST_REDIS"))
    }

    fn at(url: String) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        Self { url, id, fingerprint: Fingerprint::of(&[]), lifetimes: Lifetimes::uniform(HOUR, HOUR) }
    }

    fn lifetimes(self, ttl: Duration, stale_if_error: Duration) -> Self {
        Self { lifetimes: Lifetimes::uniform(ttl, stale_if_error), ..self }
    }

    async fn instance(&self) -> Instance {
        let telemetry = Telemetry::new().unwrap();
        let settings = RedisSettings { url: self.url.clone(), prefix: "test".to_owned(), ..RedisSettings::default() };
        let client = RedisClient::connect(&settings, &telemetry).unwrap().unwrap();
        let cache = Cache::new(&CacheSettings { jitter_percent: 0, ..CacheSettings::default() }, &telemetry).unwrap();
        let scope = cache.scope(Kind::Record, "metrics", self.lifetimes, self.fingerprint);
        let tier = SecondTier::new(client.clone(), &settings, &self.id, &cache);
        cache.join(Arc::clone(&tier));
        let instance = Instance { cache, tier, scope };
        instance.vouch_for_every_server(client);
        instance.until("there is a link", async || instance.tier.usable_link().is_some()).await;
        instance
    }
}

impl Instance {
    /// What the bus does after it has deleted what is due.
    fn vouch_for_every_server(&self, client: RedisClient) {
        let (tier, mut links) = (Arc::clone(&self.tier), client.watch_links());
        tokio::spawn(async move {
            loop {
                if let Some(link) = tier.link() {
                    tier.resume(link.server());
                }
                links.changed().await.unwrap();
            }
        });
    }

    fn key(&self, id: &str) -> CacheKey {
        CacheKey::of_record(&self.scope, id, "")
    }

    fn address(&self, id: &str) -> Address {
        self.tier.address(&self.scope, &self.key(id), &[record(id)])
    }

    fn capture(&self, id: &str) -> crate::cache::Dependencies {
        [self.cache.guards.capture(&record(id), Duration::ZERO)].into_iter().collect()
    }

    async fn read_by<F>(&self, id: &str, freshness: &Freshness, loader: impl FnOnce() -> F) -> Result<Lookup>
    where
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        self.cache.get_or_load(&self.scope, &self.key(id), &[record(id)], freshness, loader).await
    }

    async fn read_with(&self, id: &str, freshness: &Freshness, body: &'static str) -> Lookup {
        self.read_by(id, freshness, || async move { Ok(content(body)) }).await.unwrap()
    }

    /// Reads through the cache with a loader that returns `body` at once.
    async fn read(&self, id: &str, body: &'static str) -> (Outcome, Bytes) {
        let lookup = self.read_with(id, &Freshness::ANY, body).await;
        (lookup.outcome, lookup.entry.identity().body.clone())
    }

    /// Reads, and waits until the value is in Redis.
    async fn seed(&self, id: &str, body: &'static str) {
        let stored = self.scope.metrics().second.fills_stored.get();
        assert_eq!(self.read(id, body).await.0, Outcome::Miss);
        self.until("it is filled", async || self.scope.metrics().second.fills_stored.get() > stored).await;
    }

    /// What a writer on this instance does after its commit.
    async fn bump(&self, target: Target) {
        let moved = Move::now(Cause::Invalidated { by: None });
        self.cache.advance(std::slice::from_ref(&target), &moved);
        let mut pipeline = redis::Pipeline::new();
        self.tier.add_bump(&mut pipeline, std::slice::from_ref(&target));
        self.tier.link().unwrap().run::<()>(&pipeline).await.unwrap();
        self.cache.advance(&[target], &moved);
    }

    async fn command<T: redis::FromRedisValue>(&self, name: &str, arguments: &[&[u8]]) -> T {
        let mut pipeline = redis::Pipeline::new();
        pipeline.cmd(name).arg(arguments);
        let (reply,) = self.tier.link().unwrap().run(&pipeline).await.unwrap();
        reply
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so().await {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn content(body: &'static str) -> Content {
    Content {
        presence: Presence::Found,
        body: Bytes::from_static(body.as_bytes()),
        etag: HeaderValue::from_static("\"tag\""),
        headers: vec![(http::header::LINK, HeaderValue::from_static("<x>"))],
        basis: Basis::Loaded,
    }
}

fn away() -> Error {
    Error::unavailable("The database is away.", Duration::from_secs(1), "test")
}

#[tokio::test]
async fn what_one_instance_loaded_is_a_hit_on_another() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "body").await;
    let lookup = other.read_with("M-1", &Freshness::ANY, "never").await;
    assert_eq!((lookup.outcome, lookup.tier), (Outcome::HitL2, Some(Tier::L2)));
    let entry = lookup.entry;
    assert_eq!((entry.identity().body.as_ref(), entry.identity().etag.as_bytes()), (&b"body"[..], &b"\"tag\""[..]));
    assert_eq!((entry.headers(), entry.presence()), (&content("body").headers[..], Presence::Found));
    assert_eq!((entry.loaded_by(), entry.came_through()), (one.cache.instance(), Some(Tier::L2)));
    assert_eq!(other.read("M-1", "never").await.0, Outcome::Hit, "it was not kept in L1");
}

#[tokio::test]
async fn that_there_is_nothing_is_shared_as_well() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    let missing = || async { Ok(Content { presence: Presence::Missing, body: Bytes::new(), ..content("") }) };
    one.read_by("M-1", &Freshness::ANY, missing).await.unwrap();
    one.until("it is filled", async || one.scope.metrics().second.fills_stored.get() == 1).await;
    let lookup = other.read_with("M-1", &Freshness::ANY, "never").await;
    assert_eq!((lookup.outcome, lookup.entry.presence()), (Outcome::HitL2, Presence::Missing));
}

#[tokio::test]
async fn a_bump_on_any_instance_outdates_the_value_for_all_and_no_other_value() {
    let metrics = CollectionName::parse("metrics").unwrap();
    let pattern = Target::Records(metrics.clone(), crate::cache::Pattern::parse("M-1*").unwrap());
    for (target, keeps_other) in
        [(Target::Guard(record("M-1")), true), (Target::Collection(metrics), false), (pattern, false), (Target::All, false)]
    {
        let installation = Installation::new();
        let (one, writer, reader) = (installation.instance().await, installation.instance().await, installation.instance().await);
        one.seed("M-1", "old").await;
        one.seed("M-2", "other").await;
        writer.bump(target.clone()).await;
        assert_eq!(reader.read("M-1", "new").await, (Outcome::Miss, Bytes::from("new")), "{target}");
        let expected = if keeps_other { Outcome::HitL2 } else { Outcome::Miss };
        assert_eq!(reader.read("M-2", "other").await.0, expected, "{target}");
    }
}

#[tokio::test]
async fn an_old_value_that_is_filled_late_is_never_served() {
    let installation = Installation::new();
    let (slow, writer, reader) = (installation.instance().await, installation.instance().await, installation.instance().await);
    let slow = Arc::new(slow);
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (open, gate) = tokio::sync::oneshot::channel();
    let caller = tokio::spawn({
        let slow = Arc::clone(&slow);
        async move {
            let loader = || async move {
                started.send(()).unwrap();
                gate.await.unwrap();
                Ok(content("old"))
            };
            slow.read_by("M-1", &Freshness::ANY, loader).await.unwrap()
        }
    });
    has_started.await.unwrap();
    // The slow instance has not heard of it: there is no bus here.
    writer.bump(Target::Guard(record("M-1"))).await;
    open.send(()).unwrap();
    caller.await.unwrap();
    slow.until("it is filled", async || slow.scope.metrics().second.fills_stored.get() == 1).await;
    assert_eq!(reader.read("M-1", "new").await, (Outcome::Miss, Bytes::from("new")));
}

#[tokio::test]
async fn a_guard_that_moves_between_look_up_and_insert_keeps_the_old_value_out() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "old").await;
    let dependencies = other.capture("M-1");
    let Some(entry) = other.tier.peek(&other.address("M-1"), &dependencies).await.unwrap() else { panic!("no value") };
    other.bump(Target::Guard(record("M-1"))).await;
    let load = crate::cache::load::Load {
        cache: Arc::clone(&other.cache),
        scope: Arc::clone(&other.scope),
        key: other.key("M-1"),
        dependencies,
        purpose: crate::cache::load::Purpose::Answer,
    };
    load.keep(entry, crate::cache::load::Source::SecondTier);
    assert!(other.cache.l1.get(&other.key("M-1")).is_none(), "an outdated value was kept");
    assert_eq!(other.read("M-1", "new").await, (Outcome::Miss, Bytes::from("new")));
}

#[tokio::test]
async fn a_reader_never_gets_what_was_read_before_its_nonces_were_captured() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    let before = Instant::now();
    let loader = || async move { Ok(Content { basis: Basis::ReadSince(before), ..content("old") }) };
    assert_eq!(one.read_by("M-1", &Freshness::ANY, loader).await.unwrap().outcome, Outcome::Miss);
    assert_eq!(other.read("M-1", "new").await, (Outcome::Miss, Bytes::from("new")));
    assert_eq!(one.scope.metrics().second.fills_stored.get(), 0);
}

#[tokio::test]
async fn while_bumps_are_pending_or_nothing_is_trusted_no_value_counts_as_fresh() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "old").await;
    other.tier.suspend();
    assert_eq!(other.read("M-1", "new").await.0, Outcome::Miss);
    other.cache.advance(&[Target::All], &Move::now(Cause::Unknown));
    other.tier.resume(other.tier.link().unwrap().server());
    let trust = other.cache.trust();
    trust.demand_evidence(HOUR, Instant::now());
    trust.suspect(Suspicion::Silence, Instant::now());
    trust.unreadable();
    assert_eq!(other.read("M-1", "new").await.0, Outcome::Miss);
    assert_eq!(other.read("M-1", "new").await.0, Outcome::Miss, "L1 was trusted");
    let lookup = other.read_by("M-1", &Freshness::ANY, || async { Err(away()) }).await.unwrap();
    assert_eq!(lookup.outcome, Outcome::Stale);
    trust.reconciled(Instant::now());
    assert_eq!(other.read("M-1", "never").await.0, Outcome::Hit);
}

#[tokio::test]
async fn an_expired_value_stands_in_on_an_instance_that_never_saw_it() {
    let installation = Installation::new().lifetimes(Duration::ZERO, HOUR);
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "old").await;
    let lookup = other.read_by("M-1", &Freshness::ANY, || async { Err(away()) }).await.unwrap();
    assert_eq!((lookup.outcome, lookup.tier), (Outcome::Stale, Some(Tier::L2)));
    assert_eq!(lookup.entry.identity().body, "old");
    one.bump(Target::Guard(record("M-1"))).await;
    let last = installation.instance().await;
    assert!(last.read_by("M-1", &Freshness::ANY, || async { Err(away()) }).await.is_err(), "an outdated value stood in");
}

#[tokio::test]
async fn a_value_stands_in_no_longer_than_its_collection_allows_after_anybody_knew_what_changed() {
    let installation = Installation::new().lifetimes(HOUR, Duration::ZERO);
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "old").await;
    let trust = other.cache.trust();
    trust.demand_evidence(HOUR, Instant::now());
    trust.suspect(Suspicion::Silence, Instant::now());
    trust.unreadable();
    assert!(other.read_by("M-1", &Freshness::ANY, || async { Err(away()) }).await.is_err());
}

#[tokio::test]
async fn a_request_may_ask_both_tiers_for_more() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    let cached = Freshness { only_if_cached: true, ..Freshness::ANY };
    let refused = other.read_by("M-1", &cached, || async { Ok(content("never")) }).await.unwrap_err();
    assert_eq!(refused.kind(), crate::error::ErrorKind::NotCached);
    one.seed("M-1", "old").await;
    let lookup = other.read_with("M-1", &cached, "never").await;
    assert_eq!((lookup.outcome, lookup.tier), (Outcome::HitL2, Some(Tier::L2)));
    // The other instance's value is too old for the third one, and the new one is everybody's.
    one.command::<()>("PEXPIRE", &[one.address("M-1").value.as_bytes(), b"3000000"]).await;
    let third = installation.instance().await;
    let young = Freshness { max_age: Some(Duration::from_secs(60)), ..Freshness::ANY };
    let stored = third.scope.metrics().second.fills_stored.get();
    assert_eq!(third.read_with("M-1", &young, "new").await.outcome, Outcome::Miss);
    third.until("it is filled", async || third.scope.metrics().second.fills_stored.get() > stored).await;
    let fourth = installation.instance().await;
    let lookup = fourth.read_with("M-1", &young, "never").await;
    assert_eq!((lookup.outcome, lookup.entry.identity().body.as_ref()), (Outcome::HitL2, &b"new"[..]));
    let reload = Freshness { reload: true, ..Freshness::ANY };
    assert_eq!(fourth.read_with("M-1", &reload, "newest").await.outcome, Outcome::Miss);
    assert_eq!(fourth.read("M-1", "never").await, (Outcome::Hit, Bytes::from("newest")));
}
