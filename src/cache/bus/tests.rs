//! The bus and the reconciler over a Redis that the test holds, fails and watches.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::message::Changes;
use super::*;
use crate::cache::reconcile::tests::{FakeLog, start};
use crate::cache::tests::{Bench, change, record};
use crate::cache::{Applied, Captured, Reconciler};
use crate::error::Error;
use crate::model::{Change, CollectionName, Guard, Position, Scalar, Term};
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

#[tokio::test]
async fn a_message_is_applied_and_its_transactions_are_not_read_again() {
    let redis = FakeRedis::on(1);
    let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    let before = other.capture();
    other.log.commit([change(1, 1, "M-1")]);
    writer.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    let messages = redis.published();
    other.hear(&messages);
    assert!(!before.is_current());
    assert_eq!(other.reconciler.reconcile().await.unwrap(), 0, "announced, and applied again");
    // A second announcement of it, by somebody who found it in the log, costs nothing.
    let after = other.capture();
    other.hear(&messages);
    assert!(after.is_current());
}

#[tokio::test]
async fn what_means_something_else_here_is_applied_and_read_in_the_log_all_the_same() {
    for case in ["declarations", "server", "database"] {
        let redis = FakeRedis::on(1);
        let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
        redis.published();
        writer.reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
        let mut message = Message::parse(redis.published()[0].as_bytes()).unwrap();
        let News::Changes(changes) = &mut message.news else { panic!() };
        match case {
            "declarations" => changes.declarations += 1,
            "server" => changes.server += 1,
            _ => changes.database.0 += 1,
        }
        let before = other.capture();
        other.reconciler.receive(&other.bus, message.to_json().as_bytes());
        assert!(!before.is_current(), "{case}");
        // The rounds are woken.
        other.bench.cache.trust().alarm().notified().now_or_never().expect(case);
        other.log.commit([change(1, 1, "M-1")]);
        assert_eq!(other.reconciler.reconcile().await.unwrap(), 1, "{case}: noted as applied");
    }
}

/// Record M-1 was taken out of `tier = 1` by somebody whose message is lost, and is now written by one who never heard of that.
#[tokio::test]
async fn who_writes_after_somebody_unheard_of_shows_what_that_one_did_before_it_answers() {
    let redis = FakeRedis::on(1);
    let (writer, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    let without_terms = |at: u64| Change { terms: Vec::new(), ..change(at, at as i64, "M-1") };
    for log in [&writer.log, &other.log] {
        log.commit([change(1, 1, "M-1"), without_terms(2)]);
    }
    let listed = |instance: &Instance| instance.bench.cache.guards.capture(&term(), Duration::ZERO);
    let (here, there) = (listed(&writer), listed(&other));
    let (running, making) = (Arc::clone(writer.bench.cache.trust().alarm()), Arc::clone(&writer.reconciler));
    let rounds = tokio::spawn(async move {
        running.notified().await;
        making.reconcile().await.unwrap();
    });
    writer.reconciler.announce(&[without_terms(2)], &BTreeSet::from([1])).await;
    assert!(!here.is_current(), "the writer was answered before its own lists show it");
    rounds.await.unwrap();
    // The message of the second write, and not what the round told of the first.
    let own = redis.published().remove(0);
    other.hear(&[own]);
    assert!(there.is_current() && !other.reconciler.update(|progress| progress.has_applied(2)), "noted before its predecessor");
    other.bench.cache.trust().alarm().notified().now_or_never().expect("the rounds are woken");
    assert_eq!(other.reconciler.reconcile().await.unwrap(), 2);
    assert!(!there.is_current());
}

#[tokio::test]
async fn an_unreadable_message_wakes_the_rounds_and_is_counted() {
    let redis = FakeRedis::on(1);
    let other = Instance::settled(&redis).await;
    let wrong = r#"{"from":"0000000000000001","kind":"invalidate","news":["r:Metrics:M-1"]}"#;
    assert!(Message::parse(wrong.replace('M', "m").as_bytes()).is_some());
    other.reconciler.receive(&other.bus, wrong.as_bytes());
    other.bench.cache.trust().alarm().notified().now_or_never().unwrap();
}

#[tokio::test]
async fn what_a_round_finds_is_announced_again_but_for_transactions_that_a_page_breaks_off() {
    let redis = FakeRedis::on(1);
    let (finder, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    // Two hundred rows a page: the second transaction goes across the end of the first page.
    let rows = |transaction: u64, sequences: std::ops::Range<i64>| -> Vec<Change> {
        sequences.map(|sequence| change(transaction, sequence, "M-1")).collect()
    };
    for log in [&finder.log, &other.log] {
        log.commit([rows(1, 0..150), rows(2, 150..250), rows(3, 250..260)].concat());
    }
    let before = other.capture();
    assert_eq!(finder.reconciler.reconcile().await.unwrap(), 260);
    let messages = redis.published();
    let told: Vec<Changes> = messages
        .iter()
        .map(|message| match Message::parse(message.as_bytes()).unwrap().news {
            News::Changes(changes) => changes,
            news => panic!("{news:?}"),
        })
        .collect();
    let transactions: Vec<Vec<u64>> =
        told.iter().map(|told| told.transactions.iter().map(|place| Position::from(*place).transaction).collect()).collect();
    assert_eq!(transactions, [vec![1], vec![3]]);
    assert!(told.iter().all(|told| told.is_found));
    other.hear(&messages);
    assert!(!before.is_current());
    assert_eq!(other.reconciler.reconcile().await.unwrap(), 100, "half a transaction was taken for a whole one");
}

#[tokio::test]
async fn a_large_write_and_a_long_backlog_are_told_as_collections() {
    let redis = FakeRedis::on(1);
    let instance = Instance::settled(&redis).await;
    redis.published();
    let batch: Vec<Change> = (0..100).map(|number| change(1, number, &format!("B-{number}"))).collect();
    let before = instance.capture();
    instance.reconciler.announce(&batch, &BTreeSet::new()).await;
    assert!(!before.is_current());
    assert_eq!((names(&redis.deleted()), redis.published().len()), (vec!["b:metrics"], 1));
    instance.log.commit((2..=1_500).map(|at| change(at, 1_000 + at as i64, "M-1")));
    assert_eq!(instance.reconciler.reconcile().await.unwrap(), 1_499);
    let deleted = redis.deleted();
    assert_eq!(names(&deleted).iter().filter(|name| **name == "b:metrics").count(), 1, "{deleted:?}");
}

#[tokio::test]
async fn an_invalidation_by_hand_reaches_everybody_or_says_that_it_did_not() {
    let redis = FakeRedis::on(1);
    let (one, other) = (Instance::settled(&redis).await, Instance::settled(&redis).await);
    redis.published();
    let (here, there) = (one.capture(), other.capture());
    let target = "p:metrics:M-*".parse().unwrap();
    assert_eq!(one.reconciler.invalidate(&target).await, Reach::Published);
    other.hear(&redis.published());
    assert!(!here.is_current() && !there.is_current());
    redis.connect(None);
    assert_eq!(one.reconciler.invalidate(&target).await, Reach::Pending);
    assert_eq!(one.open_on(), 0);
    let alone = Reconciler::new(Arc::clone(&one.bench.cache), Box::new(FakeLog::new()), start(1));
    assert_eq!(alone.invalidate(&target).await, Reach::Alone);
}

#[tokio::test]
async fn a_token_waits_for_the_bus_then_for_one_round_that_all_share_and_never_for_ever() {
    let redis = FakeRedis::on(1);
    let instance = Arc::new(Instance::settled(&redis).await);
    let token = |transaction| Position { transaction, sequence: 1 };
    assert_eq!(instance.reconciler.settle(token(0)).await, Applied::Yes);
    // Nobody makes rounds: it ends all the same.
    assert_eq!(instance.reconciler.settle(token(1)).await, Applied::No);
    instance.log.commit([change(1, 1, "M-1")]);
    let rounds = Arc::new(AtomicUsize::new(0));
    let (making, made) = (Arc::clone(&instance), Arc::clone(&rounds));
    let alarm = Arc::clone(instance.bench.cache.trust().alarm());
    // The one above has woken nobody.
    alarm.notified().now_or_never();
    tokio::spawn(async move {
        loop {
            alarm.notified().await;
            // Until all have asked.
            tokio::task::yield_now().await;
            made.fetch_add(1, Ordering::Relaxed);
            making.reconciler.reconcile().await.unwrap();
        }
    });
    let before = instance.capture();
    let waiting = (0..50).map(|_| instance.reconciler.settle(token(1)));
    let applied = futures_util::future::join_all(waiting).await;
    assert!(applied.iter().all(|applied| *applied == Applied::Yes));
    assert!(!before.is_current());
    assert!(rounds.load(Ordering::Relaxed) <= 2, "{rounds:?} rounds");
    // Of another database, or of the future.
    assert_eq!(instance.reconciler.settle(token(1 << 40)).await, Applied::No);
    // The bus is quicker than any round.
    let (telling, hearing) = (Instance::settled(&redis).await, Arc::clone(&instance));
    redis.published();
    let rounds_before = rounds.load(Ordering::Relaxed);
    let (applied, ()) = tokio::join!(instance.reconciler.settle(token(2)), async {
        telling.reconciler.announce(&[change(2, 2, "M-1")], &BTreeSet::new()).await;
        hearing.hear(&redis.published());
    });
    assert_eq!((applied, rounds.load(Ordering::Relaxed)), (Applied::Yes, rounds_before));
}
