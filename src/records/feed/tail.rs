//! The tail of the change log: read once for all followers of this process, while there are any, and kept for a moment. Whoever is
//! too slow for that, or comes later, reads the log by himself until he has caught up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::Result;
use crate::model::{LoggedChange, Position, Snapshot};
use crate::store::Store;

/// How many changes are read at a time.
pub(super) const BATCH: u32 = 200;
/// How much is kept: changes, and bytes of their documents. At least one batch, whatever its size.
const MAX_ITEMS: usize = 2_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What a change takes besides its documents.
const OVERHEAD_BYTES: usize = 512;

/// A change, and what the round saw that has found it.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) change: Arc<LoggedChange>,
    pub(super) round: Arc<Snapshot>,
}

/// Where a follower joined, or has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    generation: u64,
    next: u64,
}

/// What there is for a follower.
pub(super) enum Taken {
    /// These, and where to go on. With the last of them comes what the tail has seen: all of that has been told then.
    Items(Vec<Item>, Mark, Option<Arc<Snapshot>>),
    /// What comes next is not kept any more, or never was: the follower has to read the log.
    Lost,
}

/// See above. One per process.
pub(super) struct Tail {
    /// Held for moments, and never across an await.
    ring: Mutex<Ring>,
    moved: watch::Sender<()>,
    followers: watch::Sender<usize>,
}

#[derive(Default)]
struct Ring {
    /// Another one after each interruption.
    generation: u64,
    /// The number of the first item.
    first: u64,
    items: VecDeque<Item>,
    size_bytes: usize,
    /// What the rounds have seen that have ended; `None` while nobody reads.
    seen: Option<Arc<Snapshot>>,
    /// Whether a round has put only some of its pages in.
    is_open: bool,
}

/// A follower, as long as it lives.
pub(super) struct Following(Arc<Tail>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followers.send_modify(|followers| *followers -= 1);
    }
}

impl Tail {
    pub(super) fn new() -> Arc<Self> {
        let (moved, followers) = (watch::Sender::new(()), watch::Sender::new(0));
        Arc::new(Self { ring: Mutex::default(), moved, followers })
    }

    /// One more follower.
    pub(super) fn follow(self: &Arc<Self>) -> Following {
        self.followers.send_modify(|followers| *followers += 1);
        Following(Arc::clone(self))
    }

    /// Where the tail is now, as soon as it is read. What is committed from then on it will have.
    pub(super) async fn joined(self: Arc<Self>) -> Mark {
        let mut moved = self.moved.subscribe();
        loop {
            if let Some(mark) = self.now() {
                return mark;
            }
            // The sender is this tail's.
            let _ = moved.changed().await;
        }
    }

    fn now(&self) -> Option<Mark> {
        let ring = self.ring();
        ring.seen.is_some().then(|| Mark { generation: ring.generation, next: ring.first + ring.items.len() as u64 })
    }

    /// Changes whenever there is more to take.
    pub(super) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// At most `limit` items behind `mark`.
    pub(super) fn take(&self, mark: Mark, limit: usize) -> Taken {
        let ring = self.ring();
        let Some(seen) = ring.seen.as_ref().filter(|_| ring.generation == mark.generation) else { return Taken::Lost };
        let Some(skip) = mark.next.checked_sub(ring.first).and_then(|skip| usize::try_from(skip).ok()) else {
            return Taken::Lost;
        };
        let items: Vec<Item> = ring.items.iter().skip(skip).take(limit).cloned().collect();
        let is_all = skip + items.len() == ring.items.len();
        let next = Mark { next: mark.next + items.len() as u64, ..mark };
        Taken::Items(items, next, (is_all && !ring.is_open).then(|| Arc::clone(seen)))
    }

    /// Reads the log while somebody follows: whenever `woken` changes, and every `interval`. It ends with its task.
    pub(super) async fn run(self: Arc<Self>, store: Store, mut woken: watch::Receiver<()>, interval: Duration) {
        let mut followers = self.followers.subscribe();
        loop {
            // The sender is this tail's.
            let _ = followers.wait_for(|followers| *followers > 0).await;
            match store.snapshot().await {
                Ok(seen) => self.follow_from(&store, seen, &mut woken, interval).await,
                // Whoever follows is told by its own reading, if it needs any.
                Err(error) => tracing::debug!(%error, "the change log cannot be followed for now"),
            }
            self.update(|ring| *ring = Ring { generation: ring.generation + 1, ..Ring::default() });
            if *followers.borrow() > 0 {
                tokio::time::sleep(interval).await;
            }
        }
    }

    /// Until nobody follows, or the log is another one.
    async fn follow_from(&self, store: &Store, seen: Snapshot, woken: &mut watch::Receiver<()>, interval: Duration) {
        let mut seen = Arc::new(seen);
        self.update(|ring| ring.seen = Some(Arc::clone(&seen)));
        while *self.followers.borrow() > 0 {
            // A waker that is gone leaves the interval.
            let _ = tokio::time::timeout(interval, woken.changed()).await;
            match self.round(store, &seen).await {
                Ok(Some(round)) => seen = round,
                Ok(None) => return,
                // Nothing was said to be seen: the next round begins where this one did. What it has put into the ring would be
                // there twice.
                Err(error) => {
                    tracing::debug!(%error, "the change log cannot be followed for now");
                    return;
                }
            }
        }
    }

    /// What was committed since; `None` if this is not the log that was read before.
    async fn round(&self, store: &Store, seen: &Arc<Snapshot>) -> Result<Option<Arc<Snapshot>>> {
        let mut page = store.changes_follow(None, seen, None, BATCH).await?;
        if page.snapshot.server != seen.server || page.snapshot.next < seen.next {
            return Ok(None);
        }
        let round = Arc::new(page.snapshot);
        loop {
            let visible = page.changes.into_iter().filter(|change| round.sees(change.position.transaction));
            let items = visible.map(|change| Item { change: Arc::new(change), round: Arc::clone(&round) }).collect();
            let after = page.more_after.filter(|after: &Position| after.transaction < round.next);
            self.update(|ring| {
                ring.push(items);
                ring.is_open = after.is_some();
                if !ring.is_open {
                    ring.seen = Some(Arc::clone(&round));
                }
            });
            let Some(after) = after else { return Ok(Some(round)) };
            page = store.changes_follow(None, seen, Some(after), BATCH).await?;
            if page.snapshot.server != round.server {
                return Ok(None);
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut self.ring());
        self.moved.send_replace(());
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, items: Vec<Item>) {
        let fresh = items.len();
        self.size_bytes += items.iter().map(size).sum::<usize>();
        self.items.extend(items);
        while self.items.len() > fresh && (self.items.len() > MAX_ITEMS || self.size_bytes > MAX_BYTES) {
            if let Some(item) = self.items.pop_front() {
                self.size_bytes -= size(&item);
                self.first += 1;
            }
        }
    }
}

fn size(item: &Item) -> usize {
    let documents = [&item.change.before, &item.change.after];
    documents.into_iter().flatten().map(String::len).sum::<usize>() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CollectionName, Operation, RecordId, ServerRun};

    fn item(sequence: i64, bytes: usize) -> Item {
        let change = LoggedChange {
            position: Position { transaction: 1, sequence },
            collection: CollectionName::parse("items").unwrap(),
            id: RecordId::parse("a").unwrap(),
            operation: Operation::Create,
            version: 1,
            actor: "x".to_owned(),
            origin: None,
            at: String::new(),
            before: None,
            after: Some("x".repeat(bytes)),
        };
        Item { change: Arc::new(change), round: Arc::new(snapshot(2)) }
    }

    fn snapshot(next: u64) -> Snapshot {
        Snapshot { next, in_progress: Vec::new(), server: ServerRun::default() }
    }

    fn numbers(taken: &Taken) -> Vec<i64> {
        match taken {
            Taken::Items(items, ..) => items.iter().map(|item| item.change.position.sequence).collect(),
            Taken::Lost => panic!("it is lost"),
        }
    }

    #[test]
    fn a_follower_takes_what_comes_after_it_joined_and_learns_when_that_is_all() {
        let tail = Tail::new();
        assert!(tail.now().is_none());
        tail.update(|ring| ring.seen = Some(Arc::new(snapshot(1))));
        tail.update(|ring| ring.push(vec![item(1, 0)]));
        let mark = tail.now().unwrap();
        tail.update(|ring| ring.push(vec![item(2, 0), item(3, 0)]));
        let taken = tail.take(mark, 1);
        assert_eq!(numbers(&taken), [2]);
        let Taken::Items(_, mark, None) = taken else { panic!("there is one more") };
        let taken = tail.take(mark, 10);
        assert_eq!(numbers(&taken), [3]);
        let Taken::Items(_, mark, Some(seen)) = taken else { panic!("that is all") };
        assert_eq!(seen.next, 1);
        assert!(numbers(&tail.take(mark, 10)).is_empty());
        tail.update(|ring| *ring = Ring { generation: ring.generation + 1, seen: ring.seen.clone(), ..Ring::default() });
        assert!(matches!(tail.take(mark, 10), Taken::Lost));
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_in_bytes_and_who_is_behind_is_told() {
        let tail = Tail::new();
        tail.update(|ring| ring.seen = Some(Arc::new(snapshot(1))));
        let mark = tail.now().unwrap();
        for number in 0..MAX_ITEMS as i64 + 5 {
            tail.update(|ring| ring.push(vec![item(number, 0)]));
        }
        assert!(matches!(tail.take(mark, 10), Taken::Lost));
        assert_eq!(tail.ring().items.len(), MAX_ITEMS);
        tail.update(|ring| ring.push(vec![item(-1, MAX_BYTES)]));
        let ring = tail.ring();
        assert_eq!((ring.items.len(), ring.first), (1, MAX_ITEMS as u64 + 5));
        assert_eq!(ring.size_bytes, MAX_BYTES + OVERHEAD_BYTES);
    }
}
