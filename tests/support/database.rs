//! A look at a server's database from outside, past all of Terrace.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::SqliteConnection;

use super::Server;
use super::schema::Session;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct OneText {
    #[diesel(sql_type = Text)]
    value: String,
}

/// How much is stored: records, and rows of the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub records: i64,
    pub changes: i64,
}

/// A connection of its own to a server's database.
pub enum Database {
    Sqlite(SqliteConnection),
    Postgres(Session),
}

impl Database {
    pub fn of(server: &Server) -> Self {
        let url = &server.settings.database.url;
        let Some(path) = url.strip_prefix("sqlite://") else { return Self::Postgres(Session::open(url).unwrap()) };
        let mut connection = SqliteConnection::establish(path).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        Self::Sqlite(connection)
    }

    pub fn stored(&mut self) -> Stored {
        let records = self.number("SELECT count(*) AS value FROM records");
        Stored { records, changes: self.number("SELECT count(*) AS value FROM changes") }
    }

    /// The one number, named `value`, that a query answers.
    pub fn number(&mut self, query: &str) -> i64 {
        match self {
            Self::Sqlite(connection) => diesel::sql_query(query).get_result::<Number>(connection).unwrap().value,
            Self::Postgres(session) => session.query(query).unwrap()[0][0].as_ref().unwrap().parse().unwrap(),
        }
    }

    /// The texts, named `value`, that a query answers.
    pub fn texts(&mut self, query: &str) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => {
                let rows = diesel::sql_query(query).load::<OneText>(connection).unwrap();
                rows.into_iter().map(|row| row.value).collect()
            }
            Self::Postgres(session) => session.query(query).unwrap().into_iter().map(|mut row| row.remove(0).unwrap()).collect(),
        }
    }

    pub fn execute(&mut self, statements: &str) {
        match self {
            Self::Sqlite(connection) => connection.batch_execute(statements).unwrap(),
            Self::Postgres(session) => session.execute(statements),
        }
    }

    /// Keeps every write of records waiting, and no read, until [`Self::let_writers_go`].
    pub fn hold_writers(&mut self) {
        self.execute(match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN; LOCK TABLE records IN SHARE ROW EXCLUSIVE MODE",
        });
    }

    pub fn let_writers_go(&mut self) {
        self.execute("COMMIT");
    }
}
