//! Embedded SQLite: the file, the pool and the write lock. An operation runs whole on one blocking
//! thread, for a thread hop per statement would cost more than most statements do.
//!
//! Durability: `synchronous = NORMAL` in WAL mode. An acknowledged write survives the death of the process; the last
//! few may be lost with the power of the machine, and the file stays consistent.

mod dialect;
mod file;
mod migrations;
mod structure;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ExponentialBuilder};
use diesel::connection::{Connection as _, SimpleConnection};
use diesel::prelude::SqliteConnection;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError as DeadpoolError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, PoolError, RecyclingMethod};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use opentelemetry::metrics::Meter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{Access, Connection, Task};
use super::failure::{Failure, from_database, is_locked};
use super::metrics::{Metrics, PoolStatus, Scarce, Shortage};
use super::structure::Step;
use crate::config::DatabaseSettings;
use crate::error::{Error, Result};

pub(super) use dialect::SqliteDialect;
use file::DatabaseFile;

/// Prepared statements are kept for this many uses of a connection and then made anew: Diesel's cache has no bound,
/// and filters come in endless variety. 256 statements take about 2 MB; making one anew takes about 30 µs.
const USES_PER_STATEMENT_CACHE: usize = 256;

/// So long others may be busy with making the journal of a new file a WAL.
const LONGEST_SWITCH: Duration = Duration::from_secs(1);

/// Page cache of all connections together. Memory-mapped pages would count against the process, so there are none.
const PAGE_CACHE_KIB: usize = 36 * 1024;

type Wrapped = SyncConnectionWrapper<SqliteConnection>;

/// One database file.
pub(super) struct SqliteDatabase {
    file: Arc<DatabaseFile>,
    pool: Pool<Wrapped>,
    /// One connection, for whoever follows the log.
    log: Pool<Wrapped>,
    /// One permit. Held, in the blocking thread, for the whole of a writing operation: writers queue here, where
    /// waiting costs no thread, and not in SQLite's busy handler, which sleeps and is not fair.
    writer: Arc<Semaphore>,
    acquire_timeout: Duration,
    connections: Shortage,
    writes: Shortage,
}

impl SqliteDatabase {
    /// Opens the file that `database.url` names, creating it and its directory.
    pub async fn open(settings: &DatabaseSettings, meter: &Meter) -> Result<Self> {
        let file = Arc::new(DatabaseFile::of_url(&settings.url)?);
        let path = file.path();
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(|error| {
                let detail = format!("The directory {} (database.url) cannot be created: {error}.", directory.display());
                Error::unavailable(detail, Duration::from_secs(1), error)
            })?;
        }
        // One more than for reads, so that a writer seldom waits for readers.
        let size = usize::try_from(settings.max_connections.max(1)).unwrap_or(usize::MAX).saturating_add(1);
        let pragmas = pragmas(settings.acquire_timeout, PAGE_CACHE_KIB / size);
        let pool_of = |connections| -> Result<Pool<Wrapped>> {
            let mut config = ManagerConfig::default();
            config.recycling_method = RecyclingMethod::Fast;
            let (opened, pragmas) = (Arc::clone(&file), pragmas.clone());
            config.custom_setup = Box::new(move |path| establish(path.to_owned(), Arc::clone(&opened), pragmas.clone()));
            let manager = AsyncDieselConnectionManager::new_with_config(path.to_string_lossy(), config);
            Pool::builder(manager).max_size(connections).build().map_err(Error::internal)
        };
        let (pool, log) = (pool_of(size)?, pool_of(1)?);
        let watched = pool.weak();
        Metrics::watch_pool(meter, move || {
            let deadpool::Status { size, available, waiting, .. } = watched.upgrade()?.status();
            Some(PoolStatus { size, idle: available.min(size), waiting })
        });
        let writer = Arc::new(Semaphore::new(1));
        let [connections, writes] = [Scarce::Connection, Scarce::WriteLock].map(|scarce| Shortage::new(meter, scarce, settings));
        let database = Self { file, pool, log, writer, acquire_timeout: settings.acquire_timeout, connections, writes };
        // Opening the first connection here makes a wrong path a start-up error.
        drop(database.connection(Access::Read, "open").await.map_err(Failure::into_error)?);
        Ok(database)
    }

    /// Whether the tables were made and nothing has called [`Self::settle`] since.
    pub async fn is_new(&self) -> Result<bool, Failure> {
        self.blocking("is_new", Access::Read, migrations::is_new).await
    }

    /// The database is no longer new.
    pub async fn settle(&self) -> Result<(), Failure> {
        self.blocking("settle", Access::Write, migrations::settle).await
    }

    /// The migrations that the tables lack, or `None` if there are no tables at all. It writes nothing.
    pub async fn pending_migrations(&self) -> Result<Option<Vec<String>>, Failure> {
        self.blocking("pending_migrations", Access::Read, migrations::pending).await
    }

    /// How many writers could start at once: one, or none.
    #[cfg(test)]
    pub fn free_write_permits(&self) -> usize {
        self.writer.available_permits()
    }

    /// Brings the tables to this version's state; refuses a database that a newer version migrated.
    pub async fn migrate(&self) -> Result<(), Failure> {
        self.blocking("migrate", Access::Read, migrations::run).await
    }

    /// Does the steps of the structure, each in a transaction of its own.
    pub async fn apply(&self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            self.perform("apply", Access::Write, step.clone()).await?;
        }
        Ok(())
    }

    /// Runs `task` on a connection, under the write lock and in a transaction if it writes.
    pub async fn perform<T>(&self, operation: &'static str, access: Access, task: impl Task<T>) -> Result<T, Failure>
    where
        T: Send + 'static,
    {
        self.blocking(operation, access, move |sqlite| match access {
            Access::Read | Access::Follow => finish(&task, sqlite),
            Access::Write => sqlite.immediate_transaction(|sqlite| finish(&task, sqlite)),
        })
        .await
    }

    /// Fails if the file is no longer the one that was opened.
    pub async fn check_file(&self) -> Result<(), Failure> {
        let file = Arc::clone(&self.file);
        let checked =
            tokio::task::spawn_blocking(move || file.check()).await.map_err(|error| Failure::Refused(Error::internal(error)))?;
        checked.map_err(|replaced| Failure::Refused(from_database(replaced)))
    }

    async fn blocking<T, F>(&self, operation: &'static str, access: Access, task: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, Failure> + Send + 'static,
    {
        let permit = match access {
            Access::Read | Access::Follow => None,
            Access::Write => Some(self.write_permit(operation).await?),
        };
        let mut object = self.connection(access, operation).await?;
        let file = permit.is_some().then(|| Arc::clone(&self.file));
        let is_cache_full = Object::metrics(&object).recycle_count % USES_PER_STATEMENT_CACHE == USES_PER_STATEMENT_CACHE - 1;
        let work = object.spawn_blocking(move |sqlite| {
            let _permit = permit;
            if is_cache_full {
                sqlite.set_prepared_statement_cache_size(diesel::connection::CacheSize::Disabled);
                sqlite.set_prepared_statement_cache_size(diesel::connection::CacheSize::Unbounded);
            }
            // Rather no write than one that is acknowledged and gone.
            if let Some(Err(replaced)) = file.map(|file| file.check()) {
                return Ok(Err(Failure::Refused(from_database(replaced))));
            }
            // A panic must not leave the wrapper's mutex poisoned: the pool would panic in turn.
            let outcome = catch_unwind(AssertUnwindSafe(|| task(sqlite)));
            Ok(outcome.unwrap_or_else(|_| Err(Failure::Refused(Error::internal(format!("{operation} panicked"))))))
        });
        // A task of its own, so that a caller who goes away neither ends a write half-way nor returns a connection
        // that a blocking thread still uses.
        let finished = tokio::spawn(async move {
            let outcome = work.await;
            drop(object);
            outcome
        });
        finished.await.map_err(|error| Failure::Refused(Error::internal(error)))??
    }

    async fn write_permit(&self, operation: &'static str) -> Result<OwnedSemaphorePermit, Failure> {
        match tokio::time::timeout(self.acquire_timeout, Arc::clone(&self.writer).acquire_owned()).await {
            Ok(Ok(permit)) => {
                // Who waits for a semaphore cannot be counted; those behind this one have waited less.
                self.writes.relieved(|| 0);
                Ok(permit)
            }
            Ok(Err(closed)) => Err(Failure::Refused(Error::internal(closed))),
            Err(_) => Err(self.writes.in_vain(operation)),
        }
    }

    async fn connection(&self, access: Access, operation: &'static str) -> Result<Object<Wrapped>, Failure> {
        let pool = match access {
            Access::Read | Access::Write => &self.pool,
            Access::Follow => &self.log,
        };
        match tokio::time::timeout(self.acquire_timeout, pool.get()).await {
            Ok(Ok(object)) => {
                // The one for the log says nothing of a shortage of the others.
                if access != Access::Follow {
                    self.connections.relieved(|| self.pool.status().waiting);
                }
                Ok(object)
            }
            Ok(Err(DeadpoolError::Backend(PoolError::ConnectionError(error)))) => {
                Err(Failure::Refused(from_database(&error.to_string())))
            }
            Ok(Err(error)) => Err(Failure::Refused(Error::internal(error))),
            Err(_) => Err(self.connections.in_vain(operation)),
        }
    }
}

/// Polls the operation once: on an embedded database every future is ready.
fn finish<T>(task: &impl Task<T>, sqlite: &mut SqliteConnection) -> Result<T, Failure> {
    let waited = || Failure::Refused(Error::internal("an operation waited for something that is not the database"));
    task.run(&mut Connection::Sqlite(sqlite)).now_or_never().unwrap_or_else(|| Err(waited()))
}

/// busy_timeout first, so that the others wait for locks.
fn pragmas(busy_timeout: Duration, page_cache_kib: usize) -> String {
    let busy_timeout_ms = busy_timeout.as_millis();
    format!(
        "PRAGMA busy_timeout = {busy_timeout_ms};\
         PRAGMA journal_mode = WAL;\
         PRAGMA synchronous = NORMAL;\
         PRAGMA foreign_keys = ON;\
         PRAGMA cache_size = -{page_cache_kib};\
         PRAGMA journal_size_limit = 67108864;"
    )
}

fn establish(path: String, file: Arc<DatabaseFile>, pragmas: String) -> BoxFuture<'static, ConnectionResult<Wrapped>> {
    async move {
        match tokio::task::spawn_blocking(move || open(&path, &file, &pragmas)).await {
            Ok(connection) => connection.map(SyncConnectionWrapper::new),
            Err(error) => Err(ConnectionError::BadConnection(error.to_string())),
        }
    }
    .boxed()
}

/// Several processes that open a new file at once are in each other's way when they make its journal a WAL, and SQLite does not let any
/// of them wait: `busy_timeout` does not cover that.
fn open(path: &str, file: &DatabaseFile, pragmas: &str) -> ConnectionResult<SqliteConnection> {
    let attempt = || {
        let mut connection = SqliteConnection::establish(path)?;
        file.check().map_err(|replaced| ConnectionError::BadConnection(replaced.to_owned()))?;
        connection.batch_execute(pragmas).map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    };
    let backoff = ExponentialBuilder::new().with_min_delay(Duration::from_millis(10)).without_max_times().with_jitter();
    // Whoever has waited has met another lock.
    let begun = Instant::now();
    let is_in_the_way = |error: &ConnectionError| is_locked(&error.to_string()) && begun.elapsed() < LONGEST_SWITCH;
    attempt.retry(backoff).when(is_in_the_way).call()
}
