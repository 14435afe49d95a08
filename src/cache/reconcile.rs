//! Reconciling: reading the change log for changes that this process did not make, and invalidating what they touch.
//! The log is the truth; whatever else announces changes is a hint.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Cache;
use crate::error::Result;
use crate::model::{Change, Position};

/// How many changes are read at a time.
const BATCH: u32 = 1_000;

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

impl Reconciler {
    /// A reconciler that has applied everything up to `position`.
    pub fn new(cache: Arc<Cache>, log: Box<dyn ChangeLog>, position: Position) -> Self {
        Self { cache, log, progress: Mutex::new(Progress { through: position, beyond: BTreeSet::new() }) }
    }

    /// Announces changes that this process has just committed.
    pub fn announce(&self, changes: &[Change]) {
        self.cache.announce(changes);
        self.update(|progress| progress.beyond.extend(changes.iter().map(|change| change.position)));
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
                changes.iter().filter(|change| !progress.beyond.contains(&change.position)).cloned().collect()
            });
            self.cache.announce(&foreign);
            applied += foreign.len();
            // Only now: the position promises that everything up to it has been applied.
            self.update(|progress| {
                progress.through = last;
                progress.beyond = progress.beyond.split_off(&(last + 1));
            });
        }
    }

    /// Reconciles every `interval` until the task is aborted. A database that is away is tried again next time.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.reconcile().await {
                tracing::warn!(%error, "cannot read the change log; changes by other processes stay unseen meanwhile");
            }
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
