//! A schema of its own for each test, on the PostgreSQL that `TEST_POSTGRES` names. The store's own suite and the
//! integration tests share this file; it knows nothing of Terrace.

use std::fmt::Display;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Which database this run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    Sqlite,
    Postgres,
}

impl Tested {
    /// What `TEST_DATABASE` says; SQLite, if it says nothing.
    pub fn now() -> Self {
        match std::env::var("TEST_DATABASE").as_deref() {
            Err(_) | Ok("" | "sqlite") => Self::Sqlite,
            Ok("postgres") => Self::Postgres,
            Ok(other) => panic!("TEST_DATABASE is {other:?}; it may be sqlite or postgres"),
        }
    }
}

/// A schema that is dropped, with all that is in it, when this is.
pub struct Schema {
    name: String,
}

impl Schema {
    /// A new schema.
    pub fn create() -> Self {
        let name = format!("t_{}", uuid::Uuid::now_v7().simple());
        Session::open(&server()).unwrap().execute(&format!("CREATE SCHEMA {name}"));
        Self { name }
    }

    /// The one that a URL of [`Self::url`] names; none for any other URL.
    pub fn of(url: &str) -> Option<Self> {
        let (before, name) = url.rsplit_once(SEARCH_PATH)?;
        (before == server()).then(|| Self { name: name.to_owned() })
    }

    /// A URL whose connections see this schema and no other.
    pub fn url(&self) -> String {
        format!("{}{SEARCH_PATH}{}", server(), self.name)
    }

    /// Its URL, after which nobody drops it unless [`Self::of`] finds it again.
    pub fn into_url(self) -> String {
        let url = self.url();
        std::mem::forget(self);
        url
    }
}

const SEARCH_PATH: &str = "?options=-c%20search_path%3D";

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that failed may have left locks behind. What cannot be dropped goes with the server.
        let drop = format!("SET client_min_messages = error; SET lock_timeout = '10s'; DROP SCHEMA {} CASCADE", self.name);
        let dropped = Session::open(&server()).and_then(|mut session| session.query(&drop).map(|_| ()));
        if let Err(error) = dropped {
            eprintln!("the schema {} was not dropped: {error}", self.name);
        }
    }
}

/// The server for this run.
fn server() -> String {
    required("TEST_POSTGRES")
}

/// A variable that `scripts/with-servers` sets.
pub fn required(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: this test needs a server. Run it through scripts/with-servers, for example \
             scripts/with-servers cargo test"
        )
    })
}

/// A connection that blocks its caller, for use inside and outside of runtimes. It lives on a thread of its own.
pub struct Session {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A row's columns as text.
pub type Row = Vec<Option<String>>;
type Request = (String, mpsc::Sender<Result<Vec<Row>, SqlError>>);

/// What PostgreSQL answered, with its code.
#[derive(Debug)]
pub struct SqlError(pub String);

impl Display for SqlError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(match error.as_db_error() {
            Some(answer) => format!("{} {}", answer.code().code(), answer.message()),
            None => format!("{error}: {:?}", std::error::Error::source(&error)),
        })
    }
}

impl Session {
    /// Connects without TLS.
    pub fn open(url: &str) -> Result<Self, SqlError> {
        let mut config: Config = url.parse()?;
        config.connect_timeout(Duration::from_secs(20));
        let (requests, received) = mpsc::channel::<Request>();
        let (opened, is_open) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = match config.connect(NoTls).await {
                    Ok((client, connection)) => {
                        tokio::spawn(connection);
                        opened.send(Ok(())).unwrap();
                        client
                    }
                    Err(error) => return opened.send(Err(SqlError::from(error))).unwrap(),
                };
                // Between requests nothing needs this runtime.
                while let Ok((sql, answer)) = received.recv() {
                    let rows = client.simple_query(&sql).await.map(rows_of).map_err(SqlError::from);
                    // A caller that has panicked does not listen.
                    let _ = answer.send(rows);
                }
            });
        });
        is_open.recv().unwrap()?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Runs statements; the rows of all.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let (answer, answered) = mpsc::channel();
        self.requests.as_ref().unwrap().send((sql.to_owned(), answer)).unwrap();
        answered.recv().unwrap()
    }

    /// Runs statements that must succeed.
    pub fn execute(&mut self, sql: &str) {
        self.query(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn rows_of(messages: Vec<SimpleQueryMessage>) -> Vec<Row> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        // The enum is marked as open to more.
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}
