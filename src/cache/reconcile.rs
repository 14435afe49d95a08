//! Reconciling: reading the change log for changes that this process did not make, and invalidating what they touch.
//! The log is the truth; whatever else announces changes is a hint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::Cache;
use crate::error::Result;
use crate::model::{Change, ChangePage, Position, ServerRun, Snapshot};

/// How many changes are read at a time. Each brings two documents, either of which may be as large as a request.
const BATCH: u32 = 200;

/// Who has not read the log for this long reads it in vain: retention may have removed what was not seen. It leaves each
/// change there for at least 10 minutes.
const BLIND_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How many transactions are read again after the database server was started anew or recovered from a crash. It may give
/// out numbers again which nobody committed that were given out after its log was last written to disk: that happens with
/// each commit, and within 0.6 seconds at the latest. So this allows for over 16,000 of them a second.
const REREAD: u64 = 10_000;

/// The change log, as far as the cache needs it.
pub trait ChangeLog: Send + Sync {
    /// The first `limit` changes after `after` that `seen` did not see, by position, and the snapshot they were read under.
    fn changes_since<'a>(
        &'a self,
        seen: &'a Snapshot,
        after: Option<Position>,
        limit: u32,
    ) -> BoxFuture<'a, Result<ChangePage<Change>>>;
}

/// Follows the change log: each round applies what the snapshot of this round sees and that of the last one did not.
/// However long a transaction stays open beside others, its changes are read once, when it has committed.
pub struct Reconciler {
    cache: Arc<Cache>,
    log: Box<dyn ChangeLog>,
    progress: Mutex<Progress>,
}

/// What has been applied. The lock is never held across an await.
#[derive(Debug)]
struct Progress {
    /// What the last round read, and of what this process announced as much as goes in without a gap: no need to read it.
    seen: Snapshot,
    /// Transactions that this process announced and the last round's snapshot did not see, each with its newest row. All
    /// changes of a transaction are announced together.
    own: BTreeMap<u64, i64>,
    /// The newest row that rounds of this run of the server have come across. Rows that a crashed server writes later are
    /// newer than all that it had committed, whatever the numbers of their transactions.
    newest: i64,
    /// When the last round began that read the log to its end.
    read_at: Instant,
}

impl Progress {
    fn announced(&mut self, Position { transaction, sequence }: Position) {
        if let Some(newest) = self.own.get_mut(&transaction) {
            *newest = sequence.max(*newest);
        } else if !self.seen.sees(transaction) {
            self.own.insert(transaction, sequence);
            self.seen.see(transaction);
        }
    }

    /// Everything that `snapshot` sees has been applied; `newest` was the newest row of it that was read.
    fn applied(&mut self, snapshot: Snapshot, newest: i64, read_at: Instant) {
        let (seen, unseen) = std::mem::take(&mut self.own).into_iter().partition(|(transaction, _)| snapshot.sees(*transaction));
        let seen: BTreeMap<u64, i64> = seen;
        self.newest = seen.into_values().fold(self.newest.max(newest), i64::max);
        self.own = unseen;
        self.seen = snapshot;
        self.own.keys().for_each(|transaction| self.seen.see(*transaction));
        self.read_at = read_at;
    }

    /// What `next` is at least, if the database is the one that was read before: its numbers only go up.
    fn expected_next(&self) -> u64 {
        self.own.last_key_value().map_or(0, |(own, _)| own.saturating_add(1)).max(self.seen.next)
    }
}

impl Reconciler {
    /// A reconciler that has applied everything that `seen` sees. Take it before the cache's first load.
    pub fn new(cache: Arc<Cache>, log: Box<dyn ChangeLog>, seen: Snapshot) -> Self {
        let progress = Progress { seen, own: BTreeMap::new(), newest: 0, read_at: Instant::now() };
        Self { cache, log, progress: Mutex::new(progress) }
    }

    /// Announces changes that this process has just committed; those of one transaction in one call.
    pub fn announce(&self, changes: &[Change]) {
        self.cache.announce(changes);
        self.update(|progress| changes.iter().for_each(|change| progress.announced(change.position)));
    }

    /// Applies what the log has and this process did not announce; says how many changes those were.
    pub async fn reconcile(&self) -> Result<usize> {
        let began = Instant::now();
        let (mut seen, expected, blind) =
            self.update(|progress| (progress.seen.clone(), progress.expected_next(), began - progress.read_at));
        let mut page = self.log.changes_since(&seen, None, BATCH).await?;
        if let Some(reason) = why_anew(seen.server, expected, blind, &page.snapshot) {
            tracing::warn!(
                next = page.snapshot.next,
                expected,
                blind_seconds = blind.as_secs(),
                "{reason}; the cache starts anew"
            );
            self.start_anew(page.snapshot, began);
            return Ok(0);
        }
        let is_another_run = page.snapshot.server != seen.server;
        let before = is_another_run.then(|| seen.clone());
        if is_another_run {
            // What it wrote may bear numbers that this process has announced or seen: what is done twice costs a miss.
            self.update(|progress| progress.own.clear());
            seen = seen.without_last(REREAD);
            page = self.log.changes_since(&seen, None, BATCH).await?;
        }
        let snapshot = page.snapshot.clone();
        let (mut applied, mut newest) = (0, 0);
        loop {
            applied += self.apply(&page, &snapshot, before.as_ref());
            let seen_rows = page.changes.iter().map(|change| change.position).filter(|row| snapshot.sees(row.transaction));
            newest = seen_rows.map(|row| row.sequence).fold(newest, i64::max);
            // What the snapshot does not see belongs to the next round, which has a newer one.
            let Some(after) = page.more_after.filter(|after| after.transaction < snapshot.next) else { break };
            page = self.log.changes_since(&seen, Some(after), BATCH).await?;
        }
        // Only now: it promises that everything that the snapshot sees has been applied.
        self.update(|progress| progress.applied(snapshot, newest, began));
        if is_another_run {
            tracing::info!(applied, "the database server was started anew; its last changes were read again");
        }
        Ok(applied)
    }

    /// `before` is what was seen of another run of the server: only what is newer than that counts.
    fn apply(&self, page: &ChangePage<Change>, snapshot: &Snapshot, before: Option<&Snapshot>) -> usize {
        if page.unreadable > 0 {
            // They may be about any record, and nothing else would tell.
            self.cache.outdate_all();
        }
        let foreign: Vec<Change> = self.update(|progress| {
            let is_foreign = |change: &&Change| {
                let Position { transaction, sequence } = change.position;
                let is_known = before.is_some_and(|before| before.sees(transaction) && sequence <= progress.newest);
                snapshot.sees(transaction) && !progress.own.contains_key(&transaction) && !is_known
            };
            page.changes.iter().filter(is_foreign).cloned().collect()
        });
        self.cache.announce(&foreign);
        foreign.len()
    }

    /// Forgets own transactions too: their numbers may be given out again.
    fn start_anew(&self, snapshot: Snapshot, read_at: Instant) {
        self.cache.outdate_all();
        self.update(|progress| *progress = Progress { seen: snapshot, own: BTreeMap::new(), newest: 0, read_at });
    }

    /// Reconciles every `interval` until the task is aborted. A database that is away is tried again next time.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Each state is told once: the lines of an hour without the database would bury all others.
        let mut was_failing = false;
        loop {
            ticks.tick().await;
            let outcome = self.reconcile().await;
            match &outcome {
                Ok(_) if was_failing => tracing::info!("the change log can be read again"),
                Err(error) if !was_failing => {
                    tracing::warn!(%error, "cannot read the change log; changes by other processes stay unseen meanwhile");
                }
                Ok(_) | Err(_) => {}
            }
            was_failing = outcome.is_err();
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
mod tests;
