//! Looking a value up, and capturing nonces for a load of one's own. A look-up is one round trip, a miss is two.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::{Script, Value as Reply};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::value::{Nonce, Nonces, Stamp, Value};
use super::{Address, SecondTier};
use crate::cache::entry::{Dependencies, Entry, Origin};
use crate::cache::{Basis, Captured, Scope};
use crate::error::{Error, Result};
use crate::redis_client::Link;

/// How long one instance may load before another one that wants the same stops waiting for it. A load that takes longer runs once
/// per instance.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the lease of a load ends whose instance has died. Longer than anybody waits, so that it never ends under a load.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// How often a waiting instance looks: at first, and at last. A load takes milliseconds.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));

/// Gives each guard a nonce that has none (or nothing that is one), keeps them all for long enough, and takes the lease unless somebody
/// has it for the same nonces: a load that was outdated meanwhile holds nobody up.
static CAPTURE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local count = #KEYS - 1
        local nonces = redis.call('MGET', unpack(KEYS, 1, count))
        for at = 1, count do
            if not nonces[at] or #nonces[at] ~= 16 then
                redis.call('SET', KEYS[at], ARGV[1], 'PX', ARGV[2])
                nonces[at] = ARGV[1]
            elseif redis.call('PTTL', KEYS[at]) < tonumber(ARGV[3]) then
                redis.call('PEXPIRE', KEYS[at], ARGV[2])
            end
        end
        local held = 0
        if ARGV[4] ~= '0' then
            local mine = table.concat(nonces)
            if redis.call('GET', KEYS[count + 1]) ~= mine then
                redis.call('SET', KEYS[count + 1], mine, 'PX', ARGV[4])
                held = 1
            end
        end
        table.insert(nonces, 1, held)
        return nonces",
    )
});

/// Nonces that were captured before a load, on the connection that its value will be written to.
pub(in crate::cache) struct Capture {
    pub(super) link: Link,
    pub(super) stamp: Stamp,
    /// When it was over.
    pub(super) at: Instant,
    pub(super) lease: Lease,
}

/// Whether others wait for the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    Held,
    /// Nobody waits for this load, whoever else loads.
    None,
}

/// What a caller takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Wanted {
    /// Whatever is fresh.
    Fresh,
    /// Whatever is fresh and will be for a while.
    Refreshed,
    /// Nothing; only a capture.
    Capture,
}

/// What was found.
pub(in crate::cache) enum Sought {
    /// What was wanted.
    Found(Entry),
    /// Nothing that was wanted: the caller loads, and fills if it has a capture. An expired entry may stand in for a load that fails.
    Nothing { capture: Option<Capture>, stand_in: Option<Entry> },
}

/// What one look at Redis shows.
struct Sight {
    entry: Option<Entry>,
    is_leased: bool,
}

impl SecondTier {
    /// Looks for an entry, and if there is none, captures nonces and takes the lease or waits for whoever has it. `dependencies`
    /// were captured before. While `is_trusted` is false, nothing counts as fresh.
    pub(in crate::cache) async fn seek(
        &self,
        scope: &Scope,
        address: &Address,
        dependencies: &Dependencies,
        wanted: Wanted,
        is_trusted: bool,
    ) -> Sought {
        let nothing = |stand_in| Sought::Nothing { capture: None, stand_in };
        let Some(link) = self.usable_link() else { return nothing(None) };
        let mut stand_in = None;
        if wanted != Wanted::Capture {
            match self.look(&link, address, dependencies).await {
                Ok(Some(entry)) if is_wanted(&entry, wanted, is_trusted) => {
                    scope.metrics().second.hits.inc();
                    return Sought::Found(entry);
                }
                Ok(found) => stand_in = found,
                Err(_) => {
                    scope.metrics().second.errors.inc();
                    return nothing(None);
                }
            }
            scope.metrics().second.misses.inc();
        }
        // Boxed: a hit would move its state around for nothing.
        match Box::pin(self.capture_or_wait(&link, scope, address, dependencies, wanted, is_trusted)).await {
            Ok(Ok(entry)) => Sought::Found(entry),
            Ok(Err(capture)) => Sought::Nothing { capture, stand_in },
            Err(_) => {
                scope.metrics().second.errors.inc();
                nothing(stand_in)
            }
        }
    }

    /// Looks once, and waits for nobody. What it finds may have expired.
    pub(in crate::cache) async fn peek(&self, address: &Address, dependencies: &Dependencies) -> Result<Option<Entry>> {
        match self.usable_link() {
            Some(link) => self.look(&link, address, dependencies).await,
            None => Ok(None),
        }
    }

    /// Captures without a lease.
    pub(in crate::cache) async fn capture(&self, address: &Address) -> Option<Capture> {
        self.capture_on(&self.usable_link()?, address, Duration::ZERO).await.ok()
    }

    /// The nonces as they are now, for a capture that a test has switched off.
    pub(in crate::cache) async fn capture_again(&self, capture: Capture, address: &Address) -> Capture {
        match self.capture(address).await {
            Some(Capture { stamp, .. }) => Capture { stamp, ..capture },
            None => capture,
        }
    }

    /// An entry that another instance loaded meanwhile, or a capture; neither if the guards moved while it waited.
    async fn capture_or_wait(
        &self,
        link: &Link,
        scope: &Scope,
        address: &Address,
        dependencies: &Dependencies,
        wanted: Wanted,
        is_trusted: bool,
    ) -> Result<Result<Entry, Option<Capture>>> {
        let until = Instant::now() + PATIENCE;
        let lease = if wanted == Wanted::Capture { Duration::ZERO } else { LEASE };
        let mut pause = POLL.0;
        let mut has_waited = false;
        loop {
            let capture = self.capture_on(link, address, lease).await?;
            if capture.lease == Lease::Held || wanted == Wanted::Capture {
                return Ok(Err(Some(capture)));
            }
            if !has_waited {
                scope.metrics().second.waits.inc();
                has_waited = true;
            }
            loop {
                if Instant::now() >= until {
                    return Ok(Err(Some(capture)));
                }
                tokio::time::sleep(pause).await;
                pause = POLL.1.min(pause * 2);
                // What another one loads now may be older than the move, and newer callers do not wait for this.
                if !dependencies.iter().all(Captured::is_current) || self.is_suspended() {
                    return Ok(Err(None));
                }
                let sight = self.look_at(link, address, dependencies).await?;
                match sight.entry {
                    Some(entry) if is_wanted(&entry, wanted, is_trusted) => {
                        scope.metrics().second.hits.inc();
                        return Ok(Ok(entry));
                    }
                    Some(_) | None if !sight.is_leased => break,
                    Some(_) | None => {}
                }
            }
        }
    }

    async fn look(&self, link: &Link, address: &Address, dependencies: &Dependencies) -> Result<Option<Entry>> {
        let mut pipeline = redis::Pipeline::with_capacity(2);
        // The time that is left first: if the value is replaced in between, it is that of the older one, and too short.
        pipeline.cmd("PTTL").arg(&address.value).add_command(mget(address));
        let (left_ms, values): (i64, Reply) = link.run(&pipeline).await?;
        Ok(found(link, address, dependencies, values, left_ms))
    }

    async fn look_at(&self, link: &Link, address: &Address, dependencies: &Dependencies) -> Result<Sight> {
        let mut pipeline = redis::Pipeline::with_capacity(3);
        pipeline.cmd("PTTL").arg(&address.value).add_command(mget(address)).cmd("EXISTS").arg(self.names.lease(&address.value));
        let (left_ms, values, is_leased): (i64, Reply, bool) = link.run(&pipeline).await?;
        Ok(Sight { entry: found(link, address, dependencies, values, left_ms), is_leased })
    }

    async fn capture_on(&self, link: &Link, address: &Address, lease: Duration) -> Result<Capture> {
        let mut call = CAPTURE.prepare_invoke();
        for name in &address.dependencies {
            call.key(name);
        }
        call.key(self.names.lease(&address.value));
        let kept = self.guards_kept();
        // Version 7: the time, and random bits of the system. No nonce returns, whichever instance makes it.
        call.arg(uuid::Uuid::now_v7().as_bytes()).arg(2 * kept).arg(kept).arg(lease.as_millis() as u64);
        let reply: Vec<Reply> = link.invoke(&call).await?;
        let mut reply = reply.into_iter();
        let held = matches!(reply.next(), Some(Reply::Int(1)));
        let nonce = |reply| match reply {
            Reply::BulkString(bytes) => Nonce::try_from(bytes).ok(),
            _ => None,
        };
        let nonces: Option<Nonces> = reply.map(nonce).collect();
        let nonces = nonces.filter(|nonces| nonces.len() == address.dependencies.len());
        let nonces = nonces.ok_or_else(|| Error::internal("Redis answered a capture with something else than nonces"))?;
        let lease = if held { Lease::Held } else { Lease::None };
        Ok(Capture { link: link.clone(), stamp: Stamp { server: link.server(), nonces }, at: Instant::now(), lease })
    }
}

/// Guards, by hashes of their names, with the nonces that they had before something was loaded.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Vouched {
    server: u64,
    nonces: SmallVec<[(u64, Nonce); 2]>,
}

impl Vouched {
    fn new(address: &Address, server: u64, nonces: impl Iterator<Item = Nonce>) -> Self {
        let names = address.dependencies.iter().map(|name| xxh3_64(name.as_bytes()));
        Self { server, nonces: names.zip(nonces).collect() }
    }
}

impl Capture {
    /// Whether what was made from `basis` is as new as the nonces. An entry that is valid here need not be: a nonce may be
    /// of a change that this process has not heard of. So it must have been loaded while its guards had the nonces that they have here.
    pub(in crate::cache) fn covers(&self, address: &Address, basis: &Basis) -> bool {
        match basis {
            Basis::Loaded => true,
            Basis::ReadSince(since) => *since >= self.at,
            Basis::Entry(entry) => entry.vouched().is_some_and(|part| {
                let own = Vouched::new(address, self.stamp.server, self.stamp.nonces.iter().copied());
                part.server == own.server && part.nonces.iter().all(|nonce| own.nonces.contains(nonce))
            }),
        }
    }

    /// What it says of an entry that others will be made from.
    pub(in crate::cache) fn vouched(&self, address: &Address, basis: &Basis) -> Option<Vouched> {
        let vouches = address.is_part && self.covers(address, basis);
        vouches.then(|| Vouched::new(address, self.stamp.server, self.stamp.nonces.iter().copied()))
    }
}

fn is_wanted(entry: &Entry, wanted: Wanted, is_trusted: bool) -> bool {
    let age = entry.age();
    let is_fresh = is_trusted && !entry.fresh_for(age).is_zero();
    match wanted {
        Wanted::Fresh => is_fresh,
        Wanted::Refreshed => is_fresh && !entry.is_due(age),
        Wanted::Capture => false,
    }
}

fn mget(address: &Address) -> redis::Cmd {
    let mut command = redis::cmd("MGET");
    command.arg(&address.value).arg(&address.dependencies);
    command
}

/// The entry in the answer to [`mget`], if it is one, of this key and server, and all its guards still have its nonces. Its age comes
/// from the time that Redis keeps it for: clocks of instances may differ.
fn found(link: &Link, address: &Address, dependencies: &Dependencies, values: Reply, left_ms: i64) -> Option<Entry> {
    let Reply::Array(values) = values else { return None };
    let mut values = values.into_iter();
    let Reply::BulkString(value) = values.next()? else { return None };
    let nonces: SmallVec<[Option<Vec<u8>>; 4]> = values
        .map(|value| match value {
            Reply::BulkString(nonce) => Some(nonce),
            _ => None,
        })
        .collect();
    let value = Value::parse(value)?;
    if value.server != link.server() || !value.belongs_to(address.key.as_str(), nonces.iter().map(|nonce| nonce.as_deref())) {
        return None;
    }
    // Negative is gone, or kept for ever, which is not how it was written.
    let left = Duration::from_millis(u64::try_from(left_ms).ok()?);
    let age = value.times.age + value.times.kept.checked_sub(left)?;
    let (lifetime, origin) = (value.times.lifetime, Origin::Found(value.loaded_by, age));
    let vouched = address.is_part.then(|| {
        let nonces = nonces.iter().flatten().filter_map(|nonce| Nonce::try_from(nonce.as_slice()).ok());
        Vouched::new(address, link.server(), nonces)
    });
    Some(Entry::new(value.content()?, dependencies.clone(), lifetime, origin).with_vouched(vouched))
}
