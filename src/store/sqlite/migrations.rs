//! The base tables: made and changed by migrations. And the mark of a new database, which stands in the file from the
//! transaction that makes the tables until somebody takes it away.

use diesel::connection::SimpleConnection as _;
use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::{QueryableByName, RunQueryDsl as _, SqliteConnection};
use diesel::sql_types::Integer;
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::super::failure::{Failure, from_database};
use super::super::migration;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// What SQLite keeps as `user_version`, which is otherwise unused.
const NEW: i32 = 1;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    number: i32,
}

/// Brings the tables to this version's state.
pub(super) fn run(sqlite: &mut SqliteConnection) -> Result<(), Failure> {
    // Immediate: two processes that start at once must not both find the tables missing.
    sqlite.immediate_transaction(|sqlite| {
        if pending(sqlite)?.is_none() {
            sqlite.batch_execute(&format!("PRAGMA user_version = {NEW}"))?;
        }
        sqlite.run_pending_migrations(MIGRATIONS).map(drop).map_err(failed)
    })
}

/// The migrations that the tables lack, or `None` if there are no tables at all. Refuses tables that a newer version
/// migrated.
pub(super) fn pending(sqlite: &mut SqliteConnection) -> Result<Option<Vec<String>>, Failure> {
    // Diesel would make its own table to find it empty.
    if number(sqlite, "SELECT count(*) AS number FROM sqlite_schema WHERE name = '__diesel_schema_migrations'")? == 0 {
        return Ok(None);
    }
    let applied: Vec<String> = sqlite.applied_migrations().map_err(failed)?.iter().map(ToString::to_string).collect();
    let known = MigrationSource::<Sqlite>::migrations(&MIGRATIONS).map_err(failed)?;
    let known: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    Ok(Some(migration::pending(known, &applied)?))
}

/// Whether the mark stands.
pub(super) fn is_new(sqlite: &mut SqliteConnection) -> Result<bool, Failure> {
    Ok(number(sqlite, "SELECT user_version AS number FROM pragma_user_version")? == NEW)
}

/// Takes the mark away.
pub(super) fn settle(sqlite: &mut SqliteConnection) -> Result<(), Failure> {
    Ok(sqlite.batch_execute("PRAGMA user_version = 0")?)
}

fn number(sqlite: &mut SqliteConnection, query: &str) -> Result<i32, Failure> {
    Ok(diesel::sql_query(query).get_result::<Number>(sqlite)?.number)
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    Failure::Refused(from_database(&error.to_string()))
}
