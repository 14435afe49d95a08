//! The bus: how invalidations leave this process, and what it still owes the second tier.
//!
//! An invalidation deletes guards in the second tier and is published, in one round trip. Where that fails nobody waits: the
//! process notes what it owes, and uses the second tier no more until it has paid on whichever server it then is connected
//! to. Others find the change in the log. It knows no SQL; what messages do is up to the reconciler.

mod debts;
mod heartbeat;
pub(super) mod message;
mod metrics;
mod post;
pub(super) mod told;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::Cache;
use super::instance::InstanceId;
use super::second_tier::SecondTier;
use super::target::Target;
use super::trust::{Suspicion, Trust};
use crate::model::Snapshot;
use crate::redis_client::{RedisClient, Subscription};
use debts::Debts;
pub(super) use debts::{Due, Standing};
use heartbeat::Heartbeats;
use message::{Covered, Message, News};
pub use metrics::BusMetrics;
use post::{Post, RedisPost};

/// How long to wait before a payment that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How far an invalidation has come when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// This instance: no Redis is configured. Who shares the database finds it in the change log.
    Alone,
    /// The second tier, and all instances that listen. Who missed it finds it in the change log.
    Published,
    /// This instance. The second tier will be made up for, and other instances find it in the change log.
    Pending,
    /// This instance, and at most those that listen: the change log could not be written, and tells nobody.
    Unlogged,
}

/// How much is deleted to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// What is owed.
    Due,
    /// All: nobody can say what is outdated.
    Everything,
}

/// The bus as one instance sees it.
pub struct Bus {
    instance: InstanceId,
    declarations: u64,
    post: Box<dyn Post>,
    client: Option<RedisClient>,
    channel: String,
    trust: Arc<Trust>,
    /// Held while the tier is suspended and resumed, never across an await.
    debts: Mutex<Debts>,
    owes: Notify,
    heartbeats: Heartbeats,
    metrics: BusMetrics,
}

impl Bus {
    /// The bus beside `tier`. `declarations` is a fingerprint of what makes the terms of documents: collections and their
    /// indexed fields.
    pub fn new(tier: &Arc<SecondTier>, client: RedisClient, cache: &Cache, declarations: u64, metrics: BusMetrics) -> Self {
        let channel = tier.channel();
        let post = RedisPost::new(Arc::clone(tier), client.clone(), cache.instance());
        let bus = Self::over(Box::new(post), cache, declarations, metrics);
        Self { client: Some(client), channel, ..bus }
    }

    fn over(post: Box<dyn Post>, cache: &Cache, declarations: u64, metrics: BusMetrics) -> Self {
        Self {
            instance: cache.instance(),
            declarations,
            post,
            client: None,
            channel: String::new(),
            trust: Arc::clone(cache.trust()),
            debts: Mutex::default(),
            owes: Notify::new(),
            heartbeats: Heartbeats::default(),
            metrics,
        }
    }

    pub(super) fn instance(&self) -> InstanceId {
        self.instance
    }

    pub(super) fn declarations(&self) -> u64 {
        self.declarations
    }

    /// The server that nothing is owed to but what [`Debts`] says.
    pub(super) fn settled_on(&self) -> Option<u64> {
        self.debts().settled_on()
    }

    /// The server that commands go to.
    pub(super) fn server(&self) -> Option<u64> {
        self.post.server()
    }

    /// How much the second tier is owed.
    pub(super) fn owed(&self) -> usize {
        self.debts().len()
    }

    /// Invalidates `targets` in the second tier and tells `news`. When it returns, the second tier of this process shows
    /// nothing that it invalidates: it is deleted, or the tier is suspended.
    pub(super) async fn send(&self, targets: &[Target], news: Option<News>) -> Reach {
        let kind = news.as_ref().map(News::kind);
        let message = news.map(|news| Message { from: self.instance, news }.to_json());
        let sent = self.post.send(targets, message).await;
        if let (Ok(_), Some(kind)) = (&sent, kind) {
            self.metrics.sent(kind);
        }
        if targets.is_empty() {
            // Who deletes nothing owes nothing: nobody would pay, and open the tier again.
            return if sent.is_ok() { Reach::Published } else { Reach::Pending };
        }
        let mut debts = self.debts();
        if sent.as_ref().is_ok_and(|on| debts.is_dealt_with(*on)) {
            return Reach::Published;
        }
        // Also what was deleted on a server that is not dealt with yet: the connection may go back to the one of before.
        debts.owe(targets);
        // Within the lock: a payment that ends now must not resume the tier.
        self.post.suspend();
        drop(debts);
        self.owes.notify_one();
        if sent.is_ok() { Reach::Published } else { Reach::Pending }
    }

    /// What has to be done before the second tier may be used; `None` if nothing, or there is no connection.
    pub(super) fn due(&self) -> Option<Due> {
        let server = self.post.server()?;
        let due = self.debts().due(server)?;
        if due.standing == Standing::Changed {
            // What was announced on the last one may never have reached this one.
            self.suspect(Suspicion::OtherServer, Instant::now());
        }
        Some(due)
    }

    /// Which part of the log others have applied to `server`, if somebody with the same declarations says so.
    pub(super) async fn covered(&self, server: u64) -> Option<Snapshot> {
        let text = self.post.covered(self.declarations).await.ok()??;
        let covered: Covered = serde_json::from_str(&text).ok()?;
        (covered.server == server).then(|| covered.into())
    }

    /// Deletes what is due, or everything. Says whether the second tier is used again.
    pub(super) async fn pay(&self, due: Due, amount: Amount) -> bool {
        let paid = match amount {
            Amount::Due => self.post.send(&due.targets, None).await,
            Amount::Everything => self.post.send(&[Target::All], None).await,
        };
        let server = due.server;
        let mut debts = self.debts();
        let is_settled = debts.settle(due, paid.is_ok_and(|on| on == server));
        if is_settled {
            self.post.resume(server);
        }
        is_settled
    }

    /// Waits until something may have become due; a short time if it is.
    pub(super) async fn something_due(&self, links: &mut watch::Receiver<u64>, is_settled: bool) {
        let retry = async {
            match is_settled {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            _ = links.changed() => {}
            () = self.owes.notified() => {}
            () = retry => {}
        }
    }

    /// Changes with every connection that is made or lost.
    pub(super) fn links(&self) -> watch::Receiver<u64> {
        self.post.links()
    }

    /// L1 may have missed something.
    pub(super) fn suspect(&self, suspicion: Suspicion, now: Instant) {
        self.metrics.suspected(suspicion);
        self.trust.suspect(suspicion, now);
    }

    pub(super) fn metrics(&self) -> &BusMetrics {
        &self.metrics
    }

    /// A subscription to what all instances publish, this one included.
    pub(super) fn subscribe(&self) -> Option<Subscription> {
        self.client.as_ref().map(|client| client.subscribe(self.channel.clone()))
    }

    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests;
