//! The credentials that were used last, with their entries: found again without hashing them as strongly as the cache must, and
//! without a look-up in it. The cache says of each whether it may still be used; to be here makes it neither newer nor longer-lived.
//!
//! They are here as they were sent, in the memory of the process and nowhere else, which is wiped when another one takes the place.

use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::constant_time;
use foldhash::quality::RandomState;
use secrecy::{ExposeSecret as _, SecretSlice};

use crate::cache::{Entry, Scope};

/// Credentials that are used at the same time; two that share a place take turns.
const PLACES: usize = 1_024;

/// One credential in each place, by its hash. A lock protects one place, and is never held across an await.
pub(super) struct Recent {
    hasher: RandomState,
    places: Box<[Mutex<Option<Used>>]>,
}

/// A credential that was used.
pub(super) struct Used {
    /// The `Authorization` field.
    pub field: SecretSlice<u8>,
    pub digest: [u8; 32],
    pub scope: Arc<Scope>,
    pub entry: Arc<Entry>,
}

impl Recent {
    pub fn new() -> Self {
        Self { hasher: RandomState::default(), places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }

    /// Reads what is known of the credential in `field`, if it was used lately. `read` runs under the lock.
    pub fn find<T>(&self, field: &[u8], read: impl FnOnce(&Used) -> T) -> Option<T> {
        let place = self.place(field).lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |used: &&Used| constant_time::verify_slices_are_equal(used.field.expose_secret(), field).is_ok();
        place.as_ref().filter(is_same).map(read)
    }

    pub fn put(&self, used: Used) {
        let place = self.place(used.field.expose_secret());
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "reduced modulo the number of places")]
    fn place(&self, field: &[u8]) -> &Mutex<Option<Used>> {
        &self.places[self.hasher.hash_one(field) as usize % PLACES]
    }
}
