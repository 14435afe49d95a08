//! The change log: reading what a snapshot has not seen, and removing what is old.

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::audit::note_pruned;
use super::connection::Connection;
use super::dialect::{Dialect, is_full};
use super::failure::Failure;
use super::read::stored_id;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{ChangePage, CollectionName, LoggedChange, Operation, Position, ServerRun, Snapshot};

#[derive(QueryableByName)]
struct SnapshotRow {
    #[diesel(sql_type = BigInt)]
    next: i64,
    #[diesel(sql_type = Text)]
    in_progress: String,
    #[diesel(sql_type = BigInt)]
    server_run: i64,
    #[diesel(sql_type = BigInt)]
    timeline: i64,
}

#[derive(QueryableByName)]
struct PrunedRow {
    #[diesel(sql_type = BigInt)]
    transaction_id: i64,
}

/// A change, or none (no position): there is always at least one row, for the snapshot.
#[derive(QueryableByName)]
struct ChangeRow {
    #[diesel(embed)]
    snapshot: SnapshotRow,
    #[diesel(sql_type = Nullable<BigInt>)]
    transaction_id: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    collection: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    operation: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    version: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    actor: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    origin: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    at: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    before: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    after: Option<String>,
}

/// The first `limit` changes after `after` that `seen` did not see, or fewer if they are large, and the snapshot they were read under.
pub(super) async fn since(
    connection: &mut Connection<'_>,
    of: Option<&CollectionName>,
    seen: &Snapshot,
    after: Option<Position>,
    limit: u32,
) -> Result<ChangePage, Failure> {
    let rows: Vec<ChangeRow> = connection.load(since_statement(connection.dialect(), of, seen, after, limit)).await?;
    Ok(page(rows, limit)?)
}

/// One statement, so that changes and snapshot are of one moment.
pub(super) fn since_statement(
    dialect: &dyn Dialect,
    of: Option<&CollectionName>,
    seen: &Snapshot,
    after: Option<Position>,
    limit: u32,
) -> Statement {
    let mut statement = Statement::new(format!(
        "SELECT now.next, now.in_progress, now.server_run, now.timeline, {} AS transaction_id, changes.position, changes.collection, changes.id, \
         changes.operation, changes.version, changes.actor, changes.origin, changes.at, changes.before, changes.after FROM ({}) AS now LEFT JOIN (",
        dialect.change_transaction(),
        dialect.snapshot(),
    ));
    let mut unseen = Statement::default();
    dialect.push_unseen(&mut unseen, of, seen, after, limit);
    dialect.push_page_of_changes(&mut statement, unseen, dialect.change_order());
    statement.sql(format!(") AS changes ON TRUE ORDER BY {}", dialect.change_order()));
    statement
}

fn page(rows: Vec<ChangeRow>, limit: u32) -> Result<ChangePage> {
    let first = rows.first().ok_or_else(|| Error::internal("the log was read without a snapshot"))?;
    let snapshot = snapshot_of(&first.snapshot)?;
    let is_full =
        rows.len() >= limit as usize || is_full(rows.iter().flat_map(|row| [row.before.as_deref(), row.after.as_deref()]));
    let mut page = ChangePage { changes: Vec::with_capacity(rows.len()), unreadable: 0, snapshot, more_after: None };
    for row in rows {
        let (Some(transaction), Some(sequence)) = (row.transaction_id, row.position) else { continue };
        let position = position(transaction, sequence)?;
        page.more_after = is_full.then_some(position);
        match logged(position, row) {
            Ok(change) => page.changes.push(change),
            // It would be as unreadable next time: the reader must go on.
            Err(error) => {
                page.unreadable += 1;
                tracing::error!(%position, %error, "the change log has a row that cannot be read; it is left out");
            }
        }
    }
    Ok(page)
}

fn logged(position: Position, row: ChangeRow) -> Result<LoggedChange> {
    let missing = || Error::internal("a column is null");
    let operation = row.operation.ok_or_else(missing)?;
    Ok(LoggedChange {
        position,
        collection: CollectionName::parse(&row.collection.ok_or_else(missing)?).map_err(Error::internal)?,
        id: stored_id(&row.id.ok_or_else(missing)?)?,
        operation: Operation::parse(&operation)
            .ok_or_else(|| Error::internal(format!("the log has the operation {operation:?}")))?,
        version: row.version.ok_or_else(missing)?,
        actor: row.actor.ok_or_else(missing)?,
        origin: row.origin,
        at: row.at.ok_or_else(missing)?,
        before: row.before,
        after: row.after,
    })
}

/// A position as the database has it.
pub(super) fn position(transaction: i64, sequence: i64) -> Result<Position> {
    Ok(Position { transaction: u64::try_from(transaction).map_err(Error::internal)?, sequence })
}

/// What the database sees now.
pub(super) async fn snapshot(connection: &mut Connection<'_>) -> Result<Snapshot, Failure> {
    let rows: Vec<SnapshotRow> = connection.load(Statement::new(connection.dialect().snapshot())).await?;
    let row = rows.first().ok_or_else(|| Error::internal("the database gave no snapshot"))?;
    Ok(snapshot_of(row)?)
}

fn snapshot_of(row: &SnapshotRow) -> Result<Snapshot> {
    Ok(Snapshot {
        next: u64::try_from(row.next).map_err(Error::internal)?,
        in_progress: serde_json::from_str(&row.in_progress).map_err(Error::internal)?,
        server: ServerRun { number: row.server_run, timeline: row.timeline },
    })
}

/// Removes the changes among the `limit` oldest that are from before `before` and that `seen` saw.
pub(super) async fn prune(connection: &mut Connection<'_>, before: &str, seen: &Snapshot, limit: u32) -> Result<u64, Failure> {
    let removed: Vec<PrunedRow> = connection.load(prune_statement(connection.dialect(), before, seen, limit)).await?;
    if let Some(newest) = removed.iter().map(|row| row.transaction_id).max() {
        note_pruned(connection, newest).await?;
    }
    Ok(removed.len() as u64)
}

/// It walks from the lowest position and never further than `limit`, so it needs no index of its own and takes as long
/// when there is nothing to do. A row whose time lies in the future holds up no other one. The limit is in the text: a
/// planner that cannot see it takes the log for a tenth of itself, and scans it.
pub(super) fn prune_statement(dialect: &dyn Dialect, before: &str, seen: &Snapshot, limit: u32) -> Statement {
    let mut statement = Statement::new(format!(
        "DELETE FROM changes WHERE position IN (SELECT oldest.position FROM (SELECT position, at, {} AS transaction_id \
         FROM changes ORDER BY position LIMIT {limit}{}) AS oldest WHERE oldest.at < ",
        dialect.change_transaction(),
        dialect.change_lock(),
    ));
    statement.text(before).sql(" AND oldest.transaction_id < ").bigint(i64::try_from(seen.next).unwrap_or(i64::MAX));
    // In the text as well: numbers, a few, and once in many minutes.
    let in_progress: Vec<String> = seen.in_progress.iter().map(u64::to_string).collect();
    if !in_progress.is_empty() {
        statement.sql(format!(" AND oldest.transaction_id NOT IN ({})", in_progress.join(", ")));
    }
    statement.sql(format!(") RETURNING {} AS transaction_id", dialect.change_transaction()));
    statement
}
