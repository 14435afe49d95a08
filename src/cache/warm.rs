//! What is there before anything is looked up: asked by warming, and by who says why an answer was loaded.

use super::{Cache, CacheKey};

/// What is stored under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// An entry that a plain request would get.
    Fresh,
    /// One that has expired, or that a change has outdated.
    Stale,
    /// Nothing in the process; the second tier was not asked.
    Unknown,
    /// Nothing.
    Nothing,
}

impl Cache {
    /// Whether entries are kept at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// What L1 has for `key`. It is not counted as a look-up.
    pub fn held(&self, key: &CacheKey) -> Held {
        if self.fresh(key).is_some() {
            return Held::Fresh;
        }
        match self.l1.get(key) {
            Some(_) => Held::Stale,
            None if self.second_tier().is_some() => Held::Unknown,
            None => Held::Nothing,
        }
    }

    /// The share of L1's memory that is taken, from 0 to 1.
    pub fn fullness(&self) -> f64 {
        let capacity = self.l1.capacity_bytes().max(1);
        self.l1.size_bytes() as f64 / capacity as f64
    }
}
