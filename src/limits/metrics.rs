//! What the quotas tell: whom they refuse, what they lease, and whether this instance counts alone.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::Result;
use crate::telemetry::register;

/// The instruments.
pub(super) struct Metrics {
    refusals: IntCounterVec,
    /// Questions to the shared buckets that were answered.
    pub asked: IntCounter,
    /// Those that were not.
    pub unanswered: IntCounter,
    /// Requests that the shared buckets granted.
    pub granted: IntCounter,
    /// Requests that were given back unused.
    pub returned: IntCounter,
    /// Requests decided without the shared buckets.
    pub alone: IntCounter,
    /// 1 while that is so although there should be shared buckets.
    pub is_local: IntGauge,
    /// How many instances share them, when last known.
    pub instances: IntGauge,
    /// Buckets that this process knows of.
    pub buckets: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> Result<Self> {
        let refusals = Opts::new("terrace_quota_refusals_total", "Requests refused with 429, by quota.");
        let questions = Opts::new("terrace_quota_questions_total", "Questions to the quotas in Redis by outcome.");
        let questions = register(registry, IntCounterVec::new(questions, &["outcome"]))?;
        let leased = Opts::new("terrace_quota_leased_requests_total", "Requests granted by the quotas in Redis, and given back.");
        let leased = register(registry, IntCounterVec::new(leased, &["direction"]))?;
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        Ok(Self {
            refusals: register(registry, IntCounterVec::new(refusals, &["quota"]))?,
            asked: questions.with_label_values(&["answered"]),
            unanswered: questions.with_label_values(&["failed"]),
            granted: leased.with_label_values(&["granted"]),
            returned: leased.with_label_values(&["returned"]),
            alone: counter("terrace_quota_local_decisions_total", "Requests that this instance counted alone.")?,
            is_local: gauge("terrace_quota_local", "Whether this instance enforces its share alone because Redis is away.")?,
            instances: gauge("terrace_quota_instances", "Instances that share the quotas, when last known.")?,
            buckets: gauge("terrace_quota_buckets", "Callers and addresses whose quotas this instance has dealings with.")?,
        })
    }

    /// Counts the refusals of one quota.
    pub fn refusals(&self, quota: &str) -> IntCounter {
        self.refusals.with_label_values(&[quota])
    }
}
