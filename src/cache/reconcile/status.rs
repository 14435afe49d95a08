//! How coherent this instance is with the others, told to its operator.

use std::time::Instant;

use serde::Serialize;

use super::Reconciler;

/// The state of bus and log.
#[derive(Clone, Debug, Serialize)]
pub struct CoherenceStatus {
    /// Whether L1 is served at the moment.
    pub trusted: bool,
    /// The way between instances; none without `redis.url`.
    pub bus: Option<BusStatus>,
    /// How far the log has been applied.
    pub log: LogStatus,
}

/// The way between instances.
#[derive(Clone, Debug, Serialize)]
pub struct BusStatus {
    /// Whether own heartbeats come back.
    pub up: bool,
    /// Invalidations that the second tier has not been told yet; while there are any, it is not used.
    pub owed: usize,
    /// How often L1 was not trusted until the next round over the log.
    pub suspicions: u64,
}

/// How far the log has been applied.
#[derive(Clone, Debug, Serialize)]
pub struct LogStatus {
    /// No transaction from this number on has been applied.
    pub next_transaction: u64,
    /// Transactions before it that have not been applied: they were open.
    pub open_transactions: usize,
    /// Transactions that were announced and that no round has seen yet.
    pub announced: usize,
    /// How long ago the last round began that read the log to its end, in milliseconds.
    pub read_ago_ms: u64,
}

impl Reconciler {
    /// The state of bus and log.
    pub fn status(&self) -> CoherenceStatus {
        let now = Instant::now();
        let trust = self.cache.trust();
        let bus = self.bus.as_ref().map(|bus| BusStatus {
            up: trust.is_bus_up(now),
            owed: bus.owed(),
            suspicions: bus.metrics().suspicions(),
        });
        let log = self.update(|progress| LogStatus {
            next_transaction: progress.seen.next,
            open_transactions: progress.seen.in_progress.len(),
            announced: progress.own.len(),
            read_ago_ms: u64::try_from(now.saturating_duration_since(progress.read_at).as_millis()).unwrap_or(u64::MAX),
        });
        CoherenceStatus { trusted: trust.holds(now), bus, log }
    }
}
