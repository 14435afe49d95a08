//! How PostgreSQL spells JSON, arrays, lists and row locks. A collection's partition is named outright, so that the planner
//! need not look for it, and nothing locks the table that all collections share.
//!
//! Values are spelled so that no stored value makes a statement fail, whatever its type, and the same as in the indexes.

use super::search::PostgresSearch;
use super::structure;
use super::tallies::Tallies;
use crate::error::Result;
use crate::model::{Collection, CollectionName, Field, Position, Ranking, Scalar, ScalarType, SearchExpression, Snapshot};
use crate::store::column::Column;
use crate::store::dialect::{Dialect, PAGE_BYTES, SearchDialect, Statistics, and_of, size_before};
use crate::store::statement::Statement;
use crate::store::structure::Artifact;

/// PostgreSQL 14 and later.
pub(in crate::store) struct PostgresDialect;

impl Dialect for PostgresDialect {
    fn push_table(&self, statement: &mut Statement, collection: &CollectionName, alias: &str) {
        statement.sql(structure::PARTITION_PREFIX).sql(collection.as_str()).sql(" AS ").sql(alias);
    }

    fn row_key(&self) -> &'static str {
        "records.ctid"
    }

    fn page_hint(&self) -> &'static str {
        ""
    }

    /// The record goes along: it is a pointer into the page that was read for the key, and coming back for it (by `ctid`)
    /// was measured to cost twice as much or more. Only what is on the page is turned into text.
    fn page_columns(&self) -> &'static str {
        "records.id, records.version, records.data, records.created_at, records.updated_at"
    }

    fn page_source(&self) -> &'static str {
        "page AS records"
    }

    /// A message and a dozen allocations for each row cost more CPU than the documents in them.
    fn gathered(&self) -> Option<(&'static str, &'static str)> {
        Some(("array_agg(", ")"))
    }

    fn as_text(&self) -> &'static str {
        "::text"
    }

    fn value(&self, row: &str, field: &str, kind: Field) -> String {
        let typed = |name: &str, kind: &str| {
            format!("(CASE jsonb_typeof({row}data -> '{field}') WHEN '{name}' THEN ({row}data ->> '{field}')::{kind} END)")
        };
        match kind {
            // Only asked whether it is null.
            Field { array: true, .. } => format!("({row}data ->> '{field}')"),
            // "C": in the order of code points, as on SQLite.
            Field { scalar: ScalarType::Text | ScalarType::Timestamp, .. } => {
                format!("(({row}data ->> '{field}') COLLATE \"C\")")
            }
            Field { scalar: ScalarType::Integer | ScalarType::Number, .. } => typed("number", "numeric"),
            Field { scalar: ScalarType::Boolean, .. } => typed("boolean", "boolean"),
        }
    }

    fn json(&self, row: &str, field: &str) -> String {
        format!("({row}data -> '{field}')")
    }

    fn push_member(&self, statement: &mut Statement, field: &str) {
        statement.sql("(records.data -> ").text(field).sql(")::text");
    }

    fn push_scalar(&self, statement: &mut Statement, scalar: &Scalar) {
        match scalar {
            // A double beside a numeric makes a double of that one too, which no index has.
            Scalar::Number(number) => _ = statement.sql("CAST(").text(number.get().to_string()).sql(" AS numeric)"),
            Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Text(_) => _ = statement.scalar(scalar),
        }
    }

    fn json_array(&self, elements: &[String]) -> String {
        format!("json_build_array({})::text", elements.join(", "))
    }

    fn statistics(&self) -> Statistics {
        Statistics::Together
    }

    fn tallies<'c>(&self, collection: &'c Collection) -> Option<Tallies<'c>> {
        Some(Tallies::of(collection))
    }

    fn quoted(&self, value: &str) -> String {
        format!("to_jsonb({value})::text")
    }

    fn push_in(&self, statement: &mut Statement, column: &Column, values: &[Scalar]) {
        let element = match (column.kind.scalar, column.nullable) {
            (ScalarType::Text | ScalarType::Timestamp, _) => "text",
            (ScalarType::Integer | ScalarType::Number, true) => "numeric",
            // The version, a column.
            (ScalarType::Integer | ScalarType::Number, false) => "bigint",
            (ScalarType::Boolean, _) => "boolean",
        };
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        push_any_of(statement, texts.iter().map(String::as_str), element);
    }

    fn push_in_texts(&self, statement: &mut Statement, texts: &[&str]) {
        push_any_of(statement, texts.iter().copied(), "text");
    }

    fn push_array_has(&self, statement: &mut Statement, _collection: &Collection, field: &str, values: &[Scalar]) {
        if values.is_empty() {
            statement.sql("1 = 0");
            return;
        }
        statement.sql("(");
        for (at, value) in values.iter().enumerate() {
            let or = if at == 0 { "" } else { " OR " };
            statement.sql(format!("{or}{} @> CAST(", self.json("records.", field)));
            statement.text(serde_json::Value::Array(vec![value.to_json()]).to_string()).sql(" AS jsonb)");
        }
        statement.sql(")");
    }

    fn elements(&self, data: &str, field: &str) -> String {
        format!(
            "LATERAL jsonb_array_elements(CASE jsonb_typeof({data} -> '{field}') WHEN 'array' THEN {data} -> '{field}' END) \
             AS element (value) ON jsonb_typeof(element.value) NOT IN ('null', 'array', 'object')"
        )
    }

    fn ranking(&self) -> Ranking {
        Ranking::Own
    }

    fn search<'a>(&self, collection: &'a Collection, expression: &'a SearchExpression) -> Box<dyn SearchDialect + 'a> {
        Box::new(PostgresSearch::new(collection, expression))
    }

    fn push_writes(&self, statement: &mut Statement, writes: &str) {
        statement.sql("json_to_recordset(CAST(").text(writes).sql(
            " AS json)) AS write (ordinal bigint, position bigint, collection text, id text, operation text, version bigint, \
             expected bigint, actor text, origin text, at text, data text, before text, after text, created_at text, updated_at text)",
        );
    }

    fn write_member(&self, member: &str) -> String {
        format!("write.{member}")
    }

    fn write_document(&self, member: &str) -> String {
        format!("CAST(write.{member} AS jsonb)")
    }

    fn lock_to_write(&self) -> &'static str {
        " FOR NO KEY UPDATE"
    }

    fn lock_to_refer(&self) -> &'static str {
        " FOR KEY SHARE"
    }

    fn artifacts(&self, collection: &Collection) -> Result<Vec<Artifact>> {
        structure::artifacts(collection)
    }

    /// A transaction's number has 64 bits, but no cast to any other number.
    fn change_transaction(&self) -> &'static str {
        "changes.transaction::text::bigint"
    }

    /// A server that recovers from the crash of one of its processes has the same start time as before, but new statistics.
    fn snapshot(&self) -> &'static str {
        "SELECT pg_snapshot_xmax(current.snapshot)::text::bigint AS next, \
         to_json(ARRAY(SELECT xip::text::bigint FROM pg_snapshot_xip(current.snapshot) AS xip))::text AS in_progress, \
         ((extract(epoch FROM pg_postmaster_start_time()) + extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())) \
         * 1000000)::bigint AS server_run, terrace_timeline() AS timeline FROM (SELECT pg_current_snapshot() AS snapshot) AS current"
    }

    /// Two kinds of ranges of one index: what began after the snapshot, and each transaction that was in progress and may
    /// have committed since. As one condition with OR they would be a walk over all that was written beside the oldest
    /// open transaction; and with an equality the planner may take the order of positions for that of the index.
    fn push_unseen(
        &self,
        statement: &mut Statement,
        of: Option<&CollectionName>,
        seen: &Snapshot,
        after: Option<Position>,
        limit: u32,
    ) {
        let of = and_of(of);
        let order = format!("ORDER BY changes.transaction, changes.position LIMIT {limit}");
        let in_progress: Vec<String> = seen.in_progress.iter().map(u64::to_string).collect();
        let start = Position { transaction: seen.next, sequence: 0 };
        let start = after.map_or(start, |after| after.max(start));
        let after = after.unwrap_or(Position { transaction: 0, sequence: 0 });
        // What a restored database has from its former life, when numbers were higher, is not new.
        statement.sql(
            "SELECT * FROM ((SELECT changes.* FROM changes WHERE changes.transaction < pg_snapshot_xmax(pg_current_snapshot())",
        );
        statement.sql(" AND (changes.transaction, changes.position) > (CAST(").text(start.transaction.to_string());
        statement
            .sql(" AS xid8), ")
            .bigint(start.sequence)
            .sql(format!("){of} {order}) UNION ALL (SELECT late.* FROM unnest(CAST("));
        statement.text(array_text(in_progress.iter().map(String::as_str)));
        statement.sql(
            " AS xid8[])) AS waiting (transaction) CROSS JOIN LATERAL (SELECT changes.* FROM changes \
             WHERE changes.transaction <= waiting.transaction AND (changes.transaction, changes.position) > \
             (waiting.transaction, CASE WHEN waiting.transaction = CAST(",
        );
        statement.text(after.transaction.to_string()).sql(" AS xid8) THEN ").bigint(after.sequence);
        statement.sql(format!(" ELSE 0 END){of} {order}) AS late WHERE waiting.transaction >= CAST("));
        statement.text(after.transaction.to_string()).sql(format!(" AS xid8))) AS changes {order}"));
    }

    /// Each document is turned into text once: without the `OFFSET` the planner would do it for its size and for the answer. And without
    /// the order, which the rows have, it would sort the texts.
    fn push_page_of_changes(&self, statement: &mut Statement, rows: Statement, order: &str) {
        statement.sql(format!(
            "SELECT * FROM (SELECT *, {} FROM (SELECT transaction, position, collection, id, operation, version, actor, origin, at, \
             before::text AS before, after::text AS after FROM (",
            size_before(order),
        ));
        statement.extend(rows);
        statement.sql(format!(
            ") AS page ORDER BY {order} OFFSET 0) AS texts) AS summed WHERE coalesce(size_before, 0) < {PAGE_BYTES}"
        ));
    }

    fn change_order(&self) -> &'static str {
        "transaction, position"
    }

    fn change_lock(&self) -> &'static str {
        " FOR UPDATE SKIP LOCKED"
    }
}

/// A planner who is shown the values knows better how many rows they select than one who is given a subquery.
fn push_any_of<'a>(statement: &mut Statement, values: impl Iterator<Item = &'a str>, element: &str) {
    statement.sql(" = ANY(CAST(").text(array_text(values)).sql(format!(" AS {element}[]))"));
}

/// The values in PostgreSQL's syntax of arrays, to be bound.
pub(super) fn array_text<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let quoted = values.map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}
