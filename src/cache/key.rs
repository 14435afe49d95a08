//! Cache keys. Only this file builds them; two requests share a key exactly when they have the same answer.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Scope;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One record.
    Record,
    /// One page of a list or a search.
    List,
    /// How many records a selection has, shared by all its pages.
    Count,
    /// The statistics of a collection.
    Stats,
    /// A view over several collections.
    View,
    /// Who a credential belongs to.
    Principal,
}

impl Kind {
    /// How metrics name the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::List => "list",
            Self::Count => "count",
            Self::Stats => "stats",
            Self::View => "view",
            Self::Principal => "principal",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Record => 'r',
            Self::List => 'l',
            Self::Count => 'c',
            Self::Stats => 's',
            Self::View => 'v',
            Self::Principal => 'p',
        }
    }
}

/// The name of an entry: kind, collection or view, then what tells its entries apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey(Arc<str>);

impl CacheKey {
    /// The key of an entry that `scope` and `query` determine: a page, a count, a statistic, a view.
    /// `query` is a canonical form, so that equal requests have equal keys.
    pub fn of_query(scope: &Scope, query: &str) -> Self {
        Self::joined(scope, &[query])
    }

    /// The key of a record in the shape that `query` (canonical, `""` for the whole record) asks for. No id has a
    /// control character, so the separator cannot be forged.
    pub fn of_record(scope: &Scope, id: &str, query: &str) -> Self {
        Self::joined(scope, &[id, query])
    }

    /// The key of who a credential belongs to, by the hash of the credential: nothing that is stored says what it was.
    pub fn of_principal(scope: &Scope, hash: &[u8; 32]) -> Self {
        let mut text = [0; 43];
        // 32 bytes are 43 characters.
        let length = URL_SAFE_NO_PAD.encode_slice(hash, &mut text).unwrap_or_default();
        let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok());
        Self::joined(scope, &[text.unwrap_or_default()])
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }

    /// What all keys of one scope begin with, and those of no other.
    pub(super) fn beginning(&self) -> &str {
        self.0.split('\0').next().unwrap_or_default()
    }

    fn joined(scope: &Scope, parts: &[&str]) -> Self {
        let length = 1 + scope.name().len() + parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut key = String::with_capacity(length);
        key.push(scope.kind().letter());
        key.push_str(scope.name());
        for part in parts {
            key.push('\0');
            key.push_str(part);
        }
        Self(key.into())
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.replace('\0', "|"))
    }
}
