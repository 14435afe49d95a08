//! The two databases behind one interface. Which of them it is, is decided once, by `database.url`.

use opentelemetry::metrics::Meter;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::connection::{Access, Connection, Task};
use super::dialect::Dialect;
use super::failure::Failure;
use super::postgres::{PostgresDatabase, PostgresDialect};
use super::sqlite::{SqliteDatabase, SqliteDialect};
use super::structure::Step;
use super::turns::{Name, Turn};
use crate::config::DatabaseSettings;
use crate::error::Result;
use crate::model::CollectionName;

/// One database, with its pool.
pub(super) enum Database {
    /// Embedded SQLite.
    Sqlite(SqliteDatabase),
    /// A PostgreSQL server.
    Postgres(PostgresDatabase),
}

/// How the database that `database.url` names spells what is not standard.
pub(super) fn dialect(settings: &DatabaseSettings) -> &'static dyn Dialect {
    if settings.is_postgres() { &PostgresDialect } else { &SqliteDialect }
}

impl Database {
    /// Opens the database that `database.url` names.
    pub async fn open(settings: &DatabaseSettings, meter: &Meter) -> Result<Self> {
        if settings.is_postgres() {
            return PostgresDatabase::open(settings, meter).await.map(Self::Postgres);
        }
        SqliteDatabase::open(settings, meter).await.map(Self::Sqlite)
    }

    /// Whether the tables were made and nothing has called [`Self::settle`] since.
    pub async fn is_new(&self) -> Result<bool, Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.is_new().await,
            Self::Postgres(postgres) => postgres.is_new().await,
        }
    }

    /// The database is no longer new.
    pub async fn settle(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.settle().await,
            Self::Postgres(postgres) => postgres.settle().await,
        }
    }

    /// The migrations that the tables lack, or `None` if there are no tables at all. It writes nothing.
    pub async fn pending_migrations(&self) -> Result<Option<Vec<String>>, Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.pending_migrations().await,
            Self::Postgres(postgres) => postgres.pending_migrations().await,
        }
    }

    /// Brings the tables to this version's state; refuses a database that a newer version migrated.
    pub async fn migrate(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.migrate().await,
            Self::Postgres(postgres) => postgres.migrate().await,
        }
    }

    /// Does the steps of the structure, one after the other.
    pub async fn apply(&self, steps: &[Step]) -> Result<(), Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.apply(steps).await,
            Self::Postgres(postgres) => postgres.apply(steps).await,
        }
    }

    /// Tells the planner what is in a collection. SQLite's does better without; see `sqlite::structure`.
    pub async fn analyze(&self, collection: &CollectionName) -> Result<(), Failure> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(postgres) => postgres.analyze(collection).await,
        }
    }

    /// Fails if this is no longer the database that was opened. A server tells that itself.
    pub async fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.check_file().await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Waits for the turn of a writer of this name. On SQLite all writers queue without taking a connection.
    pub async fn turn(&self, name: impl FnOnce() -> Name) -> Result<Option<Turn<'_>>, Failure> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(postgres) => postgres.turn(name()).await.map(Some),
        }
    }

    /// Runs `task` on a connection, in a transaction if it writes. It may be run again, from the start, when what went
    /// wrong was the connection or another transaction.
    ///
    /// Boxed: its state has kilobytes, and every future around it would carry and move them.
    pub fn run<T, F>(&self, operation: &'static str, access: Access, task: F) -> BoxFuture<'_, Result<T, Failure>>
    where
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Connection<'_>) -> BoxFuture<'a, Result<T, Failure>> + Send + Sync + 'static,
    {
        self.perform(operation, access, task).boxed()
    }

    /// The same for any task.
    pub async fn perform<T>(&self, operation: &'static str, access: Access, task: impl Task<T>) -> Result<T, Failure>
    where
        T: Send + 'static,
    {
        match self {
            // Boxed: it is larger than that of the other, which would be moved around with as much.
            Self::Sqlite(sqlite) => Box::pin(sqlite.perform(operation, access, task)).await,
            Self::Postgres(postgres) => postgres.perform(operation, access, task).await,
        }
    }
}
