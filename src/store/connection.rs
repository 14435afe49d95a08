//! The connection that the store's logic is written against, once for all databases. It knows how to run a
//! [`Statement`] and which [`Dialect`] to spell it in; it knows nothing of pools or of what the statements mean.

use bytes::Bytes;
use diesel::QueryResult;
use diesel::connection::SimpleConnection as _;
use diesel::deserialize::QueryableByName;
use diesel::pg::Pg;
use diesel::sql_types::Text;
use diesel::sqlite::{Sqlite, SqliteConnection};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};

use futures_util::future::BoxFuture;

use super::dialect::Dialect;
use super::failure::Failure;
use super::postgres::{PostgresDialect, load_text, load_texts};
use super::sqlite::SqliteDialect;
use super::statement::Statement;

#[derive(QueryableByName)]
struct DocumentRow {
    #[diesel(sql_type = Text)]
    data: String,
}

/// Whether an operation only reads, or reads and then writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// No transaction of its own: each reading operation is one statement, and so sees one state.
    Read,
    /// The same on a connection that is kept for this: the cache follows the log also while requests use all others.
    Follow,
    /// A transaction. On SQLite it has the write lock from its first statement on.
    Write,
}

/// One database connection while an operation runs on it. An embedded database answers at once: its futures are
/// ready when they are first polled, and the whole operation runs on one blocking thread.
pub(super) enum Connection<'c> {
    /// Embedded SQLite.
    Sqlite(&'c mut SqliteConnection),
    /// A PostgreSQL server.
    Postgres(&'c mut AsyncPgConnection),
}

/// What runs on a connection; again, from the start, if that helps. Nearly all are closures; the one of a miss is not,
/// which needs no boxes.
pub(super) trait Task<T>: Send + Sync + 'static {
    /// Runs it.
    fn run(&self, connection: &mut Connection<'_>) -> impl Future<Output = Result<T, Failure>> + Send;
}

impl<T, F> Task<T> for F
where
    F: for<'a> Fn(&'a mut Connection<'_>) -> BoxFuture<'a, Result<T, Failure>> + Send + Sync + 'static,
{
    fn run(&self, connection: &mut Connection<'_>) -> impl Future<Output = Result<T, Failure>> + Send {
        self(connection)
    }
}

impl Connection<'_> {
    /// How this database spells what is not standard.
    pub fn dialect(&self) -> &'static dyn Dialect {
        match self {
            Self::Sqlite(_) => &SqliteDialect,
            Self::Postgres(_) => &PostgresDialect,
        }
    }

    /// The rows of a query.
    pub async fn load<R>(&mut self, statement: Statement) -> QueryResult<Vec<R>>
    where
        R: QueryableByName<Sqlite> + QueryableByName<Pg> + Send + 'static,
    {
        match self {
            Self::Sqlite(connection) => diesel::RunQueryDsl::load(statement, *connection),
            Self::Postgres(connection) => diesel_async::RunQueryDsl::load(statement, *connection).await,
        }
    }

    /// The document that a query has as its only value, which is called `data`, if it has a row.
    pub async fn load_document(&mut self, statement: Statement) -> QueryResult<Option<Bytes>> {
        match self {
            Self::Sqlite(connection) => {
                let rows: Vec<DocumentRow> = diesel::RunQueryDsl::load(statement, *connection)?;
                Ok(rows.into_iter().next().map(|row| row.data.into()))
            }
            Self::Postgres(connection) => load_text(connection, statement).await,
        }
    }

    /// The documents that a query has as its only column, which is called `data`; see [`Dialect::gathered`].
    pub async fn load_documents(&mut self, statement: Statement) -> QueryResult<Vec<Bytes>> {
        match self {
            Self::Sqlite(connection) => {
                let rows: Vec<DocumentRow> = diesel::RunQueryDsl::load(statement, *connection)?;
                Ok(rows.into_iter().map(|row| row.data.into()).collect())
            }
            Self::Postgres(connection) => load_texts(connection, statement).await,
        }
    }

    /// Runs a statement and counts the rows it touched.
    pub async fn execute(&mut self, statement: Statement) -> QueryResult<usize> {
        match self {
            Self::Sqlite(connection) => diesel::RunQueryDsl::execute(statement, *connection),
            Self::Postgres(connection) => diesel_async::RunQueryDsl::execute(statement, *connection).await,
        }
    }

    /// Runs several statements without values.
    pub async fn batch(&mut self, sql: &str) -> QueryResult<()> {
        match self {
            Self::Sqlite(connection) => connection.batch_execute(sql),
            Self::Postgres(connection) => connection.batch_execute(sql).await,
        }
    }
}
