//! The second tier: entries in Redis, shared by all instances of an installation.
//!
//! A guard's nonce is made by the first reader that needs it; a value carries the nonces of its guards as they were before it was
//! loaded, and is used only while Redis still has exactly those. To invalidate is to delete the nonce: the next reader makes another
//! one, and none ever returns. So a value that arrives late can be stored, but never served, and a guard that was evicted is a miss.
//!
//! A value also names the server process that it was captured on. Another process (one that restarted with an old dump, or
//! a replica that lacks the last deletions) has another name, so none of its older values count.

mod fill;
mod names;
mod seek;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::names::Names;
pub(super) use self::seek::{Capture, Sought, Vouched, Wanted};
use super::target::Target;
use super::{Cache, CacheKey, InstanceId, Kind, Scope};
use crate::config::RedisSettings;
use crate::model::{CollectionName, Guard};
use crate::redis_client::{Link, RedisClient, RedisStatus};

/// More fills at a time than a healthy Redis ever has. Beyond them a fill is dropped: a slow one must not pile up bodies.
const MAX_FILLS: usize = 256;

/// Entries in Redis.
pub struct SecondTier {
    client: RedisClient,
    names: Names,
    max_ttl: Duration,
    compress_above: usize,
    collections: BTreeSet<CollectionName>,
    /// The server that it may be used on, 0 for none. While bumps of this instance are pending, what Redis has may be older than
    /// what a writer was answered; and of a server that this process has not vouched for, nobody knows how old it is.
    open_on: AtomicU64,
    fills: Arc<Semaphore>,
}

/// Where everything of an entry is.
pub(super) struct Address {
    key: CacheKey,
    value: String,
    dependencies: Vec<String>,
    /// Whether other entries are made from it.
    is_part: bool,
}

impl SecondTier {
    /// The tier of `installation` behind `client`, for the scopes that `cache` has.
    pub fn new(client: RedisClient, settings: &RedisSettings, installation: &str, cache: &Cache) -> Arc<Self> {
        Arc::new(Self {
            client,
            names: Names::new(&settings.prefix, installation),
            max_ttl: settings.max_ttl,
            compress_above: usize::try_from(settings.compress_above.as_u64()).unwrap_or(usize::MAX),
            collections: cache.collections(),
            open_on: AtomicU64::new(0),
            fills: Arc::new(Semaphore::new(MAX_FILLS)),
        })
    }

    /// How Redis is.
    pub(super) fn status(&self) -> RedisStatus {
        self.client.status()
    }

    /// The connection, if there is one, for announcements.
    pub fn link(&self) -> Option<Link> {
        self.client.link()
    }

    /// The connection on which values may be looked up and filled. Ask for it after the local guards were captured, and use this one:
    /// who suspends the tier moves the local guards after that.
    pub(super) fn usable_link(&self) -> Option<Link> {
        self.client.link().filter(|link| self.open_on.load(Ordering::Acquire) == link.server())
    }

    /// The channel on which instances tell each other of changes.
    pub fn channel(&self) -> String {
        self.names.channel()
    }

    /// Where an instance says that it lives.
    pub fn heartbeat_key(&self, instance: InstanceId) -> String {
        self.names.heartbeat(instance)
    }

    /// Where it stands how much of the log has been applied by those with these declarations.
    pub fn covered_key(&self, declarations: u64) -> String {
        self.names.covered(declarations)
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
        self.open_on.store(0, Ordering::Release);
    }

    /// All bumps of this instance were executed on `server`.
    pub fn resume(&self, server: u64) {
        self.open_on.store(server, Ordering::Release);
    }

    /// Whether it is not used at the moment.
    pub fn is_suspended(&self) -> bool {
        self.open_on.load(Ordering::Acquire) == 0
    }

    /// How many fills are under way.
    pub fn fills_in_flight(&self) -> usize {
        MAX_FILLS - self.fills.available_permits()
    }

    /// Where the entry of `key` is, which depends on `guards`.
    pub(super) fn address(&self, scope: &Scope, key: &CacheKey, guards: &[Guard]) -> Address {
        Address {
            key: key.clone(),
            value: self.names.entry(scope, key),
            dependencies: self.names.dependencies(guards),
            is_part: scope.kind() == Kind::Count,
        }
    }

    /// For how long a nonce is kept at least, in milliseconds: longer than any value that has it.
    fn guards_kept(&self) -> u64 {
        u64::try_from(self.max_ttl.as_millis()).unwrap_or(u64::MAX / 4).clamp(1_000, u64::MAX / 4)
    }
}

#[cfg(test)]
mod tests;
