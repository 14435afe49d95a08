//! Writes that are done once: the answer to a write is kept beside it, in the same transaction, under the key that its client
//! gave. So a crash leaves both or neither, and whoever sends the request again gets the answer instead of a second write.
//!
//! A write claims its key before anything else. On PostgreSQL another write with the same key waits for the row of the first one
//! there, until that has ended, and then reads what it left; on SQLite writers go one by one anyway. A write that fails takes its
//! claim back with everything else.

use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use futures_util::FutureExt as _;

use super::Store;
use super::connection::{Access, Connection};
use super::contract::{Author, Committed, Planner};
use super::dialect::Dialect;
use super::failure::{Failure, RETRY_AFTER};
use super::statement::Statement;
use super::turns::Name;
use super::write::write;
use crate::error::{Error, Result};
use crate::model::{Collection, Position, RecordId};

/// How often a write whose commit was cut off is looked for, or done again.
const MAX_ATTEMPTS: usize = 3;

/// Makes the answer to a write, within its transaction.
pub type Answering = Arc<dyn Fn(&Committed) -> Result<KeptAnswer> + Send + Sync>;

/// What makes a write one that is done once.
#[derive(Clone)]
pub struct Once {
    /// Whose keys these are.
    pub actor: String,
    /// The key.
    pub key: String,
    /// What the request is about: another one under the same key is refused.
    pub fingerprint: String,
    /// Now, as [`crate::model::timestamp_text`] spells it.
    pub now: String,
    /// What was answered before this time is forgotten.
    pub since: String,
    /// What is kept.
    pub answering: Answering,
}

/// An answer as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// The position of the last change; `None` if nothing changed.
    pub position: Option<Position>,
    /// Its headers, as far as they are about the write.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// What came of a write that is done once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnceOutcome {
    /// It was done now.
    Done(Committed),
    /// It was done before, and this was answered.
    Kept(KeptAnswer),
    /// The key was used for another request.
    Reused,
}

#[derive(QueryableByName)]
struct ClaimRow {
    #[diesel(sql_type = Text)]
    #[expect(dead_code, reason = "a row says enough")]
    key: String,
}

#[derive(QueryableByName)]
struct KeptRow {
    #[diesel(sql_type = Text)]
    fingerprint: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    status: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    position: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    headers: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    body: Option<String>,
}

impl Store {
    /// Like [`Store::record_write`], but once for each key: a write that was done is answered as it was then. One that is being
    /// done, by whichever process, is waited for.
    ///
    /// Where nobody knows whether a commit was carried out this asks again: the key tells.
    pub async fn record_write_once(
        &self,
        collection: &Arc<Collection>,
        author: Author,
        ids: Vec<RecordId>,
        planner: Planner,
        once: Once,
    ) -> Result<OnceOutcome> {
        let database = &self.inner.database;
        let request = Arc::new((Arc::clone(collection), author, ids, planner, once));
        let work = async {
            let once = &request.4;
            let _key = database.turn(|| Name::Key(once.actor.clone(), once.key.clone())).await?;
            let _record = match &*request.2 {
                [only] => database.turn(|| Name::Record(collection.name.clone(), only.clone())).await?,
                _ => None,
            };
            let mut attempts = 1;
            loop {
                let request = Arc::clone(&request);
                let outcome = database.run("record_write_once", Access::Write, move |connection| {
                    let request = Arc::clone(&request);
                    async move {
                        let (collection, author, ids, planner, once) = &*request;
                        write_once(connection, collection, author, ids, planner, once).await
                    }
                    .boxed()
                });
                match outcome.await {
                    Err(Failure::Unknown(_)) if attempts < MAX_ATTEMPTS => attempts += 1,
                    Err(Failure::Unknown(error)) => return Err(unknown(&error)),
                    outcome => return outcome,
                }
            }
        };
        self.measured("record_write_once", collection.name.as_str(), Box::pin(work)).await
    }

    /// Removes up to `limit` answers that were kept before the time `before`; says how many.
    pub async fn idempotency_prune(&self, before: &str, limit: u32) -> Result<u64> {
        let before: Arc<str> = before.into();
        self.run("idempotency_prune", "", Access::Write, move |connection| {
            let before = Arc::clone(&before);
            async move { Ok(connection.execute(prune_statement(connection.dialect(), &before, limit)).await? as u64) }.boxed()
        })
        .await
    }
}

fn unknown(error: &Error) -> Failure {
    let detail = "The connection to the database (database.url) was lost during the commit: the write may or may not have \
                  happened. Send it again with the same Idempotency-Key: it is done once.";
    Failure::Unknown(Error::unavailable(detail, RETRY_AFTER, error))
}

/// Runs inside of a writing transaction; an error rolls it back, and with it the claim.
async fn write_once(
    connection: &mut Connection<'_>,
    collection: &Collection,
    author: &Author,
    ids: &[RecordId],
    planner: &Planner,
    once: &Once,
) -> Result<OnceOutcome, Failure> {
    let claimed: Vec<ClaimRow> = connection.load(claim_statement(once)).await?;
    if claimed.is_empty() {
        // A statement of its own: what the claim has waited for is visible only to those that begin later.
        return kept(connection, once).await;
    }
    let committed = write(connection, collection, author, ids, planner).await?;
    let answer = (once.answering)(&committed)?;
    connection.execute(keep_statement(once, &answer)?).await?;
    Ok(OnceOutcome::Done(committed))
}

/// A row for the key, new or over one that is forgotten; none if there is one that counts.
fn claim_statement(once: &Once) -> Statement {
    let mut statement = Statement::new("INSERT INTO idempotency (actor, key, fingerprint, created_at) VALUES (");
    statement.text(&once.actor).sql(", ").text(&once.key).sql(", ").text(&once.fingerprint).sql(", ").text(&once.now);
    statement.sql(
        ") ON CONFLICT (actor, key) DO UPDATE SET fingerprint = excluded.fingerprint, created_at = excluded.created_at, \
         status = NULL, position = NULL, headers = NULL, body = NULL WHERE idempotency.created_at < ",
    );
    statement.text(&once.since).sql(" RETURNING key");
    statement
}

fn keep_statement(once: &Once, answer: &KeptAnswer) -> Result<Statement> {
    let mut statement = Statement::new("UPDATE idempotency SET status = ");
    statement.bigint(i64::from(answer.status));
    statement.sql(", position = ").optional_text(answer.position.map(|position| position.to_string()));
    statement.sql(", headers = ").text(serde_json::to_string(&answer.headers).map_err(Error::internal)?);
    statement.sql(", body = ").text(&answer.body);
    statement.sql(" WHERE actor = ").text(&once.actor).sql(" AND key = ").text(&once.key);
    Ok(statement)
}

async fn kept(connection: &mut Connection<'_>, once: &Once) -> Result<OnceOutcome, Failure> {
    let mut statement = Statement::new("SELECT fingerprint, status, position, headers, body FROM idempotency WHERE actor = ");
    statement.text(&once.actor).sql(" AND key = ").text(&once.key);
    let rows: Vec<KeptRow> = connection.load(statement).await?;
    // Retention took it in between: the key is free.
    let Some(row) = rows.into_iter().next() else { return Err(Failure::Raced) };
    if row.fingerprint != once.fingerprint {
        return Ok(OnceOutcome::Reused);
    }
    let incomplete = || Error::internal("a kept answer is not complete");
    Ok(OnceOutcome::Kept(KeptAnswer {
        status: row.status.and_then(|status| u16::try_from(status).ok()).ok_or_else(incomplete)?,
        position: row.position.map(|text| text.parse()).transpose()?,
        headers: serde_json::from_str(&row.headers.ok_or_else(incomplete)?).map_err(Error::internal)?,
        body: row.body.ok_or_else(incomplete)?,
    }))
}

fn prune_statement(dialect: &dyn Dialect, before: &str, limit: u32) -> Statement {
    let mut statement =
        Statement::new("DELETE FROM idempotency WHERE (actor, key) IN (SELECT actor, key FROM idempotency WHERE created_at < ");
    statement.text(before).sql(format!(" ORDER BY created_at LIMIT {limit}{})", dialect.change_lock()));
    statement
}
