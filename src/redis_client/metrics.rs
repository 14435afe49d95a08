//! What the connections tell: whether there is one, how commands end and how long they take.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::Result;
use crate::telemetry::register;

/// Bounds of the histogram in seconds: on one machine a command takes some 50 µs.
const BOUNDS: [f64; 12] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// The instruments. Plain handles: they are used on every second-tier hit.
pub(super) struct Metrics {
    /// 1 while there is a link.
    pub up: IntGauge,
    /// Commands that were answered.
    pub answered: IntCounter,
    /// Commands that the server refused.
    pub refused: IntCounter,
    /// Commands that ended with the connection.
    pub lost: IntCounter,
    /// Commands that took longer than `redis.timeout`.
    pub too_slow: IntCounter,
    /// Seconds from a command to its answer.
    pub duration: Histogram,
    /// Links made.
    pub links: IntCounter,
    /// Subscriptions made.
    pub subscriptions: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> Result<Self> {
        let up = IntGauge::new("terrace_redis_up", "Whether commands can be sent to Redis.");
        let commands = Opts::new("terrace_redis_commands_total", "Round trips to Redis by outcome.");
        let commands = register(registry, IntCounterVec::new(commands, &["outcome"]))?;
        let connections = Opts::new("terrace_redis_connections_total", "Connections made to Redis by purpose.");
        let connections = register(registry, IntCounterVec::new(connections, &["purpose"]))?;
        let duration = HistogramOpts::new("terrace_redis_command_duration_seconds", "How long round trips to Redis take.");
        Ok(Self {
            up: register(registry, up)?,
            answered: commands.with_label_values(&["answered"]),
            refused: commands.with_label_values(&["refused"]),
            lost: commands.with_label_values(&["lost"]),
            too_slow: commands.with_label_values(&["too_slow"]),
            duration: register(registry, Histogram::with_opts(duration.buckets(BOUNDS.to_vec())))?,
            links: connections.with_label_values(&["commands"]),
            subscriptions: connections.with_label_values(&["subscription"]),
        })
    }
}
