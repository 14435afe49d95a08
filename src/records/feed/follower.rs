//! One client of the feed: catches up from the log, then takes what the tail has, and is back at the log when the tail has lost
//! it. Wherever it is cut off, its place says what the client has.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::audit::ChangeSight;
use super::outbox::{Left, Outbox, Room};
use super::place::Place;
use super::tail::{BATCH, Following, Mark, Taken};
use super::{Continuity, FeedEnd, FeedItem, Recheck, Shared, continuity, is_gone};
use crate::error::{ErrorKind, Result};
use crate::model::{ChangePage, Collection, LoggedChange, Position, ServerRun, Snapshot};
use crate::store::{ChangeFilter, LogHead};

/// How many items are taken from the tail at a time.
const AT_ONCE: usize = 64;
/// After a reading of the log that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// So many heartbeats may pass before a client that takes nothing is given up.
const PATIENCE_HEARTBEATS: u32 = 2;
/// After nobody could say whether the client may still read.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

type Step<T = ()> = Result<T, FeedEnd>;

/// See above.
pub(super) struct Follower {
    shared: Arc<Shared>,
    collection: Arc<Collection>,
    filter: ChangeFilter,
    sight: ChangeSight,
    /// Where the client was when this round began.
    begin: Place,
    /// The round, and how far it has been told or passed over.
    passed: Option<(Arc<Snapshot>, Position)>,
    out: Outbox,
    recheck: Recheck,
    closing: watch::Receiver<bool>,
    /// When it is asked again whether the client may still read. Nothing is told later than that without asking.
    beat_at: Instant,
    /// When that was last answered.
    checked_at: Instant,
    _following: Following,
}

impl Follower {
    pub(super) fn new(
        shared: Arc<Shared>,
        collection: Arc<Collection>,
        filter: ChangeFilter,
        sight: ChangeSight,
        begin: Place,
        out: Outbox,
        recheck: Recheck,
    ) -> Self {
        let (closing, following) = (shared.closing.subscribe(), shared.tail.follow());
        // The first one at once: who is cut off before the first change has a place too.
        let now = Instant::now();
        Self {
            shared,
            collection,
            filter,
            sight,
            begin,
            passed: None,
            out,
            recheck,
            closing,
            beat_at: now,
            checked_at: now,
            _following: following,
        }
    }

    /// Until it ends; `told` is told why before the client can see the end.
    pub(super) async fn run(mut self, told: impl FnOnce(FeedEnd)) -> FeedEnd {
        let end = match self.follow().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        told(end);
        end
    }

    async fn follow(&mut self) -> Step<std::convert::Infallible> {
        self.beat().await?;
        loop {
            // First the tail, then the log: what the log does not have yet the tail will have.
            let joined = Arc::clone(&self.shared.tail).joined();
            let mark = self.meanwhile(joined).await?;
            self.catch_up().await?;
            self.live(mark).await?;
        }
    }

    /// Reads the log until it has told all that is there.
    async fn catch_up(&mut self) -> Step {
        while !self.has_read_a_round().await? {}
        // Only now: what retention removed while this was reading is noted by then.
        let head = self.head().await?;
        if is_gone(&self.begin.seen, &head) { Err(FeedEnd::Gone) } else { Ok(()) }
    }

    /// Whether one run of the server was all that it read.
    async fn has_read_a_round(&mut self) -> Step<bool> {
        self.settle();
        let mut page = self.page(self.begin.seen.clone(), None).await?;
        match continuity(&self.begin.seen, &page.snapshot) {
            Continuity::Same => {}
            Continuity::Other => return Err(FeedEnd::Gone),
            Continuity::Restarted => {
                if self.has_reread(&page.snapshot).await? {
                    self.begin.seen = self.begin.seen.restarted(&page.snapshot);
                }
                return Ok(false);
            }
        }
        let round = Arc::new(page.snapshot.clone());
        loop {
            for change in page.changes.iter().filter(|change| round.sees(change.position.transaction)) {
                self.pass(change, &round).await?;
            }
            let Some(after) = page.more_after.filter(|after| after.transaction < round.next) else { break };
            page = self.page(self.begin.seen.clone(), Some(after)).await?;
            if page.snapshot.server != round.server {
                return Ok(false);
            }
        }
        self.passed = None;
        self.begin = self.begin.after(&round);
        Ok(true)
    }

    /// After a start of the server, unless it is started once more meanwhile: rows under numbers that had been given out before, to transactions which left nothing. Whoever is
    /// cut off while they are told, and that is seldom enough, is told them again.
    async fn has_reread(&mut self, now: &Snapshot) -> Step<bool> {
        let from = self.begin.seen.clone().without_last(ServerRun::REUSED);
        let (mut newest, mut after) = (self.begin.newest, None);
        loop {
            let page = self.page(from.clone(), after).await?;
            if page.snapshot.server != now.server {
                return Ok(false);
            }
            for change in &page.changes {
                let Position { transaction, sequence } = change.position;
                let is_reused = self.begin.seen.sees(transaction) && sequence > self.begin.newest;
                if is_reused && now.sees(transaction) {
                    newest = newest.max(sequence);
                    if self.is_asked_for(change) {
                        self.tell(change).await?;
                    }
                }
            }
            after = page.more_after;
            if after.is_none_or(|after| after.transaction >= self.begin.seen.next) {
                self.begin.newest = newest;
                return Ok(true);
            }
        }
    }

    /// Takes what the tail has, until it has lost this one.
    async fn live(&mut self, mut mark: Mark) -> Step {
        let tail = Arc::clone(&self.shared.tail);
        let mut moves = tail.moves();
        loop {
            // Before it is looked: what comes after is not missed.
            moves.borrow_and_update();
            let Taken::Items(items, next, all) = tail.take(mark, AT_ONCE) else { return Ok(()) };
            let server = self.begin.seen.server;
            if items.iter().map(|item| &item.round).chain(&all).any(|round| round.server != server) {
                // The server was started anew, and only one of the two has noticed. The tail moves when it does.
                self.meanwhile(async move { drop(moves.changed().await) }).await?;
                return Ok(());
            }
            mark = next;
            for item in &items {
                self.pass(&item.change, &item.round).await?;
            }
            let is_empty = items.is_empty();
            if let Some(seen) = all {
                self.passed = None;
                self.begin = self.begin.after(&seen);
            }
            if is_empty {
                let mut moves = moves.clone();
                self.meanwhile(async move { drop(moves.changed().await) }).await?;
            }
        }
    }

    /// Tells a change, unless the client has it or has not asked for it.
    async fn pass(&mut self, change: &LoggedChange, round: &Arc<Snapshot>) -> Step {
        if let Some((last, _)) = &self.passed
            && !Arc::ptr_eq(last, round)
        {
            // The one before has ended.
            let last = Arc::clone(last);
            self.passed = None;
            self.begin = self.begin.after(&last);
        }
        self.begin.newest = self.begin.newest.max(change.position.sequence);
        if self.begin.has(change.position) {
            return Ok(());
        }
        self.passed = Some((Arc::clone(round), change.position));
        if self.is_asked_for(change) { self.tell(change).await } else { Ok(()) }
    }

    fn is_asked_for(&self, change: &LoggedChange) -> bool {
        let ChangeFilter { record, actor, operation, since: _, until: _, before: _ } = &self.filter;
        change.collection == self.collection.name
            && record.as_ref().is_none_or(|record| record == change.id.as_str())
            && actor.as_ref().is_none_or(|actor| *actor == change.actor)
            && operation.is_none_or(|operation| operation == change.operation)
    }

    async fn tell(&mut self, change: &LoggedChange) -> Step {
        let documents = [&change.before, &change.after];
        // First, for who may see what is found out there. What is left out for the client may be counted as well.
        let room = self.room(documents.into_iter().flatten().map(String::len).sum()).await?;
        match self.sight.show(change) {
            Ok(data) => room.fill(FeedItem::Change { place: self.place().to_string(), data }),
            // It would be as unreadable next time.
            Err(error) => {
                tracing::error!(position = %change.position, %error, "a change cannot be shown; it is left out of the feed");
            }
        }
        Ok(())
    }

    /// Where the client is.
    fn place(&self) -> Place {
        match &self.passed {
            Some((round, last)) => self.begin.behind(round, *last),
            None => self.begin.clone(),
        }
    }

    /// Begins a round of its own where the client is.
    fn settle(&mut self) {
        self.begin = self.place();
        self.passed = None;
    }

    async fn page(&mut self, seen: Snapshot, after: Option<Position>) -> Step<ChangePage> {
        loop {
            let (store, collection) = (self.shared.store.clone(), Arc::clone(&self.collection));
            let seen = seen.clone();
            let read = async move { store.changes_follow(Some(&collection.name), &seen, after, BATCH).await };
            if let Ok(page) = self.meanwhile(read).await? {
                return Ok(page);
            }
            // The store has counted and logged why.
            self.meanwhile(tokio::time::sleep(PAUSE)).await?;
        }
    }

    async fn head(&mut self) -> Step<LogHead> {
        loop {
            let store = self.shared.store.clone();
            if let Ok(head) = self.meanwhile(async move { store.changes_head().await }).await? {
                return Ok(head);
            }
            self.meanwhile(tokio::time::sleep(PAUSE)).await?;
        }
    }

    /// Waits, and meanwhile keeps the client's connection alive, and an eye on what ends the feed.
    async fn meanwhile<T>(&mut self, waiting: impl Future<Output = T>) -> Step<T> {
        let mut waiting = std::pin::pin!(waiting);
        loop {
            tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return Err(FeedEnd::Stopping),
                () = self.out.closed() => return Err(FeedEnd::Left),
                // A client that has much to read is looked at all the same.
                () = tokio::time::sleep_until(self.beat_at) => {}
                output = &mut waiting => return Ok(output),
            }
            self.beat().await?;
        }
    }

    /// Looks whether the client may still read, and says where it is.
    async fn beat(&mut self) -> Step {
        self.check().await?;
        let room = self.room(0).await?;
        room.fill(FeedItem::Alive { place: self.place().to_string() });
        Ok(())
    }

    /// Asks whether the client may still read, and what.
    async fn check(&mut self) -> Step {
        match (self.recheck)().await.and_then(|caller| ChangeSight::of(&self.collection, &caller)) {
            Ok(sight) => {
                self.sight = sight;
                self.checked_at = Instant::now();
                self.beat_at = self.checked_at + self.shared.heartbeat;
                Ok(())
            }
            // Nobody can say, which is no reason to end at once what began well, and none to go on for ever.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal) => {
                self.beat_at = Instant::now() + self.shared.heartbeat.min(RECHECK_PAUSE);
                if self.checked_at.elapsed() > self.shared.unchecked { Err(FeedEnd::Unchecked) } else { Ok(()) }
            }
            Err(_) => Err(FeedEnd::Forbidden),
        }
    }

    /// Waits until the client takes one more item, of so many bytes. A client that always has something to take would never be asked after: so it is
    /// here that its right to read is looked at, before each item and while it keeps one waiting.
    async fn room(&mut self, size_bytes: usize) -> Step<Room> {
        let given_up_at = Instant::now() + self.shared.heartbeat * PATIENCE_HEARTBEATS;
        loop {
            if Instant::now() >= self.beat_at {
                self.check().await?;
            }
            let room = self.out.room(size_bytes);
            tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return Err(FeedEnd::Stopping),
                room = room => return room.map_err(|Left| FeedEnd::Left),
                () = tokio::time::sleep_until(given_up_at) => return Err(FeedEnd::TooSlow),
                () = tokio::time::sleep_until(self.beat_at) => {}
            }
        }
    }
}
