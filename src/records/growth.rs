//! How large a write may make a record. A body is bounded where it is read; what a patch makes of a record is bounded here, or small
//! patches would make it as large as they like.

use super::document::Members;
use crate::error::{Error, Result, Violation};
use crate::model::{Collection, ServerFields};

/// The bound of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// None: whoever imports has bounded each document.
    Unbounded,
    /// So many bytes of JSON, without what the server adds: what was taken as a body is always taken.
    UpTo(usize),
}

impl Growth {
    /// Checks the document `after`, which is `text` as it would be stored, where `before` is now. What is larger already, by an import
    /// or because the limit was higher, may be changed as long as it does not grow.
    pub(super) fn check(self, collection: &Collection, before: Option<&Members>, after: &Members, text: &str) -> Result<()> {
        let Self::UpTo(limit) = self else { return Ok(()) };
        // Nearly always that is all: with what the server adds it is only longer.
        if text.len() <= limit {
            return Ok(());
        }
        let size = size_bytes(collection, after)?;
        if size <= limit || before.map(|before| size_bytes(collection, before)).transpose()?.is_some_and(|before| size <= before)
        {
            return Ok(());
        }
        let detail = format!("A record has at most {limit} bytes here (http.max_body_bytes); this one would have more.");
        Err(Error::invalid(vec![Violation::new("", "document_too_large", detail)]))
    }
}

/// Of a document as a client would send it. The id may stand in the path.
fn size_bytes(collection: &Collection, members: &Members) -> Result<usize> {
    let mut own = members.clone();
    own.retain(|name, _| !ServerFields::ALL.contains(&name.as_str()) && name != collection.id_field());
    serde_json::to_string(&own).map(|text| text.len()).map_err(Error::internal)
}
