//! Guard cells: the current generation of everything that a cached entry depends on.
//!
//! A cell exists as long as an entry or a load holds it. To invalidate is to move the cell of a guard to its next
//! generation; a guard without a cell has nothing to invalidate. So the table never grows beyond what is cached, and
//! nothing is scanned.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use foldhash::quality::RandomState;

use super::cell::{Captured, Cell, CellState};
use super::target::{Move, Target, collection_of};
use crate::model::{Change, Guard};

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
    cells: HashMap<Guard, Weak<Cell>, RandomState>,
    sweep_at: usize,
}

impl Default for Guards {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::default() }
    }
}

impl Guards {
    /// The guard's generation now. Call it before the load whose result the capture shall protect. `max_lag` says for how long
    /// after a move somebody may ask when it was.
    pub fn capture(&self, guard: &Guard, max_lag: Duration) -> Captured {
        let mut shard = self.shard(guard);
        let cell = match shard.cells.get(guard).and_then(Weak::upgrade) {
            Some(cell) => cell,
            None => {
                shard.sweep_if_due();
                let cell = Arc::new(Cell::default());
                shard.cells.insert(guard.clone(), Arc::downgrade(&cell));
                cell
            }
        };
        cell.remember_for(max_lag);
        Captured::of(cell)
    }

    /// Invalidates every entry that `target` is about, and every load that captured its guards before. A guard costs the same
    /// however many there are; everything else walks the cells. What is captured in a shard after its turn belongs to a load that begins
    /// after this call did.
    pub fn advance(&self, target: &Target, moved: &Move) {
        match target {
            Target::Guard(guard) => {
                let cell = self.shard(guard).cells.get(guard).and_then(Weak::upgrade);
                if let Some(cell) = cell {
                    cell.advance(moved, None);
                }
            }
            Target::Collection(collection) => self.advance_where(moved, |guard| collection_of(guard) == collection),
            Target::Records(collection, pattern) => self.advance_where(
                moved,
                |guard| matches!(guard, Guard::Record(its, id) if its == collection && pattern.matches(id.as_str())),
            ),
            Target::All => self.advance_where(moved, |_| true),
        }
    }

    /// Invalidates what depends on the guards of `change`, except for what it is found not to have touched.
    pub fn advance_by(&self, change: &Arc<Change>, moved: &Move) {
        for guard in change.guards() {
            let cell = self.shard(&guard).cells.get(&guard).and_then(Weak::upgrade);
            if let Some(cell) = cell {
                // A record is its own page: whatever moves its guard touches it.
                let change = Some(change).filter(|_| !matches!(guard, Guard::Record(..)));
                cell.advance(moved, change);
            }
        }
    }

    /// What is known of the guard's cell; `None` if nothing depends on it.
    pub(super) fn state(&self, guard: &Guard) -> Option<CellState> {
        let cell = self.shard(guard).cells.get(guard).and_then(Weak::upgrade);
        cell.map(|cell| cell.state())
    }

    fn advance_where(&self, moved: &Move, selects: impl Fn(&Guard) -> bool) {
        for shard in &self.shards {
            let shard = lock(shard);
            let selected = shard.cells.iter().filter(|(guard, _)| selects(guard)).filter_map(|(_, cell)| cell.upgrade());
            selected.for_each(|cell| cell.advance(moved, None));
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
    use crate::cache::target::{Cause, Pattern};
    use crate::model::{CollectionName, RecordId, Scalar, Term};

    fn named(name: &str) -> CollectionName {
        CollectionName::parse(name).unwrap()
    }

    fn record(id: &str) -> Guard {
        Guard::Record(named("metrics"), RecordId::parse(id).unwrap())
    }

    fn capture(guards: &Guards, guard: &Guard) -> Captured {
        guards.capture(guard, Duration::ZERO)
    }

    fn advance(guards: &Guards, target: Target) {
        guards.advance(&target, &Move::now(Cause::Unknown));
    }

    #[test]
    fn an_advance_outdates_captures_of_that_guard_only() {
        let guards = Guards::default();
        let (one, other) = (capture(&guards, &record("one")), capture(&guards, &record("other")));
        advance(&guards, Target::Guard(record("one")));
        assert!(!one.is_current());
        assert!(other.is_current());
        assert!(capture(&guards, &record("one")).is_current());
    }

    #[test]
    fn an_advance_of_all_outdates_every_capture() {
        let guards = Guards::default();
        let captured: Vec<Captured> = (0..1_000).map(|number| capture(&guards, &record(&number.to_string()))).collect();
        advance(&guards, Target::All);
        assert!(!captured.iter().any(Captured::is_current));
        assert!(capture(&guards, &record("1")).is_current());
    }

    #[test]
    fn a_collection_is_outdated_with_all_its_guards_and_no_others() {
        let guards = Guards::default();
        let term = Term { field: "tier".into(), value: Scalar::Integer(1) };
        let its = [record("1"), Guard::Term(named("metrics"), term.clone()), Guard::Collection(named("metrics"))];
        let others = [Guard::Term(named("domains"), term), Guard::Collection(named("domains"))];
        let [its, others] =
            [&its[..], &others[..]].map(|list| list.iter().map(|guard| capture(&guards, guard)).collect::<Vec<Captured>>());
        advance(&guards, Target::Collection(named("metrics")));
        assert!(!its.iter().any(Captured::is_current));
        assert!(others.iter().all(Captured::is_current));
    }

    #[test]
    fn a_pattern_outdates_the_records_that_it_matches_and_nothing_else() {
        let guards = Guards::default();
        let cases =
            [(record("M-1"), false), (record("M-2"), false), (record("N-1"), true), (Guard::Collection(named("metrics")), true)];
        let captured: Vec<Captured> = cases.iter().map(|(guard, _)| capture(&guards, guard)).collect();
        advance(&guards, Target::Records(named("metrics"), Pattern::parse("M-?").unwrap()));
        for ((guard, stays), captured) in cases.iter().zip(captured) {
            assert_eq!(captured.is_current(), *stays, "{guard:?}");
        }
    }

    #[test]
    fn a_guard_that_nothing_depends_on_takes_no_memory() {
        let guards = Guards::default();
        for number in 0..100_000 {
            drop(capture(&guards, &record(&number.to_string())));
        }
        advance(&guards, Target::Guard(record("never captured")));
        assert_eq!(guards.live_cells(), 0);
        let kept: usize = guards.shards.iter().map(|shard| lock(shard).cells.len()).sum();
        assert!(kept <= SHARDS * (SWEEP_FROM + 1), "{kept} dead cells");
    }
}
