//! Retention: the change log loses what is older than `changes.retention`, in the background and in small steps; and answers that
//! were kept for an `Idempotency-Key` go after their day.
//!
//! Caches follow the log, so a change must stay until every process has had time to see it. Its own time does not tell
//! that: it is from before its transaction committed, and from the clock of another machine. So a round removes only what
//! the round before it saw, however old the rest claims to be.

use std::time::Duration;

use chrono::Utc;
use opentelemetry::metrics::{Counter, Meter};

use crate::error::{Error, Result};
use crate::model::{Snapshot, timestamp_text};
use crate::records::IDEMPOTENCY_RETENTION;
use crate::store::Store;

/// How often. It is also how long every process has to see a change that was committed late.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The shortest that changes are kept, whatever the settings say.
const SHORTEST: Duration = Duration::from_secs(10 * 60);
/// How many rows are removed at a time. On SQLite each batch holds the write lock, for some milliseconds.
const BATCH: u32 = 1_000;
/// The pause after a batch, in which writers have their turn.
const PAUSE: Duration = Duration::from_millis(50);

/// Shortens the change log. Several processes may do it on one database at once.
pub struct Retention {
    store: Store,
    keep: Duration,
    interval: Duration,
    removed: Counter<u64>,
    /// What the round before this one saw.
    seen: Option<Snapshot>,
}

impl Retention {
    /// Keeps what is younger than `keep`.
    pub fn new(store: Store, keep: Duration, meter: &Meter) -> Self {
        let removed = meter
            .u64_counter("terrace_changes_removed")
            .with_description("Rows of the change log that changes.retention removed.")
            .build();
        Self { store, keep: keep.max(SHORTEST), interval: INTERVAL, removed, seen: None }
    }

    /// The same with another interval.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Shortens the log from time to time, until the task is aborted. What fails is tried again next time.
    pub async fn run(mut self) {
        // Processes that were started together shall not all come at the same time.
        tokio::time::sleep(self.interval.mul_f64(fastrand::f64())).await;
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut was_failing = false;
        loop {
            ticks.tick().await;
            let outcome = match (self.round().await, self.forget().await) {
                (Ok(removed), Ok(())) => Ok(removed),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            match &outcome {
                Ok(0) => {}
                Ok(removed) => tracing::debug!(removed, "removed old changes (changes.retention)"),
                Err(error) if !was_failing => {
                    tracing::warn!(%error, "cannot remove old changes; the change log grows meanwhile");
                }
                Err(_) => {}
            }
            if was_failing && outcome.is_ok() {
                tracing::info!("old changes can be removed again");
            }
            was_failing = outcome.is_err();
        }
    }

    /// Removes the answers that nobody may ask for any more.
    async fn forget(&self) -> Result<()> {
        let keep = chrono::TimeDelta::from_std(IDEMPOTENCY_RETENTION).map_err(Error::internal)?;
        let cutoff = timestamp_text(Utc::now() - keep);
        while self.store.idempotency_prune(&cutoff, BATCH).await? > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Removes what is old and was there a round ago; says how much that was.
    async fn round(&mut self) -> Result<u64> {
        let now = self.store.snapshot().await?;
        let Some(seen) = self.seen.replace(now) else { return Ok(0) };
        let keep = chrono::TimeDelta::from_std(self.keep).map_err(Error::internal)?;
        // A retention that begins before the calendar does keeps everything.
        let Some(cutoff) = Utc::now().checked_sub_signed(keep) else { return Ok(0) };
        let cutoff = timestamp_text(cutoff);
        let mut total = 0;
        loop {
            let removed = self.store.changes_prune(&cutoff, &seen, BATCH).await?;
            if removed == 0 {
                return Ok(total);
            }
            total += removed;
            self.removed.add(removed, &[]);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
