//! How SQLite spells JSON, arrays, lists and FTS5. Paths are literals, because SQLite uses an expression index only
//! for an expression that is spelled the same, and a bound path never is.

use std::fmt::Write as _;

use super::structure;
use crate::error::Result;
use crate::model::{
    Collection, CollectionName, Field, Position, Ranking, Scalar, SearchClause, SearchExpression, SearchTerm, SearchWeight,
    Snapshot,
};
use crate::store::column::Column;
use crate::store::dialect::{Dialect, PAGE_BYTES, SearchDialect, Sought, Statistics, and_of, literal, size_before};
use crate::store::postgres::Tallies;
use crate::store::statement::Statement;
use crate::store::structure::Artifact;

/// SQLite 3.53 with FTS5.
pub(in crate::store) struct SqliteDialect;

/// A quoted JSON path in an SQL literal.
pub(super) fn path(field: &str) -> String {
    format!("'$.\"{field}\"'")
}

impl Dialect for SqliteDialect {
    fn push_table(&self, statement: &mut Statement, _collection: &CollectionName, alias: &str) {
        statement.sql("records AS ").sql(alias);
    }

    fn row_key(&self) -> &'static str {
        "records.rowid"
    }

    fn page_hint(&self) -> &'static str {
        "MATERIALIZED "
    }

    /// First the keys of the page alone, then the documents of its records: what is sorted or skipped stays small.
    fn page_columns(&self) -> &'static str {
        "records.rowid AS record"
    }

    /// CROSS JOIN: always from the page to the records, never the other way round.
    fn page_source(&self) -> &'static str {
        "page CROSS JOIN records ON records.rowid = page.record"
    }

    fn gathered(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    fn as_text(&self) -> &'static str {
        ""
    }

    fn value(&self, row: &str, field: &str, _kind: Field) -> String {
        format!("{row}data ->> {}", path(field))
    }

    fn json(&self, row: &str, field: &str) -> String {
        format!("{row}data -> {}", path(field))
    }

    fn push_member(&self, statement: &mut Statement, field: &str) {
        statement.sql("records.data -> ").text(format!("$.\"{field}\""));
    }

    fn push_scalar(&self, statement: &mut Statement, scalar: &Scalar) {
        statement.scalar(scalar);
    }

    fn json_array(&self, elements: &[String]) -> String {
        format!("json_array({})", elements.join(", "))
    }

    fn statistics(&self) -> Statistics {
        Statistics::FieldByField
    }

    /// It counts along its indexes, in the same process.
    fn tallies<'c>(&self, _collection: &'c Collection) -> Option<Tallies<'c>> {
        None
    }

    fn quoted(&self, value: &str) -> String {
        format!("json_quote({value})")
    }

    fn push_in(&self, statement: &mut Statement, _column: &Column, values: &[Scalar]) {
        push_any_of(statement, json_list(values));
    }

    fn push_in_texts(&self, statement: &mut Statement, texts: &[&str]) {
        push_any_of(statement, serde_json::Value::from(texts).to_string());
    }

    fn push_array_has(&self, statement: &mut Statement, collection: &Collection, field: &str, values: &[Scalar]) {
        if structure::is_indexed_array(collection, field) {
            let name = literal(&collection.name);
            statement.sql(format!(
                "records.rowid IN (SELECT record FROM array_terms WHERE collection = {name} AND field = '{field}' AND value"
            ));
        } else {
            let path = path(field);
            statement.sql(format!("EXISTS (SELECT 1 FROM json_each(records.data, {path}) AS element WHERE element.value"));
        }
        match values {
            [only] => _ = statement.sql(" = ").scalar(only),
            several => push_any_of(statement, json_list(several)),
        }
        statement.sql(")");
    }

    fn elements(&self, data: &str, field: &str) -> String {
        let path = path(field);
        format!("json_each({data}, {path}) AS element ON element.type NOT IN ('null', 'array', 'object')")
    }

    fn ranking(&self) -> Ranking {
        Ranking::Relative
    }

    fn search<'a>(&self, collection: &'a Collection, expression: &'a SearchExpression) -> Box<dyn SearchDialect + 'a> {
        Box::new(SqliteSearch { table: structure::search_table(collection), collection, matched: match_text(expression) })
    }

    fn push_writes(&self, statement: &mut Statement, writes: &str) {
        statement.sql("json_each(").text(writes).sql(") AS write");
    }

    fn write_member(&self, member: &str) -> String {
        format!("write.value ->> '{member}'")
    }

    fn write_document(&self, member: &str) -> String {
        self.write_member(member)
    }

    /// Whoever writes has the write lock.
    fn lock_to_write(&self) -> &'static str {
        ""
    }

    fn lock_to_refer(&self) -> &'static str {
        ""
    }

    fn artifacts(&self, collection: &Collection) -> Result<Vec<Artifact>> {
        structure::artifacts(collection)
    }

    fn change_transaction(&self) -> &'static str {
        "changes.position"
    }

    fn snapshot(&self) -> &'static str {
        // Not max(position): retention may have removed the newest row. Writers are serialised, so nothing that is
        // numbered is in progress.
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) + 1 AS next, '[]' AS in_progress, \
         0 AS server_run, 0 AS timeline"
    }

    fn push_unseen(
        &self,
        statement: &mut Statement,
        of: Option<&CollectionName>,
        seen: &Snapshot,
        after: Option<Position>,
        limit: u32,
    ) {
        // One range of the key, for what is noted as unseen is always close to `next`.
        let lowest = after.map_or(0, |after| after.sequence.saturating_add(1)).max(signed(seen.oldest_unseen()));
        let unseen = serde_json::Value::from(seen.in_progress.as_slice()).to_string();
        statement.sql("SELECT * FROM changes WHERE position >= ").bigint(lowest);
        statement.sql(" AND (position >= ").bigint(signed(seen.next));
        statement
            .sql(" OR position IN (SELECT value FROM json_each(")
            .text(unseen)
            .sql(format!("))){} ORDER BY position LIMIT {limit}", and_of(of)));
    }

    /// First the sizes, then the documents of those on the page alone: what the sum is made over would be kept in memory.
    fn push_page_of_changes(&self, statement: &mut Statement, rows: Statement, order: &str) {
        statement.sql(format!("SELECT logged.* FROM (SELECT position, {} FROM (", size_before(order)));
        statement.extend(rows);
        statement.sql(format!(
            ") AS page) AS summed JOIN changes AS logged ON logged.position = summed.position \
             WHERE coalesce(summed.size_before, 0) < {PAGE_BYTES}"
        ));
    }

    fn change_order(&self) -> &'static str {
        "position"
    }

    fn change_lock(&self) -> &'static str {
        ""
    }
}

fn signed(transaction: u64) -> i64 {
    i64::try_from(transaction).unwrap_or(i64::MAX)
}

fn push_any_of(statement: &mut Statement, json: String) {
    statement.sql(" IN (SELECT value FROM json_each(").text(json).sql("))");
}

fn json_list(values: &[Scalar]) -> String {
    serde_json::Value::Array(values.iter().map(Scalar::to_json).collect()).to_string()
}

struct SqliteSearch<'a> {
    table: String,
    collection: &'a Collection,
    matched: String,
}

impl SearchDialect for SqliteSearch<'_> {
    fn push_source(&self, statement: &mut Statement, _sought: Sought) {
        // CROSS JOIN: always from the matches to the records, never the other way round.
        statement.sql(format!("{0} CROSS JOIN records ON records.rowid = {0}.rowid", self.table));
    }

    fn push_condition(&self, statement: &mut Statement) {
        statement.sql(format!("{} MATCH ", self.table)).text(&self.matched);
    }

    fn rank(&self) -> String {
        let mut rank = format!("bm25({}", self.table);
        for field in &self.collection.search {
            let weight = match field.weight {
                SearchWeight::A => "10.0",
                SearchWeight::B => "4.0",
                SearchWeight::C => "2.0",
                SearchWeight::D => "1.0",
            };
            _ = write!(rank, ", {weight}");
        }
        rank + ")"
    }

    fn push_highlight_join(&self, statement: &mut Statement) {
        statement.sql(format!(" CROSS JOIN {0} ON {0}.rowid = page.record AND {0} MATCH ", self.table)).text(&self.matched);
    }

    fn push_highlights(&self, statement: &mut Statement, open: &str, close: &str) {
        statement.sql("json_array(");
        for (column, _) in self.collection.search.iter().enumerate() {
            let comma = if column == 0 { "" } else { ", " };
            statement.sql(format!("{comma}highlight({}, {column}, ", self.table));
            statement.text(open).sql(", ").text(close).sql(")");
        }
        statement.sql(")");
    }

    fn stems(&self, _words: &[&str]) -> Option<Statement> {
        None
    }
}

/// The FTS5 query of a parsed search. Every word is quoted, so nothing in it is syntax.
fn match_text(expression: &SearchExpression) -> String {
    let clauses: Vec<String> = expression.clauses.iter().map(clause_text).collect();
    clauses.join(" OR ")
}

fn clause_text(clause: &SearchClause) -> String {
    let join = |terms: &[SearchTerm], operator: &str| terms.iter().map(term_text).collect::<Vec<_>>().join(operator);
    let required = join(&clause.required, " AND ");
    if clause.excluded.is_empty() {
        format!("({required})")
    } else {
        format!("(({required}) NOT ({}))", join(&clause.excluded, " OR "))
    }
}

fn term_text(term: &SearchTerm) -> String {
    let words = term.words.join(" ").replace('"', "\"\"").replace('\0', " ");
    if term.prefix { format!("\"{words}\" *") } else { format!("\"{words}\"") }
}
