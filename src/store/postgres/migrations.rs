//! The base tables on PostgreSQL: made and changed by migrations, under the installation's lock. And the mark of a new
//! database, a row that stands there from the transaction that makes the tables until somebody takes it away.

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::QueryableByName;
use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::super::failure::{Failure, from_database};
use super::super::migration;
use crate::error::Error;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Whether this session now holds the installation's lock, which ends with the session. An installation is a schema.
pub(super) async fn try_lock(connection: &mut AsyncPgConnection) -> Result<bool, Failure> {
    ask(connection, "SELECT pg_try_advisory_lock(hashtextextended('terrace ' || coalesce(current_schema(), ''), 0)) AS yes").await
}

/// Search takes letters apart, which PostgreSQL does in UTF-8 only; and other encodings lack most characters of JSON.
pub(super) async fn check_encoding(connection: &mut AsyncPgConnection) -> Result<(), Failure> {
    if ask(connection, "SELECT current_setting('server_encoding') = 'UTF8' AS yes").await? {
        return Ok(());
    }
    let detail = "The database that database.url names does not keep its text in UTF-8; create one with ENCODING 'UTF8'.";
    Err(Error::bad_request("invalid_setting", detail).into())
}

/// Brings the tables to this version's state. Diesel's migrations are synchronous, so a blocking thread waits for them.
pub(super) async fn run(connection: AsyncPgConnection) -> Result<(), Failure> {
    let migrate = move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        harness.run_pending_migrations(MIGRATIONS).map(drop).map_err(|error| from_database(&error.to_string()))
    };
    let migrated = tokio::task::spawn_blocking(migrate).await.map_err(Error::internal)?;
    Ok(migrated?)
}

/// The migrations that the tables lack, or `None` if there are no tables at all. Refuses tables that a newer version
/// migrated.
pub(super) async fn pending(connection: &mut AsyncPgConnection) -> Result<Option<Vec<String>>, Failure> {
    if !ask(connection, "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS yes").await? {
        return Ok(None);
    }
    let rows: Vec<VersionRow> =
        diesel::sql_query("SELECT version::text FROM __diesel_schema_migrations ORDER BY version").load(connection).await?;
    let applied: Vec<String> = rows.into_iter().map(|row| row.version).collect();
    let known = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(|error| from_database(&error.to_string()))?;
    let known = known.iter().map(|migration| migration.name().version().to_string()).collect();
    Ok(Some(migration::pending(known, &applied)?))
}

/// Whether the mark stands.
pub(super) async fn is_new(connection: &mut AsyncPgConnection) -> Result<bool, Failure> {
    ask(connection, "SELECT EXISTS (SELECT FROM installation WHERE name = 'new') AS yes").await
}

/// Takes the mark away.
pub(super) async fn settle(connection: &mut AsyncPgConnection) -> Result<(), Failure> {
    diesel::sql_query("DELETE FROM installation WHERE name = 'new'").execute(connection).await?;
    Ok(())
}

async fn ask(connection: &mut AsyncPgConnection, question: &str) -> Result<bool, Failure> {
    Ok(diesel::sql_query(question).get_result::<Answer>(connection).await?.yes)
}
