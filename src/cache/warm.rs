//! What warming asks of the cache: what is there already, and how full it is.

use super::{Cache, CacheKey};

impl Cache {
    /// Whether entries are kept at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether a hit would be served for `key`. It is not counted as one.
    pub fn holds(&self, key: &CacheKey) -> bool {
        self.fresh(key).is_some()
    }

    /// The share of L1's memory that is taken, from 0 to 1.
    pub fn fullness(&self) -> f64 {
        let capacity = self.l1.capacity_bytes().max(1);
        self.l1.size_bytes() as f64 / capacity as f64
    }
}
