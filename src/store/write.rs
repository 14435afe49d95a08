//! Writes: read what is stored, let the planner decide, write records and change log, check references. All in one
//! transaction, and in a constant number of statements however many records there are: their documents travel as one
//! bound JSON text.
//!
//! What was read stays as it is until the transaction ends: on SQLite by the write lock, on PostgreSQL because the rows are
//! locked. What was not there may have been written by somebody else since; and should a row not be locked after all,
//! versions are compared. Either is [`Failure::Raced`], and the whole transaction is run again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use serde::Serialize;

use super::connection::Connection;
use super::contract::{Author, Committed, Existing, Planner, RecordWrite, WritePlan};
use super::dialect::{Dialect, is_in, literal};
use super::failure::Failure;
use super::log::position;
use super::read::{RecordRow, stored_id};
use super::references::{check_references, check_referrers};
use super::statement::Statement;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Collection, CollectionName, Operation, Position, Record, RecordId};

/// So many records, of so many bytes together, are planned on the thread that they come in on: going to another one costs as much.
const PLANNED_IN_PLACE: usize = 16;
const PLANNED_IN_PLACE_BYTES: usize = 256 * 1024;

/// So many records are read without being asked first how large they are.
const READ_UNASKED: usize = 16;
/// The documents that one write is about, together, are not larger: each is in memory several times while it is planned.
const MAX_EXISTING_BYTES: i64 = 64 * 1024 * 1024;

/// One write as its statements read it.
#[derive(Serialize)]
struct WriteText<'a> {
    /// Its place in the plan.
    ordinal: usize,
    id: &'a str,
    operation: &'static str,
    version: i64,
    /// The version that the plan is based on.
    expected: Option<i64>,
    data: Option<&'a str>,
    before: Option<&'a str>,
    created_at: &'a str,
    updated_at: &'a str,
}

#[derive(QueryableByName)]
struct PositionRow {
    #[diesel(sql_type = BigInt)]
    transaction_id: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    predecessor: Option<i64>,
}

/// What the log has of the writes.
#[derive(Default)]
pub(super) struct Logged {
    /// By record.
    pub positions: HashMap<String, Position>,
    pub predecessors: BTreeSet<u64>,
}

/// Runs inside of a writing transaction; an error rolls it back.
pub(super) async fn write(
    connection: &mut Connection<'_>,
    collection: &Collection,
    author: &Author,
    ids: &[RecordId],
    planner: &Planner,
) -> Result<Committed, Failure> {
    let existing = existing(connection, &collection.name, ids).await?;
    let size: usize = existing.values().map(|record| record.data.len()).sum();
    let (plan, texts) = match connection {
        // Hundreds of documents are checked, or large ones: the thread that waits for answers has others to serve meanwhile.
        Connection::Postgres(_) if ids.len() > PLANNED_IN_PLACE || size > PLANNED_IN_PLACE_BYTES => {
            let planner = Planner::clone(planner);
            tokio::task::spawn_blocking(move || planned(&planner, &existing)).await.map_err(Error::internal)??
        }
        Connection::Postgres(_) | Connection::Sqlite(_) => planned(planner, &existing)?,
    };
    if plan.writes.is_empty() {
        return Ok(Committed::default());
    }
    let mut stored = HashMap::new();
    for operation in [Operation::Create, Operation::Update, Operation::Delete] {
        let count = plan.writes.iter().filter(|write| write.operation == operation).count();
        if count == 0 {
            continue;
        }
        let touched = match operation {
            Operation::Create => {
                stored_by(connection, insert_statement(connection.dialect(), &collection.name, &texts), &mut stored).await?
            }
            Operation::Update => {
                stored_by(connection, update_statement(connection.dialect(), &collection.name, &texts), &mut stored).await?
            }
            Operation::Delete => delete(connection, &collection.name, &plan).await?,
        };
        if touched != count {
            return Err(Failure::Raced);
        }
    }
    check_references(connection, &plan.references).await?;
    check_referrers(connection, &plan).await?;
    let Logged { mut positions, predecessors } = log(connection, &collection.name, author, &texts).await?;
    let mut committed = Committed { predecessors, ..Committed::default() };
    for write in &plan.writes {
        committed.records.push(stored.remove(&write.id));
        let position = positions.remove(write.id.as_str());
        committed.positions.push(position.ok_or_else(|| Error::internal(format!("no change was logged for {}", write.id)))?);
    }
    Ok(committed)
}

/// The plan, and its writes for the statements. A planner's mistake costs its own request: the connection and its transaction
/// are left as after any refusal.
fn planned(planner: &Planner, existing: &Existing) -> Result<(WritePlan, String)> {
    let planned = catch_unwind(AssertUnwindSafe(|| planner(existing)));
    let plan = planned.unwrap_or_else(|_| Err(Error::internal("a planner panicked")))?;
    let texts = texts(&plan, existing)?;
    Ok((plan, texts))
}

async fn existing(connection: &mut Connection<'_>, collection: &CollectionName, ids: &[RecordId]) -> Result<Existing, Failure> {
    if ids.is_empty() {
        return Ok(Existing::new());
    }
    let ids: Vec<&str> = ids.iter().map(RecordId::as_str).collect();
    let rows: Vec<RecordRow> = connection.load(existing_statement(connection.dialect(), collection, &ids)).await?;
    if rows.iter().any(RecordRow::is_withheld) {
        let most = MAX_EXISTING_BYTES / (1024 * 1024);
        let detail = format!("The records that this batch is about have more than {most} MiB together; send fewer operations.");
        return Err(Error::new(ErrorKind::PayloadTooLarge, "batch_too_large", detail).into());
    }
    let records = rows.into_iter().map(RecordRow::into_record);
    Ok(records.map(|record| record.map(|record| (record.id.clone(), record))).collect::<Result<Existing>>()?)
}

/// Of many records the documents come only if they are not too large together: an operation is a few bytes, and the record that it
/// is about may be as large as a request. In the same statement, for a batch takes as many as a single write.
pub(super) fn existing_statement(dialect: &dyn Dialect, collection: &CollectionName, ids: &[&str]) -> Statement {
    let document = dialect.document("records");
    let mut statement = Statement::new("SELECT records.id, records.version, ");
    if ids.len() > READ_UNASKED {
        statement.sql(format!(
            "CASE WHEN (SELECT coalesce(sum(octet_length({})), 0) FROM {} WHERE {} AND sized.id",
            dialect.document("sized"),
            dialect.table(collection, "sized"),
            is_in(collection, "sized"),
        ));
        dialect.push_in_texts(&mut statement, ids);
        statement.sql(format!(") <= {MAX_EXISTING_BYTES} THEN {document} ELSE '' END"));
    } else {
        statement.sql(document);
    }
    let (table, is_in) = (dialect.table(collection, "records"), is_in(collection, "records"));
    statement.sql(format!(" AS data FROM {table} WHERE {is_in} AND records.id"));
    dialect.push_in_texts(&mut statement, ids);
    // In one order, so that two batches do not lock each other out.
    statement.sql(" ORDER BY records.id").sql(dialect.lock_to_write());
    statement
}

/// The writes as one JSON array.
fn texts(plan: &WritePlan, existing: &Existing) -> Result<String> {
    let mut seen = HashSet::new();
    let mut writes = Vec::with_capacity(plan.writes.len());
    for (ordinal, write) in plan.writes.iter().enumerate() {
        if !seen.insert(&write.id) {
            return Err(Error::internal(format!("a plan writes {} twice", write.id)));
        }
        if write.data.is_some() != (write.operation != Operation::Delete) {
            return Err(Error::internal(format!("a plan's document and operation for {} contradict each other", write.id)));
        }
        writes.push(WriteText {
            ordinal,
            id: write.id.as_str(),
            operation: write.operation.as_str(),
            version: write.version,
            expected: existing.get(&write.id).map(|record| record.version),
            data: write.data.as_deref(),
            before: write.before.as_deref(),
            created_at: &write.created_at,
            updated_at: &write.updated_at,
        });
    }
    serde_json::to_string(&writes).map_err(Error::internal)
}

/// New records, in the order of their ids: two batches that make the same ones wait for each other, and not in a circle.
fn insert_statement(dialect: &dyn Dialect, collection: &CollectionName, texts: &str) -> Statement {
    let member = |name| dialect.write_member(name);
    let mut statement = Statement::new(format!(
        "INSERT INTO {} (collection, id, version, data, created_at, updated_at) SELECT {}, {}, {}, {}, {}, {} FROM ",
        dialect.table(collection, "records"),
        literal(collection),
        member("id"),
        member("version"),
        dialect.write_document("data"),
        member("created_at"),
        member("updated_at"),
    ));
    dialect.push_writes(&mut statement, texts);
    let operation = member("operation");
    statement.sql(format!(" WHERE {operation} = 'create' ORDER BY {} ON CONFLICT (collection, id) DO NOTHING", member("id")));
    statement.sql(returning(dialect));
    statement
}

/// Records that are there, as long as they are what the plan is based on.
fn update_statement(dialect: &dyn Dialect, collection: &CollectionName, texts: &str) -> Statement {
    let member = |name| dialect.write_member(name);
    let mut statement = Statement::new(format!(
        "UPDATE {} SET version = {}, data = {}, created_at = {}, updated_at = {} FROM ",
        dialect.table(collection, "records"),
        member("version"),
        dialect.write_document("data"),
        member("created_at"),
        member("updated_at"),
    ));
    dialect.push_writes(&mut statement, texts);
    statement.sql(format!(
        " WHERE {} AND records.id = {} AND {} = 'update' AND records.version = {}",
        is_in(collection, "records"),
        member("id"),
        member("operation"),
        member("expected"),
    ));
    statement.sql(returning(dialect));
    statement
}

fn returning(dialect: &dyn Dialect) -> String {
    format!(" RETURNING records.id AS id, records.version AS version, {} AS data", dialect.document("records"))
}

/// Runs a statement and adds the records that it returns.
async fn stored_by(
    connection: &mut Connection<'_>,
    statement: Statement,
    stored: &mut HashMap<RecordId, Record>,
) -> Result<usize, Failure> {
    let rows: Vec<RecordRow> = connection.load(statement).await?;
    let count = rows.len();
    for row in rows {
        let record = row.into_record()?;
        stored.insert(record.id.clone(), record);
    }
    Ok(count)
}

async fn delete(connection: &mut Connection<'_>, collection: &CollectionName, plan: &WritePlan) -> Result<usize, Failure> {
    let ids: Vec<&str> = deleted(plan).map(|write| write.id.as_str()).collect();
    let dialect = connection.dialect();
    let mut statement = Statement::new(format!(
        "DELETE FROM {} WHERE {} AND records.id",
        dialect.table(collection, "records"),
        is_in(collection, "records")
    ));
    dialect.push_in_texts(&mut statement, &ids);
    Ok(connection.execute(statement).await?)
}

pub(super) fn deleted(plan: &WritePlan) -> impl Iterator<Item = &RecordWrite> {
    plan.writes.iter().filter(|write| write.operation == Operation::Delete)
}

/// Adds the change log's rows, in the order of the writes.
pub(super) async fn log(
    connection: &mut Connection<'_>,
    collection: &CollectionName,
    author: &Author,
    texts: &str,
) -> Result<Logged, Failure> {
    let dialect = connection.dialect();
    let member = |name| dialect.write_member(name);
    let mut statement = Statement::new(format!(
        "INSERT INTO changes (collection, id, operation, version, actor, origin, at, before, after) SELECT {}, {}, {}, {}, ",
        literal(collection),
        member("id"),
        member("operation"),
        member("version"),
    ));
    statement.text(&author.actor).sql(", ").optional_text(author.origin.map(|address| address.to_string()));
    statement.sql(format!(
        ", {}, {}, {} FROM ",
        member("updated_at"),
        dialect.write_document("before"),
        dialect.write_document("data")
    ));
    dialect.push_writes(&mut statement, texts);
    // The order of insertion is the order of positions; that of RETURNING is not promised, so ids tell them apart.
    let (ordinal, transaction) = (member("ordinal"), dialect.change_transaction());
    // The records are locked, so whatever else is there was before. The cast, and `<>` instead of `<`, have SQLite search its index:
    // it would walk through the whole log.
    let predecessor = format!(
        "SELECT {} FROM changes AS prior WHERE prior.collection = {} AND prior.id = CAST(changes.id AS TEXT) \
         AND prior.position <> changes.position ORDER BY prior.position DESC LIMIT 1",
        transaction.replace("changes.", "prior."),
        literal(collection),
    );
    let returned = format!("{transaction} AS transaction_id, position, id, ({predecessor}) AS predecessor");
    statement.sql(format!(" ORDER BY {ordinal} RETURNING {returned}"));
    let rows: Vec<PositionRow> = connection.load(statement).await?;
    let mut logged = Logged::default();
    for row in rows {
        logged.positions.insert(stored_id(&row.id)?.as_str().to_owned(), position(row.transaction_id, row.position)?);
        logged.predecessors.extend(row.predecessor.and_then(|transaction| u64::try_from(transaction).ok()));
    }
    Ok(logged)
}
