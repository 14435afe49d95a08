//! More loads than are waited for at once.

use super::*;

fn assert_overloaded(answer: Result<Lookup>) {
    let refusal = answer.unwrap_err();
    assert_eq!((refusal.kind(), refusal.code()), (ErrorKind::Unavailable, "overloaded"));
}

#[tokio::test]
async fn who_asks_and_hangs_up_gets_no_further_slots() {
    let bench = Bench::bounded(1, HOUR);
    let gated = bench.gated();
    gated.has_started.await.unwrap();
    gated.caller.abort();
    assert!(gated.caller.await.unwrap_err().is_cancelled());
    // The load goes on, and so one more would be too many; another caller of the same load is one too.
    assert_overloaded(bench.read("two").await);
    gated.gate.send(Ok(content("one"))).unwrap();
    while bench.cache.get(&bench.scope, &bench.key).is_none() {
        tokio::task::yield_now().await;
    }
    bench.write();
    assert_eq!(bench.body("three").await, "three", "the slot is free again");
}

#[tokio::test]
async fn a_load_that_fails_or_panics_gives_its_slot_back() {
    let bench = Bench::bounded(1, HOUR);
    let load = async |loader: fn() -> Result<Content>| {
        let guards = [record("M-1")];
        let answer = bench.cache.get_or_load(&bench.scope, &bench.key, &guards, &Freshness::ANY, || async move { loader() });
        answer.await.map(|_| ())
    };
    assert_eq!(load(|| Err(away())).await.unwrap_err().code(), "unavailable");
    assert_eq!(load(|| panic!("as a loader might")).await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(bench.body("one").await, "one");
}

#[tokio::test]
async fn what_has_expired_stands_in_for_a_refusal_and_what_was_outdated_does_not() {
    let bench = Bench::bounded(1, Duration::ZERO);
    bench.read("one").await.unwrap();
    let slot = bench.cache.capacity().take().unwrap();
    assert_eq!(bench.read("two").await.unwrap().outcome, Outcome::Stale);
    bench.write();
    assert_overloaded(bench.read("two").await);
    drop(slot);
    assert_eq!(bench.body("two").await, "two");
}

#[tokio::test]
async fn the_count_of_a_page_needs_no_slot_beside_that_of_the_page() {
    let bench = Bench::bounded(1, HOUR);
    let counts = bench.cache.scope(Kind::Count, "metrics", Lifetimes::uniform(HOUR, HOUR), Fingerprint::of(&[]));
    let (cache, key) = (Arc::clone(&bench.cache), CacheKey::of_query(&counts, ""));
    let page = || async move {
        cache.get_or_load(&counts, &key, &[record("M-1")], &Freshness::ANY, || async { Ok(content("7")) }).await?;
        cache.load_past(&counts, || async { Ok(content("7")) }).await?;
        Ok(content("page"))
    };
    let answer = bench.cache.get_or_load(&bench.scope, &bench.key, &[record("M-1")], &Freshness::ANY, page).await;
    assert_eq!(answer.unwrap().entry.identity().body, "page");
}

#[tokio::test]
async fn loads_past_the_cache_take_slots_too() {
    let bench = Bench::bounded(1, HOUR);
    let slot = bench.cache.capacity().take().unwrap();
    assert_overloaded(bench.cache.load_past(&bench.scope, || async { Ok(content("one")) }).await);
    drop(slot);
    assert_eq!(bench.cache.load_past(&bench.scope, || async { Ok(content("one")) }).await.unwrap().outcome, Outcome::Bypass);
}
