//! Orders, and the records after a cursor. Missing values come first going up and last going down; ties are broken by
//! the id, going up, so that an order is total and a walk by cursor meets every record once.

use super::column::Column;
use super::dialect::Dialect;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{Collection, Direction, Query, Scalar};

/// One sort key in SQL.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The expression to compare.
    pub value: String,
    /// The same as JSON, for cursors; it may be evaluated where only `records` and `page` are in reach.
    pub json: String,
    direction: Direction,
    nullable: bool,
}

/// The sort keys of `query` without the final id: its own, or the rank of a search, or the collection's default.
pub(super) fn keys(dialect: &dyn Dialect, collection: &Collection, query: &Query, rank: Option<String>) -> Result<Vec<Key>> {
    let sort = match (query.sort.is_empty(), rank) {
        (true, Some(value)) => {
            let direction = Direction::Ascending;
            return Ok(vec![Key { value, json: "page.k0".to_owned(), direction, nullable: false }]);
        }
        (true, None) => &collection.sort,
        (false, _) => &query.sort,
    };
    let key = |field: &str, direction| {
        let column = Column::of(dialect, collection, field)?;
        Ok(Key { value: column.value, json: column.json, direction, nullable: column.nullable })
    };
    sort.iter().map(|key_of| key(&key_of.field, key_of.direction)).collect()
}

/// Appends the keys as columns `k0`, `k1`, … and `tie`.
pub(super) fn push_columns(statement: &mut Statement, keys: &[Key]) {
    for (at, key) in keys.iter().enumerate() {
        statement.sql(format!(", {} AS k{at}", key.value));
    }
    statement.sql(", id AS tie");
}

/// Appends `ORDER BY` over those columns, each with `prefix` before its name.
pub(super) fn push_order(statement: &mut Statement, keys: &[Key], prefix: &str) {
    statement.sql(" ORDER BY ");
    for (at, key) in keys.iter().enumerate() {
        let direction = match key.direction {
            Direction::Ascending => "",
            Direction::Descending => " DESC",
        };
        statement.sql(format!("{prefix}k{at}{direction}, "));
    }
    statement.sql(format!("{prefix}tie"));
}

/// Appends `AND` the condition that a record comes after the one with the sort values and id of `after`.
pub(super) fn push_after(statement: &mut Statement, keys: &[Key], after: &[Option<Scalar>]) -> Result<()> {
    let malformed = || Error::parameter("cursor", "The cursor does not belong to this order. Start again without it.");
    let (Some(Some(tie)), true) = (after.last(), after.len() == keys.len() + 1) else {
        return Err(malformed());
    };
    let positions: Vec<(&Key, Option<&Scalar>)> = keys.iter().zip(after.iter().map(Option::as_ref)).collect();
    if let Some((key, value)) = positions.first() {
        // Implied by what follows, but a bound that the planner can seek an index with.
        push_not_before(statement, key, *value);
    }
    statement.sql(" AND (");
    for (at, (key, value)) in positions.iter().enumerate() {
        push_equal_prefix(statement, positions.get(..at).unwrap_or_default());
        push_strictly_after(statement, key, *value);
        statement.sql(" OR ");
    }
    push_equal_prefix(statement, &positions);
    statement.sql("id > ").scalar(tie).sql(")");
    Ok(())
}

fn push_not_before(statement: &mut Statement, key: &Key, value: Option<&Scalar>) {
    match (value, key.direction) {
        (Some(value), Direction::Ascending) => _ = statement.sql(format!(" AND {} >= ", key.value)).scalar(value),
        (Some(value), Direction::Descending) if !key.nullable => {
            statement.sql(format!(" AND {} <= ", key.value)).scalar(value);
        }
        // Going down, nulls are the tail: only they are left after one, and they follow every value.
        (None, Direction::Descending) => _ = statement.sql(format!(" AND {} IS NULL", key.value)),
        (Some(_), Direction::Descending) | (None, Direction::Ascending) => {}
    }
}

fn push_equal_prefix(statement: &mut Statement, positions: &[(&Key, Option<&Scalar>)]) {
    for (key, value) in positions {
        match value {
            Some(value) => _ = statement.sql(format!("{} = ", key.value)).scalar(value).sql(" AND "),
            None => _ = statement.sql(format!("{} IS NULL AND ", key.value)),
        }
    }
}

fn push_strictly_after(statement: &mut Statement, key: &Key, value: Option<&Scalar>) {
    let expression = &key.value;
    match (value, key.direction) {
        (Some(value), Direction::Ascending) => _ = statement.sql(format!("{expression} > ")).scalar(value),
        (Some(value), Direction::Descending) if key.nullable => {
            statement.sql(format!("({expression} < ")).scalar(value).sql(format!(" OR {expression} IS NULL)"));
        }
        (Some(value), Direction::Descending) => _ = statement.sql(format!("{expression} < ")).scalar(value),
        (None, Direction::Ascending) => _ = statement.sql(format!("{expression} IS NOT NULL")),
        (None, Direction::Descending) => _ = statement.sql("1 = 0"),
    }
}
