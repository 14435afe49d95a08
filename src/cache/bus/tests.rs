//! The bus and the reconciler over a Redis that the test holds, fails and watches.

mod hearing;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::message::Changes;
use super::*;
use crate::cache::reconcile::tests::{FakeLog, start};
use crate::cache::tests::{Bench, change, record};
use crate::cache::{Applied, BULK, Captured, Reconciler};
use crate::error::Error;
use crate::model::{Change, CollectionName, Footprint, Guard, Position, Scalar, Term};
use crate::telemetry::Telemetry;

/// A Redis of the test's own. All posts of one share it.
#[derive(Default)]
struct FakeRedis {
    state: Mutex<FakeState>,
    links: watch::Sender<u64>,
}

#[derive(Default)]
struct FakeState {
    /// The server that there is a connection to.
    server: Option<u64>,
    /// What was deleted, with the server it was deleted on.
    deleted: Vec<(u64, Target)>,
    published: Vec<String>,
    covered: HashMap<(u64, u64), String>,
    /// Runs after the next deletion, before its sender knows.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

/// One instance's way to it.
struct FakePost {
    redis: Arc<FakeRedis>,
    open_on: Arc<AtomicU64>,
}

impl FakeRedis {
    fn on(server: u64) -> Arc<Self> {
        let redis = Self::default();
        redis.with(|state| state.server = Some(server));
        Arc::new(redis)
    }

    fn with<T>(&self, act: impl FnOnce(&mut FakeState) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    fn connect(&self, server: Option<u64>) {
        self.with(|state| state.server = server);
        self.links.send_modify(|links| *links += 1);
    }

    fn deleted(&self) -> Vec<(u64, String)> {
        self.with(|state| std::mem::take(&mut state.deleted)).into_iter().map(|(on, target)| (on, target.to_string())).collect()
    }

    fn published(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.published))
    }

    fn reach(&self) -> Result<u64, Error> {
        self.with(|state| state.server).ok_or_else(|| Error::internal("away"))
    }
}

impl Post for FakePost {
    fn send<'a>(&'a self, targets: &'a [Target], message: Option<String>) -> BoxFuture<'a, Result<u64, Error>> {
        async move {
            let server = self.redis.reach()?;
            self.redis.with(|state| {
                state.deleted.extend(targets.iter().map(|target| (server, target.clone())));
                state.published.extend(message);
            });
            if let Some(meanwhile) = self.redis.with(|state| state.meanwhile.take()) {
                meanwhile();
            }
            Ok(server)
        }
        .boxed()
    }

    fn beat(&self, message: String, covered: Option<(u64, String)>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let server = self.redis.reach()?;
            self.redis.with(|state| {
                state.published.push(message);
                state.covered.extend(covered.map(|(declarations, covered)| ((server, declarations), covered)));
            });
            Ok(())
        }
        .boxed()
    }

    fn covered(&self, declarations: u64) -> BoxFuture<'_, Result<Option<String>, Error>> {
        async move {
            let server = self.redis.reach()?;
            Ok(self.redis.with(|state| state.covered.get(&(server, declarations)).cloned()))
        }
        .boxed()
    }

    fn suspend(&self) {
        self.open_on.store(0, Ordering::Release);
    }

    fn resume(&self, server: u64) {
        self.open_on.store(server, Ordering::Release);
    }

    fn server(&self) -> Option<u64> {
        self.redis.reach().ok()
    }

    fn links(&self) -> watch::Receiver<u64> {
        self.redis.links.subscribe()
    }
}

/// One instance on a fake Redis and a fake log, with record M-1 in its cache.
struct Instance {
    bench: Bench,
    log: Arc<FakeLog>,
    reconciler: Arc<Reconciler>,
    bus: Arc<Bus>,
    open_on: Arc<AtomicU64>,
}

const DECLARATIONS: u64 = 7;

impl Instance {
    async fn on(redis: &Arc<FakeRedis>, log: &Arc<FakeLog>, declarations: u64) -> Self {
        let bench = Bench::new();
        let open_on = Arc::new(AtomicU64::new(0));
        let post = FakePost { redis: Arc::clone(redis), open_on: Arc::clone(&open_on) };
        let metrics = BusMetrics::new(&Telemetry::new().unwrap()).unwrap();
        let bus = Bus::over(Box::new(post), &bench.cache, declarations, metrics);
        let reconciler = Reconciler::new(Arc::clone(&bench.cache), Box::new(Arc::clone(log)), start(1)).on_bus(bus);
        let bus = Arc::clone(reconciler.bus.as_ref().unwrap());
        bench.read("one").await.unwrap();
        Self { bench, log: Arc::clone(log), reconciler: Arc::new(reconciler), bus, open_on }
    }

    /// One that has settled on the server that there is a connection to.
    async fn settled(redis: &Arc<FakeRedis>) -> Self {
        let instance = Self::on(redis, &FakeLog::new(), DECLARATIONS).await;
        assert!(instance.settle().await);
        redis.deleted();
        instance
    }

    async fn settle(&self) -> bool {
        match self.bus.due() {
            Some(due) => self.reconciler.settle_debts(&self.bus, due).await,
            None => true,
        }
    }

    fn open_on(&self) -> u64 {
        self.open_on.load(Ordering::Acquire)
    }

    fn capture(&self) -> Captured {
        self.bench.cache.guards.capture(&record("M-1"), Duration::ZERO)
    }

    fn hear(&self, messages: &[String]) {
        for message in messages {
            self.reconciler.receive(&self.bus, message.as_bytes());
        }
    }
}

fn term() -> Guard {
    let field = "tier".to_owned();
    Guard::Term(CollectionName::parse("metrics").unwrap(), Term { field, value: Scalar::Integer(1) })
}

fn names(deleted: &[(u64, String)]) -> Vec<&str> {
    deleted.iter().map(|(_, target)| &**target).collect()
}

const GUARDS_OF_M1: [&str; 3] = ["r:metrics:M-1", "t:metrics:4:tier=i:1", "c:metrics"];

#[tokio::test]
async fn a_writer_moves_its_guards_before_and_after_the_round_trip_and_then_it_is_applied() {
    let redis = FakeRedis::on(1);
    let instance = Arc::new(Instance::settled(&redis).await);
    let before = instance.capture();
    let within: Arc<Mutex<Option<Captured>>> = Arc::default();
    let (seen, captured) = (Arc::clone(&instance), Arc::clone(&within));
    redis.with(|state| {
        state.meanwhile = Some(Box::new(move || {
            assert!(!before.is_current(), "the second tier was told first");
            assert!(!seen.reconciler.update(|progress| progress.has_applied(1)), "applied before it is");
            // A reader that has taken an old value from the second tier just before its guards were deleted.
            *captured.lock().unwrap() = Some(seen.capture());
        }));
    });
    instance.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    let within = within.lock().unwrap().take().unwrap();
    assert!(!within.is_current(), "an old value stays, under a guard that had moved already");
    assert!(instance.capture().is_current() && instance.reconciler.update(|progress| progress.has_applied(1)));
    let deleted = redis.deleted();
    assert_eq!(names(&deleted).len(), 3, "{deleted:?}");
    assert!(GUARDS_OF_M1.iter().all(|guard| names(&deleted).contains(guard)), "{deleted:?}");
    assert_eq!(redis.published().len(), 1);
}

#[tokio::test]
async fn a_writer_without_redis_suspends_the_tier_until_it_has_paid() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    redis.connect(None);
    let before = instance.capture();
    instance.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    assert!(!before.is_current() && instance.reconciler.update(|progress| progress.has_applied(1)));
    assert_eq!((instance.open_on(), instance.bus.owed()), (0, 3));
    assert!(instance.settle().await, "nothing can be done, and nothing need be retried");
    redis.connect(Some(1));
    assert!(instance.settle().await);
    assert_eq!((instance.open_on(), instance.bus.owed(), redis.deleted().len()), (1, 0, 3));
}

#[tokio::test]
async fn who_has_nothing_to_delete_owes_nothing_when_redis_cannot_be_told() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    redis.connect(None);
    let news = || Some(News::Heartbeat(1));
    assert_eq!(instance.bus.send(&[], news()).await, Reach::Pending);
    assert_eq!((instance.open_on(), instance.bus.owed()), (1, 0), "nobody would ever open it again");
    redis.connect(Some(1));
    assert_eq!(instance.bus.send(&[], news()).await, Reach::Published);
}

#[tokio::test]
async fn what_fails_while_a_debt_is_paid_keeps_the_tier_suspended() {
    let redis = FakeRedis::on(1);
    let instance = Arc::new(Instance::settled(&redis).await);
    redis.connect(None);
    instance.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    redis.connect(Some(1));
    let (bus, away) = (Arc::clone(&instance.bus), Arc::clone(&redis));
    redis.with(|state| {
        state.meanwhile = Some(Box::new(move || {
            // A later commit of the same record, whose deletion fails after the payment's was executed.
            away.with(|state| state.server = None);
            let failed = bus.send(&["r:metrics:M-1".parse().unwrap()], None).now_or_never().unwrap();
            assert_eq!(failed, Reach::Pending);
            away.with(|state| state.server = Some(1));
        }));
    });
    assert!(!instance.settle().await);
    assert_eq!((instance.open_on(), instance.bus.owed()), (0, 1));
    redis.deleted();
    assert!(instance.settle().await);
    assert_eq!((instance.open_on(), names(&redis.deleted())), (1, vec!["r:metrics:M-1"]));
}

#[tokio::test]
async fn a_deletion_on_another_server_than_the_settled_one_is_owed_to_both() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    redis.connect(Some(2));
    instance.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    assert_eq!(instance.open_on(), 0);
    // It never settled on the second one.
    redis.connect(Some(1));
    redis.deleted();
    assert!(instance.settle().await);
    assert_eq!((instance.open_on(), redis.deleted().iter().filter(|(on, _)| *on == 1).count()), (1, 3));
}

#[tokio::test]
async fn another_server_is_suspicious_and_is_told_everything() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    instance.bench.cache.trust().demand_evidence(Duration::from_secs(1), Instant::now());
    redis.connect(Some(2));
    assert!(instance.settle().await);
    assert_eq!((instance.open_on(), names(&redis.deleted())), (2, vec!["*"]));
    assert!(!instance.bench.cache.is_trusted());
    instance.reconciler.reconcile().await.unwrap();
    assert!(instance.bench.cache.is_trusted());
}

/// The connection goes over to another server, where others vouch for what they filled it with, after this process has deleted
/// what it wrote and before it notes that.
#[tokio::test]
async fn what_was_deleted_on_the_server_of_before_is_deleted_on_the_next_one_before_that_is_used() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    let covered = serde_json::to_string(&Covered::new(2, start(1))).unwrap();
    redis.with(|state| state.covered.insert((2, DECLARATIONS), covered));
    instance.log.commit([change(1, 1, "M-2"), change(2, 2, "M-1")]);
    let (gate, opened) = oneshot::channel();
    let (changes, predecessors) = ([change(2, 2, "M-1")], BTreeSet::from([1]));
    // It has deleted, and waits for what it came after.
    let announcing = instance.reconciler.announce(&changes, &predecessors);
    let mut settling = instance.settle().boxed();
    let failing_over = async {
        redis.connect(Some(2));
        instance.log.with(|state| state.gate = Some(opened));
        assert!((&mut settling).now_or_never().is_none(), "the log was not read");
        instance.reconciler.update(|progress| progress.announced(Position { transaction: 1, sequence: 1 }));
    };
    tokio::join!(announcing, failing_over);
    gate.send(()).unwrap();
    assert!(settling.await);
    let deleted = redis.deleted();
    assert_eq!(instance.open_on(), 2);
    assert!(deleted.contains(&(2, "r:metrics:M-1".to_owned())), "its own write can be read old: {deleted:?}");
    assert_eq!(instance.reconciler.reconcile().await.unwrap(), 0);
}

#[tokio::test]
async fn who_starts_goes_on_where_the_log_has_been_applied_and_deletes_only_what_is_newer() {
    let redis = FakeRedis::on(1);
    let first = Instance::settled(&redis).await;
    first.log.commit([change(1, 1, "M-1")]);
    first.reconciler.reconcile().await.unwrap();
    let server = first.bus.debts().clear_on().unwrap();
    let covered = serde_json::to_string(&Covered::new(server, first.reconciler.covered().unwrap())).unwrap();
    redis.with(|state| state.covered.insert((1, DECLARATIONS), covered));
    redis.deleted();
    // Committed when nobody was there, or by somebody who ended before he could tell.
    first.log.commit([change(2, 2, "M-2")]);
    let second = Instance::on(&redis, &first.log, DECLARATIONS).await;
    second.reconciler.update(|progress| progress.seen = start(3));
    assert!(second.settle().await);
    let deleted = redis.deleted();
    assert_eq!(second.open_on(), 1);
    assert!(names(&deleted).contains(&"r:metrics:M-2") && !names(&deleted).contains(&"r:metrics:M-1"), "{deleted:?}");
    // With other declarations, on another server, or by another run of the database nobody can tell.
    for (server, declarations, run) in [(1, DECLARATIONS + 1, 0), (2, DECLARATIONS, 0), (1, DECLARATIONS, 1)] {
        redis.connect(Some(server));
        first.log.with(|state| state.server.number = run);
        let stranger = Instance::on(&redis, &first.log, declarations).await;
        stranger.reconciler.update(|progress| (progress.seen.next, progress.seen.server.number) = (3, run));
        assert!(stranger.settle().await);
        assert_eq!(names(&redis.deleted()), ["*"], "{server} {declarations} {run}");
    }
}
