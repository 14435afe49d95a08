//! Raw reading and writing, for `terrace copy`: rows as they stand, past the write path, so that versions, times and
//! sequence numbers survive. It owns the mark of an unfinished copy, and knows nothing of two databases at once.
//!
//! Rows are written in the order of their keys, each batch in one transaction. So the newest key of the target says how
//! far a copy has come, and the mark only has to say of what it is a copy.

mod statements;

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::Store;
use super::connection::{Access, Connection};
use super::database::Database;
use super::dialect::literal;
use super::failure::Failure;
use super::installation::ID;
use super::statement::Statement;
use super::structure::Step;
use crate::error::{Error, Result};
use crate::model::{Collection, CollectionName};

use statements::{
    changes_statement, delete_statement, insert_changes, insert_records, push_ids, record_columns, records_statement, spelling,
};

/// The name of the mark among those of the installation.
const MARK: &str = "copy";

/// One record with every column. `search` is not among them: the database makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct RawRecord {
    /// Its collection.
    #[diesel(sql_type = Text)]
    pub collection: String,
    /// Its id.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// Its version.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    /// The document, as JSON text.
    #[diesel(sql_type = Text)]
    pub data: String,
    /// When it was created.
    #[diesel(sql_type = Text)]
    pub created_at: String,
    /// When it was last written.
    #[diesel(sql_type = Text)]
    pub updated_at: String,
}

/// One row of the change log with every column but the transaction, which is the database's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct RawChange {
    /// Its number.
    #[diesel(sql_type = BigInt)]
    pub position: i64,
    /// The record's collection, which need not be declared any more.
    #[diesel(sql_type = Text)]
    pub collection: String,
    /// The record.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// What happened.
    #[diesel(sql_type = Text)]
    pub operation: String,
    /// The record's version afterwards.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    /// Who did it.
    #[diesel(sql_type = Text)]
    pub actor: String,
    /// From where.
    #[diesel(sql_type = Nullable<Text>)]
    pub origin: Option<String>,
    /// When.
    #[diesel(sql_type = Text)]
    pub at: String,
    /// The document before.
    #[diesel(sql_type = Nullable<Text>)]
    pub before: Option<String>,
    /// The document after.
    #[diesel(sql_type = Nullable<Text>)]
    pub after: Option<String>,
}

/// How much a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The collections that have records, declared or not, and how many.
    pub records: Vec<(String, u64)>,
    /// How many changes the log has.
    pub changes: u64,
}

/// What stands in a target until its copy is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyMark {
    /// The [`Store::copy_identity`] of the source; empty while the target is being emptied.
    pub source: String,
    /// The source's [`Store::copy_counter`] before the first record was read: what was logged later is brought over again.
    pub since: i64,
}

/// How much a batch may hold. A single row may be larger.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    /// Rows.
    pub rows: u32,
    /// Bytes of JSON.
    pub size_bytes: i64,
}

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Nullable<Text>)]
    value: Option<String>,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    collection: String,
    #[diesel(sql_type = BigInt)]
    records: i64,
}

impl Store {
    /// The same text for the same database, whatever the URL that leads to it, and another one for any other.
    pub async fn copy_identity(&self) -> Result<String> {
        self.run("copy_identity", "", Access::Read, |connection| identity(connection).boxed()).await
    }

    /// What there is. Fails if there are no tables.
    pub async fn copy_contents(&self) -> Result<Contents> {
        self.run("copy_contents", "", Access::Read, |connection| contents(connection).boxed()).await
    }

    /// The last number that the change log gave out.
    pub async fn copy_counter(&self) -> Result<i64> {
        self.run("copy_counter", "", Access::Read, |connection| {
            async move { number(connection, Statement::new(spelling(connection).counter)).await }.boxed()
        })
        .await
    }

    /// The mark of a copy into this database that is not whole.
    pub async fn copy_mark(&self) -> Result<Option<CopyMark>> {
        self.run("copy_mark", "", Access::Read, |connection| mark(connection).boxed()).await
    }

    /// Sets the mark, over one that stands.
    pub async fn copy_begin(&self, mark: &CopyMark) -> Result<()> {
        let text: Arc<str> = serde_json::to_string(mark).map_err(Error::internal)?.into();
        self.run("copy_begin", "", Access::Write, move |connection| {
            let text = Arc::clone(&text);
            async move {
                let mut statement = Statement::new("INSERT INTO installation (name, value) VALUES (");
                statement.text(MARK).sql(", ").text(&*text);
                statement.sql(") ON CONFLICT (name) DO UPDATE SET value = excluded.value");
                connection.execute(statement).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// The copy is whole: takes the mark away, and lets the change log go on after the number `counter`. What other places
    /// know of this database under its old id, for example a cache, is no longer true: it gets a new one.
    pub async fn copy_end(&self, counter: i64) -> Result<()> {
        self.run("copy_end", "", Access::Write, move |connection| {
            async move {
                // PostgreSQL has no sequence that stands at 0; one that was never used needs no setting.
                if counter > 0 {
                    connection.execute((spelling(connection).set_counter)(counter)).await?;
                }
                let mut statement = Statement::new("DELETE FROM installation WHERE name IN (");
                statement.text(MARK).sql(", ").text(ID).sql(")");
                connection.execute(statement).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// Makes what rows need to find a place, and no index: filling one at the end takes less time.
    pub async fn copy_structure(&self, collections: &[Arc<Collection>]) -> Result<()> {
        let steps = self.plan(collections).await?;
        let needed: Vec<Step> = match &self.inner.database {
            Database::Sqlite(_) => Vec::new(),
            Database::Postgres(_) => steps.into_iter().filter(|step| !step.is_drop() && !step.is_index()).collect(),
        };
        self.apply(&needed).await
    }

    /// The newest id of a collection, by which its records are ordered.
    pub async fn copy_last_id(&self, collection: &CollectionName) -> Result<Option<String>> {
        let query = format!("SELECT max(id) AS value FROM records WHERE collection = {}", literal(collection));
        self.run("copy_last_id", collection.as_str(), Access::Read, move |connection| {
            let statement = Statement::new(query.clone());
            async move { text(connection, statement).await }.boxed()
        })
        .await
    }

    /// The newest number in the change log; 0 for an empty one.
    pub async fn copy_last_change(&self) -> Result<i64> {
        self.run("copy_last_change", "", Access::Read, |connection| {
            async move { number(connection, Statement::new("SELECT coalesce(max(position), 0) AS value FROM changes")).await }
                .boxed()
        })
        .await
    }

    /// The next records after the id `after`, by id; none is the end.
    pub async fn copy_records(&self, collection: &CollectionName, after: &str, limit: BatchLimit) -> Result<Vec<RawRecord>> {
        let request = Arc::new((collection.clone(), after.to_owned()));
        self.run("copy_records", collection.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move { Ok(connection.load(records_statement(connection, &request.0, &request.1, limit)).await?) }.boxed()
        })
        .await
    }

    /// Those of the records `ids` that there are.
    pub async fn copy_records_of(&self, collection: &CollectionName, ids: Vec<String>) -> Result<Vec<RawRecord>> {
        let request = Arc::new((collection.clone(), ids));
        self.run("copy_records_of", collection.as_str(), Access::Read, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let mut statement = Statement::new(format!(
                    "SELECT {} FROM records WHERE collection = {} AND id",
                    record_columns(connection),
                    literal(&request.0)
                ));
                push_ids(connection, &mut statement, &request.1);
                Ok(connection.load(statement).await?)
            }
            .boxed()
        })
        .await
    }

    /// The next changes after the number `after`; none is the end.
    pub async fn copy_changes(&self, after: i64, limit: BatchLimit) -> Result<Vec<RawChange>> {
        self.run("copy_changes", "", Access::Read, move |connection| {
            async move { Ok(connection.load(changes_statement(connection, after, limit)).await?) }.boxed()
        })
        .await
    }

    /// Writes records that are not there yet.
    pub async fn copy_write_records(&self, records: &[RawRecord]) -> Result<()> {
        let request = Arc::new(by_collection(records)?);
        self.run("copy_write_records", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                for (collection, texts) in &*request {
                    insert_records(connection, collection, texts).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// Writes changes that are not there yet, and gives the records `touched` the state that `records` has for them: a
    /// record that is missing there is removed.
    pub async fn copy_write_changes(
        &self,
        changes: &[RawChange],
        touched: Vec<(CollectionName, Vec<String>)>,
        records: &[RawRecord],
    ) -> Result<()> {
        let changes = serde_json::to_string(changes).map_err(Error::internal)?;
        let request = Arc::new((changes, touched, by_collection(records)?));
        self.run("copy_write_changes", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (changes, touched, records) = &*request;
                for (collection, ids) in touched {
                    let mut statement = delete_statement(connection, collection);
                    statement.sql("id");
                    push_ids(connection, &mut statement, ids);
                    connection.execute(statement).await?;
                }
                for (collection, texts) in records {
                    insert_records(connection, collection, texts).await?;
                }
                insert_changes(connection, changes).await
            }
            .boxed()
        })
        .await
    }

    /// Removes up to `limit` records of a collection; returns how many.
    pub async fn copy_remove_records(&self, collection: &str, limit: u32) -> Result<u64> {
        let request = Arc::new(CollectionName::parse(collection).map_err(Error::internal)?);
        self.run("copy_remove_records", collection, Access::Write, move |connection| {
            let collection = Arc::clone(&request);
            async move {
                let mut statement = delete_statement(connection, &collection);
                statement.sql(format!("id IN (SELECT id FROM records WHERE collection = {}", literal(&collection)));
                statement.sql(" ORDER BY id LIMIT ").bigint(i64::from(limit)).sql(")");
                Ok(connection.execute(statement).await? as u64)
            }
            .boxed()
        })
        .await
    }

    /// Removes up to `limit` changes; returns how many.
    pub async fn copy_remove_changes(&self, limit: u32) -> Result<u64> {
        self.run("copy_remove_changes", "", Access::Write, move |connection| {
            async move {
                let mut statement = Statement::new(
                    "DELETE FROM changes WHERE position IN (SELECT position FROM changes ORDER BY position LIMIT ",
                );
                statement.bigint(i64::from(limit)).sql(")");
                Ok(connection.execute(statement).await? as u64)
            }
            .boxed()
        })
        .await
    }
}

/// The texts of the records of each collection.
fn by_collection(records: &[RawRecord]) -> Result<Vec<(CollectionName, String)>> {
    let text = |part: &[RawRecord]| {
        let name = part.first().map(|record| CollectionName::parse(&record.collection));
        let name = name.unwrap_or_else(|| Err(Error::internal("no records")))?;
        Ok((name, serde_json::to_string(part).map_err(Error::internal)?))
    };
    records.chunk_by(|one, next| one.collection == next.collection).map(text).collect()
}

async fn text(connection: &mut Connection<'_>, statement: Statement) -> Result<Option<String>, Failure> {
    let rows: Vec<TextRow> = connection.load(statement).await?;
    Ok(rows.into_iter().next().and_then(|row| row.value))
}

async fn number(connection: &mut Connection<'_>, statement: Statement) -> Result<i64, Failure> {
    let rows: Vec<NumberRow> = connection.load(statement).await?;
    Ok(rows.first().map_or(0, |row| row.value))
}

async fn identity(connection: &mut Connection<'_>) -> Result<String, Failure> {
    let found = text(connection, Statement::new(spelling(connection).identity)).await?;
    let found = found.ok_or_else(|| Error::internal("the database does not say which it is"))?;
    match connection {
        Connection::Postgres(_) => Ok(format!("postgres {found}")),
        // Links lead to the same file.
        Connection::Sqlite(_) => {
            let file = std::fs::metadata(&found).map_err(Error::internal)?;
            Ok(format!("sqlite {}:{}", file.dev(), file.ino()))
        }
    }
}

async fn contents(connection: &mut Connection<'_>) -> Result<Contents, Failure> {
    let query = "SELECT collection, count(*) AS records FROM records GROUP BY collection ORDER BY collection";
    let records: Vec<CountRow> = connection.load(Statement::new(query)).await?;
    let changes = number(connection, Statement::new("SELECT count(*) AS value FROM changes")).await?;
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(Contents {
        records: records.into_iter().map(|row| (row.collection, count(row.records))).collect(),
        changes: count(changes),
    })
}

async fn mark(connection: &mut Connection<'_>) -> Result<Option<CopyMark>, Failure> {
    let mut statement = Statement::new("SELECT value FROM installation WHERE name = ");
    statement.text(MARK);
    let found = text(connection, statement).await?;
    Ok(found.map(|text| serde_json::from_str(&text).map_err(Error::internal)).transpose()?)
}
