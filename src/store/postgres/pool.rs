//! The pool. A connection is carried on by a task of the runtime that made it, and every thread that serves requests has a runtime of
//! its own: a statement over a connection of another thread wakes that thread to be sent and this one to get its answer, which
//! costs more than all that Terrace does for a miss. So each runtime has connections of its own, in a pool of the library's. It takes
//! those of others while it has none, which it then makes behind its back, and when there may be no more.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool::Status;
use deadpool::managed::{
    Manager, Metrics as ObjectMetrics, Object, Pool as RuntimePool, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
};
use diesel::connection::CacheSize;
use diesel_async::AsyncConnection as _;
use diesel_async::pooled_connection::PoolableConnection as _;
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::Connector;
use super::watch::Watched;
use crate::error::{Error, Result};

/// Prepared statements are kept for this many uses of a connection and then made anew: Diesel's cache has no bound,
/// and filters come in endless variety. Each costs the server some 20 kB and, made anew, a round trip.
const USES_PER_STATEMENT_CACHE: usize = 1_024;

/// Nobody waits inside of a runtime's pool: who may have a connection finds one.
const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

/// Connections by the runtime that carries them on.
pub(super) struct Pool {
    /// One for each connection that may be in use, so that who waits is served in order.
    uses: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_connections: usize,
    runtimes: RwLock<HashMap<Id, Here>>,
    manager: ConnectionManager,
}

/// What one runtime has.
#[derive(Clone)]
struct Here {
    pool: RuntimePool<ConnectionManager>,
    /// Whether one is being made behind a caller's back.
    is_making: Arc<AtomicBool>,
}

/// A connection that somebody has.
pub(super) struct Lent {
    connection: Object<ConnectionManager>,
    _use: OwnedSemaphorePermit,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Refused {
    /// There may be no more, and all that there are are another runtime's.
    NoRoom,
    /// It could not be made.
    Unmade(Error),
}

/// A connection, with its place among all that there may be.
pub(super) struct Placed {
    connection: Watched,
    _place: OwnedSemaphorePermit,
}

/// Makes connections, and tells the dead from the living.
#[derive(Clone)]
pub(super) struct ConnectionManager {
    connector: Arc<Connector>,
    /// How long the answer to one statement may take to come, which is longer than the server may work on it.
    patience: Duration,
    /// One for each connection that there may be.
    places: Arc<Semaphore>,
}

impl Manager for ConnectionManager {
    /// Boxed, because the pool moves it from hand to hand.
    type Type = Box<Placed>;
    type Error = Refused;

    async fn create(&self) -> Result<Box<Placed>, Refused> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refused::NoRoom)?;
        // Boxed, because the future is large and a part of that of every operation.
        let made = Box::pin(self.connector.connect_watched(self.patience)).await;
        made.map(|connection| Box::new(Placed { connection, _place: place })).map_err(Refused::Unmade)
    }

    /// No test query: it would cost more than most statements. A connection that dies later is found by its use.
    async fn recycle(&self, placed: &mut Box<Placed>, metrics: &ObjectMetrics) -> RecycleResult<Refused> {
        let connection = &mut placed.connection;
        if connection.is_broken() {
            return Err(RecycleError::message("the connection is dead, or was left in the middle of a transaction"));
        }
        if metrics.recycle_count % USES_PER_STATEMENT_CACHE == USES_PER_STATEMENT_CACHE - 1 {
            connection.set_prepared_statement_cache_size(CacheSize::Disabled);
            connection.set_prepared_statement_cache_size(CacheSize::Unbounded);
        }
        Ok(())
    }
}

impl Pool {
    /// At most `max_connections`; none yet.
    pub fn new(connector: &Arc<Connector>, patience: Duration, max_connections: usize) -> Self {
        let semaphore = || Arc::new(Semaphore::new(max_connections));
        let manager = ConnectionManager { connector: Arc::clone(connector), patience, places: semaphore() };
        Self { uses: semaphore(), waiting: AtomicUsize::new(0), max_connections, runtimes: RwLock::default(), manager }
    }

    /// A connection: this runtime's; or else another's that nobody uses; or else a new one. Waits as long as all are in use.
    pub async fn get(&self) -> Result<Lent, Error> {
        let permit = match Arc::clone(&self.uses).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waits = Waits::new(&self.waiting);
                Arc::clone(&self.uses).acquire_owned().await.map_err(Error::internal)?
            }
        };
        let here = self.here()?;
        loop {
            if here.idle() == 0
                && let Some(connection) = self.unused_elsewhere().await?
            {
                self.make_behind(&here);
                return Ok(Lent { connection, _use: permit });
            }
            if let Some(connection) = here.obtain().await? {
                return Ok(Lent { connection, _use: permit });
            }
            // No more are in use than there may be, so one is on its way from hand to hand.
            tokio::task::yield_now().await;
        }
    }

    /// The same without waiting, and never another runtime's: a new one unless this runtime has one that nobody uses. `None` if there
    /// may be no more.
    pub async fn get_here(&self) -> Result<Option<Lent>, Error> {
        let Ok(permit) = Arc::clone(&self.uses).try_acquire_owned() else { return Ok(None) };
        Ok(self.here()?.obtain().await?.map(|connection| Lent { connection, _use: permit }))
    }

    /// How many this runtime has that nobody uses.
    pub fn idle_here(&self) -> Result<usize, Error> {
        Ok(self.here()?.idle())
    }

    /// How many there are.
    pub fn status(&self) -> Status {
        let mut whole =
            Status { max_size: self.max_connections, size: 0, available: 0, waiting: self.waiting.load(Ordering::Relaxed) };
        for here in self.runtimes() {
            whole.size += here.pool.status().size;
            whole.available += here.idle();
        }
        whole
    }

    /// Closes those that nobody has and that `keep` does not want, which gets the time since each was used.
    pub fn retain(&self, mut keep: impl FnMut(Duration) -> bool) {
        for here in self.runtimes() {
            here.pool.retain(|_, metrics| keep(metrics.last_used()));
        }
    }

    async fn unused_elsewhere(&self) -> Result<Option<Object<ConnectionManager>>, Error> {
        for here in self.runtimes() {
            if here.idle() > 0
                && let Some(connection) = here.obtain().await?
            {
                return Ok(Some(connection));
            }
        }
        Ok(None)
    }

    /// Makes a connection of this runtime, one at a time and if there may be one more, while nobody waits for it. Whoever does next is
    /// told if it fails.
    fn make_behind(&self, here: &Here) {
        if here.is_making.swap(true, Ordering::Relaxed) {
            return;
        }
        let (here, uses) = (here.clone(), Arc::clone(&self.uses));
        tokio::spawn(async move {
            if let Ok(_use) = uses.try_acquire_owned() {
                let _ = here.obtain().await;
            }
            here.is_making.store(false, Ordering::Relaxed);
        });
    }

    fn here(&self) -> Result<Here, Error> {
        let runtime = Handle::current().id();
        if let Some(here) = self.runtimes.read().unwrap_or_else(PoisonError::into_inner).get(&runtime) {
            return Ok(here.clone());
        }
        // Last in, first out: what a burst has left over stays unused, and is closed.
        let pool = RuntimePool::builder(self.manager.clone()).max_size(self.max_connections).queue_mode(QueueMode::Lifo);
        let here = Here { pool: pool.build().map_err(Error::internal)?, is_making: Arc::default() };
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        Ok(runtimes.entry(runtime).or_insert(here).clone())
    }

    fn runtimes(&self) -> Vec<Here> {
        self.runtimes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Here {
    /// How many there are that nobody uses.
    fn idle(&self) -> usize {
        let status = self.pool.status();
        status.available.min(status.size)
    }

    /// One that nobody uses, or a new one; `None` if there may be no more.
    async fn obtain(&self) -> Result<Option<Object<ConnectionManager>>, Error> {
        obtained(self.pool.timeout_get(&AT_ONCE).await)
    }
}

/// `None` if the runtime has none to spare and there may be no more.
fn obtained(taken: Result<Object<ConnectionManager>, PoolError<Refused>>) -> Result<Option<Object<ConnectionManager>>, Error> {
    match taken {
        Ok(connection) => Ok(Some(connection)),
        Err(PoolError::Backend(Refused::NoRoom) | PoolError::Timeout(_)) => Ok(None),
        Err(PoolError::Backend(Refused::Unmade(error))) => Err(error),
        Err(error @ (PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_))) => {
            Err(Error::internal(error))
        }
    }
}

impl Lent {
    /// Closes it.
    pub fn close(self) {
        drop(Object::take(self.connection));
    }
}

impl Deref for Lent {
    type Target = Watched;

    fn deref(&self) -> &Watched {
        &self.connection.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Watched {
        &mut self.connection.connection
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoRoom => formatter.write_str("there may be no more connections"),
            Self::Unmade(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for Refused {}

/// Counts somebody who waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
