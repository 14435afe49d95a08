//! Upkeep of the pool: a few connections are always there, and those that nobody uses are closed.

use std::time::Duration;

use futures_util::future::join_all;

use super::pool::WeakPool;

/// How often unused connections are looked for.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps as many connections as `database.min_connections` says and closes what has not been used.
pub(super) struct Keep {
    pub pool: WeakPool,
    pub min_connections: usize,
    pub idle_timeout: Duration,
}

impl Keep {
    /// Goes on until the pool is gone.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL.min(self.idle_timeout));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(pool) = self.pool.upgrade() else { return };
            let mut spare = pool.status().size.saturating_sub(self.min_connections);
            pool.retain(|unused| {
                let close = spare > 0 && unused > self.idle_timeout;
                spare -= usize::from(close);
                !close
            });
            let missing = self.min_connections.saturating_sub(pool.placed());
            // Failures are told by requests, too.
            join_all((0..missing).map(|_| pool.make_one())).await;
        }
    }
}
