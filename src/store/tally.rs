//! Summing up tallies, on PostgreSQL: what writers have added to `tally_changes` goes into `tallies`, a part of it in each
//! transaction. Readers take the sum over both, so they see the same before and after. What turns out to have too many values
//! is abandoned.
//!
//! One process at a time does it for a collection, under the lock that also whoever makes its tallies holds; so nobody else
//! deletes or changes these rows.

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use futures_util::FutureExt as _;

use super::Store;
use super::connection::{Access, Connection};
use super::database::Database;
use super::failure::Failure;
use super::postgres::{MOST_VALUES, tallies_lock};
use super::statement::Statement;
use crate::error::Result;
use crate::model::CollectionName;

/// What one step of summing up was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// The collection.
    pub collection: String,
    /// How many rows are summed up now that were not before. None, if another process is about it.
    pub changes: u64,
}

#[derive(QueryableByName)]
struct NextRow {
    #[diesel(sql_type = Nullable<Text>)]
    collection: Option<String>,
}

#[derive(QueryableByName)]
struct LockRow {
    #[diesel(sql_type = Bool)]
    locked: bool,
}

#[derive(QueryableByName)]
struct SummedRow {
    #[diesel(sql_type = BigInt)]
    changes: i64,
    /// How many values there are more than before.
    #[diesel(sql_type = BigInt)]
    grown: i64,
}

#[derive(QueryableByName)]
struct FieldRow {
    #[diesel(sql_type = Text)]
    field: String,
}

impl Store {
    /// Whether this database has anything for [`Store::tally`] to do.
    pub fn has_tallies(&self) -> bool {
        match &self.inner.database {
            Database::Sqlite(_) => false,
            Database::Postgres(_) => true,
        }
    }

    /// Sums up to `limit` of what writers have recorded, of the first collection behind `after` that has any; `None` if
    /// none has, or requests need all connections.
    pub async fn tally(&self, after: &str, limit: u32) -> Result<Option<Tallied>> {
        match &self.inner.database {
            Database::Postgres(postgres) if !postgres.is_busy() => {}
            Database::Sqlite(_) | Database::Postgres(_) => return Ok(None),
        }
        let after: std::sync::Arc<str> = after.into();
        self.run("tally", "", Access::Write, move |connection| {
            let after = std::sync::Arc::clone(&after);
            async move { tally(connection, &after, limit).await }.boxed()
        })
        .await
    }
}

async fn tally(connection: &mut Connection<'_>, after: &str, limit: u32) -> Result<Option<Tallied>, Failure> {
    let rows: Vec<NextRow> = connection.load(next_statement(after)).await?;
    let Some(collection) = rows.into_iter().next().and_then(|row| row.collection) else { return Ok(None) };
    let name = CollectionName::parse(&collection)?;
    let lock = Statement::new(format!("SELECT pg_try_advisory_xact_lock({}) AS locked", tallies_lock(&name)));
    let locked: Vec<LockRow> = connection.load(lock).await?;
    if !locked.first().is_some_and(|row| row.locked) {
        return Ok(Some(Tallied { collection, changes: 0 }));
    }
    // Each of these sees what the last holder of the lock has committed.
    let summed: Vec<SummedRow> = connection.load(sum_statement(&collection, limit)).await?;
    let (changes, grown) = summed.first().map_or((0, 0), |row| (row.changes, row.grown));
    if grown > 0 {
        abandon(connection, &collection).await?;
    }
    Ok(Some(Tallied { collection, changes: u64::try_from(changes).unwrap_or_default() }))
}

/// One entry of the index.
pub(super) fn next_statement(after: &str) -> Statement {
    let mut statement = Statement::new("SELECT min(collection) AS collection FROM tally_changes WHERE collection > ");
    statement.text(after);
    statement
}

/// In the order of the index, so that equal values come together. What is of no tallied field, because a writer did not
/// see yet that it is abandoned, goes with the rest.
pub(super) fn sum_statement(collection: &str, limit: u32) -> Statement {
    let mut statement = Statement::new("WITH asked AS (SELECT CAST(");
    statement.text(collection).sql(format!(
        " AS text) COLLATE \"C\" AS collection), \
         taken AS (DELETE FROM tally_changes WHERE ctid = ANY(ARRAY(SELECT ctid FROM tally_changes \
         WHERE collection = (SELECT collection FROM asked) \
         ORDER BY collection, field, jsonb_hash_extended(value, 0) LIMIT {limit})) RETURNING field, value, records), \
         summed AS MATERIALIZED (SELECT field, value, sum(records) AS records FROM taken WHERE field IN (SELECT tallied.field \
         FROM tallied WHERE tallied.collection = (SELECT collection FROM asked) AND tallied.state <> 'abandoned') \
         GROUP BY field, value HAVING sum(records) <> 0), \
         former AS (DELETE FROM tallies USING summed WHERE tallies.collection = (SELECT collection FROM asked) \
         AND tallies.field = summed.field \
         AND jsonb_hash_extended(tallies.value, 0) = jsonb_hash_extended(summed.value, 0) AND tallies.value = summed.value \
         RETURNING tallies.field, tallies.value, tallies.records), \
         present AS (INSERT INTO tallies (collection, field, value, records) \
         SELECT (SELECT collection FROM asked), field, value, sum(records) \
         FROM (SELECT * FROM summed UNION ALL SELECT * FROM former) AS known \
         GROUP BY field, value HAVING sum(records) <> 0 RETURNING 1) \
         SELECT (SELECT count(*) FROM taken) AS changes, \
         (SELECT count(*) FROM present) - (SELECT count(*) FROM former) AS grown",
    ));
    statement
}

/// Stops tallying the fields that have more than [`MOST_VALUES`]. Writers learn of it from the next statement on.
async fn abandon(connection: &mut Connection<'_>, collection: &str) -> Result<(), Failure> {
    let mut statement = Statement::new("UPDATE tallied SET state = 'abandoned' WHERE collection = ");
    statement.text(collection).sql(format!(
        " AND state <> 'abandoned' AND (SELECT count(*) FROM (SELECT FROM tallies WHERE tallies.collection = tallied.collection \
         AND tallies.field = tallied.field LIMIT {MOST_VALUES} + 1) AS first) > {MOST_VALUES} RETURNING field"
    ));
    let abandoned: Vec<FieldRow> = connection.load(statement).await?;
    for FieldRow { field } in abandoned {
        tracing::info!(collection, field, "a field has too many values to be tallied; statistics by it count the records");
        for table in ["tallies", "tally_changes"] {
            let mut statement = Statement::new(format!("DELETE FROM {table} WHERE collection = "));
            statement.text(collection).sql(" AND field = ").text(field.clone());
            connection.execute(statement).await?;
        }
    }
    Ok(())
}
