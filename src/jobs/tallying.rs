//! Tallying: what writers have recorded for statistics and totals is summed up in the background and in small steps, so that
//! readers have few rows to add. They have the same answers before, during and after.

use std::time::Duration;

use crate::error::Result;
use crate::store::Store;

/// How often. Until then every reader adds up what was written since, about a microsecond for each row.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many rows are summed up at a time: some tens of milliseconds, in which nobody waits.
const BATCH: u32 = 10_000;
/// The pause after a batch that was full.
const PAUSE: Duration = Duration::from_millis(20);

/// Sums up tallies. Several processes may do it on one database at once.
pub struct Tallying {
    store: Store,
}

impl Tallying {
    /// Sums up those of `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Sums up from time to time, until the task is aborted; does nothing where the database keeps no tallies. What fails is tried
    /// again next time.
    pub async fn run(self) {
        if !self.store.has_tallies() {
            return;
        }
        // Processes that were started together shall not all come at the same time.
        tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut was_failing = false;
        loop {
            ticks.tick().await;
            let outcome = self.round().await;
            match &outcome {
                Ok(()) if was_failing => tracing::info!("tallies can be summed up again"),
                Err(error) if !was_failing => {
                    tracing::warn!(%error, "cannot sum up tallies; statistics and totals take longer meanwhile");
                }
                Ok(()) | Err(_) => {}
            }
            was_failing = outcome.is_err();
        }
    }

    /// Sums up all that there is, collection by collection.
    pub async fn round(&self) -> Result<()> {
        let mut after = String::new();
        while let Some(tallied) = self.store.tally(&after, BATCH).await? {
            match tallied.changes < u64::from(BATCH) {
                true => after = tallied.collection,
                false => tokio::time::sleep(PAUSE).await,
            }
        }
        Ok(())
    }
}
