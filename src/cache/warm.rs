//! What is there before anything is looked up: asked by warming, and by who says why an answer was loaded.

use std::sync::Arc;
use std::time::Instant;

use super::{Cache, CacheKey, Entry};

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

/// What L1 had for a key, fresh or not, when somebody looked.
#[derive(Clone, Debug)]
pub struct Found {
    pub(super) entry: Option<Arc<Entry>>,
    /// How many loads had landed before: if none has since, another look shows nothing new.
    pub(super) landings: u64,
}

impl Found {
    /// The entry, if its guards have moved: see [`Entry::follow`].
    pub fn outdated(&self) -> Option<&Entry> {
        self.entry.as_deref().filter(|entry| !entry.is_valid())
    }
}

impl Cache {
    /// Whether entries are kept at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// What L1 has for `key`, fresh or not. It is not counted as a look-up.
    pub fn find(&self, key: &CacheKey) -> Found {
        let landings = self.flights.landings();
        Found { entry: self.l1.get(key), landings }
    }

    /// The same in a word.
    pub fn held(&self, key: &CacheKey) -> Held {
        self.standing(&self.find(key))
    }

    /// What it means that L1 has this.
    pub fn standing(&self, found: &Found) -> Held {
        match &found.entry {
            Some(entry) => {
                let now = Instant::now();
                if self.is_fresh(entry, entry.age_at(now), now) { Held::Fresh } else { Held::Stale }
            }
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
