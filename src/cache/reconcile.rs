//! Reconciling: reading the change log for changes that this process did not make, and invalidating what they touch.
//! The log is the truth; whatever else announces changes is a hint.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Cache;
use crate::error::Result;
use crate::model::{Change, Position};

/// How many changes are read at a time. Each brings two documents, either of which may be as large as a request.
const BATCH: u32 = 200;

/// The change log, as far as the cache needs it.
pub trait ChangeLog: Send + Sync {
    /// Changes after `position` in the order of their positions, at most `limit`.
    fn changes_after(&self, position: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Change>>>;
}

/// Follows the change log. Positions are in commit order on SQLite, which has one writer at a time.
pub struct Reconciler {
    cache: Arc<Cache>,
    log: Box<dyn ChangeLog>,
    progress: Mutex<Progress>,
}

/// What has been applied: everything up to `through`, and `beyond` that the changes this process made itself.
/// The lock is never held across an await.
#[derive(Debug)]
struct Progress {
    through: Position,
    beyond: BTreeSet<Position>,
}

impl Progress {
    /// Moves `through` over the own changes that follow it without a gap, so that their documents are not read again
    /// from the log, and forgets what lies behind it.
    fn catch_up(&mut self) {
        while self.beyond.contains(&(self.through + 1)) {
            self.through += 1;
        }
        self.beyond = self.beyond.split_off(&(self.through + 1));
    }
}

impl Reconciler {
    /// A reconciler that has applied everything up to `position`.
    pub fn new(cache: Arc<Cache>, log: Box<dyn ChangeLog>, position: Position) -> Self {
        Self { cache, log, progress: Mutex::new(Progress { through: position, beyond: BTreeSet::new() }) }
    }

    /// Announces changes that this process has just committed.
    pub fn announce(&self, changes: &[Change]) {
        self.cache.announce(changes);
        self.update(|progress| {
            progress.beyond.extend(changes.iter().map(|change| change.position));
            progress.catch_up();
        });
    }

    /// The position up to which everything has been applied.
    pub fn position(&self) -> Position {
        self.update(|progress| progress.through)
    }

    /// Applies what the log has and this process did not announce; says how many changes those were.
    pub async fn reconcile(&self) -> Result<usize> {
        let mut applied = 0;
        loop {
            let changes = self.log.changes_after(self.position(), BATCH).await?;
            let Some(last) = changes.last().map(|change| change.position) else { return Ok(applied) };
            let foreign: Vec<Change> = self.update(|progress| {
                let is_foreign =
                    |change: &&Change| change.position > progress.through && !progress.beyond.contains(&change.position);
                changes.iter().filter(is_foreign).cloned().collect()
            });
            self.cache.announce(&foreign);
            applied += foreign.len();
            // Only now: the position promises that everything up to it has been applied.
            self.update(|progress| {
                // Own changes may have taken it further while the log was read.
                progress.through = progress.through.max(last);
                progress.catch_up();
            });
        }
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
