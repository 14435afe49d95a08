//! The second tier: entries in Redis, shared by all instances of an installation.
//!
//! A guard's nonce is made by the first reader that needs it; a value carries the nonces of its guards as they were before it was
//! loaded, and is used only while Redis still has exactly those. To invalidate is to delete the nonce: the next reader makes another
//! one, and none ever returns. So a value that arrives late can be stored, but never served, and a guard that was evicted is a miss.
//!
//! A value also names the server process that it was captured on. Another process (one that restarted with an old dump, or
//! a replica that lacks the last deletions) has another name, so none of its older values count.

mod names;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::names::Names;
use super::target::Target;
use super::{Cache, InstanceId};
use crate::config::RedisSettings;
use crate::model::CollectionName;
use crate::redis_client::{Link, RedisClient};

/// Entries in Redis.
pub struct SecondTier {
    client: RedisClient,
    names: Names,
    instance: InstanceId,
    collections: BTreeSet<CollectionName>,
    /// While bumps of this instance are pending, what Redis has may be older than what a writer was answered.
    suspended: AtomicBool,
}

impl SecondTier {
    /// The tier of `installation` behind `client`, for the scopes that `cache` has.
    pub fn new(client: RedisClient, settings: &RedisSettings, installation: &str, cache: &Cache) -> Arc<Self> {
        Arc::new(Self {
            client,
            names: Names::new(&settings.prefix, installation),
            instance: cache.instance(),
            collections: cache.collections(),
            suspended: AtomicBool::new(false),
        })
    }

    /// The connection, if there is one.
    pub fn link(&self) -> Option<Link> {
        self.client.link()
    }

    /// The channel on which instances tell each other of changes.
    pub fn channel(&self) -> String {
        self.names.channel()
    }

    /// Where an instance says that it lives.
    pub fn heartbeat_key(&self, instance: InstanceId) -> String {
        self.names.heartbeat(instance)
    }

    /// Adds to `pipeline` what keeps every value from being used that depends on `targets`.
    pub fn add_bump(&self, pipeline: &mut redis::Pipeline, targets: &[Target]) {
        let names = self.names.bumped(targets, &self.collections);
        if !names.is_empty() {
            // DEL and not UNLINK: nonces are small, and a thread in the background costs more.
            pipeline.del(names).ignore();
        }
    }

    /// From now on nothing is looked up, captured or filled: bumps of this instance are pending. Call it before the local guards
    /// are advanced for the second time.
    pub fn suspend(&self) {
        self.suspended.store(true, Ordering::Release);
    }

    /// All bumps of this instance were executed.
    pub fn resume(&self) {
        self.suspended.store(false, Ordering::Release);
    }

    /// Whether bumps of this instance are pending.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }
}
