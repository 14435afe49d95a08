//! Reads: one record, a page, a count, a scan. Each is one statement, so each sees one state of the database.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::QueryResult;
use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::connection::{Connection, Task};
use super::contract::{Row, Shape};
use super::dialect::{Dialect, Sought, push_is_in};
use super::failure::Failure;
use super::filter::{push_owner, push_selection};
use super::highlight::{Marks, all_words};
use super::order::{self, Key, Range};
use super::projection::{push_document, push_included, splice};
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{Collection, Paging, Query, Record, RecordId, Scalar, SearchExpression, Selection};

#[derive(QueryableByName)]
struct DocumentRow {
    #[diesel(sql_type = Text)]
    data: String,
    #[diesel(sql_type = Nullable<Text>)]
    cursor: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    included: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    highlights: Option<String>,
}

#[derive(QueryableByName)]
pub(super) struct RecordRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Text)]
    data: String,
}

#[derive(QueryableByName)]
struct StemRow {
    #[diesel(sql_type = Text)]
    word: String,
    #[diesel(sql_type = Text)]
    stem: String,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    total: i64,
}

impl RecordRow {
    /// Whether the statement has left out a document that it found too large.
    pub fn is_withheld(&self) -> bool {
        self.data.is_empty()
    }

    pub fn into_record(self) -> Result<Record> {
        Ok(Record { id: stored_id(&self.id)?, version: self.version, data: self.data })
    }
}

/// An id as the database has it. It was checked when it was written.
pub(super) fn stored_id(text: &str) -> Result<RecordId> {
    RecordId::parse(text).map_err(|reason| Error::internal(format!("the database has the id {text:?}: {reason}")))
}

/// Which columns the rows of a read have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    /// Only the document, as most reads want it.
    Document,
    /// Those of [`DocumentRow`].
    All,
}

fn columns_of_record(shape: &Shape) -> Columns {
    if shape.include.is_empty() { Columns::Document } else { Columns::All }
}

fn columns_of_page(query: &Query, marks: Option<&Marks>) -> Columns {
    match query.paging {
        Paging::Page { .. } if query.include.is_empty() && marks.is_none() => Columns::Document,
        Paging::Page { .. } | Paging::Cursor { .. } => Columns::All,
    }
}

async fn plain_rows(connection: &mut Connection<'_>, statement: Statement) -> QueryResult<Vec<Row>> {
    let documents = connection.load_documents(statement).await?;
    Ok(documents.into_iter().map(|data| Row { data, cursor: None }).collect())
}

/// One record, in the shape that the request asks for.
pub(super) struct One {
    pub(super) collection: Arc<Collection>,
    pub(super) id: RecordId,
    pub(super) shape: Arc<Shape>,
}

impl Task<Option<Row>> for One {
    async fn run(&self, connection: &mut Connection<'_>) -> Result<Option<Row>, Failure> {
        let Self { collection, id, shape } = self;
        let statement = one_statement(connection.dialect(), collection, id, shape)?;
        match columns_of_record(shape) {
            Columns::Document => Ok(connection.load_document(statement).await?.map(|data| Row { data, cursor: None })),
            Columns::All => {
                let mut rows: Vec<DocumentRow> = connection.load(statement).await?;
                rows.pop().map(|row| Ok(into_row(row, collection, None)?)).transpose()
            }
        }
    }
}

pub(super) fn one_statement(dialect: &dyn Dialect, collection: &Collection, id: &RecordId, shape: &Shape) -> Result<Statement> {
    let mut statement = Statement::new("SELECT ");
    push_document(&mut statement, dialect, collection, shape.fields.as_deref());
    statement.sql(" AS data");
    if columns_of_record(shape) == Columns::All {
        statement.sql(", CAST(NULL AS text) AS cursor, CAST(NULL AS text) AS highlights, ");
        push_included(&mut statement, dialect, collection, &shape.include)?;
    }
    push_from(&mut statement, dialect, collection);
    statement.sql(" AND records.id = ").text(id.as_str());
    push_owner(&mut statement, dialect, shape.owner.as_ref())?;
    Ok(statement)
}

/// Appends ` FROM … WHERE …` for all records.
fn push_from(statement: &mut Statement, dialect: &dyn Dialect, collection: &Collection) {
    statement.sql(" FROM ");
    dialect.push_table(statement, &collection.name, "records");
    statement.sql(" WHERE ");
    push_is_in(statement, &collection.name, "records");
}

/// One page.
pub(super) async fn page(connection: &mut Connection<'_>, collection: &Collection, query: &Query) -> Result<Vec<Row>, Failure> {
    if query.selection.search.as_ref().is_some_and(|search| search.matches_nothing()) {
        return Ok(Vec::new());
    }
    let marks = (query.highlight && query.selection.search.is_some()).then(Marks::random);
    let statement = page_statement(connection.dialect(), collection, query, marks.as_ref())?;
    if columns_of_page(query, marks.as_ref()) == Columns::Document {
        return Ok(plain_rows(connection, statement).await?);
    }
    let mut rows: Vec<DocumentRow> = connection.load(statement).await?;
    if let Some((marks, expression)) = marks.as_ref().zip(query.selection.search.as_ref()) {
        mark_matches(connection, collection, expression, marks, &mut rows).await?;
    }
    rows.into_iter().map(|row| Ok(into_row(row, collection, marks.as_ref())?)).collect()
}

/// Marks what matched, where the database has not done it: it is asked for the stems of all words once.
async fn mark_matches(
    connection: &mut Connection<'_>,
    collection: &Collection,
    expression: &SearchExpression,
    marks: &Marks,
    rows: &mut [DocumentRow],
) -> Result<(), Failure> {
    let words = all_words(expression, rows.iter().filter_map(|row| row.highlights.as_deref()))?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some(statement) = connection.dialect().search(collection, expression).stems(&words) else { return Ok(()) };
    let stems: Vec<StemRow> = connection.load(statement).await?;
    let stems: HashMap<String, String> = stems.into_iter().map(|row| (row.word, row.stem)).collect();
    for texts in rows.iter_mut().filter_map(|row| row.highlights.as_mut()) {
        *texts = marks.mark(expression, texts, &stems)?;
    }
    Ok(())
}

/// First the page, then what of its records goes into the body: nothing is made of what is sorted or skipped.
pub(super) fn page_statement(
    dialect: &dyn Dialect,
    collection: &Collection,
    query: &Query,
    marks: Option<&Marks>,
) -> Result<Statement> {
    let search = query.selection.search.as_ref().map(|expression| dialect.search(collection, expression));
    let keys = order::keys(dialect, collection, query, search.as_ref().map(|search| search.rank()))?;

    let mut statement = Statement::new("WITH ");
    push_page(&mut statement, dialect, collection, query, &keys)?;

    let columns = columns_of_page(query, marks);
    let gathered = dialect.gathered().filter(|_| columns == Columns::Document);
    let (before, behind) = gathered.unwrap_or_default();
    statement.sql(" SELECT ").sql(before);
    push_document(&mut statement, dialect, collection, query.fields.as_deref());
    statement.sql(behind).sql(" AS data");
    let highlighted = search.as_ref().zip(marks);
    if columns == Columns::All {
        match query.paging {
            Paging::Page { .. } => _ = statement.sql(", CAST(NULL AS text) AS cursor, "),
            Paging::Cursor { .. } => {
                let values = keys.iter().map(|key| key.json.clone()).chain(["tie".to_owned()]);
                statement.sql(format!(", {} AS cursor, ", dialect.json_array(&values.collect::<Vec<_>>())));
            }
        }
        push_included(&mut statement, dialect, collection, &query.include)?;
        match &highlighted {
            Some((search, marks)) => {
                statement.sql(", ");
                search.push_highlights(&mut statement, &marks.open, &marks.close);
                statement.sql(" AS highlights");
            }
            None => _ = statement.sql(", CAST(NULL AS text) AS highlights"),
        }
    }
    statement.sql(format!(" FROM {}", dialect.page_source()));
    if let Some((search, _)) = &highlighted {
        search.push_highlight_join(&mut statement);
    }
    // What is gathered stays in the order of the page.
    if gathered.is_none() {
        order::push_order(&mut statement, &keys);
    }
    Ok(statement)
}

/// Appends the table `page`. Where missing values follow all others, what a cursor has before it is two ranges of an index,
/// and as one condition it would be none: they are read one after the other, the second only if the first has an end.
fn push_page(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    query: &Query,
    keys: &[Key],
) -> Result<()> {
    // The limit is part of the text: it takes a hundred values, and a planner who did not know it would sort the whole
    // collection rather than walk along an index.
    let limit = query.paging.limit() + 1;
    let push_range = |statement: &mut Statement, after: Option<(&[Option<Scalar>], Range)>| {
        statement.sql(format!("SELECT {}", dialect.page_columns()));
        order::push_columns(statement, keys);
        let sought = if query.sort.is_empty() { Sought::Ranked } else { Sought::Matches };
        push_from_selection(statement, dialect, collection, &query.selection, sought)?;
        if let Some((after, range)) = after {
            order::push_after(statement, dialect, keys, after, range)?;
            if range == Range::Missing {
                statement.sql(format!(" AND (SELECT count(*) FROM present) < {limit}"));
            }
        }
        order::push_order(statement, keys);
        statement.sql(format!(" LIMIT {limit}"));
        Ok::<_, Error>(())
    };
    let page = format!("page AS {}(", dialect.page_hint());
    match &query.paging {
        Paging::Page { page: number, limit } => {
            statement.sql(page);
            push_range(statement, None)?;
            if *number > 1 {
                let offset = (number - 1).saturating_mul(u64::from(*limit));
                statement.sql(" OFFSET ").bigint(i64::try_from(offset).unwrap_or(i64::MAX));
            }
        }
        Paging::Cursor { after: Some(after), .. } if order::has_missing_behind(keys, after) => {
            statement.sql("present AS MATERIALIZED (");
            push_range(statement, Some((after, Range::Present)))?;
            statement.sql(format!("), {page}SELECT * FROM (SELECT * FROM present UNION ALL SELECT * FROM ("));
            push_range(statement, Some((after, Range::Missing)))?;
            statement.sql(") AS missing) AS ranges");
            order::push_order(statement, keys);
            statement.sql(format!(" LIMIT {limit}"));
        }
        Paging::Cursor { after, .. } => {
            statement.sql(page);
            push_range(statement, after.as_deref().map(|after| (after, Range::Whole)))?;
        }
    }
    statement.sql(")");
    Ok(())
}

/// Appends ` FROM … WHERE …` for the records of a selection.
fn push_from_selection(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    selection: &Selection,
    sought: Sought,
) -> Result<()> {
    statement.sql(" FROM ");
    match &selection.search {
        Some(expression) => {
            let search = dialect.search(collection, expression);
            search.push_source(statement, sought);
            statement.sql(" WHERE ");
            search.push_condition(statement);
            statement.sql(" AND ");
        }
        None => {
            dialect.push_table(statement, &collection.name, "records");
            statement.sql(" WHERE ");
        }
    }
    push_selection(statement, dialect, collection, selection.filter.as_ref())
}

fn into_row(row: DocumentRow, collection: &Collection, marks: Option<&Marks>) -> Result<Row> {
    let mut data = row.data;
    if let Some(included) = &row.included {
        splice(&mut data, "_include", included);
    }
    if let Some((marks, highlights)) = marks.zip(row.highlights) {
        splice(&mut data, "_highlight", &marks.object(collection, &highlights)?);
    }
    Ok(Row { data: data.into(), cursor: row.cursor })
}

/// How many records there are.
pub(super) async fn count(
    connection: &mut Connection<'_>,
    collection: &Collection,
    selection: &Selection,
) -> Result<u64, Failure> {
    if selection.search.as_ref().is_some_and(|search| search.matches_nothing()) {
        return Ok(0);
    }
    let mut rows: Vec<CountRow> = match tallied_statement(connection.dialect(), collection, selection) {
        Some(statement) => connection.load(statement).await?,
        None => Vec::new(),
    };
    if rows.is_empty() {
        rows = connection.load(count_statement(connection.dialect(), collection, selection)?).await?;
    }
    Ok(rows.first().map_or(0, |row| u64::try_from(row.total).unwrap_or_default()))
}

/// The same from tallies, if they may have it: no row unless they are complete.
pub(super) fn tallied_statement(dialect: &dyn Dialect, collection: &Collection, selection: &Selection) -> Option<Statement> {
    match selection {
        Selection { search: Some(_), .. } => None,
        Selection { search: None, filter } => dialect.tallies(collection)?.count_statement(filter.as_ref()),
    }
}

pub(super) fn count_statement(dialect: &dyn Dialect, collection: &Collection, selection: &Selection) -> Result<Statement> {
    let mut statement = Statement::new("SELECT count(*) AS total");
    push_from_selection(&mut statement, dialect, collection, selection, Sought::Matches)?;
    Ok(statement)
}

/// The next records by id.
pub(super) async fn scan(
    connection: &mut Connection<'_>,
    collection: &Collection,
    after: Option<&RecordId>,
    limit: u32,
) -> Result<Vec<Record>, Failure> {
    let rows: Vec<RecordRow> = connection.load(scan_statement(connection.dialect(), collection, after, limit)).await?;
    rows.into_iter().map(|row| Ok(row.into_record()?)).collect()
}

pub(super) fn scan_statement(dialect: &dyn Dialect, collection: &Collection, after: Option<&RecordId>, limit: u32) -> Statement {
    let mut statement = Statement::new(format!("SELECT records.id, records.version, {} AS data", dialect.document("records")));
    push_from(&mut statement, dialect, collection);
    // No id is empty.
    statement.sql(" AND records.id > ").text(after.map_or("", RecordId::as_str));
    statement.sql(format!(" ORDER BY records.id LIMIT {limit}"));
    statement
}

/// Fails if the tables cannot be read.
pub(super) async fn ping(connection: &mut Connection<'_>) -> Result<(), Failure> {
    let statement = Statement::new("SELECT count(*) AS total FROM (SELECT 1 FROM records LIMIT 1) AS probe");
    let _rows: Vec<CountRow> = connection.load(statement).await?;
    Ok(())
}
