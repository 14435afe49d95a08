//! The statements of a copy, and what SQLite and PostgreSQL spell differently in them. A batch is one statement, whatever
//! its size.

use super::super::connection::Connection;
use super::super::dialect::literal;
use super::super::failure::Failure;
use super::super::statement::Statement;
use super::BatchLimit;
use crate::error::Result;
use crate::model::CollectionName;

/// What the databases spell differently here.
pub(super) struct Spelling {
    /// Between the columns and the rows of an insertion that names its own sequence numbers.
    pub overriding: &'static str,
    /// The last sequence number that was given out, whether its row is still there or not.
    pub counter: &'static str,
    /// What the next number follows.
    pub set_counter: fn(i64) -> Statement,
    /// Which database this is, whatever its URL.
    pub identity: &'static str,
}

static SQLITE: Spelling = Spelling {
    overriding: "",
    counter: "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) AS value",
    set_counter: |last| {
        let mut statement = Statement::new("INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq) VALUES (");
        statement.sql("(SELECT rowid FROM sqlite_sequence WHERE name = 'changes'), 'changes', ").bigint(last).sql(")");
        statement
    },
    identity: "SELECT file AS value FROM pragma_database_list WHERE name = 'main'",
};

static POSTGRES: Spelling = Spelling {
    overriding: " OVERRIDING SYSTEM VALUE",
    counter: "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('changes', 'position')), 0) AS value",
    set_counter: |last| {
        let mut statement = Statement::new("SELECT setval(pg_get_serial_sequence('changes', 'position'), ");
        statement.bigint(last).sql(")");
        statement
    },
    identity: "SELECT system_identifier || ' ' || current_database() || ' ' || current_schema() AS value FROM pg_control_system()",
};

pub(super) fn spelling(connection: &Connection<'_>) -> &'static Spelling {
    match connection {
        Connection::Sqlite(_) => &SQLITE,
        Connection::Postgres(_) => &POSTGRES,
    }
}

pub(super) fn push_ids(connection: &Connection<'_>, statement: &mut Statement, ids: &[String]) {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    connection.dialect().push_in_texts(statement, &ids);
}

pub(super) fn record_columns(connection: &Connection<'_>) -> String {
    let data = connection.dialect().document("records");
    format!("records.collection, records.id, records.version, {data} AS data, records.created_at, records.updated_at")
}

/// A page that ends early when it is large: sizes are added up in the database, and only what fits leaves it.
pub(super) fn records_statement(
    connection: &Connection<'_>,
    collection: &CollectionName,
    after: &str,
    limit: BatchLimit,
) -> Statement {
    let collection = literal(collection);
    let data = connection.dialect().document("records");
    let mut statement = Statement::new(format!(
        "WITH page AS (SELECT id, octet_length({data}) AS size_bytes FROM records WHERE collection = {collection} AND id > "
    ));
    statement.text(after).sql(" ORDER BY id LIMIT ").bigint(i64::from(limit.rows));
    statement.sql(format!(
        "), summed AS (SELECT id, sum(size_bytes) OVER (ORDER BY id) - size_bytes AS size_before FROM page) \
         SELECT {} FROM summed JOIN records ON records.collection = {collection} AND records.id = summed.id \
         WHERE summed.size_before < ",
        record_columns(connection)
    ));
    statement.bigint(limit.size_bytes).sql(" ORDER BY records.id");
    statement
}

pub(super) fn changes_statement(connection: &Connection<'_>, after: i64, limit: BatchLimit) -> Statement {
    let text = |column: &str| connection.dialect().change_document(column);
    let size = |column: &str| format!("coalesce(octet_length({}), 0)", text(column));
    let mut statement = Statement::new(format!(
        "WITH page AS (SELECT position, {} + {} AS size_bytes FROM changes WHERE position > ",
        size("before"),
        size("after")
    ));
    statement.bigint(after).sql(" ORDER BY position LIMIT ").bigint(i64::from(limit.rows));
    statement.sql(format!(
        "), summed AS (SELECT position, sum(size_bytes) OVER (ORDER BY position) - size_bytes AS size_before FROM page) \
         SELECT changes.position, changes.collection, changes.id, changes.operation, changes.version, changes.actor, changes.origin, \
         changes.at, \
         {} AS before, {} AS after FROM summed JOIN changes ON changes.position = summed.position WHERE summed.size_before < ",
        text("before"),
        text("after")
    ));
    statement.bigint(limit.size_bytes).sql(" ORDER BY changes.position");
    statement
}

/// What deletes records of a collection, for a condition to follow. It names the collection's table as [`insert_records`] does.
pub(super) fn delete_statement(connection: &Connection<'_>, collection: &CollectionName) -> Statement {
    let table = connection.dialect().table(collection, "records");
    Statement::new(format!("DELETE FROM {table} WHERE records.collection = {} AND records.", literal(collection)))
}

/// Records of one collection. On PostgreSQL it has a table of its own, and this must name it: who says to be the server is
/// refused elsewhere.
pub(super) async fn insert_records(
    connection: &mut Connection<'_>,
    collection: &CollectionName,
    texts: &str,
) -> Result<(), Failure> {
    let dialect = connection.dialect();
    let member = |name| dialect.write_member(name);
    let mut statement = Statement::new(format!(
        "INSERT INTO {} (collection, id, version, data, created_at, updated_at) SELECT {}, {}, {}, {}, {}, {} FROM ",
        dialect.table(collection, "records"),
        member("collection"),
        member("id"),
        member("version"),
        dialect.write_document("data"),
        member("created_at"),
        member("updated_at"),
    ));
    dialect.push_writes(&mut statement, texts);
    connection.execute(statement).await?;
    Ok(())
}

pub(super) async fn insert_changes(connection: &mut Connection<'_>, texts: &str) -> Result<(), Failure> {
    let (dialect, spelling) = (connection.dialect(), spelling(connection));
    let member = |name| dialect.write_member(name);
    let mut statement = Statement::new(format!(
        "INSERT INTO changes (position, collection, id, operation, version, actor, origin, at, before, after){} \
         SELECT {}, {}, {}, {}, {}, {}, {}, {}, {}, {} FROM ",
        spelling.overriding,
        member("position"),
        member("collection"),
        member("id"),
        member("operation"),
        member("version"),
        member("actor"),
        member("origin"),
        member("at"),
        dialect.write_document("before"),
        dialect.write_document("after"),
    ));
    dialect.push_writes(&mut statement, texts);
    statement.sql(format!(" ORDER BY {}", member("position")));
    connection.execute(statement).await?;
    Ok(())
}
