//! Reconciling against a log whose transactions the test begins and commits one by one.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::*;
use crate::cache::tests::{Bench, change};
use crate::error::Error;

/// What the log of a database does, in little.
#[derive(Default)]
pub(in crate::cache) struct FakeLog(Mutex<State>);

#[derive(Default)]
pub(in crate::cache) struct State {
    pub(in crate::cache) changes: Vec<Change>,
    /// What was asked for by hand.
    pub(in crate::cache) by_hand: Vec<(Position, Target)>,
    pub(in crate::cache) next: u64,
    pub(in crate::cache) open: Vec<u64>,
    pub(in crate::cache) unreadable: usize,
    /// Committed by somebody else before the read of this number, counted from 0.
    pub(in crate::cache) commits: Vec<(usize, Change)>,
    pub(in crate::cache) reads: usize,
    pub(in crate::cache) fails: bool,
    pub(in crate::cache) rows_read: usize,
    /// Which pages cannot be read, counted from 0.
    pub(in crate::cache) failing_read: Option<usize>,
    pub(in crate::cache) server: ServerRun,
    /// The next page is held back until this comes.
    pub(in crate::cache) gate: Option<oneshot::Receiver<()>>,
}

impl FakeLog {
    pub(in crate::cache) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { next: 1, ..State::default() })))
    }

    pub(in crate::cache) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(in crate::cache) fn commit(&self, changes: impl IntoIterator<Item = Change>) {
        self.with(|state| changes.into_iter().for_each(|change| state.commit(change)));
    }

    fn rows_read(&self) -> usize {
        self.with(|state| std::mem::take(&mut state.rows_read))
    }
}

impl State {
    /// Somebody asks for an invalidation in a transaction of this number.
    pub(in crate::cache) fn log_by_hand(&mut self, transaction: u64, target: &str) -> Position {
        let position = Position { transaction, sequence: transaction as i64 };
        self.next = self.next.max(transaction + 1);
        self.by_hand.push((position, target.parse().unwrap()));
        position
    }

    fn commit(&mut self, change: Change) {
        let transaction = change.position.transaction;
        self.open.retain(|open| *open != transaction);
        self.next = self.next.max(transaction + 1);
        self.changes.push(change);
        self.changes.sort_by_key(|change| change.position);
    }

    fn page(&mut self, seen: &Snapshot, after: Option<Position>, limit: u32) -> Result<ChangePage<Logged>> {
        let now = self.reads;
        self.reads += 1;
        if self.fails || self.failing_read == Some(now) {
            return Err(Error::unavailable("The database is away.", Duration::from_secs(1), "test"));
        }
        let (due, later) = std::mem::take(&mut self.commits).into_iter().partition(|(read, _)| *read <= now);
        self.commits = later;
        let due: Vec<(usize, Change)> = due;
        due.into_iter().for_each(|(_, change)| self.commit(change));
        let snapshot = Snapshot { next: self.next, in_progress: self.open.clone(), server: self.server };
        let is_unseen = |row: &Logged| {
            let position = row.position();
            !seen.sees(position.transaction) && snapshot.sees(position.transaction) && Some(position) > after
        };
        let by_hand = self.by_hand.iter().cloned().map(|(position, target)| Logged::Invalidation { position, target });
        let mut rows: Vec<Logged> = self.changes.iter().cloned().map(Logged::Change).chain(by_hand).filter(is_unseen).collect();
        rows.sort_by_key(Logged::position);
        rows.truncate(limit as usize);
        let changes = rows;
        let more_after = changes.last().filter(|_| changes.len() == limit as usize).map(Logged::position);
        self.rows_read += changes.len();
        Ok(ChangePage { changes, unreadable: std::mem::take(&mut self.unreadable), snapshot, more_after })
    }
}

impl ChangeLog for Arc<FakeLog> {
    fn changes_since<'a>(
        &'a self,
        seen: &'a Snapshot,
        after: Option<Position>,
        limit: u32,
    ) -> BoxFuture<'a, Result<ChangePage<Logged>>> {
        let (page, gate) = self.with(|state| (state.page(seen, after, limit), state.gate.take()));
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.await.unwrap();
            }
            page
        })
    }
}

pub(in crate::cache) fn start(next: u64) -> Snapshot {
    Snapshot { next, in_progress: Vec::new(), server: ServerRun::default() }
}

/// A cache that has read record M-1, a log and a reconciler that has seen nothing.
async fn bench() -> (Bench, Arc<FakeLog>, Reconciler) {
    let (bench, log) = (Bench::new(), FakeLog::new());
    let reconciler = Reconciler::new(Arc::clone(&bench.cache), Box::new(Arc::clone(&log)), start(1));
    bench.read("one").await.unwrap();
    (bench, log, reconciler)
}

#[tokio::test]
async fn own_changes_are_neither_applied_again_nor_read_again() {
    let (bench, log, reconciler) = bench().await;
    log.commit([change(1, 1, "M-1"), change(1, 2, "M-2")]);
    reconciler.announce(&[change(1, 1, "M-1"), change(1, 2, "M-2")], &BTreeSet::new()).await;
    bench.read("two").await.unwrap();
    assert_eq!((reconciler.reconcile().await.unwrap(), log.rows_read()), (0, 0));
    // Behind a gap that is too wide to be noted they are read, and left alone.
    log.commit([change(5_000, 3, "M-1")]);
    reconciler.announce(&[change(5_000, 3, "M-1")], &BTreeSet::new()).await;
    bench.read("three").await.unwrap();
    assert_eq!((reconciler.reconcile().await.unwrap(), log.rows_read()), (0, 1));
    assert_eq!((reconciler.reconcile().await.unwrap(), log.rows_read()), (0, 0));
    assert_eq!(bench.body("four").await, "three", "an announced change invalidated again");
}

#[tokio::test]
async fn an_own_change_that_the_database_shows_only_in_the_next_round_is_not_applied_again() {
    let (bench, log, reconciler) = bench().await;
    // The round reads before the commit; the announcement comes before the round ends.
    log.with(|state| state.commits.push((1, change(1, 1, "M-1"))));
    reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    bench.read("two").await.unwrap();
    reconciler.update(|progress| progress.applied(start(1), 0, Instant::now()));
    log.with(|state| state.reads = 1);
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
    assert_eq!(bench.body("three").await, "two");
    assert_eq!(reconciler.update(|progress| progress.own.len()), 0, "own transactions are kept for ever");
}

#[tokio::test]
async fn a_change_behind_an_older_open_transaction_is_applied_when_it_becomes_visible() {
    let (bench, log, reconciler) = bench().await;
    log.with(|state| state.open.push(3));
    log.commit((4..=6).map(|at| change(at, at as i64, "M-2")));
    assert_eq!(reconciler.reconcile().await.unwrap(), 3);
    log.commit([change(7, 7, "M-2")]);
    assert_eq!(
        (reconciler.reconcile().await.unwrap(), log.rows_read()),
        (1, 4),
        "rows beside the open transaction were read twice"
    );
    assert_eq!(bench.body("two").await, "one");
    // Its sequence was given out before those that are applied already.
    log.commit([change(3, 3, "M-1")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 1);
    assert_eq!(bench.body("two").await, "two", "the late commit was lost");
    assert_eq!((reconciler.reconcile().await.unwrap(), log.rows_read()), (0, 1));
}

#[tokio::test]
async fn a_lost_announcement_is_made_up_for_beside_later_own_changes() {
    let (bench, log, reconciler) = bench().await;
    log.commit((1..=3).map(|at| change(at, at as i64, &format!("M-{at}"))));
    reconciler.announce(&[change(3, 3, "M-3")], &BTreeSet::new()).await;
    reconciler.announce(&[change(2, 2, "M-2")], &BTreeSet::new()).await;
    assert_eq!((reconciler.reconcile().await.unwrap(), log.rows_read()), (1, 1));
    assert_eq!(bench.body("two").await, "two");
    // One that comes late, after the log was read, takes nothing back.
    reconciler.announce(&[change(1, 1, "M-1")], &BTreeSet::new()).await;
    assert_eq!((reconciler.reconcile().await.unwrap(), log.rows_read()), (0, 0));
}

#[tokio::test]
async fn nothing_is_lost_or_applied_twice_across_pages() {
    let (bench, log, reconciler) = bench().await;
    log.with(|state| state.open.push(2));
    log.commit((3..=1_000).map(|at| change(at, at as i64, "M-2")));
    // While the pages are read, one commits before and one behind the place where the reader is.
    log.with(|state| state.commits = vec![(2, change(2, 2, "M-1")), (2, change(1_001, 1_001, "M-2"))]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 998);
    assert_eq!(bench.body("two").await, "one");
    assert_eq!(reconciler.reconcile().await.unwrap(), 2);
    assert_eq!(bench.body("two").await, "two", "the commit between two pages was lost");
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
}

#[tokio::test]
async fn a_round_that_fails_half_way_is_made_again_whole() {
    let (bench, log, reconciler) = bench().await;
    log.commit((1..=300).map(|at| change(at, at as i64, if at == 1 { "M-1" } else { "M-2" })));
    log.with(|state| state.fails = true);
    reconciler.reconcile().await.unwrap_err();
    assert_eq!(bench.body("two").await, "one");
    log.with(|state| state.fails = false);
    assert_eq!(reconciler.reconcile().await.unwrap(), 300);
    assert_eq!(bench.body("two").await, "two");
}

#[tokio::test]
async fn a_database_that_went_back_outdates_everything() {
    let (bench, log, reconciler) = bench().await;
    log.commit((1..=40).map(|at| change(at, at as i64, "M-2")));
    reconciler.reconcile().await.unwrap();
    reconciler.announce(&[change(41, 41, "M-2")], &BTreeSet::new()).await;
    assert_eq!(bench.body("two").await, "one");
    // Neither 41 nor what it replaced is in the restored database.
    log.with(|state| (state.changes, state.next) = (Vec::new(), 41));
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
    assert_eq!(bench.body("two").await, "two", "the cache shows what the database no longer has");
    log.commit([change(41, 41, "M-1")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 1, "the number of a lost own transaction hides a new one");
    assert_eq!(bench.body("three").await, "three");
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_outdates_everything_once() {
    let (bench, log, reconciler) = bench().await;
    log.with(|state| state.unreadable = 1);
    log.commit([change(1, 1, "M-2")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 1);
    assert_eq!(bench.body("two").await, "two");
    reconciler.reconcile().await.unwrap();
    assert_eq!(bench.body("three").await, "two");
}

#[tokio::test]
async fn who_did_not_read_for_longer_than_the_log_is_kept_starts_anew() {
    let (bench, log, reconciler) = bench().await;
    let long_ago = Instant::now().checked_sub(BLIND_LIMIT + Duration::from_secs(1)).unwrap();
    reconciler.update(|progress| progress.read_at = long_ago);
    log.commit([change(1, 1, "M-2")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
    assert_eq!(bench.body("two").await, "two", "a removed change stays unseen");
    log.commit([change(2, 2, "M-2")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 1);
    assert_eq!(bench.body("three").await, "two");
}

/// A bench on the first run of a server with a timeline, of which everything until `next` was read.
async fn on_a_server(next: u64) -> (Bench, Arc<FakeLog>, Reconciler) {
    let (bench, log) = (Bench::new(), FakeLog::new());
    log.with(|state| (state.server, state.next) = (ServerRun { number: 1, timeline: 1 }, next));
    let seen = Snapshot { server: ServerRun { number: 1, timeline: 1 }, ..start(next) };
    let reconciler = Reconciler::new(Arc::clone(&bench.cache), Box::new(Arc::clone(&log)), seen);
    bench.read("one").await.unwrap();
    (bench, log, reconciler)
}

#[tokio::test]
async fn numbers_that_a_crash_gave_out_again_hide_no_change() {
    let (bench, log, reconciler) = on_a_server(50_000).await;
    // 49,990 to 49,999 had been given to transactions that left nothing behind, and one to this process.
    reconciler.announce(&[change(49_980, 1, "M-2")], &BTreeSet::new()).await;
    log.commit([change(1, 0, "M-1"), change(49_980, 1, "M-2")]);
    log.with(|state| (state.server.number, state.next) = (2, 49_990));
    log.commit((49_990..50_005).map(|at| change(at, at as i64, if at == 49_995 { "M-1" } else { "M-2" })));
    assert_eq!(reconciler.reconcile().await.unwrap(), 16, "the one of before is far from the end");
    assert_eq!(bench.body("two").await, "two", "a number that was used again hid a change");
    assert_eq!((log.rows_read() > 0, reconciler.reconcile().await.unwrap(), log.rows_read()), (true, 0, 0));
    assert_eq!(bench.body("three").await, "two");
}

#[tokio::test]
async fn what_is_read_again_after_a_crash_is_read_to_its_end() {
    let (bench, log, reconciler) = on_a_server(1_000).await;
    log.with(|state| (state.server.number, state.next, state.failing_read) = (2, 500, Some(2)));
    log.commit((500..1_001).map(|at| change(at, at as i64, if at == 999 { "M-1" } else { "M-2" })));
    // This process writes as well, and gets a number that was used before.
    reconciler.announce(&[change(501, 501, "M-2")], &BTreeSet::new()).await;
    reconciler.reconcile().await.unwrap_err();
    assert_eq!(bench.body("two").await, "one");
    assert_eq!(reconciler.reconcile().await.unwrap(), 501);
    assert_eq!(bench.body("two").await, "two");
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
}

#[tokio::test]
async fn a_standby_that_took_over_outdates_everything() {
    for (before, after) in [((1, 1), (2, 2)), ((1, 0), (2, 0)), ((1, 1), (2, 0))] {
        let (bench, log, reconciler) = on_a_server(100).await;
        let run = |(number, timeline)| ServerRun { number, timeline };
        reconciler.update(|progress| progress.seen.server = run(before));
        // What it lacks, it has overtaken.
        log.with(|state| (state.server, state.next) = (run(after), 200));
        assert_eq!(reconciler.reconcile().await.unwrap(), 0);
        assert_eq!(bench.body("two").await, "two", "the cache shows what the new server never had: {before:?} {after:?}");
        log.commit([change(200, 1, "M-2")]);
        assert_eq!(reconciler.reconcile().await.unwrap(), 1);
        assert_eq!(bench.body("three").await, "two");
    }
}

#[tokio::test]
async fn a_crash_outdates_nothing_that_was_known_before_it() {
    let (bench, log, reconciler) = on_a_server(1_000).await;
    // One of this process, one of another one, and one whose transaction is prepared and outlives the crash.
    log.with(|state| state.open.push(1_000));
    reconciler.announce(&[change(1_001, 21, "M-1")], &BTreeSet::new()).await;
    log.commit([change(1_001, 21, "M-1"), change(1_002, 22, "M-1")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 1);
    bench.read("two").await.unwrap();
    log.with(|state| state.server.number = 2);
    assert_eq!(reconciler.reconcile().await.unwrap(), 0);
    assert_eq!(bench.body("three").await, "two", "a restart costs what is cached");
    log.with(|state| state.server.number = 3);
    log.commit([change(1_000, 20, "M-1"), change(1_003, 33, "M-2")]);
    assert_eq!(reconciler.reconcile().await.unwrap(), 2);
    assert_eq!(bench.body("three").await, "three", "the late commit was lost");
}
