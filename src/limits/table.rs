//! The buckets that this process has dealings with. There are never more than [`MOST`]: an attacker may have a million
//! addresses.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;

use super::slot::Slot;

/// Buckets that are known at once: some 65 MB, should all of them have leases. Beyond that any half of a shard is forgotten,
/// and begins anew with what the shared bucket says, or, without one, with its whole quota.
const MOST: usize = 1 << 18;
/// More than threads, so that they seldom meet.
const SHARDS: usize = 64;

/// Keys are hashes already.
type Shard = HashMap<u128, Slot, FixedState>;

/// All buckets by the key of who asks. Each lock is held for a few instructions, and never across an await.
pub(super) struct Table {
    shards: Box<[Mutex<Shard>; SHARDS]>,
    most_per_shard: usize,
}

impl Table {
    pub fn new() -> Self {
        Self::with_room_for(MOST)
    }

    fn with_room_for(most: usize) -> Self {
        let shards = Box::new(std::array::from_fn(|_| Mutex::default()));
        Self { shards, most_per_shard: (most / SHARDS).max(2) }
    }

    /// Works on a bucket, which is made if it is not there.
    pub fn with<T>(&self, key: u128, now: u64, work: impl FnOnce(&mut Slot) -> T) -> T {
        let mut shard = self.shard(key);
        if let Some(slot) = shard.get_mut(&key) {
            return work(slot);
        }
        if shard.len() >= self.most_per_shard {
            make_room(&mut shard, self.most_per_shard, now);
        }
        work(shard.entry(key).or_default())
    }

    /// Works on a bucket that is there.
    pub fn with_known<T>(&self, key: u128, work: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        self.shard(key).get_mut(&key).map(work)
    }

    /// Forgets buckets of which nothing need be known.
    pub fn forget_idle(&self, now: u64) {
        for shard in &*self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, slot| !slot.is_idle(now));
            if shard.capacity() > 4 * shard.len() + 64 {
                shard.shrink_to_fit();
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than the number of shards")]
    fn shard(&self, key: u128) -> MutexGuard<'_, Shard> {
        // The map uses the other bits.
        self.shards[(key >> 64) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Idle ones go first. If they are too few to go on for a while, half of them go, but not those that somebody waits for.
fn make_room(shard: &mut Shard, most: usize, now: u64) {
    shard.retain(|_, slot| !slot.is_idle(now));
    if shard.len() > most / 2 {
        shard.retain(|_, slot| fastrand::bool() || slot.is_awaited());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::gcra::Rate;
    use crate::limits::slot::Shared;

    #[test]
    fn a_bucket_is_small() {
        // Beside the key, and what a map and an allocation cost.
        assert!(size_of::<Slot>() <= 24 && size_of::<Shared>() <= 176, "{} {}", size_of::<Slot>(), size_of::<Shared>());
    }

    #[test]
    fn a_million_addresses_need_no_more_room_than_there_is() {
        let table = Table::with_room_for(6_400);
        let rate = Rate::of("5/1h".parse().unwrap());
        for number in 0..1_000_000_u128 {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            table.with(key, 0, |slot| slot.take_alone(rate, 0));
        }
        assert!((1_000..=6_400).contains(&table.len()), "{}", table.len());
        table.forget_idle(12 * 60 * 1_000_000 - 1);
        assert!(table.len() > 1_000);
        table.forget_idle(12 * 60 * 1_000_000);
        assert_eq!(table.len(), 0);
    }
}
