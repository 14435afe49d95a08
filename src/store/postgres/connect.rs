//! Making a connection to PostgreSQL: the URL, TLS, and what every session of ours is set to. It knows nothing of pools.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use rustls_tokio_postgres::{MakeRustlsConnect, config_no_verify};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::super::failure::{from_connect, from_database};
use super::watch::{Watch, Watched};
use crate::config::DatabaseSettings;
use crate::error::{Error, Result};
use crate::tls;

/// A connection over which nothing came for this long is asked whether it is alive, every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After this many unanswered questions, or this long without an acknowledgement, it is dead.
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// A transaction that its process has forgotten would hold its locks for ever.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// How long the statements of a session may run and wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limits {
    /// As `database.statement_timeout` and `database.acquire_timeout` say: what serves requests.
    Requests,
    /// Not at all: migrations and new indexes, which take as long as they take.
    None,
}

/// Makes connections.
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    lock_timeout: Duration,
    statement_timeout: Duration,
}

impl Connector {
    /// Reads `database.url` and the certificate authorities.
    pub fn of(settings: &DatabaseSettings) -> Result<Self> {
        let (url, check) = certificate_check(&settings.url);
        // The parser's own words could repeat a part of the URL, which may hold a password.
        let mut config = Config::from_str(&url).map_err(|_| invalid_url())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() || config.get_dbname().is_none() {
            return Err(invalid_url());
        }
        if config.get_application_name().is_none() {
            config.application_name("terrace");
        }
        config
            .connect_timeout(settings.connect_timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED);
        let tls = match (check, config.get_ssl_mode()) {
            // As with every client of PostgreSQL: encrypted if the server can, against listeners only.
            (CertificateCheck::ByMode, SslMode::Disable | SslMode::Prefer) => config_no_verify(),
            (CertificateCheck::ByMode | CertificateCheck::Always, _) => tls::verifying(&settings.ca_file, "database.ca_file")?,
        };
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
            connect_timeout: settings.connect_timeout,
            lock_timeout: settings.acquire_timeout,
            statement_timeout: settings.statement_timeout,
        })
    }

    /// A new connection, ready for statements.
    pub async fn connect(&self, limits: Limits) -> Result<AsyncPgConnection> {
        self.connect_under(limits, std::future::pending()).await
    }

    /// A new connection for requests, which is closed when the answers to a reading operation do not come within `patience`.
    pub async fn connect_watched(&self, patience: Duration) -> Result<Watched> {
        let watch = Arc::<Watch>::default();
        let watching = Arc::clone(&watch);
        let connection = self.connect_under(Limits::Requests, watching.until_given_up(patience)).await?;
        Ok(Watched::new(connection, watch))
    }

    /// A connection that is closed when `end` is there.
    async fn connect_under(&self, limits: Limits, end: impl Future<Output = ()> + Send + 'static) -> Result<AsyncPgConnection> {
        // Boxed: a handshake's state is some 15 kB, and every operation's future has room for making a connection.
        let made = tokio::time::timeout(self.connect_timeout, Box::pin(self.establish(limits, end))).await;
        made.unwrap_or_else(|_| {
            let detail = "PostgreSQL did not answer within database.connect_timeout; see database.url.";
            Err(Error::unavailable(detail, super::super::failure::RETRY_AFTER, "connecting timed out"))
        })
    }

    async fn establish(&self, limits: Limits, end: impl Future<Output = ()> + Send + 'static) -> Result<AsyncPgConnection> {
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(|error| from_connect(&error))?;
        // It ends with the client. Whoever waits for an answer learns of a loss through the client.
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to PostgreSQL was lost");
                },
                () = end => tracing::debug!("a connection to PostgreSQL was given up"),
            }
        });
        let mut connection = AsyncPgConnection::try_from(client).await.map_err(|error| from_database(&error.to_string()))?;
        let session = self.session(limits);
        connection.batch_execute(&session).await.map_err(|error| from_database(&error.to_string()))?;
        Ok(connection)
    }

    /// The writer's mark tells our own writes, which log themselves, from those of others, which triggers log. The checks of
    /// references rest on statements that see what was committed before each of them, whatever the server's default is. JIT
    /// compiles for longer than our statements run.
    ///
    /// Left free, the planner takes an index for every statement that has one, too; but the plan that a connection has made
    /// while a collection was small, and which reads it whole, would stay for a minute and more after it has grown. What must
    /// read everything, statistics of a whole collection without tallies, pays for that with a tenth or two of its time (65 ms
    /// and not 54 for a field of 100,000 records). Nor may one statement take several of the processors that requests share.
    ///
    /// Messages in English are what `store::failure` recognises; only who may set that does.
    fn session(&self, limits: Limits) -> String {
        // Nothing is no limit to PostgreSQL, and it takes no more than this.
        let milliseconds = |limit: Duration| limit.as_millis().clamp(1, 2_147_483_647);
        let (statement, lock) = match limits {
            Limits::Requests => (milliseconds(self.statement_timeout), milliseconds(self.lock_timeout)),
            Limits::None => (0, 0),
        };
        let idle = IDLE_IN_TRANSACTION.as_millis();
        format!(
            "SET terrace.writer = 'server'; SET default_transaction_isolation = 'read committed'; SET jit = off; \
             SET client_min_messages = warning; \
             SET enable_seqscan = off; SET random_page_cost = 1.1; SET max_parallel_workers_per_gather = 0; \
             SET statement_timeout = {statement}; SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = {idle}; \
             DO $$ BEGIN PERFORM set_config('lc_messages', 'C', false); EXCEPTION WHEN OTHERS THEN NULL; END $$"
        )
    }
}

/// When the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CertificateCheck {
    /// With `sslmode=require`.
    ByMode,
    /// The URL says `sslmode=verify-full`, which is `require` here.
    Always,
}

/// `verify-full` is what libpq calls the check that `require` always makes here; the driver knows only `require`.
fn certificate_check(url: &str) -> (String, CertificateCheck) {
    if url.contains("sslmode=verify-full") {
        return (url.replace("sslmode=verify-full", "sslmode=require"), CertificateCheck::Always);
    }
    (url.to_owned(), CertificateCheck::ByMode)
}

fn invalid_url() -> Error {
    Error::bad_request(
        "invalid_setting",
        "database.url is not one that Terrace understands; it takes postgres://USER:PASSWORD@HOST:PORT/DATABASE, with characters \
         such as @ and / in the password percent-encoded, and sslmode=disable, prefer or require.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> DatabaseSettings {
        DatabaseSettings { url: url.to_owned(), ..DatabaseSettings::default() }
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_its_password() {
        for url in
            ["postgres://", "postgres://u:secret@h:port/d", "postgres://u:secret@h/d?sslmode=perhaps", "postgres://u:secret@h"]
        {
            let error = Connector::of(&settings(url)).map(drop).unwrap_err();
            assert!(error.detail().contains("database.url"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_limit_is_one_that_postgresql_takes() {
        let timeouts = |limit| {
            let url = "postgres://u@h/d".to_owned();
            let settings =
                DatabaseSettings { url, statement_timeout: limit, acquire_timeout: limit, ..DatabaseSettings::default() };
            Connector::of(&settings).unwrap().session(Limits::Requests)
        };
        assert!(timeouts(Duration::from_micros(1)).contains("statement_timeout = 1; SET lock_timeout = 1;"));
        assert!(timeouts(Duration::MAX).contains("statement_timeout = 2147483647; SET lock_timeout = 2147483647;"));
    }

    #[test]
    fn verify_full_is_require() {
        let (url, check) = certificate_check("postgres://u@h/d?sslmode=verify-full");
        assert_eq!((url.as_str(), check), ("postgres://u@h/d?sslmode=require", CertificateCheck::Always));
    }

    #[test]
    fn a_file_without_certificates_names_the_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = DatabaseSettings { ca_file: file.path().to_owned(), ..settings("postgres://u@h/d?sslmode=require") };
        let error = Connector::of(&settings).map(drop).unwrap_err();
        assert!(error.detail().contains("database.ca_file") && error.detail().contains("no certificate"), "{error}");
    }
}
