//! Looking an entry up, and loading it if there is none that will do.

use super::*;
use crate::model::{Freshness, Guard};
use flight::Boarding;

impl Cache {
    /// The entry of `key`: fresh from L1, else from a load. `guards` names what the answer depends on. The loader runs at
    /// most once per key at a time, in a task that survives its callers. If it fails because the database is away, an
    /// expired entry stands in for as long as its collection allows.
    pub async fn get_or_load<L, F>(
        self: &Arc<Self>,
        scope: &Arc<Scope>,
        key: &CacheKey,
        guards: &[Guard],
        freshness: &Freshness,
        loader: L,
    ) -> Result<Lookup>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        if !self.enabled {
            return self.load_past(scope, loader).await;
        }
        let _ = freshness;
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
                return Ok(Lookup::new(entry, Outcome::Hit, Some(Tier::L1)));
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
            Ok(entry) => Ok(Lookup::new(entry, outcome, None)),
            Err(error) if error.kind() == ErrorKind::Unavailable => match self.l1.get(key) {
                Some(entry) if entry.is_usable_on_error(entry.age()) => {
                    scope.metrics().stale.inc();
                    Ok(Lookup::new(entry, Outcome::Stale, Some(Tier::L1)))
                }
                Some(_) | None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Loads past the cache: nothing is stored, and nothing stands in for an error.
    pub async fn load_past<L, F>(&self, scope: &Scope, loader: L) -> Result<Lookup>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>>,
    {
        scope.metrics().bypasses.inc();
        let entry = self.entry(scope, loader().await?, Dependencies::new());
        Ok(Lookup::new(Arc::new(entry), Outcome::Bypass, None))
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
        let capture = || guards.iter().map(|guard| self.guards.capture(guard, scope.max_lag())).collect();
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
}
