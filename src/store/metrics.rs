//! What the store tells about itself: how long each operation takes, how often one fails, how busy the pool is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use prometheus::{Histogram, HistogramOpts, HistogramVec};

use super::failure::{Failure, RETRY_AFTER};
use crate::config::DatabaseSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::Telemetry;

/// Bounds of the histogram in seconds: a point read is some 10 µs, a count over 100,000 records some 10 ms.
const BOUNDS: [f64; 14] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The operation that nearly every miss is.
pub(super) const LOOKUP: &str = "record_read";

/// How busy a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolStatus {
    /// How many connections there are.
    pub size: usize,
    /// How many of them nobody uses.
    pub idle: usize,
    /// How many operations wait for one.
    pub waiting: usize,
}

/// The instruments, made once.
#[derive(Debug)]
pub(super) struct Metrics {
    /// A plain collector: through a meter it would cost a tenth of a miss.
    duration: HistogramVec,
    /// The one of [`LOOKUP`], which to find costs as much as a look-up in L1.
    lookup: Histogram,
    failures: Counter<u64>,
    slow_query: Duration,
}

impl Metrics {
    /// Operations slower than `slow_query` are logged.
    pub fn new(telemetry: &Telemetry, slow_query: Duration) -> Result<Self> {
        let duration = HistogramOpts::new(
            "terrace_database_operation_duration_seconds",
            "How long database operations take, waiting for a connection included.",
        );
        let duration = telemetry.histogram(duration.buckets(BOUNDS.to_vec()), &["operation"])?;
        let failures = telemetry
            .meter()
            .u64_counter("terrace_database_failures")
            .with_description("Database operations that failed for the database's reasons.")
            .build();
        let lookup = duration.with_label_values(&[LOOKUP]);
        Ok(Self { duration, lookup, failures, slow_query })
    }

    /// Reports the pool at every scrape, until it is gone.
    pub fn watch_pool(meter: &Meter, status: impl Fn() -> Option<PoolStatus> + Send + Sync + 'static) {
        meter
            .u64_observable_gauge("terrace_database_connections")
            .with_description("Database connections by state, and operations that wait for one.")
            .with_callback(move |observer| {
                if let Some(PoolStatus { size, idle, waiting }) = status() {
                    for (name, value) in [("idle", idle), ("used", size - idle), ("waiting", waiting)] {
                        observer.observe(value as u64, &[KeyValue::new("state", name)]);
                    }
                }
            })
            .build();
    }

    /// Counts one operation. The log line has no values, which may be secret.
    pub fn observe(&self, operation: &'static str, collection: &str, started: Instant, is_fault: bool) {
        let elapsed = started.elapsed();
        match operation {
            LOOKUP => self.lookup.observe(elapsed.as_secs_f64()),
            _ => self.duration.with_label_values(&[operation]).observe(elapsed.as_secs_f64()),
        }
        if is_fault {
            self.failures.add(1, &[KeyValue::new("operation", operation)]);
        }
        if elapsed > self.slow_query {
            let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(operation, collection, duration_ms, "slow database operation");
        }
    }
}

/// What there is not enough of for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scarce {
    /// A connection of the pool.
    Connection,
    /// The one lock that SQLite's writers queue for.
    WriteLock,
}

/// Operations that wait for something in vain. The log is told once per episode, which begins with the first of them and
/// ends when somebody gets it while nobody waits.
#[derive(Debug)]
pub(super) struct Shortage {
    scarce: Scarce,
    refused: Counter<u64>,
    /// How many have been refused in this episode; 0 when there is none.
    in_episode: AtomicU64,
    max_connections: u32,
    acquire_timeout: Duration,
}

impl Shortage {
    /// No shortage yet.
    pub fn new(meter: &Meter, scarce: Scarce, settings: &DatabaseSettings) -> Self {
        let refused = meter
            .u64_counter("terrace_database_acquire_timeouts")
            .with_description("Operations refused because what they needed was not free within database.acquire_timeout.")
            .build();
        let &DatabaseSettings { max_connections, acquire_timeout, .. } = settings;
        Self { scarce, refused, in_episode: AtomicU64::new(0), max_connections, acquire_timeout }
    }

    /// An operation has waited for all of `database.acquire_timeout`. The failure it then has tells the log nothing.
    pub fn in_vain(&self, operation: &'static str) -> Failure {
        let (name, detail) = match self.scarce {
            Scarce::Connection => {
                ("connection", "The database is busy: no connection became free within database.acquire_timeout.")
            }
            Scarce::WriteLock => {
                ("write_lock", "The database is busy: other writes went before this one for all of database.acquire_timeout.")
            }
        };
        self.refused.add(1, &[KeyValue::new("resource", name)]);
        if self.in_episode.fetch_add(1, Ordering::Relaxed) == 0 {
            let (max_connections, waited_ms) = (self.max_connections, self.acquire_timeout.as_millis());
            match self.scarce {
                Scarce::Connection => tracing::warn!(
                    operation,
                    max_connections,
                    waited_ms,
                    "no database connection became free: raise database.max_connections, or find what holds them; requests are \
                     refused after database.acquire_timeout"
                ),
                Scarce::WriteLock => tracing::warn!(
                    operation,
                    waited_ms,
                    "the write lock did not become free: raise database.acquire_timeout, or find what holds it"
                ),
            }
        }
        Failure::Refused(Error::new(ErrorKind::Unavailable, "unavailable", detail).with_retry_after(RETRY_AFTER))
    }

    /// An operation got what it needed; `waiting` counts those that still wait and is asked only in an episode.
    pub fn relieved(&self, waiting: impl FnOnce() -> usize) {
        if self.in_episode.load(Ordering::Relaxed) > 0 && waiting() == 0 {
            let refused = self.in_episode.swap(0, Ordering::Relaxed);
            if refused > 0 {
                tracing::info!(scarce = ?self.scarce, refused, "a shortage in the database is over");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn an_episode_ends_when_nobody_waits_and_every_refusal_is_counted() {
        let telemetry = Telemetry::new().unwrap();
        let shortage = Shortage::new(telemetry.meter(), Scarce::Connection, &DatabaseSettings::default());
        shortage.relieved(|| panic!("there is no episode"));
        for _ in 0..3 {
            let error = shortage.in_vain("record_read").into_error();
            assert_eq!((error.kind(), error.internal_message()), (ErrorKind::Unavailable, None));
            assert!(error.detail().contains("database.acquire_timeout") && error.retry_after().is_some());
        }
        shortage.relieved(|| 1);
        assert_eq!(shortage.in_episode.load(Ordering::Relaxed), 3);
        shortage.relieved(|| 0);
        assert_eq!(shortage.in_episode.load(Ordering::Relaxed), 0);
        let text = telemetry.encode().unwrap();
        assert!(text.contains("terrace_database_acquire_timeouts_total{resource=\"connection\"} 3"), "{text}");
    }
}
