//! What databases say when they fail, and what the house makes of it. Diesel keeps no other trace of most failures than
//! their text; sessions on PostgreSQL are set to speak English where that is allowed.

use super::RETRY_AFTER;
use crate::error::{Error, ErrorKind};

/// The write is refused as it stands: what it carries cannot be stored.
const UNSTORABLE: [(&str, &str); 4] = [
    ("index row size", "The values of indexed fields are too long together to be indexed."),
    ("index row requires", "The values of indexed fields are too long together to be indexed."),
    ("too long for tsvector", "The document has more text in its search fields than PostgreSQL can index."),
    ("unsupported Unicode escape sequence", "The document has a character that PostgreSQL cannot store: U+0000."),
];

/// The database cannot do it now, by what its message contains. The detail names the setting to look at.
const UNAVAILABLE: [(&str, &str); 33] = [
    // SQLite
    ("database is locked", "The database is locked by another process; see database.url and database.acquire_timeout."),
    ("database table is locked", "The database is locked by another operation; see database.acquire_timeout."),
    ("disk is full", "The disk that holds the database is full; see database.url."),
    ("readonly database", "The database cannot be written to; check the permissions of the file that database.url names."),
    ("disk I/O error", "The disk that holds the database fails; see database.url."),
    ("disk image is malformed", "The database is damaged; restore the file that database.url names from a backup."),
    ("is not a database", "The file that database.url names is not an SQLite database."),
    ("file was replaced", "The file that database.url names was removed or replaced while it was open; restart Terrace."),
    ("unable to open", "The database cannot be opened; check the path in database.url and its permissions."),
    // PostgreSQL
    ("connection closed", LOST),
    ("error communicating with the server", LOST),
    ("terminating connection", LOST),
    ("broken transaction manager", LOST),
    ("the database system is", "PostgreSQL, which database.url names, is starting or stopping."),
    ("remaining connection slots are reserved", NO_SLOT),
    ("too many clients already", NO_SLOT),
    ("too many connections for", NO_SLOT),
    ("due to statement timeout", "The database did not finish within database.statement_timeout."),
    ("due to lock timeout", "Another writer has held what this request needs for all of database.acquire_timeout."),
    ("due to user request", "The operator of PostgreSQL, which database.url names, has cancelled the statement."),
    ("due to conflict with recovery", READ_ONLY),
    ("during recovery", READ_ONLY),
    ("read-only transaction", READ_ONLY),
    ("deadlock detected", "Other writers were in the way for all of database.acquire_timeout."),
    ("could not serialize access", "Other writers were in the way for all of database.acquire_timeout."),
    ("No space left on device", FULL),
    ("could not extend file", FULL),
    ("Disk quota exceeded", FULL),
    ("out of memory", "PostgreSQL, which database.url names, is out of memory."),
    ("out of shared memory", "PostgreSQL, which database.url names, is out of memory."),
    ("permission denied", "The user that database.url names lacks a permission in the database."),
    ("must be owner of", "The user that database.url names does not own the tables in the database."),
    ("no schema has been selected", "The schema that the search_path of database.url's user names does not exist."),
];

const LOST: &str = "The connection to PostgreSQL was lost; see database.url.";
const READ_ONLY: &str = "PostgreSQL, which database.url names, takes no writes: it is read-only, or a standby.";
const FULL: &str = "The disk of PostgreSQL, which database.url names, is full.";

/// PostgreSQL refuses further clients.
pub(super) const NO_SLOT: &str =
    "PostgreSQL has no connection left: all instances together must keep database.max_connections below what it allows.";

/// The domain error for what a database says.
pub(in crate::store) fn from_database(message: &str) -> Error {
    let find = |known: &[(&str, &'static str)]| known.iter().find(|(text, _)| message.contains(text)).map(|(_, detail)| *detail);
    match (find(&UNSTORABLE), find(&UNAVAILABLE)) {
        (Some(detail), _) => Error::new(ErrorKind::Invalid, "unstorable", detail).with_internal(message),
        (None, Some(detail)) => Error::unavailable(detail, RETRY_AFTER, message),
        (None, None) => Error::internal(message),
    }
}

/// Whether SQLite says this of a file that another process has locked.
pub(in crate::store) fn is_locked(message: &str) -> bool {
    message.contains("database is locked")
}

/// Whether this is said when the connection has gone.
pub(super) fn is_loss(message: &str) -> bool {
    ["terminating connection", "connection closed", "error communicating with the server"]
        .iter()
        .any(|beginning| message.starts_with(beginning))
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

    /// Taken from PostgreSQL 15.
    #[test]
    fn what_postgresql_says_names_the_setting_to_look_at() {
        for (message, names) in [
            ("terminating connection due to administrator command", "database.url"),
            ("canceling statement due to statement timeout", "database.statement_timeout"),
            ("canceling statement due to lock timeout", "database.acquire_timeout"),
            ("cannot execute INSERT in a read-only transaction", "read-only"),
            ("could not extend file \"base/16384/16400\": No space left on device", "disk"),
            ("remaining connection slots are reserved for non-replication superuser connections", "database.max_connections"),
            ("sorry, too many clients already", "database.max_connections"),
            ("the database system is starting up", "starting"),
            ("the database system is in recovery mode", "starting"),
            ("permission denied for schema public", "database.url"),
        ] {
            let error = from_database(message);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{message}");
            assert!(error.detail().contains(names) && error.detail().contains("database."), "{error}");
            assert!(error.retry_after().is_some() && error.internal_message() == Some(message), "{error}");
        }
        let error = from_database("index row size 2728 exceeds btree version 4 maximum 2704 for index \"i\"");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, "unstorable"));
        assert_eq!(from_database("syntax error at or near \"SELECT\"").kind(), ErrorKind::Internal);
    }
}
