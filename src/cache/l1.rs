//! The tier in the process: moka, bounded by bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::ops::compute::Op;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::entry::Entry;
use super::key::CacheKey;
use crate::error::Result;
use crate::telemetry::{Telemetry, register};

/// moka with our weights, life times and metrics. Its own `get_with` isn't used: it leaves a stale value behind when an
/// invalidation meets a load.
#[derive(Clone, Debug)]
pub(super) struct L1 {
    // Keys hold what clients send, so the hash is seeded; SipHash would be a fifth of a look-up.
    entries: moka::sync::Cache<CacheKey, Arc<Entry>, foldhash::quality::RandomState>,
    evictions: Arc<Evictions>,
    capacity_bytes: u64,
}

/// Counts entries that leave, each when its memory is given back. moka's own listener would lock the key for that whenever an
/// entry comes or goes, which is half of an insertion.
#[derive(Debug)]
pub(super) struct Evictions {
    outdated: IntCounter,
    expired: IntCounter,
    replaced: IntCounter,
    size: IntCounter,
}

impl Evictions {
    fn new(registry: &Registry) -> Result<Arc<Self>> {
        let help = "Entries that left L1, by what they were then: outdated by a change, expired, about to be replaced, or of use, so \
                    that only the size of L1 was in the way.";
        let counters = register(registry, IntCounterVec::new(Opts::new("terrace_cache_evictions_total", help), &["cause"]))?;
        let [outdated, expired, replaced, size] =
            ["outdated", "expired", "replaced", "size"].map(|cause| counters.with_label_values(&[cause]));
        Ok(Arc::new(Self { outdated, expired, replaced, size }))
    }

    /// `entry` has left.
    pub(super) fn count(&self, entry: &Entry) {
        let counter = match () {
            () if !entry.is_valid() => &self.outdated,
            () if entry.age() >= entry.retention() => &self.expired,
            () if entry.is_superseded() => &self.replaced,
            () => &self.size,
        };
        counter.inc();
    }
}

struct Retention;

impl moka::Expiry<CacheKey, Arc<Entry>> for Retention {
    fn expire_after_create(&self, _: &CacheKey, entry: &Arc<Entry>, now: Instant) -> Option<Duration> {
        // What comes from the second tier is not new.
        Some(entry.retention().saturating_sub(entry.age_at(now)))
    }

    fn expire_after_update(&self, _: &CacheKey, entry: &Arc<Entry>, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.retention().saturating_sub(entry.age_at(now)))
    }
}

impl L1 {
    pub(super) fn new(capacity_bytes: u64, telemetry: &Telemetry) -> Result<Self> {
        let entries = moka::sync::Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|key: &CacheKey, entry: &Arc<Entry>| u32::try_from(key.len_bytes() + entry.size_bytes()).unwrap_or(u32::MAX))
            .expire_after(Retention)
            .build_with_hasher(foldhash::quality::RandomState::default());
        let l1 = Self { entries, evictions: Evictions::new(telemetry.registry())?, capacity_bytes };
        l1.observe(telemetry);
        Ok(l1)
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn insert(&self, key: CacheKey, entry: Arc<Entry>) {
        entry.counted_by(&self.evictions);
        self.entries.insert(key, entry);
    }

    /// Weighs an entry again after it has grown by an encoding, unless another one has taken its place.
    pub(super) fn reweigh(&self, key: &CacheKey, entry: &Arc<Entry>) {
        self.entries.entry_by_ref(key).and_compute_with(|current| match current {
            Some(current) if Arc::ptr_eq(current.value(), entry) => Op::Put(Arc::clone(entry)),
            Some(_) | None => Op::Nop,
        });
    }

    /// Drops every entry that is there now; moka does it behind the caller's back.
    pub(super) fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Calls `visit` with every entry. It takes no lock for longer than a step, and what changes meanwhile may be missed.
    pub(super) fn visit(&self, mut visit: impl FnMut(&CacheKey, &Entry)) {
        self.settle();
        self.entries.iter().for_each(|(key, entry)| visit(&key, &entry));
    }

    /// How many entries there are.
    pub(super) fn entry_count(&self) -> u64 {
        self.settle();
        self.entries.entry_count()
    }

    /// How much memory they take.
    pub(super) fn size_bytes(&self) -> u64 {
        self.settle();
        self.entries.weighted_size()
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Brings counts and evictions up to date, which moka does by itself only when it is used.
    fn settle(&self) {
        self.entries.run_pending_tasks();
    }

    fn observe(&self, telemetry: &Telemetry) {
        type Reading = fn(&L1) -> u64;
        let gauges: [(&'static str, &'static str, Reading); 3] = [
            ("terrace.cache.entries", "Entries in L1.", Self::entry_count),
            ("terrace.cache.size_bytes", "Memory that entries take in L1, in bytes.", Self::size_bytes),
            ("terrace.cache.capacity_bytes", "Memory that entries may take in L1, in bytes.", Self::capacity_bytes),
        ];
        for (name, description, reading) in gauges {
            let l1 = self.clone();
            telemetry
                .meter()
                .u64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |observer| observer.observe(reading(&l1), &[]))
                .build();
        }
    }
}
