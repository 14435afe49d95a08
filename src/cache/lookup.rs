//! Looking an entry up for a request, in both tiers, and loading it if there is none that will do.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::demand::{Demand, Verdict};
use super::flight::Boarding;
use super::load::{Landed, Load, Purpose, Source};
use super::{Cache, CacheKey, Content, Dependencies, Entry, Found, Kind, Lookup, Outcome, Scope, Tier};
use crate::error::{Error, Result};
use crate::model::{Freshness, Guard};
use crate::overload::Slot;

/// What somebody asks for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    scope: &'a Arc<Scope>,
    key: &'a CacheKey,
    guards: &'a [Guard],
    /// What L1 had.
    entry: Option<&'a Arc<Entry>>,
    /// See [`Found::landings`].
    landings: u64,
}

impl Cache {
    /// The entry of `key`: from L1, else from L2, else from a load. `guards` names what the answer depends on; `freshness` is what
    /// the request asks for. The loader runs at most once per key at a time, and goes on when its callers are cancelled. If it fails
    /// because the database is away, an expired entry stands in for as long as its collection allows.
    ///
    /// Of a token only its presence matters here: call this when this process has applied its position. What is valid then was
    /// captured after it, in L1 because the guards had moved, and in L2 because their nonces were deleted before anybody was told.
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
        self.take_or_load(self.find(key), scope, key, guards, freshness, loader).await
    }

    /// The same for who has [`Found`] what L1 has.
    pub async fn take_or_load<L, F>(
        self: &Arc<Self>,
        mut found: Found,
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
            return if freshness.only_if_cached { Err(Error::not_cached()) } else { self.load_past(scope, loader).await };
        }
        let mut is_trusted = self.is_trusted();
        if !is_trusted {
            // Boxed, like all that few wait for: whoever waits for a load would carry its state around.
            Box::pin(self.trust.wait()).await;
            found = self.find(key);
            is_trusted = self.is_trusted();
        }
        let demand = Demand::new(freshness, scope.max_lag(), is_trusted);
        let asked = Asked { scope, key, guards, entry: found.entry.as_ref(), landings: found.landings };
        if let Some(entry) = asked.entry {
            let age = entry.age();
            let verdict = demand.judge(entry, age);
            if let Some(lookup) = taken(scope, entry, age, verdict, Tier::L1) {
                let purpose = match verdict {
                    Verdict::Fresh => lookup.entry.claims_refresh(age).then_some(Purpose::Refresh),
                    Verdict::Lagging => Some(Purpose::CatchUp),
                    Verdict::Allowed | Verdict::Refused => None,
                };
                if let Some(purpose) = purpose.filter(|_| !freshness.only_if_cached) {
                    // Nobody waits for it: it goes on behind the answer.
                    drop(self.board(asked, purpose, loader));
                }
                return Ok(lookup);
            }
        }
        if freshness.only_if_cached || demand.is_particular() && !freshness.reload {
            let dependencies = self.capture(scope, guards);
            if let Some(lookup) = Box::pin(self.peek(asked, dependencies, &demand)).await {
                return Ok(lookup);
            }
        }
        if freshness.only_if_cached {
            return Err(Error::not_cached());
        }
        if freshness.no_store {
            return self.load_past(scope, loader).await;
        }
        let purpose = match demand.is_particular() {
            true if freshness.reload => Purpose::Reload,
            true => Purpose::Renew,
            false => Purpose::Answer,
        };
        self.fly(asked, &demand, purpose, loader).await
    }

    /// Loads past the cache: nothing is stored, and nothing stands in for an error. It is refused when too much is under way.
    pub async fn load_past<L, F>(&self, scope: &Scope, loader: L) -> Result<Lookup>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>>,
    {
        let _slot = self.slot(scope)?;
        scope.metrics().bypasses.inc();
        // Boxed: the future of whoever may come here would be that much larger.
        let content = Box::pin(loader()).await?;
        let entry = self.entry(scope, content, Dependencies::new());
        Ok(Lookup::new(Arc::new(entry), Outcome::Bypass, None))
    }

    /// Waits for a flight of this or an earlier caller.
    async fn fly<L, F>(self: &Arc<Self>, asked: Asked<'_>, demand: &Demand<'_>, purpose: Purpose, loader: L) -> Result<Lookup>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        let Asked { scope, key, .. } = asked;
        let mut slot = match self.slot(scope) {
            Ok(slot) => slot,
            Err(refusal) => return self.stand_in(scope, key, demand, &refusal).ok_or(refusal),
        };
        // A load goes on when its caller hangs up. It has the slot: who asks and hangs up again and again gets no more of them.
        let slotted = || {
            let slot = slot.take();
            loader().inspect(move |_| drop(slot))
        };
        let (landed, outcome) = match self.board(asked, purpose, slotted) {
            Boarding::Landed(entry) => {
                scope.metrics().hits.inc();
                return Ok(Lookup::new(entry, Outcome::Hit, Some(Tier::L1)));
            }
            Boarding::Joined(landing) => {
                scope.metrics().joined.inc();
                (landing.wait().await.clone(), Outcome::Joined)
            }
            Boarding::Started(pilot) => {
                scope.metrics().misses.inc();
                (pilot.await, Outcome::Miss)
            }
        };
        drop(slot);
        match landed {
            Ok(Landed { entry, source: Source::Loader }) => Ok(Lookup::new(entry, outcome, None)),
            Ok(Landed { entry, source: Source::SecondTier }) => Ok(Lookup::new(entry, Outcome::HitL2, Some(Tier::L2))),
            Ok(Landed { entry, source: Source::StoodIn }) => {
                scope.metrics().second.stale.inc();
                Ok(Lookup::new(entry, Outcome::Stale, Some(Tier::L2)))
            }
            Err(error) => self.stand_in(scope, key, demand, &error).ok_or(error),
        }
    }

    /// A slot for who waits for a load in this scope. A count is loaded for a page, which has one already.
    fn slot(&self, scope: &Scope) -> Result<Option<Slot>> {
        match scope.kind() {
            Kind::Principal | Kind::Record | Kind::List | Kind::Stats | Kind::View => self.capacity.take().map(Some),
            Kind::Count => Ok(None),
        }
    }

    fn stand_in(&self, scope: &Scope, key: &CacheKey, demand: &Demand<'_>, error: &Error) -> Option<Lookup> {
        let entry = self.l1.get(key)?;
        let age = entry.age();
        if !self.may_stand_in(&entry, age, error) || !demand.allows_stand_in(age) {
            return None;
        }
        scope.metrics().stale.inc();
        Some(Lookup { entry, outcome: Outcome::Stale, tier: Some(Tier::L1), age })
    }

    /// Looks in L2 without loading. What is fresh there is L1's from now on.
    async fn peek(&self, asked: Asked<'_>, dependencies: Dependencies, demand: &Demand<'_>) -> Option<Lookup> {
        let Asked { scope, key, guards, entry: replaced, .. } = asked;
        let tier = self.second_tier()?;
        let found = tier.peek(&tier.address(scope, key, guards), &dependencies).await;
        let entry = Arc::new(found.inspect_err(|_| scope.metrics().second.errors.inc()).ok().flatten()?);
        let age = entry.age();
        let verdict = demand.judge(&entry, age);
        if verdict == Verdict::Fresh {
            if let Some(replaced) = replaced {
                replaced.supersede();
            }
            self.l1.insert(key.clone(), Arc::clone(&entry));
        }
        taken(scope, &entry, age, verdict, Tier::L2)
    }

    fn board<L, F>(self: &Arc<Self>, asked: Asked<'_>, purpose: Purpose, loader: L) -> Boarding
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        let Asked { scope, key, guards, entry, landings } = asked;
        let landed = || self.fresh(key).map(|lookup| lookup.entry);
        let boarding = self.flights.board(
            key,
            purpose,
            landings,
            landed,
            || self.capture(scope, guards),
            |dependencies| {
                let (loading, scope, key) = (loader(), Arc::clone(scope), key.clone());
                let load = Load { cache: Arc::clone(self), scope, key, dependencies, purpose };
                match self.second_tier() {
                    None => load.run_alone(loading).boxed(),
                    // Boxed: what a load keeps while it waits has kilobytes, and every future around it would be that much larger, twice.
                    Some(tier) => load.run(Arc::clone(tier), guards.to_vec(), Box::pin(loading)).boxed(),
                }
            },
        );
        if let (Boarding::Started(_), Some(entry)) = (&boarding, entry) {
            entry.supersede();
        }
        boarding
    }

    /// Captures every guard. Call it before anything is read that the captures shall protect.
    fn capture(&self, scope: &Scope, guards: &[Guard]) -> Dependencies {
        guards.iter().map(|guard| self.guards.capture(guard, scope.max_lag())).collect()
    }
}

/// An entry that was found in `tier`, unless it will not do.
fn taken(scope: &Scope, entry: &Arc<Entry>, age: Duration, verdict: Verdict, tier: Tier) -> Option<Lookup> {
    let metrics = scope.metrics();
    let (outcome, counter) = match (verdict, tier) {
        (Verdict::Refused, _) => return None,
        (Verdict::Fresh, Tier::L1) => (Outcome::Hit, &metrics.hits),
        (Verdict::Fresh, Tier::L2) => (Outcome::HitL2, &metrics.second.hits),
        (Verdict::Allowed | Verdict::Lagging, Tier::L1) => (Outcome::Stale, &metrics.stale),
        (Verdict::Allowed | Verdict::Lagging, Tier::L2) => (Outcome::Stale, &metrics.second.stale),
    };
    counter.inc();
    Some(Lookup { entry: Arc::clone(entry), outcome, tier: Some(tier), age })
}
