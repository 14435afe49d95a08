//! The state of the cache, told to its operator: both tiers, and what came of the look-ups of each scope since the start.

use std::collections::HashMap;

use prometheus::IntCounter;
use serde::Serialize;

use super::{Cache, InstanceId, Occupancy, Scope, SecondTier};
use crate::redis_client::RedisStatus;

/// The state of the cache of one process.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// This process.
    pub instance: InstanceId,
    /// Whether what is stored is served at the moment. If not, it is not known yet what changed elsewhere.
    pub trusted: bool,
    /// The tier in the process.
    pub l1: Occupancy,
    /// The tier in Redis; none without `redis.url`.
    pub l2: Option<SecondTierOverview>,
    /// Each kind of entry in each collection and view.
    pub scopes: Vec<ScopeOverview>,
}

/// The state of the second tier, as this process sees it.
#[derive(Clone, Debug, Serialize)]
pub struct SecondTierOverview {
    /// Whether there is a connection.
    pub connected: bool,
    /// The version of Redis, while there is one.
    pub version: Option<String>,
    /// Why there is no connection, or what Redis has refused lately.
    pub reason: Option<String>,
    /// Whether it is used. Not while it has not been told yet of all that this process knows to have changed.
    pub used: bool,
    /// Entries on their way to it.
    pub fills_in_flight: usize,
}

/// What one kind of entry in one collection or view has, and what came of its look-ups.
#[derive(Clone, Debug, Serialize)]
pub struct ScopeOverview {
    /// The kind.
    pub kind: &'static str,
    /// The collection or view.
    pub name: String,
    /// For how long after a change its entries may be served, in milliseconds.
    pub max_lag_ms: u64,
    /// In the process.
    pub l1: TierOverview,
    /// In Redis.
    pub l2: TierOverview,
    /// Loads for requests.
    pub loads: u64,
    /// Loads that failed.
    pub load_errors: u64,
    /// Look-ups past the cache.
    pub bypasses: u64,
}

/// One tier of a scope.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TierOverview {
    /// How many entries there are; unknown of Redis, where only a scan would tell.
    pub entries: Option<u64>,
    /// The memory that they take, in bytes.
    pub size_bytes: Option<u64>,
    /// Fresh ones that were found.
    pub hits: u64,
    /// Look-ups in vain.
    pub misses: u64,
    /// Outdated or expired ones that were served and marked.
    pub stale: u64,
    /// Hits by look-ups, from 0 to 1; none before the first.
    pub hit_rate: Option<f64>,
}

impl TierOverview {
    fn new(content: Option<(u64, u64)>, hits: u64, misses: u64, stale: u64) -> Self {
        let lookups = hits + misses + stale;
        let hit_rate = (lookups > 0).then(|| hits as f64 / lookups as f64);
        let (entries, size_bytes) = content.unzip();
        Self { entries, size_bytes, hits, misses, stale, hit_rate }
    }
}

impl Cache {
    /// The state of everything that `scopes` hold. It walks all entries: not for the path of a request.
    pub fn overview<'a>(&self, scopes: impl Iterator<Item = &'a Scope>) -> Overview {
        let mut contents: HashMap<String, (u64, u64)> = HashMap::new();
        self.l1.visit(|key, entry| {
            let size_bytes = (key.len_bytes() + entry.size_bytes()) as u64;
            if let Some((entries, total)) = contents.get_mut(key.beginning()) {
                *entries += 1;
                *total += size_bytes;
            } else {
                contents.insert(key.beginning().to_owned(), (1, size_bytes));
            }
        });
        let content = |scope: &Scope| contents.get(&scope.beginning()).copied().unwrap_or_default();
        Overview {
            instance: self.instance(),
            trusted: self.is_trusted(),
            l1: self.occupancy(),
            l2: self.second_tier().map(|tier| second_tier(tier)),
            scopes: scopes.map(|scope| overview_of(scope, content(scope))).collect(),
        }
    }
}

fn second_tier(tier: &SecondTier) -> SecondTierOverview {
    let (connected, version, reason) = match tier.status() {
        RedisStatus::Up { version, complaint, .. } => (true, Some(version), complaint),
        RedisStatus::Down { reason, .. } => (false, None, Some(reason)),
    };
    let used = tier.usable_link().is_some();
    SecondTierOverview { connected, version, reason, used, fills_in_flight: tier.fills_in_flight() }
}

fn overview_of(scope: &Scope, content: (u64, u64)) -> ScopeOverview {
    let metrics = scope.metrics();
    let second = &metrics.second;
    let sum = |counters: &[&IntCounter]| counters.iter().map(|counter| counter.get()).sum::<u64>();
    let misses = sum(&[&metrics.misses, &metrics.joined]);
    ScopeOverview {
        kind: scope.kind().as_str(),
        name: scope.name().to_owned(),
        max_lag_ms: u64::try_from(scope.max_lag().as_millis()).unwrap_or(u64::MAX),
        l1: TierOverview::new(Some(content), metrics.hits.get(), misses, metrics.stale.get()),
        l2: TierOverview::new(None, second.hits.get(), second.misses.get(), second.stale.get()),
        loads: metrics.load_seconds.get_sample_count(),
        load_errors: metrics.load_errors.get(),
        bypasses: metrics.bypasses.get(),
    }
}
