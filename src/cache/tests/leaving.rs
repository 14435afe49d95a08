//! What leaves L1 is counted by what it was then. It is counted when its memory is given back, for which moka waits until it is used.

use super::*;

const CAUSES: [&str; 4] = ["outdated", "expired", "replaced", "size"];

/// A cache with room for some 50 entries, which live for `ttl` and do not stand in for errors.
fn small(telemetry: &Telemetry, ttl: Duration) -> Bench {
    lasting(telemetry, ttl, Duration::ZERO)
}

fn lasting(telemetry: &Telemetry, ttl: Duration, stale_if_error: Duration) -> Bench {
    let l1_bytes = bytesize::ByteSize::kib(64);
    let settings = CacheSettings { jitter_percent: 0, l1_bytes, ..CacheSettings::default() };
    Bench::over(Cache::new(&settings, telemetry).unwrap(), ttl, stale_if_error)
}

fn counted(telemetry: &Telemetry, cause: &str) -> u64 {
    let text = telemetry.encode().unwrap();
    let line = format!("terrace_cache_evictions_total{{cause=\"{cause}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(line.as_str())).unwrap().parse().unwrap()
}

/// Uses the cache until `cause` has been counted this often, and nothing else.
async fn until_counted(bench: &Bench, telemetry: &Telemetry, cause: &str, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while counted(telemetry, cause) < count {
        assert!(Instant::now() < deadline, "{cause}: {} of {count}", counted(telemetry, cause));
        bench.cache.occupancy();
        bench.cache.get_due(&bench.scope, &bench.key);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for other in CAUSES {
        assert_eq!(counted(telemetry, other), if other == cause { count } else { 0 }, "{other}");
    }
}

async fn fill(bench: &Bench, ids: std::ops::Range<usize>) {
    for number in ids {
        let id = format!("N-{number}");
        let key = CacheKey::of_record(&bench.scope, &id, "");
        let loader = || async { Ok(content("another")) };
        bench.cache.get_or_load(&bench.scope, &key, &[record(&id)], &Freshness::ANY, loader).await.unwrap();
    }
}

#[tokio::test]
async fn one_that_a_change_has_outdated() {
    let telemetry = Telemetry::new().unwrap();
    let bench = small(&telemetry, HOUR);
    bench.read("one").await.unwrap();
    bench.write();
    bench.read("two").await.unwrap();
    until_counted(&bench, &telemetry, "outdated", 1).await;
}

#[tokio::test]
async fn one_whose_successor_a_request_has_asked_for() {
    let telemetry = Telemetry::new().unwrap();
    let bench = small(&telemetry, HOUR);
    bench.read("one").await.unwrap();
    let reload = Freshness { reload: true, ..Freshness::ANY };
    let loader = || async { Ok(content("two")) };
    bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &reload, loader).await.unwrap();
    until_counted(&bench, &telemetry, "replaced", 1).await;
}

#[tokio::test]
async fn one_that_has_expired_and_could_have_stood_in_for_an_error() {
    let telemetry = Telemetry::new().unwrap();
    let bench = lasting(&telemetry, Duration::from_millis(20), HOUR);
    bench.read("one").await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(bench.read("two").await.unwrap().outcome, Outcome::Miss);
    until_counted(&bench, &telemetry, "replaced", 1).await;
}

#[tokio::test]
async fn those_whose_time_was_over() {
    let telemetry = Telemetry::new().unwrap();
    let bench = small(&telemetry, Duration::from_millis(100));
    fill(&bench, 0..20).await;
    until_counted(&bench, &telemetry, "expired", 20).await;
}

#[tokio::test]
async fn those_for_which_there_was_no_room() {
    let telemetry = Telemetry::new().unwrap();
    let bench = small(&telemetry, HOUR);
    fill(&bench, 0..200).await;
    let left = 200 - bench.cache.occupancy().entries;
    assert!(left > 100, "{left}");
    until_counted(&bench, &telemetry, "size", left).await;
}

#[tokio::test]
async fn what_l1_never_had_does_not_leave_it() {
    let telemetry = Telemetry::new().unwrap();
    let bench = small(&telemetry, HOUR);
    let no_store = Freshness { no_store: true, ..Freshness::ANY };
    let loader = || async { Ok(content("one")) };
    drop(bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &no_store, loader).await.unwrap());
    bench.cache.occupancy();
    assert_eq!(CAUSES.map(|cause| counted(&telemetry, cause)), [0; 4]);
}
