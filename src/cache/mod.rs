//! The cache: keys, guards, entries, the tier in the process, one load per key, and invalidation. It knows no SQL and
//! no HTTP beyond the values of headers, which entries keep ready: it takes a loader, and reads the change log through [`ChangeLog`].
//!
//! The rule that everything here serves: **capture before load**. The generations of an entry's guards are captured
//! before its loader runs, and an entry is served only while they are still current. A write moves the guards after
//! its commit and before its answer. So whatever a loader read before the write can be stored, but never served.

mod bus;
mod cell;
mod demand;
mod encoding;
mod entry;
mod explain;
mod flight;
mod guard;
mod instance;
mod key;
mod l1;
mod load;
mod lookup;
mod overview;
mod reconcile;
mod scope;
mod second_tier;
mod target;
mod trust;
mod warm;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use bus::{Bus, BusMetrics, Reach};
pub use cell::Captured;
pub use encoding::Encoding;
pub use entry::{Basis, Content, Dependencies, Entry, Lifetime, Origin, Presence, Representation};
pub use explain::{Explanation, GuardState, Would};
pub use guard::Guards;
pub use instance::InstanceId;
pub use key::{CacheKey, Kind};
pub use overview::{Overview, ScopeOverview, SecondTierOverview, TierOverview};
pub use reconcile::{Applied, ChangeLog, CoherenceStatus, Logged, Reconciler};
pub use scope::{Fingerprint, Lifetimes, Scope};
pub use second_tier::SecondTier;
pub use target::{BULK, Cause, Move, Pattern, Target};
pub use trust::Trust;
pub use warm::{Found, Held};

use crate::config::CacheSettings;
use crate::error::Result;
use crate::model::{Change, CollectionName};
use crate::overload::Capacity;
use crate::telemetry::Telemetry;
use flight::Flights;
use l1::L1;
use scope::MetricVectors;

/// How an answer came about (`X-Cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From L1, fresh.
    Hit,
    /// From L2, fresh; also if another instance loaded it just now.
    HitL2,
    /// From either tier, though it expired or something changed: because the database could not be asked, or because the
    /// collection or the request allows it.
    Stale,
    /// Loaded for this request.
    Miss,
    /// Loaded by another request that was in the air.
    Joined,
    /// Loaded past the cache.
    Bypass,
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// In the process.
    L1,
    /// In Redis.
    L2,
}

/// An entry, and how it came about.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The entry.
    pub entry: Arc<Entry>,
    /// How it came about.
    pub outcome: Outcome,
    /// Where it was found; `None` if it was loaded.
    pub tier: Option<Tier>,
    /// How old the entry was when it was found.
    pub age: Duration,
}

impl Lookup {
    fn new(entry: Arc<Entry>, outcome: Outcome, tier: Option<Tier>) -> Self {
        let age = entry.age();
        Self { entry, outcome, tier, age }
    }
}

/// What the cache holds at the moment, for health and administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Occupancy {
    /// Whether entries are kept at all.
    pub enabled: bool,
    /// How many entries there are.
    pub entries: u64,
    /// How much memory they take, in bytes.
    pub size_bytes: u64,
    /// How much they may take, in bytes.
    pub capacity_bytes: u64,
}

/// The cache of one process.
pub struct Cache {
    enabled: bool,
    /// Whether guards that are current now can be relied on. If not, whatever is stored counts as expired.
    trust: Arc<Trust>,
    instance: InstanceId,
    max_ttl: Duration,
    jitter_percent: u8,
    l1: L1,
    guards: Guards,
    flights: Arc<Flights>,
    vectors: MetricVectors,
    /// What a caller takes a slot of before it waits for a load.
    capacity: Capacity,
    /// Joined when the database is open: it knows which installation this is.
    second_tier: OnceLock<Arc<SecondTier>>,
    /// All collections that have a scope, or that entries depend on. The lock is never held across an await.
    collections: Mutex<BTreeSet<CollectionName>>,
}

impl Cache {
    /// An empty cache, which lets any number of callers wait for loads.
    pub fn new(settings: &CacheSettings, telemetry: &Telemetry) -> Result<Arc<Self>> {
        Self::bounded(settings, telemetry, Capacity::unlimited()?)
    }

    /// An empty cache. Who must wait for a load takes a slot of `capacity`; a hit needs none.
    pub fn bounded(settings: &CacheSettings, telemetry: &Telemetry, capacity: Capacity) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            enabled: settings.enabled,
            trust: Arc::default(),
            instance: InstanceId::random(),
            max_ttl: settings.max_ttl,
            jitter_percent: settings.jitter_percent,
            l1: L1::new(settings.l1_bytes.as_u64(), telemetry)?,
            guards: Guards::default(),
            flights: Arc::default(),
            vectors: MetricVectors::new(telemetry.registry())?,
            capacity,
            second_tier: OnceLock::new(),
            collections: Mutex::default(),
        }))
    }

    /// A scope for the entries of one kind in one collection or view. Make it once, before the second tier is joined.
    pub fn scope(&self, kind: Kind, name: &str, lifetimes: Lifetimes, fingerprint: Fingerprint) -> Arc<Scope> {
        if kind == Kind::Record
            && let Ok(collection) = CollectionName::parse(name)
        {
            self.collections.lock().unwrap_or_else(PoisonError::into_inner).insert(collection);
        }
        Arc::new(Scope::new(kind, name, lifetimes, fingerprint, &self.vectors))
    }

    /// Makes known a collection on which entries depend and of which there are none. Before the second tier is joined, too.
    pub fn know(&self, collection: CollectionName) {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner).insert(collection);
    }

    /// Joins the second tier, once; until then there is none.
    pub fn join(&self, second_tier: Arc<SecondTier>) {
        // A second one would be of the same installation.
        let _ = self.second_tier.set(second_tier);
    }

    /// The second tier, if there is one.
    pub fn second_tier(&self) -> Option<&Arc<SecondTier>> {
        self.second_tier.get()
    }

    /// What callers take a slot of before they wait for a load. Whoever does other work than loads takes its slots here too.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Who this process is among the instances.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// All collections that have a scope, or that entries depend on.
    pub fn collections(&self) -> BTreeSet<CollectionName> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether guards that are current can be relied on.
    pub fn is_trusted(&self) -> bool {
        self.trust.holds(Instant::now())
    }

    /// Until when guards that are current can be relied on.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// A fresh entry, if there is one that needs no refresh: the whole cost of a hit. Otherwise call [`Self::get_or_load`].
    pub fn get(&self, scope: &Scope, key: &CacheKey) -> Option<Lookup> {
        self.look(scope, key).ok()
    }

    /// The same, or else what was found, for [`Self::take_or_load`].
    pub fn look(&self, scope: &Scope, key: &CacheKey) -> std::result::Result<Lookup, Found> {
        let Found { entry, landings } = self.find(key);
        match entry.map(|entry| self.plain_hit(scope, entry, Instant::now())) {
            Some(Ok(lookup)) => Ok(lookup),
            Some(Err(entry)) => Err(Found { entry: Some(entry), landings }),
            None => Err(Found { entry: None, landings }),
        }
    }

    /// The same for an entry that somebody has kept, at `now`.
    pub fn get_kept(&self, scope: &Scope, entry: &Arc<Entry>, now: Instant) -> Option<Lookup> {
        self.plain_hit(scope, Arc::clone(entry), now).ok()
    }

    /// The same, also if it would have to be refreshed: for who may not load.
    pub fn get_due(&self, scope: &Scope, key: &CacheKey) -> Option<Lookup> {
        let lookup = self.fresh(key)?;
        scope.metrics().hits.inc();
        Some(lookup)
    }

    /// Outdates in this process what `targets` are about. Call it after the change is there and before anybody is answered who
    /// relies on it.
    pub fn advance(&self, targets: &[Target], moved: &Move) {
        for target in targets {
            self.guards.advance(target, moved);
            if *target == Target::All {
                // Moving the guards is what makes it true; emptying L1 frees the memory, so that it does not wait for evictions.
                self.l1.clear();
            }
        }
    }

    /// The same for `changes`, whose targets those are. Where a target is one guard, its cell learns which change moved it, so that
    /// an entry can be found untouched: see [`Entry::follow`].
    pub fn advance_by(&self, targets: &[Target], changes: &[Arc<Change>], moved: &Move) {
        let mut named: BTreeSet<&CollectionName> = BTreeSet::new();
        for target in targets {
            match target {
                Target::Guard(_) => named.extend(target.collection()),
                Target::Collection(_) | Target::Records(..) | Target::All => self.advance(std::slice::from_ref(target), moved),
            }
        }
        changes
            .iter()
            .filter(|change| named.contains(&change.collection))
            .for_each(|change| self.guards.advance_by(change, moved));
    }

    /// Counts the bytes of an encoding that has just been made for `entry`.
    pub fn grown(&self, key: &CacheKey, entry: &Arc<Entry>) {
        if self.enabled {
            self.l1.reweigh(key, entry);
        }
    }

    /// What the cache holds.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            enabled: self.enabled,
            entries: self.l1.entry_count(),
            size_bytes: self.l1.size_bytes(),
            capacity_bytes: self.l1.capacity_bytes(),
        }
    }

    fn fresh(&self, key: &CacheKey) -> Option<Lookup> {
        let (entry, now) = (self.l1.get(key)?, Instant::now());
        let age = entry.age_at(now);
        self.is_fresh(&entry, age, now).then_some(Lookup { entry, outcome: Outcome::Hit, tier: Some(Tier::L1), age })
    }

    fn plain_hit(&self, scope: &Scope, entry: Arc<Entry>, now: Instant) -> std::result::Result<Lookup, Arc<Entry>> {
        let age = entry.age_at(now);
        if !self.is_fresh(&entry, age, now) || entry.wants_refresh(age) {
            return Err(entry);
        }
        scope.metrics().hits.inc();
        Ok(Lookup { entry, outcome: Outcome::Hit, tier: Some(Tier::L1), age })
    }

    fn is_fresh(&self, entry: &Entry, age: Duration, now: Instant) -> bool {
        self.trust.holds(now) && entry.is_valid() && !entry.fresh_for(age).is_zero()
    }

    fn entry(&self, scope: &Scope, content: Content, dependencies: Dependencies) -> Entry {
        let mut lifetime = scope.lifetime(content.presence);
        let spread = f64::from(self.jitter_percent) / 100.0 * fastrand::f64();
        lifetime.ttl = lifetime.ttl.min(self.max_ttl).mul_f64(1.0 - spread);
        Entry::new(content, dependencies, lifetime, Origin::Loaded(self.instance))
    }
}

#[cfg(test)]
mod tests;
