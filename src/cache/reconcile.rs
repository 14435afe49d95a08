//! Reconciling: reading the change log for changes that this process did not make, and invalidating what they touch.
//! The log is the truth; whatever else announces changes is a hint.

mod announce;
pub(super) mod progress;
mod settle;
mod status;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use announce::Applied;
pub use status::CoherenceStatus;

use super::Cache;
use super::bus::Bus;
use super::bus::message::Changes;
use super::target::{Cause, Move, Target};
use crate::error::Result;
use crate::faults;
use crate::model::{Change, ChangePage, CollectionName, Position, ServerRun, Snapshot};
use progress::Progress;

/// How many changes are read at a time. Each brings two documents, either of which may be as large as a request.
const BATCH: u32 = 200;

/// Who has not read the log for this long reads it in vain: retention may have removed what was not seen. It leaves each
/// change there for at least 10 minutes.
const BLIND_LIMIT: Duration = Duration::from_secs(5 * 60);

/// After a round that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// With more changes than this in one round it is their collections that are invalidated.
const MANY: usize = 1_000;

/// The change log, as far as the cache needs it.
pub trait ChangeLog: Send + Sync {
    /// The first `limit` changes after `after` that `seen` did not see, by position, and the snapshot they were read under.
    fn changes_since<'a>(
        &'a self,
        seen: &'a Snapshot,
        after: Option<Position>,
        limit: u32,
    ) -> BoxFuture<'a, Result<ChangePage<Logged>>>;
}

/// What a row of the log tells.
#[derive(Clone, Debug)]
pub enum Logged {
    /// A change of a record.
    Change(Change),
    /// Somebody asked for an invalidation.
    Invalidation {
        /// Its place in the log.
        position: Position,
        /// Of what.
        target: Target,
    },
}

impl Logged {
    fn position(&self) -> Position {
        match self {
            Self::Change(change) => change.position,
            Self::Invalidation { position, .. } => *position,
        }
    }
}

/// Follows the change log: each round applies what the snapshot of this round sees and that of the last one did not.
/// However long a transaction stays open beside others, its changes are read once, when it has committed.
pub struct Reconciler {
    cache: Arc<Cache>,
    log: Box<dyn ChangeLog>,
    pub(super) bus: Option<Arc<Bus>>,
    /// Never held across an await.
    progress: Mutex<Progress>,
    /// Held by whoever makes a round, so that there is one at a time.
    turn: tokio::sync::Mutex<()>,
    /// Told whenever transactions are noted as applied.
    noted: watch::Sender<()>,
    /// When the last round began that has ended, well or not.
    ended: watch::Sender<Option<Instant>>,
}

/// One round over the log.
struct Round {
    /// What it reads.
    snapshot: Snapshot,
    /// What was seen of another run of the server: only what is newer than that counts.
    before: Option<Snapshot>,
    /// When the last one began: what was not applied then has been committed since.
    since: Instant,
    applied: usize,
    newest: i64,
    /// Collections that were invalidated as a whole: everything that this round reads was committed before that.
    whole: BTreeSet<CollectionName>,
    /// The transaction that the last page may have broken off.
    broken_off: Option<u64>,
}

impl Reconciler {
    /// A reconciler that has applied everything that `seen` sees. Take it before the cache's first load.
    pub fn new(cache: Arc<Cache>, log: Box<dyn ChangeLog>, seen: Snapshot) -> Self {
        let progress = Mutex::new(Progress::new(seen, Instant::now()));
        let (noted, ended) = (watch::Sender::new(()), watch::Sender::new(None));
        Self { cache, log, bus: None, progress, turn: tokio::sync::Mutex::default(), noted, ended }
    }

    /// The same, telling other instances and listening to them.
    #[must_use]
    pub fn on_bus(self, bus: Bus) -> Self {
        Self { bus: Some(Arc::new(bus)), ..self }
    }

    /// Begins to reconcile every `interval`, and whenever something is suspected, and to listen to the bus; returns the
    /// tasks, which go on until they are aborted.
    pub fn start(self: &Arc<Self>, interval: Duration) -> Vec<JoinHandle<()>> {
        let mut tasks = vec![tokio::spawn(Arc::clone(self).run(interval))];
        if let Some(bus) = &self.bus {
            self.cache.trust().demand_evidence(interval, self.update(|progress| progress.read_at));
            let (reconciler, listening) = (Arc::clone(self), Arc::clone(bus));
            tasks.push(tokio::spawn(async move { reconciler.listen(&listening).await }));
            let (reconciler, settling) = (Arc::clone(self), Arc::clone(bus));
            tasks.push(tokio::spawn(async move { reconciler.keep_settled(&settling).await }));
            let (reconciler, beating) = (Arc::clone(self), Arc::clone(bus));
            tasks.push(tokio::spawn(async move { beating.beat(|| reconciler.covered()).await }));
            let watching = Arc::clone(bus);
            tasks.push(tokio::spawn(async move { watching.listen_for_silence().await }));
        }
        tasks
    }

    /// Applies what the log has and nobody announced here; says how many changes those were.
    pub async fn reconcile(&self) -> Result<usize> {
        self.reconcile_from(None).await
    }

    /// The same, beginning with what `covered` does not see, if it is given.
    async fn reconcile_from(&self, covered: Option<Snapshot>) -> Result<usize> {
        let _turn = self.turn.lock().await;
        if let Some(covered) = covered {
            self.update(|progress| progress.rewind(covered));
        }
        let began = Instant::now();
        let outcome = self.round(began).await;
        match &outcome {
            Ok(unannounced) => {
                self.cache.trust().reconciled(began);
                if let Some(bus) = &self.bus {
                    bus.metrics().unannounced.inc_by(*unannounced as u64);
                }
            }
            Err(_) => self.cache.trust().unreadable(),
        }
        self.ended.send_replace(Some(began));
        outcome
    }

    async fn round(&self, began: Instant) -> Result<usize> {
        let (mut seen, expected, since) =
            self.update(|progress| (progress.seen.clone(), progress.expected_next(), progress.read_at));
        let mut page = self.log.changes_since(&seen, None, BATCH).await?;
        let blind = began - since;
        if let Some(reason) = why_anew(seen.server, expected, blind, &page.snapshot) {
            tracing::warn!(
                next = page.snapshot.next,
                expected,
                blind_seconds = blind.as_secs(),
                "{reason}; the cache starts anew"
            );
            self.start_anew(page.snapshot, began).await;
            return Ok(0);
        }
        let is_another_run = page.snapshot.server != seen.server;
        let before = is_another_run.then(|| seen.clone());
        if is_another_run {
            // What it wrote may bear numbers that this process has announced or seen: what is done twice costs a miss.
            self.update(|progress| progress.own.clear());
            seen = seen.without_last(ServerRun::REUSED);
            page = self.log.changes_since(&seen, None, BATCH).await?;
        }
        let mut round = Round::new(page.snapshot.clone(), before, since);
        loop {
            self.apply(&page, &mut round).await;
            // What the snapshot does not see belongs to the next round, which has a newer one.
            let Some(after) = page.more_after.filter(|after| after.transaction < round.snapshot.next) else { break };
            page = self.log.changes_since(&seen, Some(after), BATCH).await?;
        }
        // Only now: it promises that everything that the snapshot sees has been applied.
        self.update(|progress| progress.applied(round.snapshot, round.newest, began));
        if is_another_run {
            tracing::info!(applied = round.applied, "the database server was started anew; its last changes were read again");
        }
        Ok(round.applied)
    }

    async fn apply(&self, page: &ChangePage<Logged>, round: &mut Round) {
        if page.unreadable > 0 {
            // They may be about any record, and nothing else would tell.
            self.outdate_all().await;
        }
        let unannounced = |round: &Round| -> Vec<Logged> {
            let is_new = |progress: &Progress, row: &&Logged| round.is_new(row.position(), progress);
            self.update(|progress| page.changes.iter().filter(|row| is_new(progress, row)).cloned().collect())
        };
        let mut foreign = unannounced(round);
        if !foreign.is_empty() && self.cache.trust().is_bus_up(Instant::now()) {
            // What has just been committed is being announced: to do it again would cost everybody a miss.
            tokio::time::sleep(announce::HOP).await;
            foreign = unannounced(round);
        }
        let (foreign, by_hand) = parted(foreign);
        let (targets, whole) = round.take_in(page, &foreign);
        if faults::is_switched_off("reconcile") {
            return;
        }
        for (position, target) in by_hand {
            round.applied += 1;
            let mv = Move { cause: Cause::Invalidated { by: None }, since: round.since };
            let tell = |told| Changes { transactions: announce::places(&[position]), is_found: true, ..told };
            self.spread(&[target], &[], &mv, tell).await;
        }
        let Some(newest) = foreign.iter().map(|change| change.position).max() else { return };
        let mv = Move { cause: Cause::Change { position: newest, by: None }, since: round.since };
        let transactions = announce::places(&whole);
        let foreign: Vec<Arc<Change>> = foreign.into_iter().map(Arc::new).collect();
        self.spread(&targets, &foreign, &mv, |told| Changes { transactions, is_found: true, ..told }).await;
    }

    /// Forgets own transactions too: their numbers may be given out again.
    async fn start_anew(&self, snapshot: Snapshot, read_at: Instant) {
        self.outdate_all().await;
        self.update(|progress| progress.start_anew(snapshot, read_at));
    }

    /// Nobody can say what changed. Others find that out by themselves.
    async fn outdate_all(&self) {
        let mv = Move { cause: Cause::Unknown, since: self.update(|progress| progress.read_at) };
        self.cache.advance(&[Target::All], &mv);
        if let Some(bus) = &self.bus {
            bus.send(&[Target::All], None).await;
            self.cache.advance(&[Target::All], &mv);
        }
    }

    /// A database that is away is tried again next time.
    async fn run(self: Arc<Self>, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Each state is told once: the lines of an hour without the database would bury all others.
        let mut was_failing = false;
        let alarm = Arc::clone(self.cache.trust().alarm());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = alarm.notified() => {}
            }
            let outcome = self.reconcile().await;
            match &outcome {
                Ok(_) if was_failing => tracing::info!("the change log can be read again"),
                Err(error) if !was_failing => {
                    tracing::warn!(%error, "cannot read the change log; changes by other processes stay unseen meanwhile");
                }
                Ok(_) | Err(_) => {}
            }
            was_failing = outcome.is_err();
            if was_failing {
                // Those who wake it may be many, and go on without it.
                tokio::time::sleep(PAUSE.min(interval)).await;
            }
        }
    }

    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Round {
    fn new(snapshot: Snapshot, before: Option<Snapshot>, since: Instant) -> Self {
        Self { snapshot, before, since, applied: 0, newest: 0, whole: BTreeSet::new(), broken_off: None }
    }

    /// Whether it belongs to this round, and nobody announced it here.
    fn is_new(&self, Position { transaction, sequence }: Position, progress: &Progress) -> bool {
        let was_seen = |before: &Snapshot| before.sees(transaction) && sequence <= progress.newest;
        self.snapshot.sees(transaction) && !progress.own.contains_key(&transaction) && !self.before.as_ref().is_some_and(was_seen)
    }

    /// Notes a page and what is new in it; returns what has to be invalidated, and the transactions that it tells of wholly: one
    /// that goes on beyond the page, or has a row that cannot be read, is for everybody to read himself.
    fn take_in(&mut self, page: &ChangePage<Logged>, foreign: &[Change]) -> (Vec<Target>, Vec<Position>) {
        let rows = page.changes.iter().map(Logged::position).filter(|row| self.snapshot.sees(row.transaction));
        self.newest = rows.map(|row| row.sequence).fold(self.newest, i64::max);
        self.applied += foreign.len();
        let mut targets: Vec<Target> = match self.applied > MANY {
            true => Target::collections_of(foreign),
            false => Target::of_changes(foreign),
        };
        targets.retain(|target| target.collection().is_none_or(|collection| !self.whole.contains(collection)));
        self.whole.extend(targets.iter().filter_map(|target| match target {
            Target::Collection(collection) => Some(collection.clone()),
            Target::Guard(_) | Target::Records(..) | Target::All => None,
        }));
        let goes_on = page.more_after.map(|after| after.transaction);
        let mut transactions = announce::newest_rows(foreign);
        let broken = [self.broken_off, goes_on];
        transactions.retain(|position| page.unreadable == 0 && !broken.contains(&Some(position.transaction)));
        self.broken_off = goes_on;
        (targets, transactions)
    }
}

/// Changes, and what was invalidated by hand; of those each has a transaction of its own.
fn parted(rows: Vec<Logged>) -> (Vec<Change>, Vec<(Position, Target)>) {
    let (mut changes, mut by_hand) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match row {
            Logged::Change(change) => changes.push(change),
            Logged::Invalidation { position, target } => by_hand.push((position, target)),
        }
    }
    (changes, by_hand)
}

/// Why the log cannot tell what changed since the server `was` read: `now` sees other changes than those, or some are gone.
fn why_anew(was: ServerRun, expected_next: u64, blind: Duration, now: &Snapshot) -> Option<&'static str> {
    let is_same_run = now.server == was;
    // Who does not tell its timeline may be a standby that took over.
    if !is_same_run && (now.server.timeline != was.timeline || was.timeline == 0) {
        return Some("another database server took over, and may lack what was seen");
    }
    if now.next < expected_next {
        return Some("the database is older than it was: it was restored, or lost what it had committed");
    }
    (blind > BLIND_LIMIT).then_some("the change log was not read for too long")
}

#[cfg(test)]
pub(super) mod tests;
