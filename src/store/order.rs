//! Orders, and the records after a cursor. Missing values come first going up and last going down; ties are broken by
//! the id, going up, so that an order is total and a walk by cursor meets every record once.

use super::column::Column;
use super::dialect::Dialect;
use super::filter::refuse_nul;
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

/// What follows a sort key in an order, and in the indexes that have it. What is never missing is spelled without a
/// place for it, as in the index of the primary key.
pub(super) fn direction_text(direction: Direction, nullable: bool) -> &'static str {
    match (direction, nullable) {
        (Direction::Ascending, true) => " NULLS FIRST",
        (Direction::Ascending, false) => "",
        (Direction::Descending, true) => " DESC NULLS LAST",
        (Direction::Descending, false) => " DESC",
    }
}

/// The sort keys of `query` without the final id: its own, or the rank of a search, or the collection's default.
pub(super) fn keys(dialect: &dyn Dialect, collection: &Collection, query: &Query, rank: Option<String>) -> Result<Vec<Key>> {
    let sort = match (query.sort.is_empty(), rank) {
        (true, Some(value)) => {
            let direction = Direction::Ascending;
            return Ok(vec![Key { value, json: "k0".to_owned(), direction, nullable: false }]);
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
    statement.sql(", records.id AS tie");
}

/// Appends `ORDER BY` over those columns.
pub(super) fn push_order(statement: &mut Statement, keys: &[Key]) {
    statement.sql(" ORDER BY ");
    for (at, key) in keys.iter().enumerate() {
        let direction = direction_text(key.direction, key.nullable);
        statement.sql(format!("k{at}{direction}, "));
    }
    statement.sql("tie");
}

/// A part of what comes after a cursor, by the first sort key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it.
    Whole,
    /// The records that have the key.
    Present,
    /// The records that lack it, where [`has_missing_behind`] the cursor.
    Missing,
}

/// Whether the records that lack the first key are one range of an index behind all that have it, and the cursor is among
/// these.
pub(super) fn has_missing_behind(keys: &[Key], after: &[Option<Scalar>]) -> bool {
    let is_tail = keys.first().is_some_and(|key| key.nullable && key.direction == Direction::Descending);
    is_tail && matches!(after.first(), Some(Some(_)))
}

/// Appends `AND` the condition that a record of `range` comes after the one with the sort values and id of `after`.
pub(super) fn push_after(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    keys: &[Key],
    after: &[Option<Scalar>],
    range: Range,
) -> Result<()> {
    if let (Range::Missing, Some(first)) = (range, keys.first()) {
        statement.sql(format!(" AND {} IS NULL", first.value));
        return Ok(());
    }
    let mut keys = keys.to_vec();
    if let (Range::Present, Some(first)) = (range, keys.first_mut()) {
        first.nullable = false;
    }
    let malformed = || Error::parameter("cursor", "The cursor does not belong to this order. Start again without it.");
    let (Some(Some(tie)), true) = (after.last(), after.len() == keys.len() + 1) else {
        return Err(malformed());
    };
    refuse_nul("cursor", after.iter().flatten())?;
    let positions: Vec<Position> = keys.iter().zip(after).map(|(key, value)| Position { key, value: value.as_ref() }).collect();
    if let Some(first) = positions.first() {
        // Implied by what follows, but a bound that the planner can seek an index with.
        first.push_not_before(statement, dialect);
    }
    statement.sql(" AND (");
    for (at, position) in positions.iter().enumerate() {
        push_equal(statement, dialect, positions.get(..at).unwrap_or_default());
        position.push_strictly_after(statement, dialect);
        statement.sql(" OR ");
    }
    push_equal(statement, dialect, &positions);
    statement.sql("records.id > ");
    dialect.push_scalar(statement, tie);
    statement.sql(")");
    Ok(())
}

fn push_equal(statement: &mut Statement, dialect: &dyn Dialect, positions: &[Position]) {
    for position in positions {
        match position.value {
            Some(value) => position.push_comparison(statement, dialect, "=", value),
            None => _ = statement.sql(format!("{} IS NULL", position.key.value)),
        }
        statement.sql(" AND ");
    }
}

/// Where a walk stands in one sort key; `None` among the records that lack it.
struct Position<'a> {
    key: &'a Key,
    value: Option<&'a Scalar>,
}

impl Position<'_> {
    fn push_comparison(&self, statement: &mut Statement, dialect: &dyn Dialect, operator: &str, value: &Scalar) {
        statement.sql(format!("{} {operator} ", self.key.value));
        dialect.push_scalar(statement, value);
    }

    fn push_not_before(&self, statement: &mut Statement, dialect: &dyn Dialect) {
        let (operator, value) = match (self.value, self.key.direction) {
            (Some(value), Direction::Ascending) => (">=", value),
            // Where nulls follow, they are a range of their own.
            (Some(value), Direction::Descending) => ("<=", value),
            // Going down, nulls are the tail: only they are left after one, and they follow every value.
            (None, Direction::Descending) => {
                statement.sql(format!(" AND {} IS NULL", self.key.value));
                return;
            }
            (None, Direction::Ascending) => return,
        };
        statement.sql(" AND ");
        self.push_comparison(statement, dialect, operator, value);
    }

    fn push_strictly_after(&self, statement: &mut Statement, dialect: &dyn Dialect) {
        let expression = &self.key.value;
        match (self.value, self.key.direction) {
            (Some(value), Direction::Ascending) => self.push_comparison(statement, dialect, ">", value),
            (Some(value), Direction::Descending) if self.key.nullable => {
                statement.sql("(");
                self.push_comparison(statement, dialect, "<", value);
                statement.sql(format!(" OR {expression} IS NULL)"));
            }
            (Some(value), Direction::Descending) => self.push_comparison(statement, dialect, "<", value),
            (None, Direction::Ascending) => _ = statement.sql(format!("{expression} IS NOT NULL")),
            (None, Direction::Descending) => _ = statement.sql("1 = 0"),
        }
    }
}
