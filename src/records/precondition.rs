//! Preconditions: what must hold for the stored record before a write (RFC 9110, 13.1). Tags are those that the caller knows.

use crate::error::{Error, Result};

/// What must hold for the stored record before a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It exists (`If-Match: *`).
    Exists,
    /// It does not exist (`If-None-Match: *`).
    Absent,
    /// It has one of these entity tags, given with quotes (`If-Match`).
    Matches(Vec<String>),
}

impl Precondition {
    /// Whether it holds for a record that has `tag` for the caller; `None` if there is none for it.
    pub(super) fn check(&self, tag: Option<String>) -> Result<()> {
        let failed = match (self, &tag) {
            (Self::Exists | Self::Matches(_), None) => "There is no such record to match.",
            (Self::Absent, Some(_)) => "There is a record already.",
            (Self::Matches(tags), Some(tag)) if !tags.iter().any(|given| same_entity(given, tag)) => {
                "The record has another entity tag; it was changed since."
            }
            (Self::None | Self::Exists | Self::Matches(_), Some(_)) | (Self::None | Self::Absent, None) => return Ok(()),
        };
        Err(Error::precondition_failed(failed, tag))
    }
}

/// Whether a given tag is `tag` or that of one of its encodings, `"…-br"`.
fn same_entity(given: &str, tag: &str) -> bool {
    let unquoted = |text: &str| text.trim_matches('"').to_owned();
    let (given, tag) = (unquoted(given), unquoted(tag));
    match given.strip_prefix(tag.as_str()) {
        Some("") => true,
        Some(rest) => crate::cache::Encoding::COMPRESSED.iter().any(|encoding| rest.strip_prefix('-') == Some(encoding.token())),
        None => false,
    }
}
