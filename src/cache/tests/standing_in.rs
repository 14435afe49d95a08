//! What stands in for an error, and for how long, when nobody can say what changed.

use super::*;
use crate::cache::trust::Suspicion;

const INTERVAL: Duration = Duration::from_millis(500);

/// What the collection of these tests allows.
const ALLOWED: Duration = Duration::from_millis(300);

impl Bench {
    async fn read_in_vain(&self) -> Result<Lookup> {
        self.cache.get_or_load(&self.scope, &self.key, &[record("M-1")], &Freshness::ANY, || async { Err(away()) }).await
    }

    /// The log was read just now, and from now on nothing tells what changes.
    fn cut_off(&self) {
        let trust = self.cache.trust();
        trust.demand_evidence(INTERVAL, Instant::now());
        trust.suspect(Suspicion::Disconnected, Instant::now());
        trust.unreadable();
    }
}

fn allowing(ttl: Duration, stale_if_error: Duration) -> Bench {
    Bench::with(CacheSettings { jitter_percent: 0, ..CacheSettings::default() }, ttl, stale_if_error)
}

#[tokio::test]
async fn nothing_stands_in_for_longer_than_its_collection_allows_after_anybody_knew_what_changed() {
    // Neither of them has been kept for longer than it may be.
    for bench in [allowing(HOUR, ALLOWED), allowing(Duration::ZERO, ALLOWED)] {
        // What has expired is kept from when it was loaded.
        let since = Instant::now();
        bench.read("one").await.unwrap();
        bench.cut_off();
        let lookup = bench.read_in_vain().await.unwrap();
        assert_eq!((lookup.outcome, lookup.entry.identity().body.as_ref()), (Outcome::Stale, b"one".as_ref()));
        while bench.read_in_vain().await.is_ok() {
            assert!(since.elapsed() < Duration::from_secs(10), "what may have changed long ago stands in");
            tokio::task::yield_now().await;
        }
        assert!(since.elapsed() > ALLOWED, "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn nothing_stands_in_once_nobody_can_say_what_changed_where_the_collection_allows_no_stale_time() {
    let bench = allowing(HOUR, Duration::ZERO);
    bench.read("one").await.unwrap();
    bench.cut_off();
    assert_eq!(bench.read_in_vain().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn while_the_bus_is_heard_an_entry_stands_in_for_as_long_as_it_is_kept() {
    let bench = allowing(Duration::ZERO, HOUR);
    bench.read("one").await.unwrap();
    let trust = bench.cache.trust();
    trust.demand_evidence(INTERVAL, Instant::now());
    trust.unreadable();
    trust.heard(Instant::now());
    assert_eq!(bench.read_in_vain().await.unwrap().outcome, Outcome::Stale);
}

#[tokio::test]
async fn a_refusal_is_not_a_database_that_is_away() {
    let bench = Bench::bounded(1, Duration::ZERO);
    bench.read("one").await.unwrap();
    bench.cache.trust().demand_evidence(INTERVAL, Instant::now());
    bench.cache.trust().suspect(Suspicion::Disconnected, Instant::now());
    let slot = bench.cache.capacity().take().unwrap();
    assert_eq!(bench.read("two").await.unwrap_err().code(), "overloaded", "the log could be read, and tell what changed");
    bench.cache.trust().unreadable();
    assert_eq!(bench.read("two").await.unwrap().outcome, Outcome::Stale);
    drop(slot);
}
