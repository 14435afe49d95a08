//! The indexes of the change log that the audit reads by. They are no part of a migration: the log of an old installation is
//! large, and an index is made beside its writers only outside of a transaction.

use diesel::prelude::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use crate::store::connection::Connection;
use crate::store::failure::Failure;
use crate::store::structure::{IndexWork, make_index};

/// Each index with what it is on.
const INDEXES: [(&str, &str); 2] = [
    ("changes_by_time", "ON changes (collection, at, position)"),
    ("changes_by_actor", "ON changes (collection, actor, at, position)"),
];

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    total: i64,
}

/// Whether all are there and whole.
pub(super) async fn are_there(connection: &mut AsyncPgConnection) -> Result<bool, Failure> {
    let names = INDEXES.map(|(name, _)| format!("to_regclass('{name}')")).join(", ");
    let query = format!("SELECT count(*) AS total FROM pg_index WHERE indisvalid AND indexrelid IN ({names})");
    let found: CountRow = diesel::sql_query(query).get_result(connection).await?;
    Ok(usize::try_from(found.total).is_ok_and(|total| total == INDEXES.len()))
}

/// Makes what is missing, and what a crash has left half made. The connection has no time limits.
pub(super) async fn make(connection: &mut AsyncPgConnection) -> Result<(), Failure> {
    for (name, definition) in INDEXES {
        let index = IndexWork { name: name.to_owned(), table: "changes".to_owned(), definition: definition.to_owned() };
        make_index(&mut Connection::Postgres(connection), &index).await?;
    }
    Ok(())
}
