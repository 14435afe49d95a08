//! A scope: all entries of one kind in one collection or view. What they share is made once: lifetimes and metric handles.

use std::fmt::{self, Write as _};
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::entry::{Lifetime, Presence};
use super::key::Kind;
use crate::error::Result;
use crate::telemetry::register;

/// All entries of one kind in one collection or view.
#[derive(Debug)]
pub struct Scope {
    kind: Kind,
    name: Box<str>,
    lifetimes: Lifetimes,
    fingerprint: Fingerprint,
    metrics: ScopeMetrics,
}

/// What the bodies of a scope are made by: entries that were made by anything else are not its own. Instances that run side by side
/// during a deployment may have different declarations of one collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub(super) u64);

impl Fingerprint {
    /// Of declarations, by all that they say, and of this version of Terrace.
    pub fn of(declarations: &[&dyn fmt::Debug]) -> Self {
        let mut text = env!("CARGO_PKG_VERSION").to_owned();
        for declaration in declarations {
            // Writing to a string does not fail.
            let _ = write!(text, "\0{declaration:?}");
        }
        Self(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }
}

/// How long the entries of a scope live, before jitter and the installation's maximum.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Entries that hold something.
    pub found: Lifetime,
    /// Entries that say there is nothing.
    pub missing: Lifetime,
    /// For how long after a change that outdated it an entry may still be served.
    pub max_lag: Duration,
}

impl Lifetimes {
    /// The same for whatever is found, and nothing is ever missing: lists, counts, statistics.
    pub fn uniform(ttl: Duration, stale_if_error: Duration) -> Self {
        let lifetime = Lifetime { ttl, stale_if_error };
        Self { found: lifetime, missing: lifetime, max_lag: Duration::ZERO }
    }

    /// The same, with entries that may be served for `max_lag` after a change.
    #[must_use]
    pub fn with_max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = max_lag;
        self
    }
}

impl Scope {
    pub(super) fn new(kind: Kind, name: &str, lifetimes: Lifetimes, fingerprint: Fingerprint, vectors: &MetricVectors) -> Self {
        Self { kind, name: name.into(), lifetimes, fingerprint, metrics: vectors.handles(kind, name) }
    }

    /// What the entries hold.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The collection or view.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What the keys of its entries begin with.
    pub(super) fn beginning(&self) -> String {
        super::CacheKey::of_query(self, "").beginning().to_owned()
    }

    pub(super) fn max_lag(&self) -> Duration {
        self.lifetimes.max_lag
    }

    pub(super) fn lifetime(&self, presence: Presence) -> Lifetime {
        match presence {
            Presence::Found => self.lifetimes.found,
            Presence::Missing => self.lifetimes.missing,
        }
    }

    pub(super) fn metrics(&self) -> &ScopeMetrics {
        &self.metrics
    }
}

/// Counters of one scope: plain handles, because hits count on every request.
#[derive(Debug)]
pub(super) struct ScopeMetrics {
    pub(super) hits: IntCounter,
    pub(super) stale: IntCounter,
    pub(super) misses: IntCounter,
    pub(super) joined: IntCounter,
    pub(super) bypasses: IntCounter,
    pub(super) load_errors: IntCounter,
    pub(super) load_seconds: prometheus::Histogram,
    pub(super) second: SecondTierMetrics,
}

/// What one scope did in the second tier.
#[derive(Debug)]
pub(super) struct SecondTierMetrics {
    pub(super) hits: IntCounter,
    pub(super) stale: IntCounter,
    pub(super) misses: IntCounter,
    /// Times that another instance was loading the same.
    pub(super) waits: IntCounter,
    pub(super) errors: IntCounter,
    pub(super) fills_stored: IntCounter,
    pub(super) fills_dropped: IntCounter,
    pub(super) fill_errors: IntCounter,
}

/// The labelled collectors behind all scopes.
#[derive(Debug)]
pub(super) struct MetricVectors {
    requests: IntCounterVec,
    fills: IntCounterVec,
    load_errors: IntCounterVec,
    load_seconds: HistogramVec,
}

impl MetricVectors {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("terrace_cache_requests_total", "Cache look-ups by tier, kind, collection and outcome."),
            &["tier", "kind", "collection", "outcome"],
        );
        let fills = IntCounterVec::new(
            Opts::new("terrace_cache_fills_total", "Entries for the second tier, by kind, collection and what became of them."),
            &["kind", "collection", "outcome"],
        );
        let load_errors = IntCounterVec::new(
            Opts::new("terrace_cache_load_errors_total", "Loads that failed, by kind and collection."),
            &["kind", "collection"],
        );
        let load_seconds = HistogramVec::new(
            HistogramOpts::new("terrace_cache_load_duration_seconds", "Time to load an entry, by kind and collection.")
                .buckets(vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]),
            &["kind", "collection"],
        );
        Ok(Self {
            requests: register(registry, requests)?,
            fills: register(registry, fills)?,
            load_errors: register(registry, load_errors)?,
            load_seconds: register(registry, load_seconds)?,
        })
    }

    fn handles(&self, kind: Kind, name: &str) -> ScopeMetrics {
        let kind = kind.as_str();
        let outcome = |outcome: &str| self.requests.with_label_values(&["l1", kind, name, outcome]);
        ScopeMetrics {
            hits: outcome("hit"),
            stale: outcome("stale"),
            misses: outcome("miss"),
            joined: outcome("joined"),
            bypasses: outcome("bypass"),
            load_errors: self.load_errors.with_label_values(&[kind, name]),
            load_seconds: self.load_seconds.with_label_values(&[kind, name]),
            second: self.second_tier_handles(kind, name),
        }
    }
}

impl MetricVectors {
    fn second_tier_handles(&self, kind: &str, name: &str) -> SecondTierMetrics {
        let outcome = |outcome: &str| self.requests.with_label_values(&["l2", kind, name, outcome]);
        let fills = |outcome: &str| self.fills.with_label_values(&[kind, name, outcome]);
        SecondTierMetrics {
            hits: outcome("hit"),
            stale: outcome("stale"),
            misses: outcome("miss"),
            waits: outcome("wait"),
            errors: outcome("error"),
            fills_stored: fills("stored"),
            fills_dropped: fills("dropped"),
            fill_errors: fills("error"),
        }
    }
}
