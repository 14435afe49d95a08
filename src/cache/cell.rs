//! One guard's cell: its generation, and what is remembered of its moves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::target::{Cause, Move};
use crate::model::{Change, Footprint};

/// Into how many parts the remembered time is divided. What is said of a move is too early by at most one part.
const PARTS: u32 = 8;

/// What is remembered where no collection asks for it, for requests that say `max-stale`.
const DEFAULT_MEMORY: Duration = Duration::from_secs(8);

/// So many changes of a guard are remembered. An answer that has not been asked for since more of them is given up unseen.
const CHANGES: usize = 256;

/// The generation of one guard. There is one cell for nearly each entry, and most never move, so what is remembered of moves is
/// allocated with the first.
#[derive(Debug, Default)]
pub(super) struct Cell {
    generation: AtomicU64,
    /// For how long a move is remembered, in milliseconds.
    memory_ms: AtomicU32,
    /// The lock protects the marks and orders moves; it is never held across an await, and a hit does not take it.
    history: Mutex<Option<Box<History>>>,
}

#[derive(Debug)]
struct History {
    last: Move,
    /// Generations with times at which they were not yet reached, or just so; the oldest first, both never falling.
    marks: VecDeque<Mark>,
    /// The newest generations that changes made, oldest first. What else moved the guard is not among them.
    changes: VecDeque<(u64, Arc<Change>)>,
}

#[derive(Debug)]
struct Mark {
    generation: u64,
    since: Instant,
}

/// A guard's cell and the generation it had before a load began.
#[derive(Debug)]
pub struct Captured {
    cell: Arc<Cell>,
    /// It moves up when it is found out that nothing since then has touched what it protects.
    generation: AtomicU64,
}

impl Clone for Captured {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), generation: AtomicU64::new(self.generation()) }
    }
}

/// What a cell knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct CellState {
    pub(super) generation: u64,
    pub(super) last: Option<Move>,
}

impl Captured {
    pub(super) fn of(cell: Arc<Cell>) -> Self {
        // Acquire pairs with the release in `advance`.
        let generation = AtomicU64::new(cell.generation.load(Ordering::Acquire));
        Self { cell, generation }
    }

    /// Whether nothing invalidated the guard since the capture.
    pub fn is_current(&self) -> bool {
        // Acquire pairs with the release in `advance`: who sees the answer to a write sees its new generation.
        self.cell.generation.load(Ordering::Acquire) == self.generation()
    }

    /// Whether nothing that moved the guard since the capture touched what it protects, which has `footprint`; `is_shown` says
    /// whether it shows the change's record. If so, it is as good as captured now.
    ///
    /// A change that is no newer than the capture may be asked about as well, if it was told of late: it can only be said to
    /// touch what it does not. Those after it are all here, or one of them is missing and nobody can tell.
    pub(super) fn follow(&self, footprint: &Footprint, is_shown: impl Fn(&Change) -> bool) -> bool {
        let history = self.cell.history();
        let (from, to) = (self.generation(), self.cell.generation.load(Ordering::Acquire));
        let Some(history) = history.as_ref() else { return from == to };
        let since = history.changes.iter().rev().take_while(|(generation, _)| *generation > from);
        let mut seen = 0;
        for (_, change) in since {
            if footprint.is_touched_by(change, || is_shown(change)) {
                return false;
            }
            seen += 1;
        }
        if seen != to - from {
            return false;
        }
        self.generation.store(to, Ordering::Relaxed);
        true
    }

    /// Captures the same guard again.
    pub(super) fn again(&self) -> Self {
        Self::of(Arc::clone(&self.cell))
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A time at which nothing had invalidated the guard since the capture; as late as is known. `None` if that is forgotten, or
    /// nobody can tell.
    pub(super) fn current_until(&self) -> Option<Instant> {
        let history = self.cell.history();
        let marks = &history.as_ref()?.marks;
        // A mark that is not newer than the first move after the capture is not later either.
        marks.iter().rev().find(|mark| mark.generation <= self.generation() + 1).map(|mark| mark.since)
    }
}

impl Cell {
    /// Remembers moves for at least `time`.
    pub(super) fn remember_for(&self, time: Duration) {
        let time_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        if self.memory_ms.load(Ordering::Relaxed) < time_ms {
            self.memory_ms.fetch_max(time_ms, Ordering::Relaxed);
        }
    }

    /// Outdates all that was captured before, if it is not found out that `change` has not touched it.
    pub(super) fn advance(&self, moved: &Move, change: Option<&Arc<Change>>) {
        let mut history = self.history();
        let generation = self.generation.fetch_add(1, Ordering::Release) + 1;
        let history = history.get_or_insert_with(|| Box::new(History::new(*moved)));
        history.last = *moved;
        if let Some(change) = change {
            history.remember(generation, change);
        }
        match moved.cause {
            // It may have happened at any time.
            Cause::Unknown => history.marks.clear(),
            Cause::Change { .. } | Cause::Invalidated { .. } => {
                let memory = match self.memory_ms.load(Ordering::Relaxed) {
                    0 => DEFAULT_MEMORY,
                    memory_ms => Duration::from_millis(u64::from(memory_ms)),
                };
                history.mark(generation, moved.since, memory);
            }
        }
    }

    pub(super) fn state(&self) -> CellState {
        let history = self.history();
        CellState { generation: self.generation.load(Ordering::Acquire), last: history.as_ref().map(|history| history.last) }
    }

    fn history(&self) -> MutexGuard<'_, Option<Box<History>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn new(last: Move) -> Self {
        Self { last, marks: VecDeque::new(), changes: VecDeque::new() }
    }

    fn remember(&mut self, generation: u64, change: &Arc<Change>) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((generation, Arc::clone(change)));
    }

    /// Notes when `generation` was reached, unless it was reached soon after the newest mark, which then stands for both.
    fn mark(&mut self, generation: u64, since: Instant, memory: Duration) {
        // A move that is told of late may have happened before those that are marked.
        for mark in self.marks.iter_mut().rev().take_while(|mark| mark.since > since) {
            mark.since = since;
        }
        let is_soon = |newest: &Mark| since.saturating_duration_since(newest.since) < memory / PARTS;
        if self.marks.back().is_some_and(is_soon) {
            return;
        }
        self.marks.push_back(Mark { generation, since });
        if self.marks.len() > PARTS as usize + 2 {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(8);

    fn change() -> Cause {
        Cause::Invalidated { by: None }
    }

    fn cell() -> Arc<Cell> {
        let cell = Arc::new(Cell::default());
        cell.remember_for(LAG);
        cell
    }

    #[test]
    fn a_move_is_never_said_to_be_later_than_it_was_and_seldom_much_earlier() {
        let mut random = fastrand::Rng::with_seed(7);
        for gap_ms in [1, 40, 700, 3_000, 20_000] {
            let (cell, mut now) = (cell(), Instant::now());
            let mut captures: Vec<(Captured, Option<Instant>)> = Vec::new();
            for _ in 0..2_000 {
                if random.bool() {
                    captures.push((Captured::of(Arc::clone(&cell)), None));
                } else {
                    cell.advance(&Move { cause: change(), since: now }, None);
                    captures.iter_mut().for_each(|(_, first)| *first = first.or(Some(now)));
                }
                for (captured, first) in captures.iter().filter_map(|(captured, first)| Some((captured, (*first)?))) {
                    assert!(!captured.is_current());
                    let said = captured.current_until();
                    assert!(said.is_none_or(|said| said <= first), "later than it was");
                    if now - first <= LAG {
                        let said = said.expect("forgotten too early");
                        assert!(first - said <= LAG / PARTS, "{:?} too early", first - said);
                    }
                }
                captures.retain(|(_, first)| first.is_none_or(|first| now - first <= 2 * LAG));
                now += Duration::from_millis(random.u64(0..=gap_ms));
            }
        }
    }

    #[test]
    fn what_is_told_late_moves_the_marks_back() {
        let (cell, now) = (cell(), Instant::now());
        let before = Captured::of(Arc::clone(&cell));
        let at = |seconds| now + Duration::from_secs(seconds);
        cell.advance(&Move { cause: change(), since: at(20) }, None);
        let between = Captured::of(Arc::clone(&cell));
        cell.advance(&Move { cause: change(), since: at(10) }, None);
        assert_eq!(between.current_until(), Some(at(10)));
        assert!(before.current_until().is_some_and(|said| said <= at(20)));
    }

    #[test]
    fn nobody_can_tell_since_when_an_unknown_change_was() {
        let cell = cell();
        let captured = Captured::of(Arc::clone(&cell));
        cell.advance(&Move::now(Cause::Unknown), None);
        assert_eq!(captured.current_until(), None);
        cell.advance(&Move::now(change()), None);
        assert_eq!(captured.current_until(), None);
        assert!(captured.again().is_current());
    }

    #[test]
    fn a_cell_that_no_collection_asks_about_the_past_remembers_seconds() {
        let cell = Arc::new(Cell::default());
        let captured = Captured::of(Arc::clone(&cell));
        assert!(cell.state().last.is_none());
        let moved = Move::now(change());
        cell.advance(&moved, None);
        assert_eq!(captured.current_until(), Some(moved.since));
        assert!(cell.state().last.is_some() && cell.state().generation == 1);
    }

    fn update(id: &str, member: &str) -> Arc<Change> {
        let members = Some(vec![member.to_owned()]);
        Arc::new(Change { members, ..crate::cache::tests::change(1, 1, id) })
    }

    /// Of a list by `name`.
    fn footprint() -> Footprint {
        Footprint::reading(["name"])
    }

    fn follows(captured: &Captured, shown: &str) -> bool {
        captured.follow(&footprint(), |change| change.id.as_str() == shown)
    }

    #[test]
    fn changes_that_do_not_touch_an_answer_leave_it_current() {
        let (cell, moved) = (cell(), Move::now(change()));
        let captured = Captured::of(Arc::clone(&cell));
        assert!(follows(&captured, "M-1"), "nothing moved");
        for _ in 0..CHANGES {
            cell.advance(&moved, Some(&update("M-2", "tier")));
        }
        assert!(!captured.is_current());
        assert!(follows(&captured, "M-1"));
        assert!(captured.is_current());
        cell.advance(&moved, Some(&update("M-1", "tier")));
        assert!(!follows(&captured, "M-1"), "it shows the record");
        assert!(!captured.is_current());
        let captured = captured.again();
        cell.advance(&moved, Some(&update("M-2", "name")));
        assert!(!follows(&captured, "M-1"), "it reads the member");
    }

    #[test]
    fn what_moved_a_guard_and_is_not_known_any_more_has_touched_everything() {
        let (cell, moved, untouching) = (cell(), Move::now(change()), update("M-2", "tier"));
        let captured = Captured::of(Arc::clone(&cell));
        cell.advance(&moved, Some(&untouching));
        cell.advance(&moved, None);
        cell.advance(&moved, Some(&untouching));
        assert!(!follows(&captured, "M-1"), "nobody can tell what one of them was");
        let captured = captured.again();
        for _ in 0..=CHANGES {
            cell.advance(&moved, Some(&untouching));
        }
        assert!(!follows(&captured, "M-1"), "the first of them is forgotten");
    }
}
