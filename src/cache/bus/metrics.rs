//! What the bus counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

use super::message::News;
use crate::cache::trust::Suspicion;
use crate::error::Result;
use crate::telemetry::{Telemetry, register};

/// What a bus counts. Clones share it: they are registered once, however often a bus is made.
#[derive(Clone, Debug)]
pub struct BusMetrics {
    messages: IntCounterVec,
    suspicions: IntCounterVec,
    /// From the sending of a heartbeat until it came back.
    pub(in crate::cache) heartbeat_seconds: Histogram,
    /// From an announcement until another instance had applied it, by both clocks.
    pub(in crate::cache) invalidation_seconds: Histogram,
    /// Changes that were found in the log and that nobody had announced here.
    pub(in crate::cache) unannounced: IntCounter,
    /// 1 while heartbeats come back.
    pub(in crate::cache) up: IntGauge,
    /// 1 while L1 may be served.
    pub(in crate::cache) trusted: IntGauge,
    /// 1 while the second tier is used.
    pub(in crate::cache) open: IntGauge,
    /// Invalidations that the second tier has not been told yet.
    pub(in crate::cache) owed: IntGauge,
}

impl BusMetrics {
    /// Registers them.
    pub fn new(telemetry: &Telemetry) -> Result<Self> {
        let registry = telemetry.registry();
        let messages = Opts::new("terrace_bus_messages_total", "Messages between instances, by kind and direction.");
        let suspicions = Opts::new(
            "terrace_bus_suspicions_total",
            "Times that L1 was not trusted until the next round over the log, by reason.",
        );
        let latencies = vec![0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let histogram = |name: &str, help: &str| Histogram::with_opts(HistogramOpts::new(name, help).buckets(latencies.clone()));
        let metrics = Self {
            messages: register(registry, IntCounterVec::new(messages, &["kind", "direction"]))?,
            suspicions: register(registry, IntCounterVec::new(suspicions, &["reason"]))?,
            heartbeat_seconds: register(
                registry,
                histogram("terrace_bus_heartbeat_duration_seconds", "Time from sending a heartbeat until it came back."),
            )?,
            invalidation_seconds: register(
                registry,
                histogram(
                    "terrace_bus_invalidation_delay_seconds",
                    "Time from the announcement of a change until another instance had applied it, as far as their clocks agree.",
                ),
            )?,
            unannounced: register(
                registry,
                IntCounter::new(
                    "terrace_reconcile_unannounced_total",
                    "Changes that were found in the log and had not been announced here.",
                ),
            )?,
            up: register(registry, IntGauge::new("terrace_bus_up", "1 while own heartbeats come back."))?,
            trusted: register(registry, IntGauge::new("terrace_cache_trusted", "1 while L1 may be served."))?,
            open: register(registry, IntGauge::new("terrace_cache_second_tier_open", "1 while the second tier is used."))?,
            owed: register(
                registry,
                IntGauge::new("terrace_bus_owed", "Invalidations that the second tier has not been told yet."),
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Every series is there from the start, so that a rate over the first event is none of nothing.
    fn begin(&self) {
        for kind in News::KINDS {
            for direction in ["sent", "received"] {
                self.messages.with_label_values(&[kind, direction]);
            }
        }
        self.messages.with_label_values(&["unreadable", "received"]);
        for suspicion in Suspicion::ALL {
            self.suspicions.with_label_values(&[suspicion.as_str()]);
        }
    }

    pub(in crate::cache) fn sent(&self, kind: &str) {
        self.messages.with_label_values(&[kind, "sent"]).inc();
    }

    /// `None` if it could not be read.
    pub(in crate::cache) fn received(&self, kind: Option<&str>) {
        self.messages.with_label_values(&[kind.unwrap_or("unreadable"), "received"]).inc();
    }

    pub(in crate::cache) fn suspected(&self, suspicion: Suspicion) {
        self.suspicions.with_label_values(&[suspicion.as_str()]).inc();
    }

    pub(in crate::cache) fn suspicions(&self) -> u64 {
        Suspicion::ALL.iter().map(|suspicion| self.suspicions.with_label_values(&[suspicion.as_str()]).get()).sum()
    }
}
