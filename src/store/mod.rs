//! All SQL of the house, behind one interface. It owns the tables, the change log, the indexes and search tables that
//! declared collections need, and the database's metrics. It knows nothing of HTTP, of caches or of who is asking.
//!
//! The logic is written once, over `connection::Connection`; what a database spells its own way is in its
//! `dialect::Dialect`. `sqlite` has the pool, the file and the dialect of the embedded default, `postgres` the pool, the
//! transactions and the dialect of a server.
//!
//! A read: `Store::record_list` → `Store::run` takes a connection and times the operation → `read::page` builds
//! one `statement::Statement` (`filter`, `order`, `projection`) and turns its rows into texts for the body.
//! A write: `Store::record_write` → the same under the write lock, in a transaction → `write::write` reads what is
//! stored, asks the planner, and writes records and change log together.

mod accounts;
mod audit;
mod column;
mod connection;
mod contract;
mod copy;
mod database;
mod dialect;
mod failure;
mod filter;
mod highlight;
mod idempotency;
mod installation;
mod invalidations;
mod log;
mod metrics;
mod migration;
mod order;
mod postgres;
mod projection;
mod read;
mod references;
mod sqlite;
mod statement;
mod stats;
mod structure;
mod tally;
#[cfg(test)]
mod tests;
mod turns;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::config::DatabaseSettings;
use crate::error::Result;
use crate::model::{
    ChangePage, Collection, CollectionName, Filter, Position, Query, Ranking, Record, RecordId, Selection, Snapshot,
};
use crate::telemetry::Telemetry;

pub use accounts::{
    AccountRows, ApiKey, KEYS, KeyHolder, NewKey, NewSession, NewUser, Rotation, Rotator, SESSIONS, Session, SessionHolder,
    SigningKey, USERS, User, UserState,
};
pub use audit::{ChangeFilter, ChangeList, ChangePlace, LogHead};
pub use contract::{
    Among, Author, Committed, Existing, FieldStats, Owner, Planner, RecordWrite, ReferenceCheck, Referrer, Row, Shape, Stats,
    Told, WritePlan,
};
pub use copy::{BatchLimit, Contents, CopyMark, RawChange, RawRecord};
pub use idempotency::{Answering, KeptAnswer, Once, OnceOutcome};
pub use invalidations::invalidated;
pub use structure::Step;
pub use tally::Tallied;

use connection::{Access, Connection};
use database::Database;
use failure::Failure;
use metrics::{LOOKUP, Metrics};
use turns::Name;

/// The database. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    metrics: Metrics,
}

/// What the ranks of searches follow from in the database that `settings` name.
pub fn ranking(settings: &DatabaseSettings) -> Ranking {
    database::dialect(settings).ranking()
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database that `settings` name, creating it if it is embedded. Fails with a message that names
    /// `database.url` if that cannot be. Operations slower than `slow_query` are logged.
    pub async fn open(settings: &DatabaseSettings, slow_query: Duration, telemetry: &Telemetry) -> Result<Self> {
        let metrics = Metrics::new(telemetry, slow_query)?;
        let database = Database::open(settings, telemetry.meter()).await?;
        Ok(Self { inner: Arc::new(Inner { database, metrics }) })
    }

    /// Whether nobody has called [`Store::settle`] since the base tables were made: what a new database needs is not
    /// done yet, or a crash interrupted it.
    pub async fn is_new(&self) -> Result<bool> {
        self.measured("is_new", "", self.inner.database.is_new()).await
    }

    /// From now on the database is not new.
    pub async fn settle(&self) -> Result<()> {
        self.measured("settle", "", self.inner.database.settle()).await
    }

    /// The migrations that the base tables lack, or `None` if there are no tables at all. Changes nothing.
    pub async fn pending_migrations(&self) -> Result<Option<Vec<String>>> {
        self.measured("pending_migrations", "", self.inner.database.pending_migrations()).await
    }

    /// Brings the base tables to this version's state. Refuses a database that a newer Terrace migrated.
    pub async fn migrate(&self) -> Result<()> {
        self.measured("migrate", "", self.inner.database.migrate()).await
    }

    /// What has to change in the database for `collections`. Nothing, right after [`Store::apply`].
    pub async fn plan(&self, collections: &[Arc<Collection>]) -> Result<Vec<Step>> {
        collections.iter().try_for_each(|collection| structure::check_names(collection))?;
        let request: Arc<[_]> = collections.into();
        self.run("plan", "", Access::Read, move |connection| {
            let collections = Arc::clone(&request);
            async move { structure::plan(connection, &collections).await }.boxed()
        })
        .await
    }

    /// The same for the database that `settings` name before it has any tables. It is not opened.
    pub fn plan_anew(settings: &DatabaseSettings, collections: &[Arc<Collection>]) -> Result<Vec<Step>> {
        structure::plan_anew(database::dialect(settings), collections)
    }

    /// Makes the changes, one after the other. Never removes records or changes.
    pub async fn apply(&self, steps: &[Step]) -> Result<()> {
        self.measured("apply", "", self.inner.database.apply(steps)).await
    }

    /// Fails if the database does not answer.
    pub async fn ping(&self) -> Result<()> {
        let database = &self.inner.database;
        let probe = async {
            database.check().await?;
            database.run("ping", Access::Read, |connection| read::ping(connection).boxed()).await
        };
        self.measured("ping", "", probe).await
    }

    /// One record.
    pub async fn record_read(&self, collection: &Arc<Collection>, id: &RecordId, shape: &Arc<Shape>) -> Result<Option<Row>> {
        let task = read::One { collection: Arc::clone(collection), id: id.clone(), shape: Arc::clone(shape) };
        // Not `measured`, which would be twice as large as what it measures: nearly every miss waits here.
        let started = Instant::now();
        let outcome = self.inner.database.perform(LOOKUP, Access::Read, task).await;
        self.told(LOOKUP, collection.name.as_str(), started, outcome)
    }

    /// One page, and one record more if there is a next page.
    pub async fn record_list(&self, collection: &Arc<Collection>, query: &Query) -> Result<Vec<Row>> {
        let request = Arc::new((Arc::clone(collection), query.clone()));
        self.run("record_list", collection.name.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { read::page(connection, &request.0, &request.1).await }.boxed()
        })
        .await
    }

    /// How many records `selection` selects.
    pub async fn record_count(&self, collection: &Arc<Collection>, selection: &Selection) -> Result<u64> {
        let request = Arc::new((Arc::clone(collection), selection.clone()));
        self.run("record_count", collection.name.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { read::count(connection, &request.0, &request.1).await }.boxed()
        })
        .await
    }

    /// How often each value of the fields `by` occurs in the records that `filter` selects.
    pub async fn record_stats(&self, collection: &Arc<Collection>, by: &[String], filter: Option<&Filter>) -> Result<Stats> {
        let request = Arc::new((Arc::clone(collection), by.to_vec(), filter.cloned()));
        self.run("record_stats", collection.name.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { stats::stats(connection, &request.0, &request.1, request.2.as_ref()).await }.boxed()
        })
        .await
    }

    /// The next `limit` records by id, to walk a whole collection.
    pub async fn record_scan(&self, collection: &Arc<Collection>, after: Option<&RecordId>, limit: u32) -> Result<Vec<Record>> {
        let request = Arc::new((Arc::clone(collection), after.cloned()));
        self.run("record_scan", collection.name.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { read::scan(connection, &request.0, request.1.as_ref(), limit).await }.boxed()
        })
        .await
    }

    /// Lets `planner` decide what to write, given the stored records among `ids`, and writes it: all or nothing. An
    /// error of the planner comes back as it is.
    pub async fn record_write(
        &self,
        collection: &Arc<Collection>,
        author: Author,
        ids: Vec<RecordId>,
        planner: Planner,
    ) -> Result<Committed> {
        let database = &self.inner.database;
        let request = Arc::new((Arc::clone(collection), author, ids, planner));
        let work = async {
            // A batch goes without: batches that wait for each other in turn would wait for most others.
            let _turn = match &*request.2 {
                [only] => database.turn(|| Name::Record(collection.name.clone(), only.clone())).await?,
                _ => None,
            };
            let request = Arc::clone(&request);
            let run = database.run("record_write", Access::Write, move |connection| {
                let request = Arc::clone(&request);
                async move { write::write(connection, &request.0, &request.1, &request.2, &request.3).await }.boxed()
            });
            run.await
        };
        self.measured("record_write", collection.name.as_str(), Box::pin(work)).await
    }

    /// What the database sees now: where a reader of the change log begins.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        self.run("snapshot", "", Access::Read, |connection| log::snapshot(connection).boxed()).await
    }

    /// The first `limit` changes after `after` that `seen` did not see, by position, and the snapshot they were read
    /// under; fewer where their documents are large. To see each change once, read until a page has nothing after it and go on from the
    /// snapshot of the first one.
    pub async fn changes_since(&self, seen: &Snapshot, after: Option<Position>, limit: u32) -> Result<ChangePage> {
        let seen = Arc::new(seen.clone());
        self.run("changes_since", "", Access::Follow, move |connection| {
            let seen = Arc::clone(&seen);
            async move { log::since(connection, None, &seen, after, limit).await }.boxed()
        })
        .await
    }

    /// Removes the changes among the `limit` oldest whose time is before `before` and that `seen` saw: with a snapshot
    /// of some minutes ago, every process had these minutes to see them, also those that were committed late. Says how
    /// many went; call it again until that is none.
    pub async fn changes_prune(&self, before: &str, seen: &Snapshot, limit: u32) -> Result<u64> {
        let request = Arc::new((before.to_owned(), seen.clone()));
        self.run("changes_prune", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move { log::prune(connection, &request.0, &request.1, limit).await }.boxed()
        })
        .await
    }

    /// Tells the database's planner what is in a collection, after many records were written.
    pub async fn analyze(&self, collection: &CollectionName) -> Result<()> {
        self.measured("analyze", collection.as_str(), self.inner.database.analyze(collection)).await
    }

    async fn run<T, F>(&self, operation: &'static str, collection: &str, access: Access, task: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Connection<'_>) -> BoxFuture<'a, Result<T, Failure>> + Send + Sync + 'static,
    {
        self.measured(operation, collection, self.inner.database.run(operation, access, task)).await
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        collection: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = work.await;
        self.told(operation, collection, started, outcome)
    }

    /// What comes of an operation, which has been counted.
    fn told<T>(&self, operation: &'static str, collection: &str, started: Instant, outcome: Result<T, Failure>) -> Result<T> {
        let is_fault = outcome.as_ref().is_err_and(Failure::is_fault);
        self.inner.metrics.observe(operation, collection, started, is_fault);
        outcome.map_err(Failure::into_error)
    }
}
