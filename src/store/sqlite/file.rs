//! The database's file: where it is, and whether it is still the one that was opened.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// What an operation on another file fails with; `failure` knows it.
const REPLACED: &str = "the database file was replaced";

/// One file. A connection goes on with the file it opened, also when that has been removed or another one has taken its
/// place: what it acknowledges then is lost with the process, and new connections see other data than old ones.
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// Device and inode of the file that the first connection opened.
    identity: OnceLock<(u64, u64)>,
}

impl DatabaseFile {
    /// The file that `database.url` names.
    pub fn of_url(url: &str) -> Result<Self> {
        match url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() && !path.starts_with(':') && !path.starts_with("file:") => {
                Ok(Self { path: PathBuf::from(path), identity: OnceLock::new() })
            }
            // The URL itself may hold a password.
            Some(_) | None => Err(Error::bad_request(
                "invalid_setting",
                "database.url is not one that Terrace understands; it takes sqlite://PATH, for example sqlite://data/terrace.db, or \
                 postgres://USER:PASSWORD@HOST:PORT/DATABASE.",
            )),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the path leads to another file than at the first call, or to none. It asks the file system: about 1 µs,
    /// on a blocking thread.
    pub fn check(&self) -> Result<(), &'static str> {
        let now = fs::metadata(&self.path).map(|file| (file.dev(), file.ino())).map_err(|_| REPLACED)?;
        if *self.identity.get_or_init(|| now) == now { Ok(()) } else { Err(REPLACED) }
    }
}
