//! Settling: what this process does before it uses the second tier of a server that it has not vouched for, at its start, and
//! after a failover.
//!
//! What it finds there may be valid by its guards and yet outdated: changes that were committed while nobody was there to delete
//! guards, or whose guards were deleted on another server. Whoever is settled keeps in Redis how far the log has been applied to
//! it; who comes later applies what is newer, and deletes everything if nobody can tell.

use std::time::{Duration, Instant};

use super::Reconciler;
use crate::cache::bus::{Amount, Bus, Due, Standing};
use crate::model::Snapshot;

/// Who has not read the log for longer does not say how far it has been applied.
const FRESH: Duration = Duration::from_secs(60);

impl Reconciler {
    /// Settles whenever there is something to settle, until it is aborted.
    pub(super) async fn keep_settled(&self, bus: &Bus) {
        let mut links = bus.links();
        loop {
            let is_settled = match bus.due() {
                Some(due) => self.settle_debts(bus, due).await,
                None => true,
            };
            bus.something_due(&mut links, is_settled).await;
        }
    }

    /// Says whether everything is settled.
    pub(in crate::cache) async fn settle_debts(&self, bus: &Bus, due: Due) -> bool {
        let amount = match due.standing {
            Standing::Known => Amount::Due,
            Standing::Unknown | Standing::Changed => match bus.covered(due.server).await {
                Some(covered) => self.catch_up(covered).await,
                None => Amount::Everything,
            },
        };
        bus.pay(due, amount).await
    }

    /// Applies what is newer than `covered`. Says how much is left to be deleted.
    async fn catch_up(&self, covered: Snapshot) -> Amount {
        let is_same_run = self.update(|progress| covered.server == progress.seen.server);
        match is_same_run && self.reconcile_from(Some(covered)).await.is_ok() {
            true => Amount::Due,
            false => Amount::Everything,
        }
    }

    /// How far the log has been applied, for those who come later.
    pub(in crate::cache) fn covered(&self) -> Option<Snapshot> {
        self.update(|progress| (Instant::now() - progress.read_at < FRESH).then(|| progress.seen.clone()))
    }
}
