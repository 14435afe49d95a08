//! Which migrations a database lacks, whatever database it is.

use crate::error::{Error, ErrorKind, Result};

/// Those of `known` that are not among `applied`. Refuses tables that a newer version migrated.
pub(super) fn pending(known: Vec<String>, applied: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = applied.iter().find(|version| !known.contains(version)) {
        return Err(Error::new(
            ErrorKind::Internal,
            "newer_database",
            format!(
                "The database that database.url names was migrated by a newer Terrace (migration {unknown} is unknown here). \
                 Run that version, or name another database."
            ),
        ));
    }
    Ok(known.into_iter().filter(|version| !applied.contains(version)).collect())
}
