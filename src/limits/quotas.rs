//! Quotas: how many requests in how much time a caller may send, to all instances together.
//!
//! Each quota of each caller is a bucket. With Redis the bucket is there (`tier`), and what can be said without asking is
//! said here: by what was leased from it (`lease`), and by its last refusal. Where it has to be asked, one question is in
//! the air per bucket and process, and whoever comes meanwhile waits for it. While Redis is away nobody waits: a meter
//! (`gcra`) lets pass this instance's share, and what it let pass is told to the bucket when it is back.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use super::gcra::Rate;
use super::lease::{CREDIT, Tenure};
use super::metrics::Metrics;
use super::slot::{Answer, Precision, Rest, Shared, Sharing, Standing, Verdict};
use super::table::Table;
use super::tier::{Grant, Order, Tier};
use super::who::Who;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Caller, Quota};
use crate::redis_client::{Link, RedisClient};
use crate::telemetry::Telemetry;

/// Quotas of at most so many requests are kept exactly: the bucket is asked for every request.
const EXACT_UP_TO: u32 = 60;
/// For how long nobody asks after a question that failed, in microseconds. A server that is gone has no link anyway.
const PAUSE: u64 = 500_000;
/// When a client may try again that is refused because the server stops.
const STOPPING: Duration = Duration::from_secs(1);

/// The quotas of a process. Clones share them.
#[derive(Clone)]
pub struct Quotas(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// Times are microseconds since then.
    begun: Instant,
    seed: u64,
    pub table: Table,
    /// None before the database has said which installation this is, and without Redis.
    pub tier: OnceLock<Tier>,
    /// How many instances share the buckets, when last known.
    pub instances: AtomicU32,
    /// The same, and 0 before the first answer.
    pub present: AtomicU32,
    /// Until then the buckets are not asked.
    paused_until: AtomicU64,
    /// Whether the last question failed.
    is_failing: AtomicBool,
    /// When blocks end that may have to be given back, and of which buckets. The next is on top.
    pub open: Mutex<BinaryHeap<Reverse<(u64, u128)>>>,
    /// Blocks to be given back.
    pub returns: Mutex<Vec<Order>>,
    pub metrics: Metrics,
}

/// A quota by its name.
pub struct Policy {
    name: Cow<'static, str>,
    quota: Quota,
    rate: Rate,
    scope: u64,
    refusals: IntCounter,
}

/// What becomes of a request.
pub enum Check {
    /// It is known.
    Known(Standing),
    /// It is not known yet.
    Asking(oneshot::Receiver<Standing>),
}

impl Policy {
    /// The name, by which metrics and answers tell it from others.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many requests in how much time.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// The failure of a request that does not pass.
    pub fn refusal(&self, wait: Duration) -> Error {
        self.refusals.inc();
        let detail = format!("The quota {:?} of this caller, {}, is used up.", self.name, self.quota);
        Error::new(ErrorKind::TooManyRequests, "quota_exceeded", detail).with_retry_after(wait)
    }
}

impl Quotas {
    /// Quotas that this process counts alone, until [`Self::join`].
    pub fn new(telemetry: &Telemetry) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            begun: Instant::now(),
            seed: fastrand::u64(..),
            table: Table::new(),
            tier: OnceLock::new(),
            instances: AtomicU32::new(1),
            present: AtomicU32::new(0),
            paused_until: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            open: Mutex::default(),
            returns: Mutex::default(),
            metrics: Metrics::new(telemetry.registry())?,
        })))
    }

    /// Counts together with all other instances of the installation from now on. `prefix` is `redis.prefix`.
    pub fn join(&self, client: RedisClient, prefix: &str, installation: &str) {
        // A second call changes nothing: it comes from an attempt to open the same database.
        let _ = self.0.tier.set(Tier::new(client, prefix, installation));
    }

    /// A quota under its name. Equal ones share their buckets.
    pub fn policy(&self, name: impl Into<Cow<'static, str>>, quota: Quota) -> Policy {
        let name = name.into();
        let Quota { requests, period } = quota;
        let scope = xxh3_64(format!("{name} {requests} {}", period.as_micros()).as_bytes());
        Policy { rate: Rate::of(quota), scope, refusals: self.0.metrics.refusals(&name), name, quota }
    }

    /// Counts a request of `caller`. It does not wait, and asks nobody if what is leased will do.
    pub fn check(&self, policy: &Policy, caller: &Caller) -> Check {
        let (inner, who) = (&*self.0, Who::asks(caller));
        let (key, now) = (who.key(inner.seed ^ policy.scope), inner.now());
        let Some(tier) = inner.tier.get() else {
            return Check::Known(inner.table.with(key, now, |slot| slot.take_alone(policy.rate, now)));
        };
        let (check, rest) = inner.table.with(key, now, |slot| {
            let mut sharing = slot.sharing(|| policy.shared(tier, &who));
            match sharing.shared.answer(inner.present.load(Ordering::Relaxed), now) {
                Answer::Known(standing) => (Check::Known(standing), Rest::Nothing),
                Answer::Short(standing) => (Check::Known(standing), sharing.shared.begin()),
                Answer::Unknown if inner.link(tier, now).is_none() => {
                    (Check::Known(inner.alone(&mut sharing, now)), Rest::Nothing)
                }
                Answer::Unknown => match sharing.shared.ahead(inner.credit(policy), now) {
                    Some(standing) => (Check::Known(standing), sharing.shared.begin()),
                    None => {
                        let (waiting, rest) = sharing.shared.wait();
                        (Check::Asking(waiting), rest)
                    }
                },
            }
        });
        if rest == Rest::AskAgain {
            tokio::spawn(Arc::clone(&self.0).fetch(Fetching::begin(&self.0, key)));
        }
        check
    }
}

impl Check {
    /// What becomes of the request. Fails only if the server stops meanwhile.
    pub async fn known(self) -> Result<Standing> {
        match self {
            Self::Known(standing) => Ok(standing),
            Self::Asking(waiting) => {
                waiting.await.map_err(|_| Error::unavailable("The server is stopping.", STOPPING, "nobody asks for the quota"))
            }
        }
    }
}

impl Standing {
    /// Fails if the request may not pass.
    pub fn permit(&self, policy: &Policy) -> Result<()> {
        match self.verdict {
            Verdict::Passes => Ok(()),
            Verdict::Waits(wait) => Err(policy.refusal(wait)),
        }
    }
}

impl Policy {
    fn shared(&self, tier: &Tier, who: &Who<'_>) -> Shared {
        let bucket = tier.bucket(&format!("{} {}", self.name, self.quota), &who.bytes());
        let precision = if self.quota.requests.get() <= EXACT_UP_TO { Precision::Exact } else { Precision::Leased };
        Shared::new(bucket, self.rate, Tenure::of(self.rate), precision)
    }
}

impl Inner {
    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// The connection to ask the buckets over, unless they are known to be away.
    pub fn link(&self, tier: &Tier, now: u64) -> Option<Link> {
        if self.paused_until.load(Ordering::Relaxed) > now { None } else { tier.link() }
    }

    /// Nobody asks for a while: a server that refuses the script would be asked in vain with every request.
    pub fn pause(&self) {
        self.is_failing.store(true, Ordering::Relaxed);
        self.paused_until.store(self.now() + PAUSE, Ordering::Relaxed);
    }

    /// A question was answered.
    pub fn go_on(&self) {
        self.is_failing.store(false, Ordering::Relaxed);
    }

    /// Whether the last question failed, so that nobody knows what the next one will do.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// How many requests of a caller this instance may pass before it tells the bucket: its share of what [`Tenure`] leaves.
    /// None before it knows how many others there are.
    fn credit(&self, policy: &Policy) -> u32 {
        match self.present.load(Ordering::Relaxed) {
            0 => 0,
            instances => policy.quota.requests.get() / CREDIT / instances,
        }
    }

    /// Decides without the shared bucket, which is away.
    fn alone(&self, sharing: &mut Sharing<'_>, now: u64) -> Standing {
        self.metrics.alone.inc();
        sharing.take_share(self.instances.load(Ordering::Relaxed), now)
    }

    /// Asks the bucket until nobody waits any more.
    async fn fetch(self: Arc<Self>, fetching: Fetching) {
        while let Some(tier) = self.tier.get() {
            let Some(link) = self.link(tier, self.now()) else { return };
            match self.round(tier, &link, fetching.key).await {
                Ok(Rest::AskAgain) => {}
                Ok(Rest::Nothing) => return fetching.end(),
                Err(_) => return,
            }
        }
    }

    /// Asks the bucket once.
    async fn round(&self, tier: &Tier, link: &Link, key: u128) -> Result<Rest> {
        let (asked_at, server) = (self.now(), link.server());
        let present = self.present.load(Ordering::Relaxed);
        let order = self.table.with_known(key, |slot| slot.known()?.shared.order(server, present, asked_at)).flatten();
        let Some(order) = order else { return Ok(Rest::Nothing) };
        let grant = self.send(tier, link, &order).await?;
        let settled = self.table.with_known(key, |slot| {
            let shared = slot.known()?.shared;
            let (rest, returned) = shared.settle(&order, grant, server, asked_at, self.now());
            Some((rest, returned, shared.end()))
        });
        let Some((rest, returned, end)) = settled.flatten() else { return Ok(Rest::Nothing) };
        lock(&self.returns).extend(returned.into_iter().flatten());
        lock(&self.open).extend(end.map(|end| Reverse((end, key))));
        Ok(rest)
    }

    async fn send(&self, tier: &Tier, link: &Link, order: &Order) -> Result<Grant> {
        let answered = tier.order(link, std::slice::from_ref(order)).await;
        let grant = answered.and_then(|grants| grants.into_iter().next().ok_or_else(|| Error::internal("no grant")));
        match &grant {
            Ok(grant) => {
                self.go_on();
                self.metrics.asked.inc();
                self.metrics.granted.inc_by(grant.granted.into());
            }
            Err(_) => {
                self.metrics.unanswered.inc();
                self.pause();
            }
        }
        grant
    }

    /// Decides for those who wait without the bucket.
    fn give_up(&self, key: u128) {
        let now = self.now();
        self.table.with_known(key, |slot| {
            let Some(mut sharing) = slot.known() else { return };
            for one in sharing.shared.give_up().into_iter().filter(|one| !one.is_closed()) {
                // Who has gone since does not want to know.
                let _ = one.send(self.alone(&mut sharing, now));
            }
        });
    }
}

/// A question in the air. If it ends without an answer, nobody goes on waiting for one, and the next one may be asked.
struct Fetching {
    inner: Option<Arc<Inner>>,
    key: u128,
}

impl Fetching {
    fn begin(inner: &Arc<Inner>, key: u128) -> Self {
        Self { inner: Some(Arc::clone(inner)), key }
    }

    /// It was answered. Another one may be in the air already, and those who wait wait for that.
    fn end(mut self) {
        self.inner = None;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            inner.give_up(self.key);
        }
    }
}

/// The lock around a list is never held across an await.
pub(super) fn lock<T>(list: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
