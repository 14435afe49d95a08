//! The pool. A connection is carried on by a task of the runtime that made it, and every thread that serves requests has a runtime of
//! its own: a statement over a connection of another thread wakes that thread to be sent and this one to get its answer, which
//! costs more than all that Terrace does for a miss. So each runtime has connections of its own. It takes those of others while it has
//! none, which it then makes behind its back, and when there may be no more. No pool on crates.io knows whose a connection is.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use diesel::connection::CacheSize;
use diesel_async::AsyncConnection as _;
use diesel_async::pooled_connection::PoolableConnection as _;
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::metrics::PoolStatus;
use super::connect::Connector;
use super::watch::Watched;
use crate::error::{Error, Result};

/// Prepared statements are kept for this many uses of a connection and then made anew: Diesel's cache has no bound,
/// and filters come in endless variety. Each costs the server some 20 kB and, made anew, a round trip.
const USES_PER_STATEMENT_CACHE: usize = 1_024;

/// A connection that its runtime has not used for so long may be closed for one of another runtime.
const UNUSED: Duration = Duration::from_secs(10);

/// After one could not be made behind anybody's back, so long none is.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections by the runtime that carries them on. Clones share them.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    connector: Arc<Connector>,
    /// How long the answers to a reading operation may take to come, which is longer than the server may work on them.
    patience: Duration,
    max_connections: usize,
    /// One for each connection that may be in use, so that who waits is served in order.
    uses: Arc<Semaphore>,
    /// One for each connection that there may be.
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How many are being made; they have their places already.
    unmade: AtomicUsize,
    /// Whether the last one has been made. If not, none is closed to make room for another.
    can_make: AtomicBool,
    /// Those that nobody uses, the one that was used last at the end. The lock is never held across an await.
    idle: Mutex<Vec<Idle>>,
    /// Runtimes that are making one behind somebody's back.
    making: Mutex<HashSet<Id>>,
}

struct Idle {
    connection: Box<Placed>,
    since: Instant,
}

/// A connection, with its place among all that there may be.
struct Placed {
    connection: Watched,
    runtime: Id,
    uses: usize,
    _place: OwnedSemaphorePermit,
}

/// A connection that somebody has. It is there for others before its use is. One that is dead is closed and not given back, and so is one
/// in the middle of a transaction, which a caller has left who went away: its locks would keep everybody waiting.
pub(super) struct Lent {
    /// `None` once it is closed.
    connection: Option<Box<Placed>>,
    is_anothers: bool,
    pool: Pool,
    _use: OwnedSemaphorePermit,
}

/// The pool, as long as somebody has it.
pub(super) struct WeakPool(Weak<Shared>);

impl WeakPool {
    pub fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(Pool)
    }
}

impl Pool {
    /// At most `max_connections`; none yet.
    pub fn new(connector: &Arc<Connector>, patience: Duration, max_connections: usize) -> Self {
        let semaphore = || Arc::new(Semaphore::new(max_connections));
        Self(Arc::new(Shared {
            connector: Arc::clone(connector),
            patience,
            max_connections,
            uses: semaphore(),
            places: semaphore(),
            waiting: AtomicUsize::new(0),
            unmade: AtomicUsize::new(0),
            can_make: AtomicBool::new(true),
            idle: Mutex::default(),
            making: Mutex::default(),
        }))
    }

    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// The use of a connection, unless all are in use.
    fn try_use(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.uses).try_acquire_owned().ok()
    }

    /// The use of a connection, as soon as one is there.
    pub async fn wait_for_use(&self) -> Result<OwnedSemaphorePermit> {
        let _waits = Counted::new(&self.0.waiting);
        Arc::clone(&self.0.uses).acquire_owned().await.map_err(Error::internal)
    }

    /// A connection that nobody uses: this runtime's, or else another's.
    pub fn get_idle(&self) -> Option<Lent> {
        let permit = self.try_use()?;
        let here = Handle::current().id();
        Some(self.lend(self.take(here)?, here, permit))
    }

    /// The same for who has the use of one, or else a new one.
    pub async fn get(&self, permit: OwnedSemaphorePermit) -> Result<Lent> {
        let here = Handle::current().id();
        loop {
            let connection = match self.take(here) {
                Some(idle) => Some(idle),
                None => self.make(here).await?,
            };
            if let Some(connection) = connection {
                return Ok(self.lend(connection, here, permit));
            }
            // No more are in use than there may be, so one is about to be closed.
            tokio::task::yield_now().await;
        }
    }

    /// Makes a connection of this runtime that nobody waits for, if there may be one more.
    pub async fn make_one(&self) -> Result<()> {
        // As if it were in use, so that whoever has a use finds a connection or may make one.
        let Some(_use) = self.try_use() else { return Ok(()) };
        if let Some(connection) = self.make(Handle::current().id()).await? {
            self.put(connection);
        }
        Ok(())
    }

    /// Whether all that there may be are in use.
    pub fn is_exhausted(&self) -> bool {
        self.0.uses.available_permits() == 0
    }

    /// How many there are.
    pub fn status(&self) -> PoolStatus {
        let idle = self.idle().len();
        let size = self.placed().saturating_sub(self.0.unmade.load(Ordering::Relaxed));
        PoolStatus { size: size.max(idle), idle, waiting: self.0.waiting.load(Ordering::Relaxed) }
    }

    /// How many there are, with those that are being made.
    pub fn placed(&self) -> usize {
        self.0.max_connections - self.0.places.available_permits()
    }

    /// Closes those that nobody has and that `keep` does not want, which gets the time since each was used.
    pub fn retain(&self, mut keep: impl FnMut(Duration) -> bool) {
        let now = Instant::now();
        let closed: Vec<Idle> = self.idle().extract_if(.., |idle| !keep(now.saturating_duration_since(idle.since))).collect();
        // Behind the lock.
        drop(closed);
    }

    /// One that nobody uses: the newest of `runtime`, or else of any other. No test query: it would cost more than most statements.
    /// A connection that dies later is found by its use.
    fn take(&self, runtime: Id) -> Option<Box<Placed>> {
        loop {
            let mut taken = {
                let mut idle = self.idle();
                let own = idle.iter().rposition(|idle| idle.connection.runtime == runtime);
                let at = own.or_else(|| idle.len().checked_sub(1))?;
                idle.remove(at).connection
            };
            if taken.connection.is_broken() {
                continue;
            }
            taken.uses += 1;
            if taken.uses.is_multiple_of(USES_PER_STATEMENT_CACHE) {
                taken.connection.set_prepared_statement_cache_size(CacheSize::Disabled);
                taken.connection.set_prepared_statement_cache_size(CacheSize::Unbounded);
            }
            return Some(taken);
        }
    }

    /// A new one; `None` if there may be no more.
    async fn make(&self, runtime: Id) -> Result<Option<Box<Placed>>> {
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else { return Ok(None) };
        let _unmade = Counted::new(&self.0.unmade);
        // Until it is there: whoever waits may give up before.
        self.0.can_make.store(false, Ordering::Relaxed);
        // Boxed, because the future is large and a part of that of every operation.
        let connection = Box::pin(self.0.connector.connect_watched(self.0.patience)).await?;
        self.0.can_make.store(true, Ordering::Relaxed);
        Ok(Some(Box::new(Placed { connection, runtime, uses: 0, _place: place })))
    }

    /// Makes one of this runtime while nobody waits for it, one at a time. If there may be no more, one that another has long not used
    /// makes room for it.
    fn make_behind(&self, here: Id) {
        if !lock(&self.0.making).insert(here) {
            return;
        }
        let making = Making { pool: self.clone(), runtime: here };
        if self.0.places.available_permits() == 0 {
            if !self.0.can_make.load(Ordering::Relaxed) {
                return;
            }
            let now = Instant::now();
            let mut idle = self.idle();
            let unused = |idle: &Idle| idle.connection.runtime != here && now.saturating_duration_since(idle.since) > UNUSED;
            let Some(at) = idle.iter().position(unused) else { return };
            let closed = idle.remove(at);
            drop(idle);
            drop(closed);
        }
        tokio::spawn(async move {
            if let Err(error) = making.pool.make_one().await {
                tracing::debug!(%error, "a connection to PostgreSQL could not be made; those of other threads are used");
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    fn lend(&self, connection: Box<Placed>, here: Id, permit: OwnedSemaphorePermit) -> Lent {
        let is_anothers = connection.runtime != here;
        if is_anothers {
            self.make_behind(here);
        }
        Lent { connection: Some(connection), is_anothers, pool: self.clone(), _use: permit }
    }

    fn put(&self, connection: Box<Placed>) {
        self.idle().push(Idle { connection, since: Instant::now() });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        lock(&self.0.idle)
    }
}

impl Lent {
    /// The connection.
    pub fn open(&mut self) -> Result<&mut Watched> {
        self.connection.as_mut().map(|placed| &mut placed.connection).ok_or_else(|| Error::internal("a connection is closed"))
    }

    /// Whether it was closed because an answer did not come.
    pub fn has_given_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|placed| placed.connection.has_given_up())
    }

    /// Whether another runtime carries it on.
    pub fn is_anothers(&self) -> bool {
        self.is_anothers
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.connection = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && !connection.connection.is_broken()
        {
            self.pool.put(connection);
        }
    }
}

/// A runtime that is making a connection, until this is dropped.
struct Making {
    pool: Pool,
    runtime: Id,
}

impl Drop for Making {
    fn drop(&mut self) {
        lock(&self.pool.0.making).remove(&self.runtime);
    }
}

/// One more, until this is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A panic while it is locked leaves what it holds whole: each change is one insert or one removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
