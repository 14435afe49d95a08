//! A look at a server's database from outside, past all of Terrace.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;

use super::Server;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// How much is stored: records, and rows of the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub records: i64,
    pub changes: i64,
}

/// A connection of its own to a server's file.
pub struct Database(SqliteConnection);

impl Database {
    pub fn of(server: &Server) -> Self {
        let path = server.settings.database.url.strip_prefix("sqlite://").unwrap();
        let mut connection = SqliteConnection::establish(path).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        Self(connection)
    }

    pub fn stored(&mut self) -> Stored {
        let records = self.number("SELECT count(*) AS value FROM records");
        Stored { records, changes: self.number("SELECT count(*) AS value FROM changes") }
    }

    pub fn number(&mut self, query: &str) -> i64 {
        diesel::sql_query(query).get_result::<Number>(&mut self.0).unwrap().value
    }

    pub fn execute(&mut self, statements: &str) {
        self.0.batch_execute(statements).unwrap();
    }
}
