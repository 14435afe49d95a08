//! The cache: keys, guards, entries, the tier in the process, one load per key, and invalidation. It knows no SQL and
//! no HTTP beyond the values of headers, which entries keep ready: it takes a loader, and reads the change log through [`ChangeLog`].
//!
//! The rule that everything here serves: **capture before load**. The generations of an entry's guards are captured
//! before its loader runs, and an entry is served only while they are still current. A write moves the guards after
//! its commit and before its answer. So whatever a loader read before the write can be stored, but never served.

mod encoding;
mod entry;
mod flight;
mod guard;
mod key;
mod l1;
mod reconcile;
mod scope;
mod warm;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use encoding::Encoding;
pub use entry::{Content, Dependencies, Entry, Lifetime, Presence, Representation};
pub use guard::{Captured, Guards};
pub use key::{CacheKey, Kind};
pub use reconcile::{ChangeLog, Reconciler};
pub use scope::{Lifetimes, Scope};

use crate::config::CacheSettings;
use crate::error::{ErrorKind, Result};
use crate::model::{Change, Guard};
use crate::telemetry::Telemetry;
use flight::{Boarding, Flights};
use l1::L1;
use scope::MetricVectors;

/// How an answer came about (`X-Cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From L1, fresh.
    Hit,
    /// From L1, expired, because the database could not be asked.
    Stale,
    /// Loaded for this request.
    Miss,
    /// Loaded by another request that was in the air.
    Joined,
    /// Loaded past the cache.
    Bypass,
}

/// An entry, and how it came about.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The entry.
    pub entry: Arc<Entry>,
    /// How it came about.
    pub outcome: Outcome,
    /// How old the entry was when it was found.
    pub age: Duration,
}

impl Lookup {
    fn new(entry: Arc<Entry>, outcome: Outcome) -> Self {
        let age = entry.age();
        Self { entry, outcome, age }
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
    max_ttl: Duration,
    jitter_percent: u8,
    l1: L1,
    guards: Guards,
    flights: Arc<Flights>,
    vectors: MetricVectors,
}

impl Cache {
    /// An empty cache.
    pub fn new(settings: &CacheSettings, telemetry: &Telemetry) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            enabled: settings.enabled,
            max_ttl: settings.max_ttl,
            jitter_percent: settings.jitter_percent,
            l1: L1::new(settings.l1_bytes.as_u64(), telemetry),
            guards: Guards::default(),
            flights: Arc::default(),
            vectors: MetricVectors::new(telemetry.registry())?,
        }))
    }

    /// A scope for the entries of one kind in one collection or view. Make it once.
    pub fn scope(&self, kind: Kind, name: &str, lifetimes: Lifetimes) -> Arc<Scope> {
        Arc::new(Scope::new(kind, name, lifetimes, &self.vectors))
    }

    /// A fresh entry, if there is one that needs no refresh: the whole cost of a hit. Otherwise call [`Self::get_or_load`].
    pub fn get(&self, scope: &Scope, key: &CacheKey) -> Option<Lookup> {
        let lookup = self.fresh(key).filter(|lookup| !lookup.entry.wants_refresh(lookup.age))?;
        scope.metrics().hits.inc();
        Some(lookup)
    }

    /// The entry of `key`: fresh from L1, else from a load. `guards` names what the answer depends on. The loader runs at
    /// most once per key at a time, in a task that survives its callers. If it fails because the database is away, an
    /// expired entry stands in for as long as its collection allows.
    pub async fn get_or_load<L, F>(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        key: &CacheKey,
        guards: &[Guard],
        loader: L,
    ) -> Result<Lookup>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        if !self.enabled {
            scope.metrics().bypasses.inc();
            let entry = self.entry(scope, loader().await?, Dependencies::new());
            return Ok(Lookup::new(Arc::new(entry), Outcome::Bypass));
        }
        if let Some(lookup) = self.fresh(key) {
            if lookup.entry.claims_refresh(lookup.age) {
                // The flight is only started; nobody waits for it.
                drop(self.board(scope, key, guards, loader, || None));
            }
            scope.metrics().hits.inc();
            return Ok(lookup);
        }
        let (landing, outcome) = match self.board(scope, key, guards, loader, || self.fresh(key).map(|lookup| lookup.entry)) {
            Boarding::Landed(entry) => {
                scope.metrics().hits.inc();
                return Ok(Lookup::new(entry, Outcome::Hit));
            }
            Boarding::Joined(landing) => {
                scope.metrics().joined.inc();
                (landing, Outcome::Joined)
            }
            Boarding::Started(landing) => {
                scope.metrics().misses.inc();
                (landing, Outcome::Miss)
            }
        };
        match landing.await {
            Ok(entry) => Ok(Lookup::new(entry, outcome)),
            Err(error) if error.kind() == ErrorKind::Unavailable => match self.l1.get(key) {
                Some(entry) if entry.is_usable_on_error(entry.age()) => {
                    scope.metrics().stale.inc();
                    Ok(Lookup::new(entry, Outcome::Stale))
                }
                Some(_) | None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Invalidates what `changes` touch. Call it after their commit and before the answer to the writer.
    pub fn announce(&self, changes: &[Change]) {
        for guard in changes.iter().flat_map(Change::guards) {
            self.guards.advance(&guard);
        }
    }

    /// Invalidates everything, for when nobody can say what changed. Moving the guards is what makes it true; emptying L1
    /// frees the memory, so that it does not wait for evictions.
    pub fn outdate_all(&self) {
        self.guards.advance_all();
        self.l1.clear();
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
        let lookup = Lookup::new(self.l1.get(key)?, Outcome::Hit);
        let is_fresh = lookup.entry.is_valid() && !lookup.entry.fresh_for(lookup.age).is_zero();
        is_fresh.then_some(lookup)
    }

    fn board<L, F>(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        key: &CacheKey,
        guards: &[Guard],
        loader: L,
        landed: impl FnOnce() -> Option<Arc<Entry>>,
    ) -> Boarding
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        let capture = || guards.iter().map(|guard| self.guards.capture(guard)).collect();
        let (cache, scope, owned_key) = (Arc::clone(self), Arc::clone(scope), key.clone());
        self.flights.board(key, landed, capture, |dependencies| {
            // Boxed: what a load keeps while it waits has kilobytes, and every future around it would be that much larger.
            let load = Box::pin(loader());
            async move { cache.load(&scope, owned_key, dependencies, load).await }
        })
    }

    async fn load(
        &self,
        scope: &Scope,
        key: CacheKey,
        dependencies: Dependencies,
        load: impl Future<Output = Result<Content>>,
    ) -> Result<Arc<Entry>> {
        let started = Instant::now();
        let content = load.await.inspect_err(|_| scope.metrics().load_errors.inc())?;
        scope.metrics().load_seconds.observe(started.elapsed().as_secs_f64());
        let entry = Arc::new(self.entry(scope, content, dependencies));
        // An entry that is outdated already would only displace a newer one. If a guard moves after this check, the
        // stored entry is never served.
        if entry.is_valid() {
            self.l1.insert(key, Arc::clone(&entry));
        }
        Ok(entry)
    }

    fn entry(&self, scope: &Scope, content: Content, dependencies: Dependencies) -> Entry {
        let mut lifetime = scope.lifetime(content.presence);
        let spread = f64::from(self.jitter_percent) / 100.0 * fastrand::f64();
        lifetime.ttl = lifetime.ttl.min(self.max_ttl).mul_f64(1.0 - spread);
        Entry::new(content, dependencies, lifetime)
    }
}

#[cfg(test)]
mod tests;
