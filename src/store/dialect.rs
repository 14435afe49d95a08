//! What differs between databases: how they spell JSON, arrays, lists and full-text search. Everything else is one
//! logic. Names that end up in SQL text are names of declared collections and fields, checked by
//! [`is_safe_name`]; values are always bound.

use super::statement::Statement;
use crate::model::{Collection, CollectionName, Field, Position, Scalar, SearchExpression, Snapshot};

/// Whether a field's name can stand in a quoted JSON path inside of an SQL literal as it is.
pub(super) fn is_safe_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|character| character.is_control() || matches!(character, '\'' | '"' | '\\'))
}

/// One set of spellings.
pub(super) trait Dialect: Send + Sync {
    /// A member of `data` as a value that compares as its type does. The same text stands in indexes.
    fn value(&self, field: &str, kind: Field) -> String;

    /// A member of `data` as JSON; SQL's null if it is missing.
    fn json(&self, field: &str) -> String;

    /// The same with the name bound, for members that no index is about: the statement's text stays the same.
    fn bound_json(&self, statement: &mut Statement, field: &str);

    /// A JSON array of expressions, as text.
    fn json_array(&self, elements: &[String]) -> String;

    /// A value expression as JSON text, for statistics.
    fn quoted(&self, value: &str) -> String;

    /// Appends `= any of values`.
    fn push_in(&self, statement: &mut Statement, values: &[Scalar]);

    /// Appends a bound list of texts as a set that can stand after `IN`.
    fn push_text_set(&self, statement: &mut Statement, texts: &[&str]);

    /// Appends "this record's array `field` has one of `values`"; one value is an equality.
    fn push_array_has(&self, statement: &mut Statement, collection: &Collection, field: &str, values: &[Scalar]);

    /// What a left join takes for one row, as `element (value)`, for each scalar element of the array `field` of `data`.
    fn elements(&self, data: &str, field: &str) -> String;

    /// The full-text search of a collection.
    fn search<'a>(&self, collection: &'a Collection, expression: &'a SearchExpression) -> Box<dyn SearchDialect + 'a>;

    /// Appends the rows of a bound JSON array of objects as `write (ordinal, value)`.
    fn push_writes(&self, statement: &mut Statement, writes: &str);

    /// A text member of `write.value`.
    fn write_text(&self, member: &str) -> String;

    /// A whole number of `write.value`.
    fn write_number(&self, member: &str) -> String;

    /// What the declared collections need.
    fn artifacts(&self, collection: &Collection) -> crate::error::Result<Vec<super::structure::Artifact>>;

    // The change log.

    /// The transaction of a row of `changes`, as a whole number.
    fn change_transaction(&self) -> &'static str;

    /// A document column of `changes` as text.
    fn change_document(&self, column: &str) -> String;

    /// A query of one row: what the statement that it stands in sees, as `next` and, a JSON array, `in_progress`.
    fn snapshot(&self) -> &'static str;

    /// Appends a query for the keys `(transaction_id, position)` of the first `limit` changes that `seen` did not see, by
    /// both, after `after`.
    fn push_unseen(&self, statement: &mut Statement, seen: &Snapshot, after: Option<Position>, limit: u32);

    /// What ends a query for rows of `changes` that are about to be deleted, when other processes may do the same.
    fn change_lock(&self) -> &'static str;
}

/// The spelling of one search over one collection.
pub(super) trait SearchDialect {
    /// Appends the source to select from: it has one row for each match, joined with `records`.
    fn push_source(&self, statement: &mut Statement);

    /// Appends the condition.
    fn push_condition(&self, statement: &mut Statement);

    /// An expression by which better matches come first, going up.
    fn rank(&self) -> String;

    /// Appends a join that gives the matches of the records on `page (record)` their highlights.
    fn push_highlight_join(&self, statement: &mut Statement);

    /// Appends a JSON array: the text of each search field with the bound marks around what matched.
    fn push_highlights(&self, statement: &mut Statement, open: &str, close: &str);
}

/// A collection's name as an SQL literal. It may also stand in one, for its alphabet has no quotes.
pub(super) fn literal(name: &CollectionName) -> String {
    format!("'{name}'")
}
