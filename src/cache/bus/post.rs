//! How the bus reaches Redis: a seam, so that tests can hold, fail and watch each round trip.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::cache::instance::InstanceId;
use crate::cache::second_tier::SecondTier;
use crate::cache::target::Target;
use crate::cache::trust::SILENCE;
use crate::error::{Error, Result};
use crate::redis_client::RedisClient;

/// For how long it counts how much of the log was applied. The log keeps changes for at least twice as long.
const COVERED_FOR: Duration = Duration::from_secs(5 * 60);

/// The way to the server that holds the second tier and passes messages on.
pub(super) trait Post: Send + Sync {
    /// Deletes the guards of `targets` and publishes `message`, in one round trip; says on which server.
    fn send<'a>(&'a self, targets: &'a [Target], message: Option<String>) -> BoxFuture<'a, Result<u64>>;
    /// Publishes a sign of life, and writes it: a server that does not take writes is none. Keeps `covered`, if given, for
    /// those with the same declarations.
    fn beat(&self, message: String, covered: Option<(u64, String)>) -> BoxFuture<'_, Result<()>>;
    /// What was kept last.
    fn covered(&self, declarations: u64) -> BoxFuture<'_, Result<Option<String>>>;
    /// Uses the second tier no more.
    fn suspend(&self);
    /// Uses it again, as long as it is on `server`.
    fn resume(&self, server: u64);
    /// The server that there is a connection to.
    fn server(&self) -> Option<u64>;
    /// Changes with every connection that is made or lost.
    fn links(&self) -> watch::Receiver<u64>;
}

pub(super) struct RedisPost {
    tier: Arc<SecondTier>,
    client: RedisClient,
    instance: InstanceId,
}

impl RedisPost {
    pub fn new(tier: Arc<SecondTier>, client: RedisClient, instance: InstanceId) -> Self {
        Self { tier, client, instance }
    }

    async fn run(&self, pipeline: redis::Pipeline) -> Result<u64> {
        let link = self.client.link().ok_or_else(no_link)?;
        if !pipeline.is_empty() {
            link.run::<()>(&pipeline).await?;
        }
        Ok(link.server())
    }
}

impl Post for RedisPost {
    fn send<'a>(&'a self, targets: &'a [Target], message: Option<String>) -> BoxFuture<'a, Result<u64>> {
        let mut pipeline = redis::pipe();
        self.tier.add_bump(&mut pipeline, targets);
        // After the deletion: who hears of it must not find what it deletes.
        if let Some(message) = message {
            pipeline.publish(self.tier.channel(), message).ignore();
        }
        self.run(pipeline).boxed()
    }

    fn beat(&self, message: String, covered: Option<(u64, String)>) -> BoxFuture<'_, Result<()>> {
        let mut pipeline = redis::pipe();
        pipeline.pset_ex(self.tier.heartbeat_key(self.instance), &message, milliseconds(SILENCE)).ignore();
        if let Some((declarations, covered)) = covered {
            pipeline.pset_ex(self.tier.covered_key(declarations), covered, milliseconds(COVERED_FOR)).ignore();
        }
        pipeline.publish(self.tier.channel(), message).ignore();
        async move { self.run(pipeline).await.map(drop) }.boxed()
    }

    fn covered(&self, declarations: u64) -> BoxFuture<'_, Result<Option<String>>> {
        let mut pipeline = redis::pipe();
        pipeline.get(self.tier.covered_key(declarations));
        async move {
            let link = self.client.link().ok_or_else(no_link)?;
            link.run::<(Option<String>,)>(&pipeline).await.map(|(covered,)| covered)
        }
        .boxed()
    }

    fn suspend(&self) {
        self.tier.suspend();
    }

    fn resume(&self, server: u64) {
        self.tier.resume(server);
    }

    fn server(&self) -> Option<u64> {
        self.client.link().map(|link| link.server())
    }

    fn links(&self) -> watch::Receiver<u64> {
        self.client.watch_links()
    }
}

fn no_link() -> Error {
    Error::internal("there is no connection to Redis")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
