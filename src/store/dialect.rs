//! What differs between databases: how they spell JSON, arrays, lists and full-text search. Everything else is one
//! logic. Names that end up in SQL text are names of declared collections and fields, checked by
//! [`is_safe_name`]; values are always bound.

use super::column::Column;
use super::postgres::Tallies;
use super::statement::Statement;
use crate::model::{Collection, CollectionName, Field, Position, Ranking, Scalar, SearchExpression, Snapshot};

/// Whether a field's name can stand in a quoted JSON path inside of an SQL literal as it is.
pub(super) fn is_safe_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|character| character.is_control() || matches!(character, '\'' | '"' | '\\'))
}

/// A way to count how often each value of several fields occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statistics {
    /// Each field by itself, along the index that has it.
    FieldByField,
    /// All fields in one reading of the records, which costs much more than the counting.
    Together,
}

/// One set of spellings. `row` is `records.`, or empty in the definition of an index.
pub(super) trait Dialect: Send + Sync {
    /// Appends the table that holds the records of `collection`, as `alias`.
    fn push_table(&self, statement: &mut Statement, collection: &CollectionName, alias: &str);

    /// The same as text.
    fn table(&self, collection: &CollectionName, alias: &str) -> String {
        let mut table = Statement::default();
        self.push_table(&mut table, collection, alias);
        table.into_sql()
    }

    /// What finds a row again within the statement at the least cost.
    fn row_key(&self) -> &'static str;

    /// What stands between `AS` and the query of the table `page`.
    fn page_hint(&self) -> &'static str;

    /// What the table `page` has of each record beside the sort keys `k0`, `k1`, … and `tie`.
    fn page_columns(&self) -> &'static str;

    /// What the documents of a page are then selected from: its rows with their keys and, as `records`, their records.
    fn page_source(&self) -> &'static str;

    /// What stands before and behind the documents of a page to get one array of them, in the order of the page; `None` where a
    /// row for each costs no more.
    fn gathered(&self) -> Option<(&'static str, &'static str)>;

    /// What stands behind a column of documents to get their text.
    fn as_text(&self) -> &'static str;

    /// The document of a row of `alias`, as text.
    fn document(&self, alias: &str) -> String {
        format!("{alias}.data{}", self.as_text())
    }

    /// A member of `data` as a value that compares as its type does. The same text stands in indexes.
    fn value(&self, row: &str, field: &str, kind: Field) -> String;

    /// A member of `data` as JSON; SQL's null if it is missing.
    fn json(&self, row: &str, field: &str) -> String;

    /// Appends the same as text, with the name bound, for members that no index is about: the statement's text stays
    /// the same.
    fn push_member(&self, statement: &mut Statement, field: &str);

    /// Appends a scalar to compare a [`Self::value`] with.
    fn push_scalar(&self, statement: &mut Statement, scalar: &Scalar);

    /// A JSON array of expressions, as text.
    fn json_array(&self, elements: &[String]) -> String;

    /// How the values of several fields are counted.
    fn statistics(&self) -> Statistics;

    /// What is already counted of a collection, where a database keeps that.
    fn tallies<'c>(&self, collection: &'c Collection) -> Option<Tallies<'c>>;

    /// A value expression as JSON text, for statistics.
    fn quoted(&self, value: &str) -> String;

    /// Appends `= any of values`, after the value of `column`.
    fn push_in(&self, statement: &mut Statement, column: &Column, values: &[Scalar]);

    /// Appends `= any of texts`.
    fn push_in_texts(&self, statement: &mut Statement, texts: &[&str]);

    /// Appends "this record's array `field` has one of `values`"; one value is an equality.
    fn push_array_has(&self, statement: &mut Statement, collection: &Collection, field: &str, values: &[Scalar]);

    /// What a left join takes for one row, as `element (value)`, for each scalar element of the array `field` of `data`.
    fn elements(&self, data: &str, field: &str) -> String;

    /// What the ranks of searches follow from.
    fn ranking(&self) -> Ranking;

    /// The full-text search of a collection.
    fn search<'a>(&self, collection: &'a Collection, expression: &'a SearchExpression) -> Box<dyn SearchDialect + 'a>;

    /// Appends the rows of a bound JSON array of objects as `write`.
    fn push_writes(&self, statement: &mut Statement, writes: &str);

    /// A member of a row of `write`: a text or a whole number, as it was sent.
    fn write_member(&self, member: &str) -> String;

    /// A text of a row of `write` that is a document.
    fn write_document(&self, member: &str) -> String;

    /// What a reading statement ends with if its rows are then written: nobody else can write or delete them until the
    /// transaction ends. Whoever only refers to them is not kept waiting.
    fn lock_to_write(&self) -> &'static str;

    /// The same if something is then written that refers to its rows: nobody can delete them meanwhile.
    fn lock_to_refer(&self) -> &'static str;

    /// What the declared collections need.
    fn artifacts(&self, collection: &Collection) -> crate::error::Result<Vec<super::structure::Artifact>>;

    // The change log.

    /// The transaction of a row of `changes`, as a whole number.
    fn change_transaction(&self) -> &'static str;

    /// A document column of `changes` as text.
    fn change_document(&self, column: &str) -> String {
        format!("changes.{column}{}", self.as_text())
    }

    /// A query of one row: what the statement that it stands in sees, as `next` and, a JSON array, `in_progress`; and which
    /// run of the server it is, as `server_run` and `timeline`.
    fn snapshot(&self) -> &'static str;

    /// Appends a query for the first `limit` rows of `changes` that `seen` did not see, by position, after `after`, and of one
    /// collection if it is given. Its cost is that of these rows, and of those of other collections between them.
    fn push_unseen(
        &self,
        statement: &mut Statement,
        of: Option<&CollectionName>,
        seen: &Snapshot,
        after: Option<Position>,
        limit: u32,
    );

    /// Appends a query for the first of `rows`, a query of whole rows of `changes` in `order`: up to the one with whose documents
    /// there are [`PAGE_BYTES`]. Their documents are text. Whatever a row costs to read, no page is larger than that and one row.
    fn push_page_of_changes(&self, statement: &mut Statement, rows: Statement, order: &str);

    /// What a statement orders rows of `changes` by, to have them as they were written.
    fn change_order(&self) -> &'static str;

    /// What ends a query for rows of `changes` that are about to be deleted, when other processes may do the same.
    fn change_lock(&self) -> &'static str;
}

/// How many bytes of documents end a page of the change log: either document of a change may be as large as a request, and
/// followers, lists and the reconciler all hold a page at once.
pub(super) const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// How large the documents of all rows before this one are; null for the first.
pub(super) fn size_before(order: &str) -> String {
    format!(
        "sum(coalesce(octet_length(before), 0) + coalesce(octet_length(after), 0)) \
         OVER (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS size_before"
    )
}

/// Whether a page may have ended because of the size of its documents.
pub(super) fn is_full<'a>(documents: impl Iterator<Item = Option<&'a str>>) -> bool {
    documents.flatten().map(str::len).sum::<usize>() >= PAGE_BYTES
}

/// What a statement wants of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// What matches.
    Matches,
    /// The same in the order of [`SearchDialect::rank`].
    Ranked,
}

/// The spelling of one search over one collection.
pub(super) trait SearchDialect {
    /// Appends the source to select from: it has one row for each match, joined with `records`.
    fn push_source(&self, statement: &mut Statement, sought: Sought);

    /// Appends the condition.
    fn push_condition(&self, statement: &mut Statement);

    /// An expression by which better matches come first, going up.
    fn rank(&self) -> String;

    /// Appends a join that gives the matches of the records on `page (record)` their highlights.
    fn push_highlight_join(&self, statement: &mut Statement);

    /// Appends a JSON array with the text of each search field: between `open` and `close`, which are bound, what matched; or
    /// the text as it is, if [`Self::stems`] has a statement by which `store::highlight` then marks it.
    fn push_highlights(&self, statement: &mut Statement, open: &str, close: &str);

    /// For a database that does not mark matches (`None`: it does): a statement with a row `(word, stem)` for each of
    /// `words`. Words match if their stems are the same.
    fn stems(&self, words: &[&str]) -> Option<Statement>;
}

/// The condition that a row of [`Dialect::table`] is a record of `collection`. The name stands there literally: only then
/// does SQLite use the collection's partial indexes, and PostgreSQL the order that the primary key has behind it.
pub(super) fn push_is_in(statement: &mut Statement, collection: &CollectionName, alias: &str) {
    // A name may stand in a literal, for its alphabet has no quotes.
    statement.sql(alias).sql(".collection = '").sql(collection.as_str()).sql("'");
}

/// The same as text.
pub(super) fn is_in(collection: &CollectionName, alias: &str) -> String {
    let mut condition = Statement::default();
    push_is_in(&mut condition, collection, alias);
    condition.into_sql()
}

/// The condition that a change is one of `collection`, behind others; nothing for all.
pub(super) fn and_of(collection: Option<&CollectionName>) -> String {
    collection.map(|name| format!(" AND changes.collection = {}", literal(name))).unwrap_or_default()
}

/// A collection's name as an SQL literal. It may also stand in one, for its alphabet has no quotes.
pub(super) fn literal(name: &CollectionName) -> String {
    format!("'{name}'")
}
