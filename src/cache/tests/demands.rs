//! What requests and collections allow, in the tier of the process.

use super::*;
use crate::cache::trust::Suspicion;

impl Bench {
    fn lagging(max_lag: Duration) -> Self {
        let cache =
            Cache::new(&CacheSettings { jitter_percent: 0, ..CacheSettings::default() }, &Telemetry::new().unwrap()).unwrap();
        let lifetimes = Lifetimes::uniform(HOUR, HOUR).with_max_lag(max_lag);
        let scope = cache.scope(Kind::List, "metrics", lifetimes, Fingerprint::of(&[]));
        let key = CacheKey::of_query(&scope, "");
        Self { cache, scope, key }
    }

    async fn ask(&self, freshness: Freshness, body: &'static str) -> Result<(Outcome, Bytes)> {
        let lookup = self
            .cache
            .get_or_load(&self.scope, &self.key, &[record("M-1")], &freshness, || async move { Ok(content(body)) })
            .await?;
        Ok((lookup.outcome, lookup.entry.identity().body.clone()))
    }

    async fn until_read(&self, body: &'static str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ask(Freshness { only_if_cached: true, ..Freshness::ANY }, "never").await.unwrap()
            != (Outcome::Hit, body.into())
        {
            assert!(Instant::now() < deadline, "the reload did not end");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_entry_may_lag_behind_a_change_while_one_reload_runs_behind_it() {
    let bench = Bench::lagging(HOUR);
    bench.read("one").await.unwrap();
    bench.write();
    let gated = bench.gated();
    let lookup = gated.caller.await.unwrap().unwrap();
    assert_eq!((lookup.outcome, lookup.tier), (Outcome::Stale, Some(Tier::L1)));
    assert_eq!(lookup.entry.identity().body, "one");
    gated.has_started.await.unwrap();
    // While that reload runs, nobody else loads, also when there are further changes.
    for _ in 0..10 {
        bench.write();
        assert_eq!(bench.ask(Freshness::ANY, "a second load").await.unwrap(), (Outcome::Stale, "one".into()));
    }
    gated.gate.send(Ok(content("two"))).unwrap();
    // What it loaded is outdated, and newer than what was there. The next reload is not outdated.
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.ask(Freshness { only_if_cached: true, ..Freshness::ANY }, "never").await.unwrap().1 != "two" {
        assert!(Instant::now() < deadline, "the newer one was not kept");
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.ask(Freshness::ANY, "three").await.unwrap(), (Outcome::Stale, "two".into()));
    bench.until_read("three").await;
}

#[tokio::test]
async fn who_has_written_or_asks_for_more_gets_nothing_that_lags() {
    let token = Some(Position { transaction: 1, sequence: 1 });
    for freshness in [
        Freshness { token, ..Freshness::ANY },
        Freshness { max_age: Some(HOUR), ..Freshness::ANY },
        Freshness { min_fresh: Duration::from_secs(1), ..Freshness::ANY },
        Freshness { reload: true, ..Freshness::ANY },
    ] {
        let bench = Bench::lagging(HOUR);
        bench.read("one").await.unwrap();
        bench.write();
        assert_eq!(bench.ask(freshness, "two").await.unwrap(), (Outcome::Miss, "two".into()), "{freshness:?}");
    }
}

#[tokio::test]
async fn a_lag_that_is_over_or_cannot_be_dated_is_not_served() {
    let bench = Bench::lagging(Duration::from_secs(10));
    bench.read("one").await.unwrap();
    let since = Instant::now().checked_sub(Duration::from_secs(11)).unwrap();
    bench.cache.advance(&[Target::Guard(record("M-1"))], &Move { cause: Cause::Invalidated { by: None }, since });
    assert_eq!(bench.ask(Freshness::ANY, "two").await.unwrap(), (Outcome::Miss, "two".into()));
    bench.cache.advance(&[Target::Guard(record("M-1"))], &Move::now(Cause::Unknown));
    assert_eq!(bench.ask(Freshness::ANY, "three").await.unwrap(), (Outcome::Miss, "three".into()));
}

#[tokio::test]
async fn no_cache_loads_anew_and_keeps_what_it_loaded() {
    let bench = Bench::new();
    bench.read("one").await.unwrap();
    let reload = Freshness { reload: true, ..Freshness::ANY };
    assert_eq!(bench.ask(reload, "two").await.unwrap(), (Outcome::Miss, "two".into()));
    assert_eq!(bench.ask(Freshness::ANY, "never").await.unwrap(), (Outcome::Hit, "two".into()));
}

#[tokio::test]
async fn no_cache_joins_no_load_that_may_have_read_already() {
    let bench = Bench::new();
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    let reload = Freshness { reload: true, ..Freshness::ANY };
    assert_eq!(bench.ask(reload, "two").await.unwrap(), (Outcome::Miss, "two".into()));
    gated.gate.send(Ok(content("one"))).unwrap();
    gated.caller.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_not_to_be_stored_gets_a_hit_and_else_leaves_nothing_behind() {
    let bench = Bench::new();
    let private = Freshness { no_store: true, ..Freshness::ANY };
    assert_eq!(bench.ask(private, "one").await.unwrap(), (Outcome::Bypass, "one".into()));
    assert_eq!(bench.ask(Freshness::ANY, "two").await.unwrap(), (Outcome::Miss, "two".into()));
    assert_eq!(bench.ask(private, "never").await.unwrap(), (Outcome::Hit, "two".into()));
}

#[tokio::test]
async fn who_takes_only_what_is_cached_causes_no_load() {
    let bench = Bench::new();
    let cached = Freshness { only_if_cached: true, ..Freshness::ANY };
    assert_eq!(bench.ask(cached, "never").await.unwrap_err().kind(), ErrorKind::NotCached);
    bench.read("one").await.unwrap();
    assert_eq!(bench.ask(cached, "never").await.unwrap(), (Outcome::Hit, "one".into()));
    bench.write();
    assert_eq!(bench.ask(cached, "never").await.unwrap_err().kind(), ErrorKind::NotCached);
}

#[tokio::test]
async fn who_takes_stale_answers_gets_what_expired_or_was_outdated() {
    let patient = Freshness { max_stale: HOUR, ..Freshness::ANY };
    let expired = Bench::with(CacheSettings::default(), Duration::ZERO, HOUR);
    expired.read("one").await.unwrap();
    assert_eq!(expired.ask(patient, "never").await.unwrap(), (Outcome::Stale, "one".into()));
    let outdated = Bench::new();
    outdated.read("one").await.unwrap();
    outdated.write();
    assert_eq!(outdated.ask(patient, "never").await.unwrap(), (Outcome::Stale, "one".into()));
    assert_eq!(outdated.ask(Freshness::ANY, "two").await.unwrap(), (Outcome::Miss, "two".into()));
}

#[tokio::test]
async fn nothing_stands_in_that_the_request_would_not_take() {
    let bench = Bench::with(CacheSettings::default(), Duration::ZERO, HOUR);
    bench.read("one").await.unwrap();
    let ask = async |freshness| {
        let failing = || async { Err(away()) };
        let lookup = bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &freshness, failing).await;
        lookup.map(|lookup| lookup.outcome).map_err(|error| error.kind())
    };
    assert_eq!(ask(Freshness::ANY).await, Ok(Outcome::Stale));
    assert_eq!(ask(Freshness { max_age: Some(HOUR), ..Freshness::ANY }).await, Ok(Outcome::Stale));
    let refused = Err(ErrorKind::Unavailable);
    assert_eq!(ask(Freshness { max_age: Some(Duration::ZERO), ..Freshness::ANY }).await, refused);
    assert_eq!(ask(Freshness { reload: true, ..Freshness::ANY }).await, refused);
    assert_eq!(ask(Freshness { min_fresh: HOUR, ..Freshness::ANY }).await, refused);
}

#[tokio::test]
async fn a_cache_that_is_not_trusted_serves_nothing_as_fresh_and_still_stands_in() {
    let bench = Bench::new();
    bench.read("one").await.unwrap();
    let trust = bench.cache.trust();
    trust.demand_evidence(HOUR, Instant::now());
    trust.suspect(Suspicion::Silence, Instant::now());
    trust.unreadable();
    assert!(bench.cache.get(&bench.scope, &bench.key).is_none());
    let failing = || async { Err(away()) };
    let freshness = Freshness::ANY;
    let lookup = bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &freshness, failing).await.unwrap();
    assert_eq!(lookup.outcome, Outcome::Stale);
    assert_eq!(bench.read("two").await.unwrap().outcome, Outcome::Miss);
    trust.reconciled(Instant::now());
    assert_eq!(bench.body("never").await, "two");
}
