//! An answer to a read: a shared entry, and how it came about.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::cache::{Cache, CacheKey, Encoding, Lookup, Outcome, Presence, Representation, Tier};
use crate::error::Result;

/// A ready response, shared with everybody who asks the same.
pub struct Answer {
    lookup: Lookup,
    forwarded: Forwarded,
    key: CacheKey,
    cache: Arc<Cache>,
}

/// Why an answer was loaded (RFC 9211, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing was stored under its key.
    UriMiss,
    /// Nothing was stored that would do.
    Miss,
    /// What was stored had expired, or a change had outdated it.
    Stale,
    /// What was stored is fresh, and the request did not take it.
    Request,
    /// Nothing is cached at all.
    Bypass,
}

impl Answer {
    pub(super) fn new(lookup: Lookup, forwarded: Forwarded, key: CacheKey, cache: &Arc<Cache>) -> Self {
        Self { lookup, forwarded, key, cache: Arc::clone(cache) }
    }

    /// Whether there is anything.
    pub fn presence(&self) -> Presence {
        self.lookup.entry.presence()
    }

    /// How the answer came about.
    pub fn outcome(&self) -> Outcome {
        self.lookup.outcome
    }

    /// If it was loaded, why.
    pub fn forwarded(&self) -> Forwarded {
        self.forwarded
    }

    /// Where it was found; `None` if it was loaded.
    pub fn tier(&self) -> Option<Tier> {
        self.lookup.tier
    }

    /// How long ago it was loaded.
    pub fn age(&self) -> Duration {
        self.lookup.age
    }

    /// For how much longer it is fresh; zero when it is stale.
    pub fn fresh_for(&self) -> Duration {
        self.lookup.entry.fresh_for(self.lookup.age)
    }

    /// How long ago it expired; zero while it is fresh.
    pub fn expired_for(&self) -> Duration {
        self.lookup.entry.expired_for(self.lookup.age)
    }

    /// Further headers.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        self.lookup.entry.headers()
    }

    /// The size of the uncompressed body, in bytes.
    pub fn body_len(&self) -> usize {
        self.lookup.entry.identity().body.len()
    }

    /// The body in `encoding`, if it has been made already.
    pub fn ready(&self, encoding: Encoding) -> Option<&Representation> {
        self.lookup.entry.ready(encoding)
    }

    /// The body in `encoding`, made now if it must be, once per entry.
    pub async fn representation(&self, encoding: Encoding) -> Result<&Representation> {
        let grows = self.lookup.entry.ready(encoding).is_none();
        let representation = self.lookup.entry.representation(encoding).await?;
        if grows {
            self.cache.grown(&self.key, &self.lookup.entry);
        }
        Ok(representation)
    }
}
