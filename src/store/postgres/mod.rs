//! A PostgreSQL server: the pool, transactions, and what is tried again. Nothing here blocks a thread.
//!
//! Writes run at `READ COMMITTED`: the records a write is about are locked when they are read, and the upsert compares
//! versions, so no update is lost; what PostgreSQL itself ends (a deadlock) is run again from the start.

mod connect;
mod dialect;
mod keep;
mod log_indexes;
mod migrations;
mod pool;
mod rows;
mod search;
mod structure;
mod tallies;
mod watch;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, SimpleAsyncConnection as _, TransactionManager as _};
use futures_util::FutureExt as _;
use opentelemetry::metrics::Meter;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;

use super::connection::{Access, Connection, Task};
use super::failure::{Failure, RETRY_AFTER};
use super::metrics::{Metrics, Scarce, Shortage};
use super::structure::Step;
use super::turns::{Name, Turn, Turns};
use crate::config::DatabaseSettings;
use crate::error::{Error, Result};
use crate::model::CollectionName;

use connect::{Connector, Limits};
pub(super) use dialect::PostgresDialect;
use keep::Keep;
use pool::{Lent, Pool};
pub(super) use rows::{load_text, load_texts};
#[cfg(test)]
pub(super) use search::query_text;
pub(super) use tallies::{MOST_VALUES, Tallies, lock as tallies_lock};

/// How much longer than `database.statement_timeout` an answer may take, before its connection is given up.
const GRACE: Duration = Duration::from_secs(1);
/// How often the installation's lock is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// One database of a server.
pub(super) struct PostgresDatabase {
    connector: Arc<Connector>,
    pool: Pool,
    /// One connection, for whoever follows the log.
    log: Pool,
    acquire_timeout: Duration,
    /// How long the answer to one statement may take to come, which is longer than the server may work on it.
    patience: Duration,
    shortage: Shortage,
    turns: Turns,
    maintenance: JoinHandle<()>,
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        self.maintenance.abort();
    }
}

impl PostgresDatabase {
    /// Opens the database that `database.url` names, with one connection; the others come when they are needed.
    pub async fn open(settings: &DatabaseSettings, meter: &Meter) -> Result<Self> {
        let connector = Arc::new(Connector::of(settings)?);
        let patience = settings.statement_timeout + GRACE;
        let size = |connections: u32| usize::try_from(connections).unwrap_or(usize::MAX);
        let pool = Pool::new(&connector, patience, size(settings.max_connections.max(1)));
        let log = Pool::new(&connector, patience, 1);
        let keep = Keep {
            pool: pool.downgrade(),
            min_connections: size(settings.min_connections.min(settings.max_connections)),
            idle_timeout: settings.idle_timeout,
        };
        let maintenance = tokio::spawn(keep.run());
        let shortage = Shortage::new(meter, Scarce::Connection, settings);
        let database = Self {
            connector,
            pool,
            log,
            acquire_timeout: settings.acquire_timeout,
            patience,
            shortage,
            turns: Turns::default(),
            maintenance,
        };
        drop(database.connection("open").await.map_err(Failure::into_error)?);
        // Only now: opening is tried again and again, and each of these stays for good.
        let pool = database.pool.downgrade();
        Metrics::watch_pool(meter, move || Some(pool.upgrade()?.status()));
        Ok(database)
    }

    /// Whether the tables were made and nothing has called [`Self::settle`] since.
    pub async fn is_new(&self) -> Result<bool, Failure> {
        migrations::is_new(self.connection("is_new").await?.open()?).await
    }

    /// The database is no longer new.
    pub async fn settle(&self) -> Result<(), Failure> {
        migrations::settle(self.connection("settle").await?.open()?).await
    }

    /// The migrations that the tables lack, or `None` if there are no tables at all. It writes nothing.
    pub async fn pending_migrations(&self) -> Result<Option<Vec<String>>, Failure> {
        migrations::pending(self.connection("pending_migrations").await?.open()?).await
    }

    /// Brings the tables to this version's state; refuses a database that a newer version migrated.
    pub async fn migrate(&self) -> Result<(), Failure> {
        let mut connection = self.locked().await?;
        migrations::check_encoding(&mut connection).await?;
        if migrations::pending(&mut connection).await?.is_none_or(|pending| !pending.is_empty()) {
            migrations::run(connection).await?;
            connection = self.locked().await?;
        }
        match log_indexes::are_there(&mut connection).await? {
            true => Ok(()),
            false => log_indexes::make(&mut connection).await,
        }
    }

    /// Does the steps of the structure, one after the other. Nothing is locked against writers for long: `structure` makes
    /// indexes concurrently, outside of a transaction.
    pub async fn apply(&self, steps: &[Step]) -> Result<(), Failure> {
        if steps.is_empty() {
            return Ok(());
        }
        let mut connection = self.locked().await?;
        for step in steps {
            step.run(&mut Connection::Postgres(&mut connection)).await?;
        }
        Ok(())
    }

    /// Tells the planner what is in a collection, for as long as that takes; and marks the pages that everybody sees, so that
    /// an index alone can count their records.
    pub async fn analyze(&self, collection: &CollectionName) -> Result<(), Failure> {
        let mut connection = self.connector.connect(Limits::None).await?;
        Ok(connection.batch_execute(&format!("VACUUM (ANALYZE) {}", structure::partition(collection))).await?)
    }

    /// Waits for the turn of a writer of this name.
    pub async fn turn(&self, name: Name) -> Result<Turn<'_>, Failure> {
        self.turns.take(name, self.acquire_timeout).await
    }

    /// Runs `task` on a connection, in a transaction if it writes, and again as long as that helps.
    pub async fn perform<T>(&self, operation: &'static str, access: Access, task: impl Task<T>) -> Result<T, Failure>
    where
        T: Send + 'static,
    {
        let mut retries = Retries::until(tokio::time::Instant::now() + self.acquire_timeout);
        loop {
            let outcome = match access {
                Access::Read => self.read(self.connection(operation).await, operation, &task).await,
                // It says nothing of a shortage of the others.
                Access::Follow => self.read(self.checkout(&self.log, unopened).await, operation, &task).await,
                // Boxed, because it is large and a read has no use for it.
                Access::Write => Box::pin(self.write(operation, &task)).await,
            };
            let Err(failure) = outcome else { return outcome };
            match retries.delay_after(&failure) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure),
            }
        }
    }

    async fn read<T>(
        &self,
        connection: Result<Lent, Failure>,
        operation: &'static str,
        task: &impl Task<T>,
    ) -> Result<T, Failure> {
        let mut connection = connection?;
        let is_anothers = connection.is_anothers();
        let (open, waiting) = connection.open()?.watched();
        let outcome = {
            let mut open = Connection::Postgres(open);
            let work = pin!(carried_out(operation, task.run(&mut open)));
            // Whoever carries the connection on watches over it, and another runtime may be stuck.
            if is_anothers { tokio::time::timeout(self.patience * 2, work).await } else { Ok(work.await) }
        };
        drop(waiting);
        match outcome {
            Err(_) => Err(silent(&mut connection)),
            Ok(Err(_)) if connection.has_given_up() => Err(silent(&mut connection)),
            Ok(outcome) => outcome,
        }
    }

    async fn write<T>(&self, operation: &'static str, task: &impl Task<T>) -> Result<T, Failure> {
        let mut connection = self.connection(operation).await?;
        // Several statements, of which the slow ones are few.
        match tokio::time::timeout(self.patience * 2, self.transact(connection.open()?, operation, task)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(silent(&mut connection).into_unknown_outcome()),
        }
    }

    async fn transact<T>(
        &self,
        connection: &mut AsyncPgConnection,
        operation: &'static str,
        task: &impl Task<T>,
    ) -> Result<T, Failure> {
        AnsiTransactionManager::begin_transaction(connection).await?;
        match carried_out(operation, task.run(&mut Connection::Postgres(connection))).await {
            Ok(value) => match AnsiTransactionManager::commit_transaction(connection).await {
                Ok(()) => Ok(value),
                // Nobody knows whether the server had carried it out: it must not be run again.
                Err(error) => Err(Failure::from(error).into_unknown_outcome()),
            },
            Err(failure) => {
                // If this fails too, the connection is broken, and not given back.
                let _ = AnsiTransactionManager::rollback_transaction(connection).await;
                Err(failure)
            }
        }
    }

    /// A connection without time limits of its own, which holds the installation's lock until it is dropped. The lock is
    /// tried again and again: a session that waits for it inside of PostgreSQL would hold a snapshot, for which
    /// `CREATE INDEX CONCURRENTLY` in the session that has the lock would wait in turn.
    async fn locked(&self) -> Result<AsyncPgConnection, Failure> {
        let mut connection = self.connector.connect(Limits::None).await?;
        while !migrations::try_lock(&mut connection).await? {
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
        Ok(connection)
    }

    async fn connection(&self, operation: &'static str) -> Result<Lent, Failure> {
        let connection = self.checkout(&self.pool, |_| self.shortage.in_vain(operation)).await?;
        self.shortage.relieved(|| self.pool.status().waiting);
        Ok(connection)
    }

    /// `in_vain`: none of them became free.
    async fn checkout(&self, pool: &Pool, in_vain: impl FnOnce(Elapsed) -> Failure) -> Result<Lent, Failure> {
        if let Some(idle) = pool.get_idle() {
            return Ok(idle);
        }
        // Boxed, because most need no timers.
        let waiting = async {
            let deadline = tokio::time::Instant::now() + self.acquire_timeout;
            let permit = tokio::time::timeout_at(deadline, pool.wait_for_use()).await.map_err(in_vain)??;
            tokio::time::timeout_at(deadline, pool.get(permit)).await.map_err(unopened)?.map_err(Failure::Unreachable)
        };
        Box::pin(waiting).await
    }
}

fn unopened(waited: Elapsed) -> Failure {
    let detail = "PostgreSQL did not answer within database.acquire_timeout; see database.url.";
    Failure::Unreachable(Error::unavailable(detail, RETRY_AFTER, waited))
}

/// What is tried again, and when. Made with the first failure, for most operations have none.
struct Retries {
    deadline: tokio::time::Instant,
    replacements: Option<ExponentialBackoff>,
    turns: Option<ExponentialBackoff>,
}

impl Retries {
    fn until(deadline: tokio::time::Instant) -> Self {
        Self { deadline, replacements: None, turns: None }
    }

    /// How long to wait before the operation is run again; `None` if that does not help.
    fn delay_after(&mut self, failure: &Failure) -> Option<Duration> {
        let delay = if failure.is_lost_connection() {
            // What is gone at once may be back at once: a connection that a restart has cut is replaced. Longer outages
            // are for the client, who is told when to come back.
            let backoff = ExponentialBuilder::new().with_min_delay(Duration::from_millis(10)).with_factor(4.0).with_max_times(3);
            self.replacements.get_or_insert_with(|| backoff.with_jitter().build()).next()
        } else if failure.is_transient_conflict() {
            // Others are in the way: they will be done soon, but not all at once.
            let backoff =
                ExponentialBuilder::new().with_min_delay(Duration::from_millis(2)).with_max_delay(Duration::from_millis(100));
            self.turns.get_or_insert_with(|| backoff.without_max_times().with_jitter().build()).next()
        } else {
            None
        };
        delay.filter(|delay| tokio::time::Instant::now() + *delay < self.deadline)
    }
}

/// The server should have ended the statement itself by now. Its connection is of no use to anybody: whatever it is asked
/// next would wait for the answer to this.
fn silent(connection: &mut Lent) -> Failure {
    connection.close();
    let detail = "PostgreSQL did not answer within database.statement_timeout; see database.url.";
    Failure::Unreachable(Error::unavailable(detail, RETRY_AFTER, "nothing came over the connection"))
}

/// A panic, of a planner for example, ends its operation and nothing else: what is open is rolled back.
fn carried_out<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, Failure>>,
) -> impl Future<Output = Result<T, Failure>> {
    let panicked = move || Err(Failure::Refused(Error::internal(format!("{operation} panicked"))));
    AssertUnwindSafe(work).catch_unwind().map(move |outcome| outcome.unwrap_or_else(|_| panicked()))
}
