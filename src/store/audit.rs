//! The change log for those who read it as such: pages of one collection's changes, newest first, and what a follower of the log
//! begins with. What follows the log for the cache is in `log`.

use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use futures_util::FutureExt as _;

use super::Store;
use super::connection::{Access, Connection};
use super::dialect::{Dialect, is_full, literal};
use super::failure::Failure;
use super::log::{self, position};
use super::read::stored_id;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{ChangePage, CollectionName, LoggedChange, Operation, Position, Snapshot};

/// The mark among those of the installation: the newest transaction of which retention has removed a change.
const PRUNED: &str = "pruned";

/// So many changes are looked through for those of one operation, which no index has. A page may then have fewer than its limit,
/// and go on all the same.
const WINDOW: u32 = 10_000;

/// Which changes of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    /// Of this record.
    pub record: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// That did this.
    pub operation: Option<Operation>,
    /// From this time on, as [`crate::model::timestamp_text`] spells it.
    pub since: Option<String>,
    /// Before this time.
    pub until: Option<String>,
    /// Older than this place.
    pub before: Option<ChangePlace>,
}

/// A place in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePlace {
    /// The time of a change.
    pub at: String,
    /// Its number, for changes of the same time.
    pub sequence: i64,
}

/// A page of changes, which is shorter than asked for where they are large.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeList {
    /// From the newest to the oldest.
    pub changes: Vec<LoggedChange>,
    /// Where the next page begins; `None` if there is nothing more.
    pub next: Option<ChangePlace>,
}

/// Where the log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// What is seen of it.
    pub snapshot: Snapshot,
    /// The number of its newest row.
    pub newest: i64,
    /// Retention has removed changes of transactions up to this one.
    pub pruned: Option<u64>,
}

#[derive(QueryableByName)]
struct AuditRow {
    #[diesel(sql_type = BigInt)]
    transaction_id: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    collection: String,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    operation: String,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Text)]
    actor: String,
    #[diesel(sql_type = Nullable<Text>)]
    origin: Option<String>,
    #[diesel(sql_type = Text)]
    at: String,
    #[diesel(sql_type = Nullable<Text>)]
    before: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    after: Option<String>,
}

#[derive(QueryableByName)]
struct PlaceRow {
    #[diesel(sql_type = Text)]
    at: String,
    #[diesel(sql_type = BigInt)]
    position: i64,
}

#[derive(QueryableByName)]
struct MarksRow {
    #[diesel(sql_type = BigInt)]
    newest: i64,
    #[diesel(sql_type = Nullable<Text>)]
    pruned: Option<String>,
}

impl Store {
    /// One page of the changes of `collection`, from the newest to the oldest.
    pub async fn changes_list(&self, collection: &CollectionName, filter: ChangeFilter, limit: u32) -> Result<ChangeList> {
        let request = Arc::new((collection.clone(), filter));
        self.run("changes_list", collection.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { list(connection, &request.0, &request.1, limit).await }.boxed()
        })
        .await
    }

    /// Like [`Store::changes_since`], of one collection or of all, over a connection that requests use too.
    pub async fn changes_follow(
        &self,
        of: Option<&CollectionName>,
        seen: &Snapshot,
        after: Option<Position>,
        limit: u32,
    ) -> Result<ChangePage> {
        let request = Arc::new((of.cloned(), seen.clone()));
        self.run("changes_follow", of.map_or("", CollectionName::as_str), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { log::since(connection, request.0.as_ref(), &request.1, after, limit).await }.boxed()
        })
        .await
    }

    /// Where the log stands now.
    pub async fn changes_head(&self) -> Result<LogHead> {
        self.run("changes_head", "", Access::Read, |connection| {
            async move {
                let snapshot = log::snapshot(connection).await?;
                // Later than the snapshot: no row that it sees is newer.
                let mut statement =
                    Statement::new("SELECT coalesce((SELECT max(position) FROM changes), 0) AS newest, (SELECT value FROM installation WHERE name = ");
                statement.text(PRUNED).sql(") AS pruned");
                let rows: Vec<MarksRow> = connection.load(statement).await?;
                let marks = rows.into_iter().next().ok_or_else(|| Error::internal("the log has no head"))?;
                let pruned = marks.pruned.map(|text| text.parse()).transpose().map_err(Error::internal)?;
                Ok(LogHead { snapshot, newest: marks.newest, pruned })
            }
            .boxed()
        })
        .await
    }
}

/// Notes that changes up to `transaction` have been removed. In the transaction that removes them, so that whoever reads the mark
/// later than the log misses nothing without knowing.
pub(super) async fn note_pruned(connection: &mut Connection<'_>, transaction: i64) -> Result<(), Failure> {
    let mut statement = Statement::new("INSERT INTO installation (name, value) VALUES (");
    statement.text(PRUNED).sql(", ").text(transaction.to_string());
    statement.sql(
        ") ON CONFLICT (name) DO UPDATE SET value = excluded.value \
         WHERE CAST(installation.value AS bigint) < CAST(excluded.value AS bigint)",
    );
    connection.execute(statement).await?;
    Ok(())
}

async fn list(
    connection: &mut Connection<'_>,
    collection: &CollectionName,
    filter: &ChangeFilter,
    limit: u32,
) -> Result<ChangeList, Failure> {
    let dialect = connection.dialect();
    let rows: Vec<AuditRow> = connection.load(list_statement(dialect, collection, filter, limit.saturating_add(1))).await?;
    let limit = limit as usize;
    let last = rows.get(limit.saturating_sub(1)).filter(|_| rows.len() > limit);
    // Behind it there may be others that did not fit.
    let last = last.or_else(|| rows.last().filter(|_| is_full(rows.iter().flat_map(documents))));
    let mut next = last.map(|row| ChangePlace { at: row.at.clone(), sequence: row.position });
    if next.is_none() && filter.operation.is_some() {
        let ends: Vec<PlaceRow> = connection.load(window_end_statement(collection, filter)).await?;
        next = ends.into_iter().next().map(|row| ChangePlace { at: row.at, sequence: row.position });
    }
    let mut changes = Vec::with_capacity(rows.len().min(limit));
    for row in rows.into_iter().take(limit) {
        let number = row.position;
        match logged(row) {
            Ok(change) => changes.push(change),
            Err(error) => tracing::error!(number, %error, "the change log has a row that cannot be read; it is left out"),
        }
    }
    Ok(ChangeList { changes, next })
}

fn documents(row: &AuditRow) -> [Option<&str>; 2] {
    [row.before.as_deref(), row.after.as_deref()]
}

/// First the places, along an index; then the documents of those on the page alone.
pub(super) fn list_statement(dialect: &dyn Dialect, collection: &CollectionName, filter: &ChangeFilter, limit: u32) -> Statement {
    let mut rows = Statement::new("SELECT changes.* FROM (");
    match filter.operation {
        None => push_places(&mut rows, collection, filter, &limit.to_string()),
        Some(operation) => {
            rows.sql("SELECT looked.position FROM (");
            push_places(&mut rows, collection, filter, &WINDOW.to_string());
            rows.sql(") AS looked WHERE looked.operation = ").text(operation.as_str());
            rows.sql(format!(" ORDER BY looked.at DESC, looked.position DESC LIMIT {limit}"));
        }
    }
    rows.sql(") AS places JOIN changes ON changes.position = places.position ORDER BY changes.at DESC, changes.position DESC");
    let mut statement = Statement::new(format!(
        "SELECT {} AS transaction_id, changes.position, changes.collection, changes.id, changes.operation, changes.version, \
         changes.actor, changes.origin, changes.at, changes.before, changes.after FROM (",
        dialect.change_transaction(),
    ));
    dialect.push_page_of_changes(&mut statement, rows, "at DESC, position DESC");
    statement.sql(") AS changes ORDER BY at DESC, position DESC");
    statement
}

/// The last place that was looked at, if there may be more behind it.
fn window_end_statement(collection: &CollectionName, filter: &ChangeFilter) -> Statement {
    let mut statement = Statement::new("SELECT looked.at, looked.position FROM (");
    push_places(&mut statement, collection, filter, &format!("1 OFFSET {}", WINDOW - 1));
    statement.sql(") AS looked");
    statement
}

fn push_places(statement: &mut Statement, collection: &CollectionName, filter: &ChangeFilter, limit: &str) {
    let ChangeFilter { record, actor, operation: _, since, until, before } = filter;
    // The operation goes along, so that nobody has to come back for it.
    statement.sql(format!("SELECT position, at, operation FROM changes WHERE collection = {}", literal(collection)));
    let mut and = |condition: &str, value: &Option<String>| {
        if let Some(value) = value {
            statement.sql(format!(" AND {condition} ")).text(value);
        }
    };
    and("id =", record);
    and("actor =", actor);
    and("at >=", since);
    and("at <", until);
    if let Some(ChangePlace { at, sequence }) = before {
        statement.sql(" AND (at, position) < (").text(at).sql(", ").bigint(*sequence).sql(")");
    }
    statement.sql(format!(" ORDER BY at DESC, position DESC LIMIT {limit}"));
}

fn logged(row: AuditRow) -> Result<LoggedChange> {
    let unknown = || Error::internal(format!("the log has the operation {:?}", row.operation));
    Ok(LoggedChange {
        position: position(row.transaction_id, row.position)?,
        collection: CollectionName::parse(&row.collection).map_err(Error::internal)?,
        id: stored_id(&row.id)?,
        operation: Operation::parse(&row.operation).ok_or_else(unknown)?,
        version: row.version,
        actor: row.actor,
        origin: row.origin,
        at: row.at,
        before: row.before,
        after: row.after,
    })
}
