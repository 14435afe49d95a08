//! Single flight: at most one load per key at a time, which goes on when its callers are cancelled.
//!
//! A caller may only wait for a load whose guards were captured after the last invalidation it must see. So a flight
//! remembers its captures, and one that has been outdated is not joined but replaced: a read that begins after a
//! write was acknowledged never gets what was loaded before it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::cell::Captured;
use super::entry::{Dependencies, Entry};
use super::key::CacheKey;
use super::load::{Landed, Purpose};
use crate::error::{Error, Result};
use crate::telemetry::RequestId;

/// The result of a load, which any number of callers may await.
pub(super) type Landing = Shared<BoxFuture<'static, Result<Landed>>>;

/// All loads in the air. The lock protects the table and is never held across an await.
#[derive(Default)]
pub(super) struct Flights {
    table: Mutex<Table>,
    next_number: AtomicU64,
}

/// Keys hold what clients send, so the hash is seeded.
type Table = HashMap<CacheKey, Flight, foldhash::quality::RandomState>;

struct Flight {
    number: u64,
    dependencies: Dependencies,
    purpose: Purpose,
    landing: Landing,
}

/// What [`Flights::board`] found.
pub(super) enum Boarding {
    /// An entry had landed in the meantime.
    Landed(Arc<Entry>),
    /// Another caller's load is in the air and new enough.
    Joined(Landing),
    /// This caller's load has started.
    Started(Landing),
}

impl Flights {
    /// Joins the load of `key`, or starts one. `landed` looks once more for an entry, since a load may have ended
    /// between the caller's look-up and this call. `load` gets the captured guards and runs in a task of its own.
    pub(super) fn board<F>(
        self: &Arc<Self>,
        key: &CacheKey,
        purpose: Purpose,
        landed: impl FnOnce() -> Option<Arc<Entry>>,
        capture: impl FnOnce() -> Dependencies,
        load: impl FnOnce(Dependencies) -> F,
    ) -> Boarding
    where
        F: Future<Output = Result<Landed>> + Send + 'static,
    {
        let mut table = self.lock();
        if let Some(flight) = table.get(key)
            && flight.will_do_for(purpose)
        {
            return Boarding::Joined(flight.landing.clone());
        }
        if let Some(entry) = purpose.takes_what_landed().then(landed).flatten() {
            return Boarding::Landed(entry);
        }
        let dependencies = capture();
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let departure = Departure { flights: Arc::clone(self), key: key.clone(), number };
        let work = load(dependencies.clone());
        let task = tokio::spawn(RequestId::carry(async move {
            let _lands_even_on_panic = departure;
            work.await
        }));
        let landing = async move { task.await.unwrap_or_else(|failure| Err(Error::internal(failure))) }.boxed().shared();
        table.insert(key.clone(), Flight { number, dependencies, purpose, landing: landing.clone() });
        Boarding::Started(landing)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn will_do_for(&self, purpose: Purpose) -> bool {
        let is_current = || self.dependencies.iter().all(Captured::is_current);
        match purpose {
            Purpose::Answer | Purpose::Refresh => is_current(),
            // Under steady writes each flight is outdated before it lands. One at a time is enough: nobody waits for it.
            Purpose::CatchUp => true,
            Purpose::Renew => self.purpose.always_loads() && is_current(),
            // It may have read already.
            Purpose::Reload => false,
        }
    }
}

/// Takes its flight off the table when it is dropped, unless a newer one has its place.
struct Departure {
    flights: Arc<Flights>,
    key: CacheKey,
    number: u64,
}

impl Drop for Departure {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        if table.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            table.remove(&self.key);
        }
    }
}
