//! Entries of the credentials that were used last, found with less work than in the cache. The cache says of each whether it may
//! still be used; to be here makes it neither newer nor longer-lived.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::Entry;

/// Credentials that are used at the same time; two that share a place take turns. A power of two.
const PLACES: usize = 1_024;

/// One entry in each place, by the hash of its credential.
pub(super) struct Recent(Box<[Mutex<Option<Used>>]>);

struct Used {
    digest: [u8; 32],
    entry: Arc<Entry>,
}

impl Recent {
    pub fn new() -> Self {
        Self((0..PLACES).map(|_| Mutex::default()).collect())
    }

    pub fn get(&self, digest: &[u8; 32]) -> Option<Arc<Entry>> {
        self.place(digest).as_ref().filter(|used| used.digest == *digest).map(|used| Arc::clone(&used.entry))
    }

    pub fn put(&self, digest: &[u8; 32], entry: &Arc<Entry>) {
        *self.place(digest) = Some(Used { digest: *digest, entry: Arc::clone(entry) });
    }

    /// The lock is held for a few instructions, and never across an await.
    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the number of places")]
    fn place(&self, digest: &[u8; 32]) -> MutexGuard<'_, Option<Used>> {
        let [low, high, ..] = *digest;
        self.0[usize::from(u16::from_le_bytes([low, high])) % PLACES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
