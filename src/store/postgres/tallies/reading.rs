//! What is asked of the tallies. Whether a field's are complete is asked in the same statement, and so of the same state: if not,
//! it has no rows at all, and the records are counted.

use super::{ALL, Kind, TalliedField};
use crate::model::{Collection, Condition, Filter, Scalar, Test};
use crate::store::dialect::{Dialect as _, literal};
use crate::store::postgres::PostgresDialect;
use crate::store::statement::Statement;

/// The tallies of a collection.
pub(in crate::store) struct Tallies<'c> {
    collection: &'c Collection,
}

impl<'c> Tallies<'c> {
    pub(in crate::store::postgres) fn of(collection: &'c Collection) -> Self {
        Self { collection }
    }

    /// A condition on nothing but the tallies: those of all records and of these fields are complete. `None` if one of them is not
    /// tallied.
    pub fn are_complete(&self, fields: &[String]) -> Option<String> {
        let tallied = fields.iter().map(|name| TalliedField::of(self.collection, name)).collect::<Option<Vec<_>>>()?;
        let mut rows: Vec<String> = tallied.into_iter().chain([ALL]).map(TalliedField::row).collect();
        rows.sort();
        rows.dedup();
        Some(format!(
            "(SELECT count(*) FROM tallied WHERE collection = {} AND (field, kind) IN ({}) AND state = 'complete') = {}",
            literal(&self.collection.name),
            rows.join(", "),
            rows.len()
        ))
    }

    /// How many records there are: a number.
    pub fn total(&self) -> String {
        format!("(SELECT CAST(coalesce(sum(tally.records), 0) AS bigint) FROM ({}) AS tally)", self.rows("", ""))
    }

    /// A query of each `value` of a tallied field, as statistics group by it, and how many `records` have it.
    pub fn groups(&self, field: &str) -> String {
        // As SQL's own type: groups of one size are in the order of that.
        let value = match TalliedField::of(self.collection, field).map(|field| field.kind) {
            Some(Kind::Array) => "nullif(tally.value, 'null'::jsonb)",
            Some(Kind::Number) => "CAST(tally.value #>> '{}' AS numeric)",
            Some(Kind::Boolean) => "CAST(tally.value #>> '{}' AS boolean)",
            Some(Kind::Text | Kind::All) | None => "(tally.value #>> '{}') COLLATE \"C\"",
        };
        format!(
            "SELECT {value} AS value, CAST(sum(tally.records) AS bigint) AS records FROM ({}) AS tally \
             GROUP BY tally.value HAVING sum(tally.records) <> 0",
            self.rows(field, "")
        )
    }

    /// A query of how many records a filter selects, as `total`; `None` if it is not one that tallies answer.
    pub fn count_statement(&self, filter: Option<&Filter>) -> Option<Statement> {
        let Some(filter) = filter else {
            let complete = self.are_complete(&[])?;
            return Some(Statement::new(format!("SELECT {} AS total WHERE {complete}", self.total())));
        };
        let Filter::Test(Condition { field, test: Test::Eq(scalar) }) = filter else { return None };
        let kind = TalliedField::of(self.collection, field)?.kind;
        let complete = self.are_complete(std::slice::from_ref(field))?;
        let mut statement = Statement::new("WITH term AS (SELECT ");
        push_value(&mut statement, kind, scalar)?;
        let term = " AND jsonb_hash_extended(value, 0) = (SELECT jsonb_hash_extended(term.value, 0) FROM term) \
                    AND value = (SELECT term.value FROM term)";
        statement.sql(format!(
            " AS value) SELECT (SELECT CAST(coalesce(sum(tally.records), 0) AS bigint) FROM ({}) AS tally) AS total WHERE {complete}",
            self.rows(field, term)
        ));
        Some(statement)
    }

    /// What is summed up, and what is not yet.
    fn rows(&self, field: &str, more: &str) -> String {
        let of = |table: &str| {
            let collection = literal(&self.collection.name);
            format!("SELECT value, records FROM {table} WHERE collection = {collection} AND field = '{field}'{more}")
        };
        format!("{} UNION ALL {}", of("tallies"), of("tally_changes"))
    }
}

/// Appends the value that equals in the tallies what `store::filter` would find equal in a record. Whatever has not the field's
/// type, and the character U+0000, which no text has, is left to that.
fn push_value(statement: &mut Statement, kind: Kind, scalar: &Scalar) -> Option<()> {
    let has_nul = matches!(scalar, Scalar::Text(text) if text.contains('\0'));
    match (kind, scalar) {
        _ if has_nul => return None,
        (Kind::Array, _) => _ = statement.sql("CAST(").text(scalar.to_json().to_string()).sql(" AS jsonb)"),
        (Kind::Text, Scalar::Text(_))
        | (Kind::Number, Scalar::Integer(_) | Scalar::Number(_))
        | (Kind::Boolean, Scalar::Boolean(_)) => {
            statement.sql("to_jsonb(");
            PostgresDialect.push_scalar(statement, scalar);
            statement.sql(")");
        }
        (Kind::All | Kind::Text | Kind::Number | Kind::Boolean, _) => return None,
    }
    Some(())
}
