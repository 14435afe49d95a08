//! Reading the change log.

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::connection::Connection;
use super::failure::Failure;
use super::read::stored_id;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{CollectionName, LoggedChange, Operation, Position};

#[derive(QueryableByName)]
struct ChangeRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    collection: String,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    operation: String,
    #[diesel(sql_type = Text)]
    actor: String,
    #[diesel(sql_type = Text)]
    at: String,
    #[diesel(sql_type = Nullable<Text>)]
    before: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    after: Option<String>,
}

#[derive(QueryableByName)]
struct LastRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
}

/// The changes after `position`, in order.
pub(super) async fn after(connection: &mut Connection<'_>, position: Position, limit: u32) -> Result<Vec<LoggedChange>, Failure> {
    let mut statement =
        Statement::new("SELECT position, collection, id, operation, actor, at, before, after FROM changes WHERE position > ");
    statement.bigint(position).sql(" ORDER BY position LIMIT ").bigint(i64::from(limit));
    let rows: Vec<ChangeRow> = connection.load(statement).await?;
    rows.into_iter().map(|row| Ok(logged(row)?)).collect()
}

fn logged(row: ChangeRow) -> Result<LoggedChange> {
    let operation = Operation::parse(&row.operation);
    Ok(LoggedChange {
        position: row.position,
        collection: CollectionName::parse(&row.collection).map_err(Error::internal)?,
        id: stored_id(&row.id)?,
        operation: operation.ok_or_else(|| Error::internal(format!("the log has the operation {:?}", row.operation)))?,
        actor: row.actor,
        at: row.at,
        before: row.before,
        after: row.after,
    })
}

/// The newest position; 0 for an empty log.
pub(super) async fn last(connection: &mut Connection<'_>) -> Result<Position, Failure> {
    let rows: Vec<LastRow> =
        connection.load(Statement::new("SELECT coalesce(max(position), 0) AS position FROM changes")).await?;
    Ok(rows.first().map_or(0, |row| row.position))
}
