//! One load across instances.

use super::*;
use crate::cache::second_tier::seek::Lease;

/// Looks for a value as an instance does that is going to load it.
async fn lease(instance: &Instance, id: &str) -> Capture {
    let dependencies = instance.capture(id);
    match instance.tier.seek(&instance.scope, &instance.address(id), &dependencies, Wanted::Fresh, true).await {
        Sought::Nothing { capture: Some(capture), .. } => {
            assert_eq!(capture.lease, Lease::Held);
            capture
        }
        Sought::Nothing { capture: None, .. } | Sought::Found(_) => panic!("no lease"),
    }
}

#[tokio::test]
async fn two_hundred_callers_on_three_instances_cause_one_load() {
    let installation = Installation::new();
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Arc::new(installation.instance().await));
    }
    let loads = Arc::new(AtomicUsize::new(0));
    let (open, gate) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let (instance, loads, mut gate) = (Arc::clone(&instances[number % 3]), Arc::clone(&loads), gate.clone());
            tokio::spawn(async move {
                let loader = || async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    gate.wait_for(|open| *open).await.unwrap();
                    Ok(content("body"))
                };
                instance.read_by("M-1", &Freshness::ANY, loader).await.unwrap()
            })
        })
        .collect();
    // One of them loads, and the two others know that.
    let waits = || instances.iter().map(|instance| instance.scope.metrics().second.waits.get()).sum::<u64>();
    instances[0].until("two instances wait", async || waits() == 2).await;
    open.send(true).unwrap();
    for caller in callers {
        assert_eq!(caller.await.unwrap().entry.identity().body, "body");
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_instance_that_dies_while_it_loads_holds_others_up_for_a_second() {
    let installation = Installation::new();
    let (dead, other) = (installation.instance().await, installation.instance().await);
    drop(lease(&dead, "M-1").await);
    let began = Instant::now();
    assert_eq!(other.read("M-1", "body").await.0, Outcome::Miss);
    assert!(began.elapsed() >= Duration::from_millis(900), "it did not wait");
    assert!(began.elapsed() < LEASE_OF_THE_DEAD, "it waited for the lease to end");
}

/// What would be waited for if nobody's patience ended.
const LEASE_OF_THE_DEAD: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_load_that_fails_lets_another_instance_load_at_once() {
    let installation = Installation::new();
    let (failing, other) = (installation.instance().await, Arc::new(installation.instance().await));
    let capture = lease(&failing, "M-1").await;
    let reader = tokio::spawn({
        let other = Arc::clone(&other);
        async move {
            let loading = Arc::clone(&other);
            let loader = || async move {
                let lease = loading.tier.names.lease(&loading.address("M-1").value);
                let is_leased: bool = loading.command("EXISTS", &[lease.as_bytes()]).await;
                Ok(content(if is_leased { "under a lease" } else { "after a second" }))
            };
            other.read_by("M-1", &Freshness::ANY, loader).await.unwrap()
        }
    });
    other.until("it waits", async || other.scope.metrics().second.waits.get() == 1).await;
    failing.tier.release(&failing.address("M-1"), capture);
    assert_eq!(reader.await.unwrap().entry.identity().body, "under a lease");
}

#[tokio::test]
async fn a_guard_that_moves_ends_the_wait_for_another_instance() {
    let installation = Installation::new();
    let (loading, other) = (installation.instance().await, Arc::new(installation.instance().await));
    let _capture = lease(&loading, "M-1").await;
    let reader = tokio::spawn({
        let other = Arc::clone(&other);
        async move { other.read("M-1", "body").await.0 }
    });
    other.until("it waits", async || other.scope.metrics().second.waits.get() == 1).await;
    other.bump(Target::Guard(record("M-1"))).await;
    // Neither who began before nor who comes now waits for what is loaded from before the move.
    assert_eq!(other.read("M-1", "new").await, (Outcome::Miss, Bytes::from("new")));
    reader.await.unwrap();
    // Whoever waits to the end has nonces, and tries to fill.
    assert_eq!(other.scope.metrics().second.fills_dropped.get(), 0, "it waited on");
}

#[tokio::test]
async fn an_early_refresh_takes_no_value_that_is_as_old_as_its_own() {
    let installation = Installation::new();
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "old").await;
    // As if 95 % of its time were over: it is kept for an hour, and fresh for as long.
    one.command::<()>("PEXPIRE", &[one.address("M-1").value.as_bytes(), b"180000"]).await;
    let (address, dependencies) = (other.address("M-1"), other.capture("M-1"));
    let seek = |wanted| other.tier.seek(&other.scope, &address, &dependencies, wanted, true);
    assert!(matches!(seek(Wanted::Fresh).await, Sought::Found(_)));
    assert!(matches!(seek(Wanted::Refreshed).await, Sought::Nothing { capture: Some(_), .. }));
}
