//! The live feed of the change log: each change of a collection once, in spite of transactions that end in another order than they
//! began, and from where the client was, on any instance.
//!
//! `place` is where a client is, `tail` what this process reads for all of its followers, `follower` one of them: it catches up
//! from the log by itself, joins the tail, and falls back to the log when it is too slow for the tail. Nothing is kept for it but
//! a few events; it is ended when its client does not take them.

mod follower;
mod outbox;
mod place;
mod seats;
mod tail;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter, UpDownCounter};
use tokio::sync::watch;

use super::audit::ChangeSight;
use super::{Records, Resource, once};
use crate::cache::Reconciler;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Caller, ServerRun, Snapshot};
use crate::store::{ChangeFilter, LogHead, Store};
use follower::Follower;
use outbox::{Inbox, outbox};
use place::Place;
use seats::{Full, Seats};
use tail::Tail;

/// When a client that found no place may come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Who is asking now: an account may have been disabled, or a key revoked, since the feed began.
pub type Recheck = Box<dyn Fn() -> BoxFuture<'static, Result<Caller>> + Send + Sync>;

/// What goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedItem {
    /// A change, as a JSON object on one line.
    Change {
        /// Where the client is behind it.
        place: String,
        /// The object.
        data: String,
    },
    /// Nothing happened for a while.
    Alive {
        /// Where the client is now.
        place: String,
    },
}

/// Why a feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// The server stops; others go on.
    Stopping,
    /// The client did not take its events.
    TooSlow,
    /// The client may no longer read the log.
    Forbidden,
    /// For too long nobody could say whether the client may still read the log.
    Unchecked,
    /// The log no longer has what would come next, or is another one.
    Gone,
    /// The client hung up.
    Left,
}

impl FeedEnd {
    /// As clients and metrics are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::TooSlow => "too_slow",
            Self::Forbidden => "forbidden",
            Self::Unchecked => "unchecked",
            Self::Gone => "gone",
            Self::Left => "left",
        }
    }
}

/// The feed as its client's connection takes it. Dropping it ends it.
pub struct FeedItems {
    items: Inbox,
    ended: Arc<OnceLock<FeedEnd>>,
}

impl FeedItems {
    /// The next one; when there is none, why.
    pub async fn next(&mut self) -> Result<FeedItem, FeedEnd> {
        // What still waits is no longer this client's to read.
        if let Some(end @ (FeedEnd::Forbidden | FeedEnd::Unchecked)) = self.ended.get() {
            return Err(*end);
        }
        let item = self.items.take().await;
        item.ok_or_else(|| self.ended.get().copied().unwrap_or(FeedEnd::Stopping))
    }
}

/// What feeds are allowed.
#[derive(Clone, Copy, Debug)]
pub struct FeedSettings {
    /// How many at once.
    pub streams: u32,
    /// How many of them for one caller.
    pub streams_per_caller: u32,
    /// How often each client is told that its connection lives.
    pub heartbeat: Duration,
    /// For how long after the last answer a client is told changes while nobody can say whether it still may read them.
    pub unchecked: Duration,
    /// How often the log is looked at when nobody tells of a change.
    pub interval: Duration,
}

/// All feeds of this process.
pub struct Feed {
    shared: Arc<Shared>,
    seats: Arc<Seats>,
    interval: Duration,
    woken: watch::Receiver<()>,
}

struct Shared {
    store: Store,
    tail: Arc<Tail>,
    closing: watch::Sender<bool>,
    heartbeat: Duration,
    unchecked: Duration,
    following: UpDownCounter<i64>,
    ended: Counter<u64>,
}

impl Feed {
    /// Follows the log of `store`, and looks whenever `reconciler` has heard of something.
    pub fn new(store: Store, reconciler: &Reconciler, settings: FeedSettings, meter: &Meter) -> Self {
        let following = meter
            .i64_up_down_counter("terrace_changes_feeds")
            .with_description("Clients that follow the change log (_changes?live).")
            .build();
        let ended = meter
            .u64_counter("terrace_changes_feeds_ended")
            .with_description("Feeds of the change log that ended, by reason.")
            .build();
        let closing = watch::Sender::new(false);
        let FeedSettings { streams, streams_per_caller, heartbeat, unchecked, interval } = settings;
        let shared = Shared { store, tail: Tail::new(), closing, heartbeat, unchecked, following, ended };
        Self { shared: Arc::new(shared), seats: Seats::new(streams, streams_per_caller), interval, woken: reconciler.noted() }
    }

    fn run(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.shared.tail).run(self.shared.store.clone(), self.woken.clone(), self.interval)
    }

    fn close(&self) {
        self.shared.closing.send_replace(true);
    }
}

impl Records {
    /// Reads the change log for all feeds, while there are any. It ends with its task.
    pub fn feeds(&self) -> impl Future<Output = ()> + Send + use<> {
        self.feed.run()
    }

    /// Ends all feeds of the change log, and lets none begin.
    pub fn close_feeds(&self) {
        self.feed.close();
    }

    /// Follows the changes of a collection, from behind the event `last` on or, without one, from now on. `recheck` is asked with
    /// each heartbeat, and nothing is told that was not asked for within one.
    pub async fn follow_changes(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        filter: ChangeFilter,
        last: Option<&str>,
        recheck: Recheck,
    ) -> Result<FeedItems> {
        let collection = Arc::clone(resource.collection());
        let sight = ChangeSight::of(&collection, caller)?;
        let last = last.map(str::parse::<Place>).transpose()?;
        let Feed { shared, seats, .. } = &self.feed;
        let stopping = || Error::new(ErrorKind::Unavailable, "unavailable", "The server stops.").with_retry_after(RETRY_AFTER);
        let seat = seats.take(once::key_space(caller)).map_err(too_many)?;
        if *shared.closing.borrow() {
            return Err(stopping());
        }
        let installation = xxhash_rust::xxh3::xxh3_64(shared.store.installation_id().await?.as_bytes());
        let head = shared.store.changes_head().await?;
        let place = match last {
            None => Place { installation, newest: head.newest, seen: head.snapshot, within: Vec::new() },
            Some(place) if place.installation == installation && !is_gone(&place.seen, &head) => place,
            Some(_) => {
                let detail = "The change log no longer has all that came after this event (changes.retention), or it is another \
                              database's. Read the records anew, and follow without Last-Event-ID.";
                return Err(Error::new(ErrorKind::Gone, "changes_gone", detail));
            }
        };
        let (sender, items) = outbox();
        let ended = Arc::new(OnceLock::new());
        let follower = Follower::new(Arc::clone(shared), collection, filter, sight, place, sender, recheck);
        let (shared, told) = (Arc::clone(shared), Arc::clone(&ended));
        tokio::spawn(async move {
            shared.following.add(1, &[]);
            let reason = follower.run(|reason| _ = told.set(reason)).await;
            shared.following.add(-1, &[]);
            shared.ended.add(1, &[KeyValue::new("reason", reason.as_str())]);
            drop(seat);
        });
        Ok(FeedItems { items, ended })
    }
}

fn too_many(full: Full) -> Error {
    let (kind, detail) = match full {
        Full::All(streams) => {
            (ErrorKind::Unavailable, format!("As many clients follow the change log as may (changes.streams, {streams})."))
        }
        Full::Own(streams) => {
            let detail = format!("This caller follows change logs as often as one may (changes.streams_per_caller, {streams}).");
            (ErrorKind::TooManyRequests, detail)
        }
    };
    Error::new(kind, "too_many_streams", detail).with_retry_after(RETRY_AFTER)
}

/// How the log that `now` was seen of continues the one that `seen` was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Continuity {
    /// It is the same.
    Same,
    /// Its server was started anew: numbers of transactions that it gave out last may mean others.
    Restarted,
    /// It is older, or another one.
    Other,
}

fn continuity(seen: &Snapshot, now: &Snapshot) -> Continuity {
    let ServerRun { number, timeline } = now.server;
    if timeline != seen.server.timeline {
        Continuity::Other
    } else if number == seen.server.number {
        if now.next < seen.next { Continuity::Other } else { Continuity::Same }
    } else if timeline == 0 || now.next.saturating_add(ServerRun::REUSED) < seen.next {
        // Who does not tell its timeline may be a standby that took over.
        Continuity::Other
    } else {
        Continuity::Restarted
    }
}

/// Whether the log lacks something that `seen` does not see.
fn is_gone(seen: &Snapshot, head: &LogHead) -> bool {
    continuity(seen, &head.snapshot) == Continuity::Other || head.pruned.is_some_and(|pruned| seen.oldest_unseen() <= pruned)
}
