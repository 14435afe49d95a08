//! The buckets that all instances share, in Redis: their names, and the scripts that change them. All of them are of one
//! installation. A server that starts again empty has forgotten what was used; whoever fills its memory makes it forget
//! too.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use redis::Script;

use super::gcra::Rate;
use super::lease::{Block, Tenure};
use crate::error::{Error, Result};
use crate::redis_client::{Link, RedisClient};

/// For how long an instance counts after it was last heard of, in milliseconds.
const PRESENCE_MS: u32 = 5_000;

/// Which bucket of the installation: a hash, for nobody who reads the keys shall learn who asks.
pub(super) type BucketName = [u8; 16];

/// The way to the buckets.
pub(super) struct Tier {
    client: RedisClient,
    root: String,
    instance: String,
    buckets: Script,
    presence: Script,
}

/// What is asked of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub bucket: BucketName,
    pub rate: Rate,
    pub tenure: Tenure,
    /// How many requests.
    pub asked: u32,
    /// How many of them wait.
    pub waiting: u32,
    /// How many were passed that the server has not been told of.
    pub passed: u32,
    /// What comes back.
    pub returned: Option<Block>,
}

/// What a bucket grants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grant {
    /// How many requests.
    pub granted: u32,
    /// How many are left.
    pub left: u32,
    /// Microseconds until there is one.
    pub wait: u64,
    /// When, by the server's clock.
    pub granted_at: u64,
}

impl Tier {
    pub fn new(client: RedisClient, prefix: &str, installation: &str) -> Self {
        Self {
            client,
            root: format!("{prefix}:{installation}:"),
            instance: uuid::Uuid::now_v7().simple().to_string(),
            buckets: Script::new(include_str!("bucket.lua")),
            presence: Script::new(include_str!("presence.lua")),
        }
    }

    /// The connection, if there is one.
    pub fn link(&self) -> Option<Link> {
        self.client.link()
    }

    /// The bucket of `who` under a policy. `policy` has the quota in it: another quota is another bucket.
    pub fn bucket(&self, policy: &str, who: &[u8]) -> BucketName {
        let text = [self.root.as_bytes(), policy.as_bytes(), who].join(&[0][..]);
        let hash = digest(&SHA256, &text);
        let mut name = BucketName::default();
        name.iter_mut().zip(hash.as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
        name
    }

    /// Asks several buckets at once, in one round trip.
    pub async fn order(&self, link: &Link, orders: &[Order]) -> Result<Vec<Grant>> {
        let mut call = self.buckets.prepare_invoke();
        for order in orders {
            let Order { rate, tenure, asked, waiting, passed, returned, .. } = *order;
            let returned = returned.unwrap_or_default();
            call.key(self.name(order.bucket)).arg(rate.interval).arg(rate.capacity).arg(tenure.longest);
            call.arg(asked).arg(waiting).arg(passed).arg(returned.left).arg(returned.granted_at);
        }
        let replies: Vec<(u32, u32, u64, u64)> = link.invoke(&call).await?;
        if replies.len() != orders.len() {
            return Err(Error::internal("the script of the quotas answered for another number of buckets"));
        }
        let grants = replies.into_iter().map(|(granted, left, wait, granted_at)| Grant { granted, left, wait, granted_at });
        Ok(grants.collect())
    }

    /// Says that this instance lives, and learns how many do.
    pub async fn appear(&self, link: &Link) -> Result<u32> {
        let mut call = self.presence.prepare_invoke();
        call.key(format!("{}q-instances", self.root)).arg(&self.instance).arg(PRESENCE_MS);
        link.invoke(&call).await
    }

    fn name(&self, bucket: BucketName) -> String {
        let mut name = String::with_capacity(self.root.len() + 34);
        name.push_str(&self.root);
        // The second way in which buckets are written.
        name.push_str("q2:");
        for byte in bucket {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}
