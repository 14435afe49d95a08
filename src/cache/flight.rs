//! Single flight: at most one load per key at a time, which goes on when its callers are cancelled.
//!
//! A caller may only wait for a load whose guards were captured after the last invalidation it must see. So a flight
//! remembers its captures, and one that has been outdated is not joined but replaced: a read that begins after a
//! write was acknowledged never gets what was loaded before it.
//!
//! The caller who starts a load carries it out itself, as its [`Pilot`]: a task of its own would cost as much as a look-up in
//! L1. Only a load whose pilot is cancelled goes on in a task.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::SetOnce;

use super::cell::Captured;
use super::entry::{Dependencies, Entry};
use super::key::CacheKey;
use super::load::{Landed, Purpose};
use crate::error::{Error, Result};
use crate::telemetry::RequestId;

/// How a load ends, for everybody who waits for it.
pub(super) type Landing = Arc<SetOnce<Result<Landed>>>;

/// All loads in the air. The lock protects the table and is never held across an await.
#[derive(Default)]
pub(super) struct Flights {
    table: Mutex<Table>,
    next_number: AtomicU64,
    /// How many have landed. It changes under the lock.
    landings: AtomicU64,
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
    /// The load is this caller's. It goes on wherever the pilot is awaited, and behind the caller's back once it is dropped.
    Started(Pilot),
}

/// Whoever carries a load out.
pub(super) struct Pilot {
    /// `None` once it has landed.
    work: Option<Work>,
    request: Option<RequestId>,
}

/// A load, and who waits for it.
struct Work {
    load: BoxFuture<'static, Result<Landed>>,
    landing: Landing,
    departure: Option<Departure>,
}

impl Flights {
    /// How many flights have landed: see [`Self::board`]. Ask before you look for an entry.
    pub(super) fn landings(&self) -> u64 {
        // Acquire pairs with the release in `Departure`: who sees a landing finds its entry.
        self.landings.load(Ordering::Acquire)
    }

    /// Joins the load of `key`, or starts one. `landed` looks once more for an entry, if another load has ended since the caller
    /// looked, who had seen that many `landings` before. `load` gets the captured guards.
    pub(super) fn board(
        self: &Arc<Self>,
        key: &CacheKey,
        purpose: Purpose,
        landings: u64,
        landed: impl FnOnce() -> Option<Arc<Entry>>,
        capture: impl FnOnce() -> Dependencies,
        load: impl FnOnce(Dependencies) -> BoxFuture<'static, Result<Landed>>,
    ) -> Boarding {
        let mut table = self.lock();
        if let Some(flight) = table.get(key)
            && flight.will_do_for(purpose)
        {
            return Boarding::Joined(Arc::clone(&flight.landing));
        }
        let may_have_landed = purpose.takes_what_landed() && self.landings() != landings;
        if let Some(entry) = may_have_landed.then(landed).flatten() {
            return Boarding::Landed(entry);
        }
        let dependencies = capture();
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let load = load(dependencies.clone());
        // Not before: if `load` panicked, dropping it would wait for the lock that is held here.
        let departure = Departure { flights: Arc::clone(self), key: key.clone(), number };
        let landing = Landing::default();
        table.insert(key.clone(), Flight { number, dependencies, purpose, landing: Arc::clone(&landing) });
        let work = Work { load, landing, departure: Some(departure) };
        Boarding::Started(Pilot { work: Some(work), request: RequestId::current() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Pilot {
    type Output = Result<Landed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Landed>> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Error::internal("a load was awaited twice"))) };
        let landed = ready!(work.poll_unpin(context));
        self.work = None;
        Poll::Ready(landed)
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Without a runtime the process is about to end, and whoever waits is told so.
        let Ok(runtime) = Handle::try_current() else { return };
        match self.request.take() {
            Some(request) => drop(runtime.spawn(request.scope(work))),
            None => drop(runtime.spawn(work)),
        }
    }
}

impl Future for Work {
    type Output = Result<Landed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Landed>> {
        let landed = match catch_unwind(AssertUnwindSafe(|| self.load.poll_unpin(context))) {
            Ok(poll) => ready!(poll),
            // The panic hook has told what it was.
            Err(_) => Err(Error::internal("a load panicked")),
        };
        self.departure = None;
        // Only this sets it before it is dropped.
        let _ = self.landing.set(landed.clone());
        Poll::Ready(landed)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.departure = None;
        if !self.landing.initialized() {
            let _ = self.landing.set(Err(Error::internal("a load ended with its runtime")));
        }
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
        // Under the lock, so that who boards finds either the flight or that it has landed.
        self.flights.landings.fetch_add(1, Ordering::Release);
    }
}
