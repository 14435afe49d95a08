//! What waits for one client: a few items, and of large ones fewer, at least one. An item waits until the client's connection has
//! taken it.

use std::sync::Arc;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::FeedItem;

/// How many items wait for a client.
const WAITING: usize = 16;
/// How many bytes of them; one that has more waits alone.
const WAITING_BYTES: u32 = 1024 * 1024;
/// What an item takes besides its documents.
const OVERHEAD_BYTES: usize = 512;

/// Where items go in.
pub(super) struct Outbox {
    items: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

/// Where they come out.
pub(super) struct Inbox(mpsc::Receiver<Waiting>);

/// Room for one item.
pub(super) struct Room {
    slot: OwnedPermit<Waiting>,
    bytes: OwnedSemaphorePermit,
}

struct Waiting {
    item: FeedItem,
    _bytes: OwnedSemaphorePermit,
}

/// That the client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left;

pub(super) fn outbox() -> (Outbox, Inbox) {
    let (items, waiting) = mpsc::channel(WAITING);
    (Outbox { items, bytes: Arc::new(Semaphore::new(WAITING_BYTES as usize)) }, Inbox(waiting))
}

impl Outbox {
    /// Waits until there is room for an item whose documents have `size_bytes`. Whoever stops waiting has taken none.
    pub(super) fn room(&self, size_bytes: usize) -> impl Future<Output = Result<Room, Left>> + use<> {
        let (items, bytes) = (self.items.clone(), Arc::clone(&self.bytes));
        let size = u32::try_from(size_bytes.saturating_add(OVERHEAD_BYTES)).unwrap_or(u32::MAX).min(WAITING_BYTES);
        async move {
            // The slot first: it is what a client that has gone closes.
            let slot = items.clone().reserve_owned().await.map_err(|_| Left)?;
            tokio::select! {
                biased;
                () = items.closed() => Err(Left),
                bytes = bytes.acquire_many_owned(size) => Ok(Room { slot, bytes: bytes.map_err(|_| Left)? }),
            }
        }
    }

    /// Until the client is gone.
    pub(super) async fn closed(&self) {
        self.items.closed().await;
    }
}

impl Room {
    pub(super) fn fill(self, item: FeedItem) {
        self.slot.send(Waiting { item, _bytes: self.bytes });
    }
}

impl Inbox {
    /// The next item; `None` when there will be none.
    pub(super) async fn take(&mut self) -> Option<FeedItem> {
        self.0.recv().await.map(|waiting| waiting.item)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn item(bytes: usize) -> FeedItem {
        FeedItem::Change { place: String::new(), data: "x".repeat(bytes) }
    }

    /// How many items of this size there is room for.
    fn put(outbox: &Outbox, bytes: usize) -> usize {
        let mut count = 0;
        while let Some(room) = outbox.room(bytes).now_or_never() {
            room.unwrap().fill(item(bytes));
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn few_items_wait_and_of_large_ones_fewer_but_one() {
        for (bytes, expected) in [(0, 16), (1_000, 16), (200 * 1024, 5), (1024 * 1024, 1), (5 * 1024 * 1024, 1)] {
            let (outbox, mut inbox) = outbox();
            assert_eq!(put(&outbox, bytes), expected, "{bytes}");
            // One that is taken makes room for one.
            assert_eq!(inbox.take().await, Some(item(bytes)));
            assert_eq!(put(&outbox, bytes), 1, "{bytes}");
            drop(outbox);
            for _ in 0..expected {
                assert_eq!(inbox.take().await, Some(item(bytes)));
            }
            assert_eq!(inbox.take().await, None);
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_learns_that_the_client_has_gone() {
        let (outbox, inbox) = outbox();
        outbox.room(WAITING_BYTES as usize).await.unwrap().fill(item(0));
        let waiting = tokio::spawn(outbox.room(1));
        drop(inbox);
        assert!(waiting.await.unwrap().is_err());
        assert!(outbox.room(1).await.is_err());
        outbox.closed().await;
    }
}
