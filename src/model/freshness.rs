//! What a request asks of the age of its answer: the request directives of `Cache-Control` (RFC 9111, 5.2.1) and the
//! position that the answer must not be older than. Plain values; who reads headers is `http`.

use std::time::Duration;

use super::Position;

/// What a request asks of the age of its answer. [`Freshness::ANY`] asks for nothing: whatever is fresh will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// `no-cache`: whatever is stored must not be used.
    pub reload: bool,
    /// `no-store`: the answer must not be stored.
    pub no_store: bool,
    /// `only-if-cached`: nothing may be loaded.
    pub only_if_cached: bool,
    /// `max-age`: an entry that was loaded longer ago must not be used.
    pub max_age: Option<Duration>,
    /// `min-fresh`: an entry must stay fresh for at least this long.
    pub min_fresh: Duration,
    /// `max-stale`: an entry that expired, or was outdated by a change, at most this long ago will do.
    pub max_stale: Duration,
    /// `Consistency-Token`: the answer must show this change.
    pub token: Option<Position>,
}

impl Freshness {
    /// No demand.
    pub const ANY: Self = Self {
        reload: false,
        no_store: false,
        only_if_cached: false,
        max_age: None,
        min_fresh: Duration::ZERO,
        max_stale: Duration::ZERO,
        token: None,
    };

    /// Whether nothing is asked for, so that whatever is fresh will do.
    pub fn is_any(&self) -> bool {
        *self == Self::ANY
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self::ANY
    }
}
