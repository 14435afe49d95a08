//! Statistics: the total, and for each field its distinct values with their counts, in one statement and so of one
//! state of the database. Those of all records come from tallies, where there are any.

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use serde_json::Value;

use super::column::Column;
use super::connection::Connection;
use super::contract::{FieldStats, Stats};
use super::dialect::{Dialect, Statistics};
use super::failure::Failure;
use super::filter::push_selection;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{Collection, Filter, Number, Scalar, ScalarType};

/// The most values that are listed for one field.
const MAX_VALUES: i64 = 1_000;
/// The `part` of the row with the total.
const TOTAL: i64 = -1;

#[derive(QueryableByName)]
struct GroupRow {
    #[diesel(sql_type = BigInt)]
    part: i64,
    /// JSON text.
    #[diesel(sql_type = Nullable<Text>)]
    value: Option<String>,
    #[diesel(sql_type = BigInt)]
    records: i64,
    #[diesel(sql_type = BigInt)]
    distinct_values: i64,
}

/// Counts the records that `filter` selects by each field of `by`.
pub(super) async fn stats(
    connection: &mut Connection<'_>,
    collection: &Collection,
    by: &[String],
    filter: Option<&Filter>,
) -> Result<Stats, Failure> {
    let dialect = connection.dialect();
    let columns = by.iter().map(|field| Column::of(dialect, collection, field)).collect::<Result<Vec<_>>>()?;
    let rows = groups(connection, collection, by, filter).await?;

    let mut stats = Stats { total: 0, fields: Vec::new() };
    stats.fields.extend(by.iter().map(|field| FieldStats { field: field.clone(), distinct: 0, values: Vec::new() }));
    for row in rows {
        let records = u64::try_from(row.records).unwrap_or_default();
        let part = usize::try_from(row.part).ok();
        match part.and_then(|part| stats.fields.get_mut(part).zip(columns.get(part))) {
            Some((field, column)) => {
                field.distinct = u64::try_from(row.distinct_values).unwrap_or_default();
                let value = row.value.as_deref().map(|text| scalar(column.kind.scalar, text)).transpose()?;
                field.values.push((value, records));
            }
            None => stats.total = records,
        }
    }
    for field in &mut stats.fields {
        // The rows of a union have no order that SQL promises.
        field.values.sort_by(|(value, count), (other, other_count)| other_count.cmp(count).then_with(|| value.cmp(other)));
    }
    Ok(stats)
}

async fn groups(
    connection: &mut Connection<'_>,
    collection: &Collection,
    by: &[String],
    filter: Option<&Filter>,
) -> Result<Vec<GroupRow>, Failure> {
    let dialect = connection.dialect();
    if filter.is_none()
        && let Some(statement) = tallied_statement(dialect, collection, by)
    {
        let rows = connection.load(statement).await?;
        if !rows.is_empty() {
            return Ok(rows);
        }
        // A field is not tallied yet, or has too many values for that.
    }
    Ok(connection.load(stats_statement(dialect, collection, by, filter)?).await?)
}

/// The statistics of all records from their tallies: no row at all unless these are complete.
pub(super) fn tallied_statement(dialect: &dyn Dialect, collection: &Collection, by: &[String]) -> Option<Statement> {
    let tallies = dialect.tallies(collection)?;
    let mut statement = Statement::new(format!("WITH complete AS MATERIALIZED (SELECT {} AS yes) ", tallies.are_complete(by)?));
    let are_complete = "WHERE (SELECT yes FROM complete)";
    push_total(&mut statement, &tallies.total());
    statement.sql(are_complete);
    for (part, field) in by.iter().enumerate() {
        push_part(&mut statement, dialect, part, |statement| {
            statement.sql(format!("SELECT * FROM ({}) AS tallied {are_complete}", tallies.groups(field)));
            Ok(())
        })
        .ok()?;
    }
    Some(statement)
}

/// Appends the row with the total, without its source.
fn push_total(statement: &mut Statement, total: &str) {
    statement.sql(format!(
        "SELECT CAST({TOTAL} AS bigint) AS part, CAST(NULL AS text) AS value, {total} AS records, \
         CAST(0 AS bigint) AS distinct_values "
    ));
}

/// Appends the most frequent of the groups that `push` appends a query of, as `value` and `records`.
fn push_part(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    part: usize,
    push: impl FnOnce(&mut Statement) -> Result<()>,
) -> Result<()> {
    let quoted = dialect.quoted("grouped.value");
    // The window counts groups, before the limit and without the null group.
    statement.sql(format!(
        " UNION ALL SELECT * FROM (SELECT CAST({part} AS bigint) AS part, CASE WHEN grouped.value IS NOT NULL THEN {quoted} END AS value, \
         grouped.records, count(grouped.value) OVER () AS distinct_values FROM ("
    ));
    push(statement)?;
    statement.sql(") AS grouped ORDER BY grouped.records DESC, grouped.value LIMIT ").bigint(MAX_VALUES);
    statement.sql(format!(") AS part_{part}"));
    Ok(())
}

pub(super) fn stats_statement(
    dialect: &dyn Dialect,
    collection: &Collection,
    by: &[String],
    filter: Option<&Filter>,
) -> Result<Statement> {
    let columns = by.iter().map(|field| Column::of(dialect, collection, field)).collect::<Result<Vec<_>>>()?;
    let mut statement = Statement::default();
    let source = push_counted(&mut statement, dialect, collection, &columns, filter)?;
    let total = match source {
        Source::Records => "count(*)",
        Source::Counted => "CAST(coalesce(sum(records), 0) AS bigint)",
    };
    push_total(&mut statement, total);
    statement.sql("FROM ");
    match source {
        Source::Records => push_selected(&mut statement, dialect, collection, filter)?,
        Source::Counted => _ = statement.sql("counted"),
    }
    for (part, (field, column)) in by.iter().zip(&columns).enumerate() {
        push_groups(&mut statement, dialect, collection, (part, field, column, source), filter)?;
    }
    Ok(statement)
}

/// What the fields with single values are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The records, for each field anew.
    Records,
    /// The table `counted`, which has how many records have the same values in all of them: so each record is read once.
    Counted,
}

fn push_counted(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    columns: &[Column],
    filter: Option<&Filter>,
) -> Result<Source> {
    let single = || columns.iter().enumerate().filter(|(_, column)| !column.kind.array);
    if dialect.statistics() == Statistics::FieldByField || single().next().is_none() {
        return Ok(Source::Records);
    }
    statement.sql("WITH counted AS MATERIALIZED (SELECT ");
    for (part, column) in single() {
        statement.sql(format!("{} AS value_{part}, ", column.value));
    }
    statement.sql("count(*) AS records FROM ");
    push_selected(statement, dialect, collection, filter)?;
    let positions: Vec<String> = (1..=single().count()).map(|position| position.to_string()).collect();
    statement.sql(format!(" GROUP BY {}) ", positions.join(", ")));
    Ok(Source::Counted)
}

fn push_selected(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    filter: Option<&Filter>,
) -> Result<()> {
    dialect.push_table(statement, &collection.name, "records");
    statement.sql(" WHERE ");
    push_selection(statement, dialect, collection, filter)
}

fn push_groups(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    (part, field, column, source): (usize, &str, &Column, Source),
    filter: Option<&Filter>,
) -> Result<()> {
    push_part(statement, dialect, part, |statement| {
        statement.sql("SELECT ");
        if column.kind.array {
            // An element that a record has twice counts once. The selection stands apart from the elements, whose source
            // has column names of its own.
            statement.sql("value, count(*) AS records FROM (SELECT DISTINCT chosen.record, element.value AS value FROM ");
            statement.sql(format!("(SELECT {} AS record, records.data FROM ", dialect.row_key()));
            push_selected(statement, dialect, collection, filter)?;
            statement.sql(format!(") AS chosen LEFT JOIN {}) AS each_once", dialect.elements("chosen.data", field)));
        } else {
            match source {
                Source::Records => {
                    statement.sql(format!("{} AS value, count(*) AS records FROM ", column.value));
                    push_selected(statement, dialect, collection, filter)?;
                }
                Source::Counted => {
                    statement.sql(format!("value_{part} AS value, CAST(sum(records) AS bigint) AS records FROM counted"));
                }
            }
        }
        statement.sql(" GROUP BY 1");
        Ok(())
    })
}

/// A stored value as the field's type, or as what it is: a schema may have changed after the record was written.
fn scalar(kind: ScalarType, text: &str) -> Result<Scalar> {
    let value: Value = serde_json::from_str(text).map_err(Error::internal)?;
    // SQLite's booleans are 0 and 1.
    if let (ScalarType::Boolean, Some(flag)) = (kind, value.as_i64()) {
        return Ok(Scalar::Boolean(flag != 0));
    }
    let own = kind.from_json(&value);
    let found = own.or_else(|| match &value {
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Bool(flag) => Some(Scalar::Boolean(*flag)),
        Value::Number(number) => number.as_f64().and_then(Number::new).map(Scalar::Number),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    });
    Ok(found.unwrap_or_else(|| Scalar::Text(text.to_owned())))
}
