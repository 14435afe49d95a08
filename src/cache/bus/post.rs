//! How the bus reaches Redis: a seam, so that tests can hold, fail and watch each round trip.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::cache::instance::InstanceId;
use crate::cache::second_tier::SecondTier;
use crate::cache::target::Target;
use crate::cache::trust::SILENCE;
use crate::error::{Error, Result};
use crate::redis_client::RedisClient;

/// The way to the server that holds the second tier and passes messages on.
pub(super) trait Post: Send + Sync {
    /// Deletes the guards of `targets` and publishes `message`, in one round trip; says on which server.
    fn send<'a>(&'a self, targets: &'a [Target], message: Option<String>) -> BoxFuture<'a, Result<u64>>;
    /// Publishes a sign of life, and writes it: a server that does not take writes is none.
    fn beat(&self, message: String) -> BoxFuture<'_, Result<()>>;
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
        let link = self.client.link().ok_or_else(|| Error::internal("there is no connection to Redis"))?;
        link.run::<()>(&pipeline).await?;
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

    fn beat(&self, message: String) -> BoxFuture<'_, Result<()>> {
        let mut pipeline = redis::pipe();
        let kept_ms = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
        pipeline.pset_ex(self.tier.heartbeat_key(self.instance), &message, kept_ms).ignore();
        pipeline.publish(self.tier.channel(), message).ignore();
        async move { self.run(pipeline).await.map(drop) }.boxed()
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
