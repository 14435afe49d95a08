//! What the store tells about itself: how long each operation takes, how often one fails, how busy the pool is.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

/// Bounds of the histogram in seconds: a point read is some 10 µs, a count over 100,000 records some 10 ms.
const BOUNDS: [f64; 14] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The instruments, made once.
#[derive(Debug)]
pub(super) struct Metrics {
    duration: Histogram<f64>,
    failures: Counter<u64>,
    slow_query: Duration,
}

/// How many connections there are and what they do.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolState {
    /// Open connections.
    pub size: usize,
    /// Those that nobody uses.
    pub idle: usize,
    /// Operations that wait for one.
    pub waiting: usize,
}

impl Metrics {
    /// Operations slower than `slow_query` are logged.
    pub fn new(meter: &Meter, slow_query: Duration) -> Self {
        let duration = meter
            .f64_histogram("terrace_database_operation_duration")
            .with_unit("s")
            .with_description("How long database operations take, waiting for a connection included.")
            .with_boundaries(BOUNDS.to_vec())
            .build();
        let failures = meter
            .u64_counter("terrace_database_failures")
            .with_description("Database operations that failed for the database's reasons.")
            .build();
        Self { duration, failures, slow_query }
    }

    /// Reports the pool at every scrape; `state` gives `None` once the store is gone.
    pub fn watch_pool(meter: &Meter, state: impl Fn() -> Option<PoolState> + Send + Sync + 'static) {
        meter
            .u64_observable_gauge("terrace_database_connections")
            .with_description("Database connections by state, and operations that wait for one.")
            .with_callback(move |observer| {
                if let Some(state) = state() {
                    let used = state.size.saturating_sub(state.idle);
                    for (name, value) in [("idle", state.idle), ("used", used), ("waiting", state.waiting)] {
                        observer.observe(value as u64, &[KeyValue::new("state", name)]);
                    }
                }
            })
            .build();
    }

    /// Counts one operation. The log line has no values, which may be secret.
    pub fn observe(&self, operation: &'static str, collection: &str, started: Instant, is_fault: bool) {
        let elapsed = started.elapsed();
        let labels = [KeyValue::new("operation", operation)];
        self.duration.record(elapsed.as_secs_f64(), &labels);
        if is_fault {
            self.failures.add(1, &labels);
        }
        if elapsed > self.slow_query {
            let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(operation, collection, duration_ms, "slow database operation");
        }
    }
}
