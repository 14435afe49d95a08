//! Names parsed once at the edge. A value of these types is safe to embed in SQL literals (collections), cache keys
//! and log lines; nothing else in the house checks them again.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, Violation};

/// The longest record id, in bytes.
const RECORD_ID_MAX_BYTES: usize = 255;

/// The name of a collection: `^[a-z][a-z0-9_]{0,39}$`, short enough for PostgreSQL's 63-byte identifiers with a suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// Parses a name; the error says which characters are allowed.
    pub fn parse(text: &str) -> Result<Self> {
        let mut bytes = text.bytes();
        let valid = text.len() <= 40
            && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Error::bad_request(
                "invalid_name",
                format!("{text:?} is not a name: use a to z, 0 to 9 and _, beginning with a letter, at most 40 characters."),
            ))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The id of a record, as the client wrote it: 1 to 255 bytes of UTF-8 without control characters or `/`, not
/// beginning with `_` (reserved for sub-resources) and neither `.` nor `..` (which clients resolve away).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(Arc<str>);

impl RecordId {
    /// Parses an id; the error is a message that says what is allowed.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > RECORD_ID_MAX_BYTES {
            Err("An id has 1 to 255 bytes.")
        } else if text.bytes().any(|byte| byte.is_ascii_control() || byte == b'/')
            || !text.is_ascii() && text.chars().any(is_late_control)
        {
            Err("An id has no control characters and no slash.")
        } else if text.starts_with('_') || text == "." || text == ".." {
            Err("An id does not begin with _ and is neither . nor ..")
        } else {
            Ok(Self(text.into()))
        }
    }

    /// Parses an id found in a document at `pointer`.
    pub fn parse_at(text: &str, pointer: &str) -> Result<Self> {
        Self::parse(text).map_err(|detail| Error::invalid(vec![Violation::new(pointer, "invalid_id", detail)]))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The control characters beyond ASCII, U+0080 to U+009F.
fn is_late_control(character: char) -> bool {
    !character.is_ascii() && character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names_are_safe_identifiers() {
        assert!(CollectionName::parse("workflow_templates2").is_ok());
        for bad in ["", "_x", "2x", "Metrics", "a-b", "a.b", "a\"b", "é", &"a".repeat(41)] {
            assert!(CollectionName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostile_record_ids_are_refused_and_unusual_ones_kept() {
        for bad in ["", ".", "..", "_batch", "a/b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(RecordId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["K8S-CPU", "emoji 🦀", "a.b", "50%", "x'; DROP TABLE records; --"] {
            assert!(RecordId::parse(good).is_ok(), "{good:?}");
        }
    }
}
