//! Guard cells: the current generation of everything that a cached entry depends on.
//!
//! A cell exists as long as an entry or a load holds it. To invalidate is to move the cell of a guard to its next
//! generation; a guard without a cell has nothing to invalidate. So the table never grows beyond what is cached, and
//! nothing is scanned.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::model::Guard;

/// A power of two, enough that two threads seldom meet.
const SHARDS: usize = 64;

/// Below this many cells a shard is not worth sweeping.
const SWEEP_FROM: usize = 64;

/// All living guard cells of the process.
#[derive(Debug)]
pub struct Guards {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<Guard, Weak<AtomicU64>>,
    sweep_at: usize,
}

/// A guard's cell and the generation it had before a load began.
#[derive(Clone, Debug)]
pub struct Captured {
    cell: Arc<AtomicU64>,
    generation: u64,
}

impl Captured {
    /// Whether nothing invalidated the guard since the capture.
    pub fn is_current(&self) -> bool {
        // Acquire pairs with the release in `advance`: who sees the answer to a write sees its new generation.
        self.cell.load(Ordering::Acquire) == self.generation
    }
}

impl Default for Guards {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Guards {
    /// The guard's generation now. Call it before the load whose result the capture shall protect.
    pub fn capture(&self, guard: &Guard) -> Captured {
        let mut shard = self.shard(guard);
        let cell = match shard.cells.get(guard).and_then(Weak::upgrade) {
            Some(cell) => cell,
            None => {
                shard.sweep_if_due();
                let cell = Arc::new(AtomicU64::new(0));
                shard.cells.insert(guard.clone(), Arc::downgrade(&cell));
                cell
            }
        };
        let generation = cell.load(Ordering::Acquire);
        Captured { cell, generation }
    }

    /// Invalidates every entry that depends on `guard`, and every load that captured it before.
    pub fn advance(&self, guard: &Guard) {
        if let Some(cell) = self.shard(guard).cells.get(guard).and_then(Weak::upgrade) {
            cell.fetch_add(1, Ordering::Release);
        }
    }

    /// Invalidates every entry, and every load that is in the air. A capture that a shard takes after its turn belongs to a
    /// load that begins after this call did.
    pub fn advance_all(&self) {
        for shard in &self.shards {
            for cell in lock(shard).cells.values().filter_map(Weak::upgrade) {
                cell.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// How many cells are in use.
    #[cfg(test)]
    fn live_cells(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).cells.values().filter(|cell| cell.strong_count() > 0).count()).sum()
    }

    /// The lock protects the table, not the generations; it is never held across an await.
    fn shard(&self, guard: &Guard) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(guard);
        #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "reduced modulo the number of shards")]
        lock(&self.shards[hash as usize % SHARDS])
    }
}

impl Shard {
    /// Forgets dead cells once the shard has doubled since the last sweep, so a capture costs O(1) on average.
    fn sweep_if_due(&mut self) {
        if self.cells.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.cells.retain(|_, cell| cell.strong_count() > 0);
            self.sweep_at = 2 * self.cells.len();
        }
    }
}

/// A panic while a shard is locked leaves the table whole: each change is one insert or one retain.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CollectionName, RecordId};

    fn record(id: &str) -> Guard {
        Guard::Record(CollectionName::parse("metrics").unwrap(), RecordId::parse(id).unwrap())
    }

    #[test]
    fn an_advance_outdates_captures_of_that_guard_only() {
        let guards = Guards::default();
        let (one, other) = (guards.capture(&record("one")), guards.capture(&record("other")));
        guards.advance(&record("one"));
        assert!(!one.is_current());
        assert!(other.is_current());
        assert!(guards.capture(&record("one")).is_current());
    }

    #[test]
    fn an_advance_of_all_outdates_every_capture() {
        let guards = Guards::default();
        let captured: Vec<Captured> = (0..1_000).map(|number| guards.capture(&record(&number.to_string()))).collect();
        guards.advance_all();
        assert!(!captured.iter().any(Captured::is_current));
        assert!(guards.capture(&record("1")).is_current());
    }

    #[test]
    fn a_guard_that_nothing_depends_on_takes_no_memory() {
        let guards = Guards::default();
        for number in 0..100_000 {
            drop(guards.capture(&record(&number.to_string())));
        }
        guards.advance(&record("never captured"));
        assert_eq!(guards.live_cells(), 0);
        let kept: usize = guards.shards.iter().map(|shard| lock(shard).cells.len()).sum();
        assert!(kept <= SHARDS * (SWEEP_FROM + 1), "{kept} dead cells");
    }
}
