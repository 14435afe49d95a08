//! What a declared collection needs on SQLite: partial expression indexes, triggers that keep the elements of its
//! indexed arrays, and a search table with the triggers that keep it. The name of each has a hash of its definition,
//! so that a changed definition is another artifact.
//!
//! No statistics are gathered (`ANALYZE`). Without them the planner follows the declared indexes, always in the same
//! way, and the test of the query plans means something; with them it was seen to scan all records for a list of
//! values, because one collection filled the table.

use super::SqliteDialect;
use super::dialect::path;
use crate::error::Result;
use crate::model::{Collection, Direction, SortKey};
use crate::store::column::Column;
use crate::store::dialect::literal;
use crate::store::structure::{Artifact, Work, describe_index, index_keys, named, needed_indexes};

/// Whether an index on the array `field` is declared, and its elements are therefore in `array_terms`.
pub(super) fn is_indexed_array(collection: &Collection, field: &str) -> bool {
    collection.fields.get(field).is_some_and(|kind| kind.array)
        && collection.indexes.iter().any(|index| matches!(index.fields.as_slice(), [only] if only == field))
}

/// The name of the collection's search table. Weights are not part of it: they count at query time.
pub(super) fn search_table(collection: &Collection) -> String {
    let fields: Vec<&str> = collection.search.iter().map(|search| search.field.as_str()).collect();
    named("search", &collection.name, &fields.join("\n"))
}

/// Everything the collection needs.
pub(super) fn artifacts(collection: &Collection) -> Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for fields in needed_indexes(collection) {
        artifacts.push(index(collection, &fields)?);
    }
    let arrays = collection.indexes.iter().filter_map(|index| index.fields.first());
    artifacts.extend(arrays.filter(|field| is_indexed_array(collection, field)).map(|field| array_terms(collection, field)));
    if !collection.search.is_empty() {
        artifacts.push(search(collection));
    }
    Ok(artifacts)
}

/// A partial index: it has the entries of one collection, and a query that names the collection literally can use it.
/// It begins with the collection all the same: without a column that an equality binds, the planner prefers the
/// unique index over collection and id, and sorts.
fn index(collection: &Collection, fields: &[String]) -> Result<Artifact> {
    let keys = index_keys(collection, fields);
    let columns = keys.iter().map(|SortKey { field, direction }| {
        let value = Column::in_index(&SqliteDialect, collection, field)?.value;
        Ok(match direction {
            Direction::Ascending => value,
            Direction::Descending => format!("{value} DESC"),
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?.join(", ");
    let literal = literal(&collection.name);
    let name = named("index", &collection.name, &columns);
    Ok(Artifact {
        creation: vec![Work::Together(format!(
            "CREATE INDEX {name} ON records (collection, {columns}) WHERE collection = {literal}"
        ))],
        removal: format!("DROP INDEX IF EXISTS {name}"),
        description: format!("index on {} ({})", collection.name, describe_index(fields, &keys)),
        name,
        collection: collection.name.clone(),
    })
}

fn array_terms(collection: &Collection, field: &str) -> Artifact {
    let name = named("terms", &collection.name, field);
    let literal = literal(&collection.name);
    let path = path(field);
    // DISTINCT instead of INSERT OR IGNORE: a trigger takes over the conflict clause of the statement that fires it.
    let elements = |row: &str| {
        format!(
            "SELECT DISTINCT {literal}, '{field}', value, {row}.rowid FROM json_each({row}.data, {path}) \
             WHERE type NOT IN ('null', 'array', 'object')"
        )
    };
    let insert = format!("INSERT INTO array_terms (collection, field, value, record) {}", elements("new"));
    let delete = format!(
        "DELETE FROM array_terms WHERE collection = {literal} AND field = '{field}' AND record = old.rowid \
         AND value IN (SELECT value FROM json_each(old.data, {path}))"
    );
    let changed = format!("new.data -> {path} IS NOT old.data -> {path}");
    let backfill = format!(
        "INSERT INTO array_terms (collection, field, value, record) \
         SELECT DISTINCT {literal}, '{field}', element.value, records.rowid \
         FROM records CROSS JOIN json_each(records.data, {path}) AS element \
         WHERE records.collection = {literal} AND element.type NOT IN ('null', 'array', 'object')"
    );
    let forget = format!("DELETE FROM array_terms WHERE collection = {literal} AND field = '{field}'");
    Artifact {
        creation: vec![Work::Together(format!("{}{forget};{backfill};", triggers(&name, &literal, &insert, &delete, &changed)))],
        removal: format!("{}{forget};", drop_triggers(&name)),
        description: format!("index on {} (elements of {field})", collection.name),
        name,
        collection: collection.name.clone(),
    }
}

/// An FTS5 table that holds no text: it reads what it needs through a view of `records`. Its columns are `c0`, `c1`,
/// …, because FTS5 reserves names (`rank`, `rowid`) that a field may have.
fn search(collection: &Collection) -> Artifact {
    let name = search_table(collection);
    let literal = literal(&collection.name);
    let fields: Vec<(String, String)> =
        collection.search.iter().enumerate().map(|(at, search)| (format!("c{at}"), path(&search.field))).collect();
    let list =
        |text: &dyn Fn(&(String, String)) -> String, separator: &str| fields.iter().map(text).collect::<Vec<_>>().join(separator);
    let columns = list(&|(column, _)| column.clone(), ", ");
    let view = list(&|(column, path)| format!("data ->> {path} AS {column}"), ", ");
    let new = list(&|(_, path)| format!("new.data ->> {path}"), ", ");
    let old = list(&|(_, path)| format!("old.data ->> {path}"), ", ");
    let changed = list(&|(_, path)| format!("new.data ->> {path} IS NOT old.data ->> {path}"), " OR ");
    let insert = format!("INSERT INTO {name} (rowid, {columns}) VALUES (new.rowid, {new})");
    let delete = format!("INSERT INTO {name} ({name}, rowid, {columns}) VALUES ('delete', old.rowid, {old})");
    Artifact {
        creation: vec![Work::Together(format!(
            "CREATE VIEW {name}_text AS SELECT rowid AS rowid, {view} FROM records WHERE collection = {literal};\
             CREATE VIRTUAL TABLE {name} USING fts5({columns}, content = '{name}_text', content_rowid = 'rowid', \
             tokenize = 'porter unicode61 remove_diacritics 2');\
             {}INSERT INTO {name} ({name}) VALUES ('rebuild');",
            triggers(&name, &literal, &insert, &delete, &changed)
        ))],
        removal: format!("{}DROP TABLE IF EXISTS {name};DROP VIEW IF EXISTS {name}_text;", drop_triggers(&name)),
        description: format!(
            "search table on {} ({})",
            collection.name,
            collection.search.iter().map(|search| search.field.as_str()).collect::<Vec<_>>().join(", ")
        ),
        name,
        collection: collection.name.clone(),
    }
}

fn triggers(name: &str, literal: &str, insert: &str, delete: &str, changed: &str) -> String {
    format!(
        "CREATE TRIGGER {name}_insert AFTER INSERT ON records WHEN new.collection = {literal} BEGIN {insert}; END;\
         CREATE TRIGGER {name}_delete AFTER DELETE ON records WHEN old.collection = {literal} BEGIN {delete}; END;\
         CREATE TRIGGER {name}_update AFTER UPDATE OF data ON records \
         WHEN new.collection = {literal} AND ({changed}) BEGIN {delete}; {insert}; END;"
    )
}

fn drop_triggers(name: &str) -> String {
    let drops = ["insert", "delete", "update"].map(|event| format!("DROP TRIGGER IF EXISTS {name}_{event};"));
    drops.concat()
}
