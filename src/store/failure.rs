//! What can go wrong inside of an operation, and what the house learns of it. Messages to clients name the setting
//! to look at and never a value; the database's own words go to the log.

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DatabaseError};

use crate::error::{Error, ErrorKind};

/// When a client may try again after the database refused.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an operation failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The house said no: a planner, a reference check, a state that cannot be.
    Refused(Error),
    /// The database said no.
    Database(DatabaseError),
    /// What a write was planned on has been changed by somebody else before it was carried out. Planned and carried
    /// out again, it may succeed.
    Raced,
    /// There was no connection to ask it over.
    Unreachable(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

impl Failure {
    /// Whether the database (and not the request) is to blame.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Database(_) | Self::Unreachable(_) | Self::Raced => true,
            Self::Refused(error) => matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal),
        }
    }

    /// Whether the connection was lost or could not be made, so that another one may do better.
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Database(DatabaseError::DatabaseError(kind, information)) => {
                matches!(kind, DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection)
                    || information.message().starts_with("terminating connection")
            }
            Self::Database(DatabaseError::BrokenTransactionManager) => true,
            Self::Database(_) | Self::Refused(_) | Self::Raced => false,
        }
    }

    /// Whether another transaction was in the way, so that the same may succeed when it is run again.
    pub fn is_transient_conflict(&self) -> bool {
        match self {
            Self::Database(DatabaseError::DatabaseError(kind, information)) => {
                matches!(kind, DatabaseErrorKind::SerializationFailure) || information.message() == "deadlock detected"
            }
            Self::Raced => true,
            Self::Database(_) | Self::Refused(_) | Self::Unreachable(_) => false,
        }
    }

    /// The failure of a COMMIT: unless the database refused it, nobody knows whether it was carried out.
    pub fn into_unknown_outcome(self) -> Self {
        if !self.is_lost_connection() {
            return self;
        }
        let detail = "The connection to the database was lost during the commit: the write may or may not have happened. Read \
                      the record before you send it again.";
        let internal = self.into_error().to_string();
        Self::Refused(Error::unavailable(detail, RETRY_AFTER, internal))
    }

    /// The domain error.
    pub fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Unreachable(error) => error,
            Self::Database(error) => from_database(&error.to_string()),
            Self::Raced => {
                let detail = "Others change the same records all the time: the write did not get its turn within \
                              database.acquire_timeout.";
                Error::unavailable(detail, RETRY_AFTER, "a write was raced until its time was over")
            }
        }
    }
}

/// Every connection was busy for the whole of `database.acquire_timeout`.
pub(super) fn exhausted(waited: Duration, what: &str) -> Failure {
    let detail = "The database is busy: no connection became free within database.acquire_timeout.";
    let internal = format!(
        "waited {} ms (database.acquire_timeout) for {what}; raise it or database.max_connections, or find what holds it",
        waited.as_millis()
    );
    Failure::Refused(Error::unavailable(detail, RETRY_AFTER, internal))
}

/// Why no connection could be made.
pub(super) fn from_connect(error: &tokio_postgres::Error) -> Error {
    Error::unavailable("PostgreSQL cannot be reached; see database.url.", RETRY_AFTER, error)
}

/// Recognises SQLite's failures by their text: Diesel keeps no other trace of them.
pub(super) fn from_database(message: &str) -> Error {
    let known = [
        ("database is locked", "The database is locked by another process; see database.url and database.acquire_timeout."),
        ("database table is locked", "The database is locked by another operation; see database.acquire_timeout."),
        ("disk is full", "The disk that holds the database is full; see database.url."),
        ("readonly database", "The database cannot be written to; check the permissions of the file that database.url names."),
        ("disk I/O error", "The disk that holds the database fails; see database.url."),
        ("disk image is malformed", "The database is damaged; restore the file that database.url names from a backup."),
        ("is not a database", "The file that database.url names is not an SQLite database."),
        ("file was replaced", "The file that database.url names was removed or replaced while it was open; restart Terrace."),
        ("unable to open", "The database cannot be opened; check the path in database.url and its permissions."),
    ];
    match known.iter().find(|(text, _)| message.contains(text)) {
        Some((_, detail)) => Error::unavailable(*detail, RETRY_AFTER, message),
        None => Error::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_disk_name_the_setting_and_keep_the_detail_inside() {
        let error = from_database("database or disk is full");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.detail().contains("database.url"));
        assert_eq!(error.internal_message(), Some("database or disk is full"));
        assert_eq!(from_database("no such column: x").kind(), ErrorKind::Internal);
        assert_eq!(from_database("malformed JSON").kind(), ErrorKind::Internal, "one bad document is no damaged file");
        assert_eq!(from_database("database disk image is malformed").kind(), ErrorKind::Unavailable);
    }
}
