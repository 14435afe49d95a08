//! What can go wrong inside of an operation, and what the house learns of it. Messages to clients name the setting
//! to look at and never a value; the database's own words go to the log.

mod connecting;
mod messages;

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DatabaseError};

use crate::error::{Error, ErrorKind};

pub(super) use connecting::from_connect;
pub(super) use messages::{from_database, is_locked};

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
    /// The connection was lost during the commit: nobody knows whether it was carried out.
    Unknown(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        match error {
            // That the connection was lost, or what else was in the way of the commit, is what counts.
            DatabaseError::RollbackErrorOnCommit { commit_error, .. } => Self::Database(*commit_error),
            error => Self::Database(error),
        }
    }
}

impl Failure {
    /// Whether the database (and not the request) is to blame.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Database(_) | Self::Unreachable(_) | Self::Unknown(_) | Self::Raced => true,
            Self::Refused(error) => matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal),
        }
    }

    /// Whether the connection was lost or could not be made, so that another one may do better.
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Database(DatabaseError::DatabaseError(kind, information)) => {
                matches!(kind, DatabaseErrorKind::ClosedConnection) || messages::is_loss(information.message())
            }
            Self::Database(DatabaseError::BrokenTransactionManager) => true,
            Self::Database(_) | Self::Refused(_) | Self::Unknown(_) | Self::Raced => false,
        }
    }

    /// Whether another transaction was in the way, so that the same may succeed when it is run again.
    pub fn is_transient_conflict(&self) -> bool {
        match self {
            Self::Database(DatabaseError::DatabaseError(kind, information)) => {
                matches!(kind, DatabaseErrorKind::SerializationFailure) || information.message() == "deadlock detected"
            }
            Self::Raced => true,
            Self::Database(_) | Self::Refused(_) | Self::Unreachable(_) | Self::Unknown(_) => false,
        }
    }

    /// Whether a lock was not to be had in the time that its session allows.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Database(DatabaseError::DatabaseError(_, information))
            if information.message() == "canceling statement due to lock timeout")
    }

    /// The failure of a COMMIT: unless the database refused it, nobody knows whether it was carried out.
    pub fn into_unknown_outcome(self) -> Self {
        if !self.is_lost_connection() {
            return self;
        }
        let detail = "The connection to the database (database.url) was lost during the commit: the write may or may not have \
                      happened. Read the record before you send it again.";
        let internal = self.into_error().to_string();
        Self::Unknown(Error::unavailable(detail, RETRY_AFTER, internal))
    }

    /// The domain error.
    pub fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Unreachable(error) | Self::Unknown(error) => error,
            Self::Database(error) => from_database(&error.to_string()),
            Self::Raced => {
                let detail = "Others change the same records all the time: the write did not get its turn within \
                              database.acquire_timeout.";
                Error::unavailable(detail, RETRY_AFTER, "a write was raced until its time was over")
            }
        }
    }
}
