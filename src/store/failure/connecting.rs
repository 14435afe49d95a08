//! Why no connection to PostgreSQL could be made, told to an operator: each reason names the setting to look at. All of
//! it can be mended on the server's side while Terrace waits, but what the server does not understand in the URL.

use std::error::Error as StdError;
use std::io;

use rustls::Error as TlsError;
use tokio_postgres::error::{DbError, SqlState};

use super::RETRY_AFTER;
use super::messages::{NO_SLOT, from_database};
use crate::error::Error;
use crate::tls::Distrust;

/// The domain error for a connection that could not be made.
pub(in crate::store) fn from_connect(error: &tokio_postgres::Error) -> Error {
    let told = chain(error);
    if let Some(answer) = error.as_db_error() {
        return answered(answer, &told);
    }
    let detail = if told.contains("TLS") {
        tls(error, &told)
    } else if told.contains("password missing") {
        "PostgreSQL wants a password, and database.url has none."
    } else if told.contains("authentication error") {
        "PostgreSQL wants to know who we are in a way that Terrace does not have, or knows another password than database.url."
    } else {
        unreachable(error, &told)
    };
    Error::unavailable(detail, RETRY_AFTER, told)
}

/// The server is there and says no.
fn answered(answer: &DbError, told: &str) -> Error {
    let code = answer.code();
    let detail = if *code == SqlState::INVALID_PASSWORD {
        "PostgreSQL refuses the user or the password of database.url."
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION && answer.message().contains("pg_hba.conf") {
        "PostgreSQL's pg_hba.conf does not let Terrace in; see user, database and sslmode in database.url."
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        "PostgreSQL refuses the user of database.url."
    } else if *code == SqlState::INVALID_CATALOG_NAME {
        "PostgreSQL has no such database as database.url names."
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        NO_SLOT
    } else if *code == SqlState::UNDEFINED_OBJECT || *code == SqlState::INVALID_PARAMETER_VALUE {
        let detail = "PostgreSQL does not understand the options in database.url.";
        return Error::bad_request("invalid_setting", detail).with_internal(told);
    } else {
        return from_database(answer.message());
    };
    Error::unavailable(detail, RETRY_AFTER, told)
}

fn tls(error: &tokio_postgres::Error, told: &str) -> &'static str {
    let refused = io_error(error).and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<TlsError>());
    match refused.and_then(Distrust::of) {
        Some(Distrust::OtherName) => {
            "PostgreSQL's certificate is for another host name than the one in database.url, and sslmode there says that it \
             counts."
        }
        Some(Distrust::OutOfDate) => "PostgreSQL's certificate is out of date, and sslmode in database.url says that it counts.",
        Some(Distrust::UnknownIssuer) => {
            "PostgreSQL's certificate comes from nobody whom database.ca_file names (the system's authorities, if it is \
             empty), and sslmode in database.url says that it counts."
        }
        None if told.contains("does not support TLS") => "PostgreSQL does not offer TLS, which sslmode in database.url demands.",
        None => "TLS with PostgreSQL failed; see sslmode in database.url, and database.ca_file.",
    }
}

fn unreachable(error: &tokio_postgres::Error, told: &str) -> &'static str {
    match io_error(error).map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => "PostgreSQL did not answer within database.connect_timeout; see database.url.",
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => CUT,
        // Resolvers have no kind of their own.
        Some(_) if told.contains("lookup") => "The name of PostgreSQL's host in database.url is not known.",
        Some(_) => "No PostgreSQL answers at the address in database.url.",
        None if error.is_closed() => CUT,
        None => "PostgreSQL cannot be reached; see database.url.",
    }
}

const CUT: &str =
    "What answers at the address in database.url ended the connection: it is no PostgreSQL, or one that is stopping.";

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source().and_then(|cause| cause.downcast_ref())
}

/// An error with its causes, for the log.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
