//! Announcing: what this process committed, and what others tell of theirs.
//!
//! The order matters. A writer (or whoever finds a change that nobody announced) moves the guards here, deletes them in the
//! second tier and publishes, and then moves the guards here once more: between the first step and the second a reader
//! of this process may have taken an old value out of the second tier, under guards that had moved already. Only then is
//! a transaction noted as applied, and only then is its writer answered. It is not noted if this process has begun to settle on
//! another server meanwhile: the guards were deleted on the one of before, and settling finds the transaction in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Progress, Reconciler};
use crate::cache::bus::message::{Changes, Message, News, Place, now_us};
use crate::cache::bus::told::Told;
use crate::cache::bus::{Bus, Reach};
use crate::cache::target::{Cause, Move, Target};
use crate::cache::trust::Suspicion;
use crate::faults;
use crate::model::{Change, CollectionName, Position};
use crate::redis_client::BusEvent;

/// How long a read with a token waits for the bus to bring its change, before the log is asked.
pub(super) const HOP: Duration = Duration::from_millis(5);

/// How long it waits for a round over the log, before it goes past the caches.
const ROUND: Duration = Duration::from_millis(250);

/// A subscription on which no own heartbeat arrives for this long is made anew: its connection may be dead without saying so,
/// or lead to a server that nobody uses any more.
const DEAF: Duration = Duration::from_secs(3);

/// Whether this process has applied what a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// What the caches serve from now on shows it.
    Yes,
    /// The caches may lack it: go past them.
    No,
}

impl Reconciler {
    /// Announces changes that this process has just committed; those of one transaction in one call. When it returns, no
    /// read that begins later on this instance is served what was loaded before the commit.
    ///
    /// `predecessors` are the transactions that changed the same records last. One that was not heard of yet moved guards which this one
    /// does not: a record that it took out of `a = 1`, and this one out of `a = 2`, would still be listed under `a = 1`. So it is
    /// waited for, here and by everybody who hears of this one.
    pub async fn announce(&self, changes: &[Change], predecessors: &BTreeSet<u64>) {
        let Some(newest) = changes.iter().map(|change| change.position).max() else { return };
        let transactions = newest_rows(changes);
        let rewinds = self.rewinds();
        let changes: Vec<Arc<Change>> = changes.iter().cloned().map(Arc::new).collect();
        let targets = Target::of_changes(&changes);
        let predecessors = if targets.iter().all(is_whole) { Vec::new() } else { predecessors.iter().copied().collect() };
        let mv = Move::now(Cause::Change { position: newest, by: Some(self.cache.instance()) });
        let tell = |told| Changes { transactions: places(&transactions), predecessors: predecessors.clone(), ..told };
        self.spread(&targets, &changes, &mv, tell).await;
        for predecessor in predecessors {
            // If the log cannot be read now, the writer is answered all the same. Nobody knows what the predecessor moved, so
            // the whole collection is given up; others find both in the log.
            if self.settle_transaction(predecessor).await == Applied::No {
                self.spread(&Target::collections_of(&changes), &[], &mv, |told| told).await;
                break;
            }
        }
        self.note(rewinds, |progress| transactions.iter().for_each(|position| progress.announced(*position)));
    }

    /// Invalidates by hand what stands in the log at `logged`: here, on every instance that can be reached, and on all others
    /// when they read the log. If it is not logged, nobody makes up for a lost message.
    pub async fn invalidate(&self, target: &Target, logged: Option<Position>) -> Reach {
        let rewinds = self.rewinds();
        let mv = Move::now(Cause::Invalidated { by: Some(self.cache.instance()) });
        let transactions = logged.map(Place::from).into_iter().collect();
        let reach = self.spread(std::slice::from_ref(target), &[], &mv, |told| Changes { transactions, ..told }).await;
        self.note(rewinds, |progress| logged.into_iter().for_each(|position| progress.announced(position)));
        if logged.is_some() { reach } else { Reach::Unlogged }
    }

    /// Waits a short time until this process has applied what `token` names: for the bus, then for one round over the log,
    /// which all share who wait. A token of another database, or of the future, is never applied.
    pub async fn settle(&self, token: Position) -> Applied {
        if faults::is_switched_off("token") { Applied::Yes } else { self.settle_transaction(token.transaction).await }
    }

    /// Waits until this process shows what somebody committed at `position` to `collection`. If that cannot be found out, the whole
    /// collection is given up: whoever is answered next must not be shown what was there before.
    pub async fn show(&self, position: Position, collection: &CollectionName) {
        if self.settle(position).await == Applied::No {
            let mv = Move::now(Cause::Change { position, by: None });
            self.spread(&[Target::Collection(collection.clone())], &[], &mv, |told| told).await;
        }
    }

    /// Changes whenever transactions are noted as applied: this process has committed something, or heard of it.
    pub fn noted(&self) -> watch::Receiver<()> {
        self.noted.subscribe()
    }

    async fn settle_transaction(&self, transaction: u64) -> Applied {
        let has_applied = || self.update(|progress| progress.has_applied(transaction));
        if has_applied() {
            return Applied::Yes;
        }
        let mut noted = self.noted.subscribe();
        let mut ended = self.ended.subscribe();
        if self.bus.is_some() {
            let is_told = noted.wait_for(|()| has_applied());
            if tokio::time::timeout(HOP, is_told).await.is_ok() {
                return Applied::Yes;
            }
        }
        let asked = Instant::now();
        self.cache.trust().alarm().notify_one();
        let is_read = ended.wait_for(|began| began.is_some_and(|began| began > asked) || has_applied());
        // Whoever does not get a round in time goes past the caches, which is right as well.
        let _ = tokio::time::timeout(ROUND, is_read).await;
        if has_applied() { Applied::Yes } else { Applied::No }
    }

    /// Invalidates here, in the second tier and elsewhere, what `changes` do, whose targets those are. `tell` completes what others
    /// are told. Says how far it has come.
    pub(super) async fn spread(
        &self,
        targets: &[Target],
        changes: &[Arc<Change>],
        mv: &Move,
        tell: impl FnOnce(Changes) -> Changes,
    ) -> Reach {
        let advance = || match mv.cause {
            Cause::Change { .. } => self.cache.advance_by(targets, changes, mv),
            Cause::Invalidated { .. } | Cause::Unknown => self.cache.advance(targets, mv),
        };
        advance();
        let Some(bus) = &self.bus else { return Reach::Alone };
        let told = tell(self.told(bus, targets, changes, mv));
        let news = match mv.cause {
            Cause::Change { .. } | Cause::Unknown => News::Changes(told),
            Cause::Invalidated { .. } => News::Invalidate(told),
        };
        let reach = bus.send(targets, Some(news)).await;
        advance();
        reach
    }

    fn told(&self, bus: &Bus, targets: &[Target], changes: &[Arc<Change>], mv: &Move) -> Changes {
        let database = self.update(|progress| progress.seen.server);
        let newest = match mv.cause {
            Cause::Change { position, .. } => Some(position.into()),
            Cause::Invalidated { .. } | Cause::Unknown => None,
        };
        Changes {
            transactions: Vec::new(),
            predecessors: Vec::new(),
            newest,
            is_found: false,
            targets: targets.to_vec(),
            changes: Told::of(changes, targets),
            declarations: bus.declarations(),
            database: (database.number, database.timeline),
            server: bus.server().unwrap_or_default(),
            sent_us: now_us(),
        }
    }

    fn rewinds(&self) -> u64 {
        self.update(|progress| progress.rewinds)
    }

    /// Notes what was dealt with since there had been so many `rewinds`; nothing, if there was one more.
    fn note(&self, rewinds: u64, change: impl FnOnce(&mut Progress)) {
        self.update(|progress| {
            if progress.rewinds == rewinds {
                change(progress);
            }
        });
        self.noted.send_replace(());
    }

    /// Follows what other instances tell, until it is aborted.
    pub(super) async fn listen(&self, bus: &Bus) {
        while let Some(mut subscription) = bus.subscribe() {
            let mut hears_until = None;
            loop {
                let deaf = async {
                    match hears_until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                let event = tokio::select! {
                    event = subscription.next() => event,
                    () = deaf => break,
                };
                let is_sign_of_life = match event {
                    BusEvent::Connected => {
                        bus.suspect(Suspicion::Connected, Instant::now());
                        true
                    }
                    BusEvent::Disconnected => {
                        bus.suspect(Suspicion::Disconnected, Instant::now());
                        hears_until = None;
                        false
                    }
                    BusEvent::Message(bytes) => self.receive(bus, &bytes),
                };
                if is_sign_of_life {
                    hears_until = Some(tokio::time::Instant::now() + DEAF);
                }
            }
            tracing::warn!("nothing comes back over the subscription to Redis; it is made anew");
        }
    }

    /// Takes in one message; says whether it was an own heartbeat.
    pub(in crate::cache) fn receive(&self, bus: &Bus, bytes: &[u8]) -> bool {
        let Some(Message { from, news }) = Message::parse(bytes) else {
            bus.metrics().received(None);
            self.cache.trust().alarm().notify_one();
            return false;
        };
        if from == bus.instance() {
            // What this process announces it has applied before.
            let News::Heartbeat(number) = news else { return false };
            bus.heard_own(number);
            return true;
        }
        bus.metrics().received(Some(news.kind()));
        match news {
            News::Changes(changes) => {
                let by = Some(from);
                let cause = changes.newest.map_or(Cause::Unknown, |newest| Cause::Change { position: newest.into(), by });
                self.hear(bus, cause, &changes);
            }
            News::Invalidate(changes) => self.hear(bus, Cause::Invalidated { by: Some(from) }, &changes),
            News::Heartbeat(_) => {}
        }
        false
    }

    /// Applies what another instance has announced. Whether it is noted as applied depends on whether it means the same here:
    /// the terms of the same declarations, the numbers of the same database, guards deleted on the Redis that is used here; and on
    /// whether what it came after has been applied.
    /// If not, the log is read at once.
    fn hear(&self, bus: &Bus, cause: Cause, changes: &Changes) {
        let rewinds = self.rewinds();
        let positions: Vec<Position> = changes.transactions.iter().copied().map(Into::into).collect();
        let (is_same_database, is_known) = self.update(|progress| {
            // That a snapshot sees a number says something only of what was found in the log: a server that crashed may have given it
            // out again, and who writes under it tells before anybody has read of the crash.
            let is_seen = |position: &Position| changes.is_found && progress.has_applied(position.transaction);
            let is_known = |position: &Position| progress.has_noted(*position) || is_seen(position);
            (changes.is_of(progress.seen.server), positions.iter().all(is_known))
        });
        if is_same_database && is_known && !positions.is_empty() {
            // Announced twice, for example by two instances that found it in the log. To apply it again would cost misses.
            return;
        }
        // What this process had not applied was committed after its last round began.
        let since = if changes.is_found { self.update(|progress| progress.read_at) } else { Instant::now() };
        let mv = Move { cause, since };
        // Other declarations have other terms, and search other texts; another database has another history.
        let is_understood = is_same_database && changes.declarations == bus.declarations();
        match Told::all(&changes.changes, &changes.targets).filter(|_| is_understood) {
            Some(told) => self.cache.advance_by(&changes.targets, &told, &mv),
            None => self.cache.advance(&changes.targets, &mv),
        }
        bus.metrics().invalidation_seconds.observe(changes.delay().as_secs_f64());
        let is_same_server = bus.settled_on() == Some(changes.server);
        let is_in_order =
            self.update(|progress| changes.predecessors.iter().all(|transaction| progress.has_applied(*transaction)));
        if is_same_server && is_in_order && is_understood {
            self.note(rewinds, |progress| positions.iter().for_each(|position| progress.heard(*position)));
        } else {
            self.cache.trust().alarm().notify_one();
        }
    }
}

pub(super) fn places(positions: &[Position]) -> Vec<Place> {
    positions.iter().copied().map(Into::into).collect()
}

/// Whether it leaves nothing of its collection.
fn is_whole(target: &Target) -> bool {
    match target {
        Target::Collection(_) | Target::All => true,
        Target::Guard(_) | Target::Records(..) => false,
    }
}

/// The newest row of each transaction.
pub(super) fn newest_rows(changes: &[Change]) -> Vec<Position> {
    let mut newest: BTreeMap<u64, i64> = BTreeMap::new();
    for Position { transaction, sequence } in changes.iter().map(|change| change.position) {
        newest.entry(transaction).and_modify(|newest| *newest = sequence.max(*newest)).or_insert(sequence);
    }
    newest.into_iter().map(|(transaction, sequence)| Position { transaction, sequence }).collect()
}
