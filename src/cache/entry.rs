//! An entry: a ready response body with its headers, ETag and encodings, and what it depends on. Bodies are shared,
//! never copied; each encoding is made at most once.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

use super::Tier;
use super::cell::Captured;
use super::encoding::{Encoding, compress};
use super::instance::InstanceId;
use super::l1::Evictions;
use super::second_tier::Vouched;
use crate::error::{Error, Result};
use crate::model::{Change, Footprint, RecordId};

/// What a loader returns.
#[derive(Clone, Debug)]
pub struct Content {
    /// Whether there is anything.
    pub presence: Presence,
    /// The response body, uncompressed.
    pub body: Bytes,
    /// The entity tag with its quotes, unique to the body.
    pub etag: HeaderValue,
    /// Further headers of the response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What it was made from.
    pub basis: Basis,
}

/// What a body was made from. Guards are captured before the loader runs; whatever is older than that need not be as new as they are,
/// even if this process has not heard of a change yet.
#[derive(Clone, Debug)]
pub enum Basis {
    /// What the loader read.
    Loaded,
    /// What somebody else began to read then.
    ReadSince(Instant),
    /// What the loader read, and this entry.
    Entry(Arc<Entry>),
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process, which is that instance, loaded it.
    Loaded(InstanceId),
    /// That instance loaded it, and it was found in the second tier when it was this old.
    Found(InstanceId, Duration),
}

/// Whether there is anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Yes.
    Found,
    /// No such record: a negative entry.
    Missing,
}

/// A body in one encoding, and its strong ETag with quotes. Two encodings of one body are two representations
/// (RFC 9110, 8.8.3.3), so each has a tag of its own.
#[derive(Clone, Debug)]
pub struct Representation {
    /// The bytes to send.
    pub body: Bytes,
    /// The entity tag, with quotes.
    pub etag: HeaderValue,
}

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// It is fresh for this long, if no guard moves.
    pub ttl: Duration,
    /// After that it may be served for this long while the database is down.
    pub stale_if_error: Duration,
}

/// The guards of an entry, captured before it was loaded. Nearly always one.
pub type Dependencies = SmallVec<[Captured; 1]>;

/// A cached answer.
#[derive(Debug)]
pub struct Entry {
    presence: Presence,
    headers: Vec<(HeaderName, HeaderValue)>,
    identity: Representation,
    /// Made with the first encoding: most entries are small records, which never have one, and the cells are larger than
    /// the rest of the entry.
    compressed: OnceLock<Box<Encodings>>,
    dependencies: Dependencies,
    loaded_at: Instant,
    loaded_by: InstanceId,
    tier: Option<Tier>,
    /// What the second tier knew of its guards before it was loaded. Only entries have it that others are made from.
    vouched: Option<Box<Vouched>>,
    lifetime: Lifetime,
    refreshing: AtomicBool,
    superseded: AtomicBool,
    /// What its only reader made of the body: see [`Entry::attachment`].
    attached: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Told when it is gone, if L1 had it.
    evictions: OnceLock<Arc<Evictions>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(evictions) = self.evictions.get() {
            evictions.count(self);
        }
    }
}

/// Hashes of the ids of the records that the body of a page shows, sorted; `None` if nobody can tell. Two records with one hash only
/// make an answer look touched.
struct Shown(Option<Box<[u64]>>);

/// In the order of [`Encoding::COMPRESSED`].
type Encodings = [OnceCell<Representation>; Encoding::COMPRESSED.len()];

/// What an entry takes beside its bytes: the struct, its ETag, moka's node and queues, the guard cell and its table slot.
/// Measured: 100,000 records of 600 bytes made the process grow by 1,150 bytes each beyond bodies and keys.
const OVERHEAD_BYTES: usize = 1_150;

/// The share of the TTL after which a hit starts a refresh behind it, so that hot entries never expire.
const REFRESH_AFTER: f64 = 0.9;

impl Entry {
    /// Wraps what a loader returned, or what was found in the second tier; `dependencies` were captured before either.
    pub fn new(content: Content, dependencies: Dependencies, mut lifetime: Lifetime, origin: Origin) -> Self {
        let now = Instant::now();
        let (loaded_by, tier, loaded_at) = match origin {
            Origin::Loaded(by) => (by, None, now),
            Origin::Found(by, age) => {
                let loaded_at = now.checked_sub(age).unwrap_or_else(|| {
                    // The clock does not go back that far: what is left of its time counts from now.
                    lifetime.ttl = lifetime.ttl.saturating_sub(age);
                    now
                });
                (by, Some(Tier::L2), loaded_at)
            }
        };
        Self {
            presence: content.presence,
            headers: content.headers,
            identity: Representation { body: content.body, etag: content.etag },
            compressed: OnceLock::new(),
            dependencies,
            loaded_at,
            loaded_by,
            tier,
            vouched: None,
            lifetime,
            refreshing: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            attached: OnceLock::new(),
            evictions: OnceLock::new(),
        }
    }

    /// L1 has it, and counts it when it is gone.
    pub(super) fn counted_by(&self, evictions: &Arc<Evictions>) {
        // There is one L1.
        self.evictions.get_or_init(|| Arc::clone(evictions));
    }

    /// Whether there is anything.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Headers of the response beside those every response has.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The uncompressed body and its ETag.
    pub fn identity(&self) -> &Representation {
        &self.identity
    }

    /// The body in `encoding`, if it has been made.
    pub fn ready(&self, encoding: Encoding) -> Option<&Representation> {
        match position(encoding) {
            Some(position) => self.compressed.get()?.get(position)?.get(),
            None => Some(&self.identity),
        }
    }

    /// The body in `encoding`. The first caller makes it, others wait for that one; a cancelled caller passes the
    /// work on to the next.
    pub async fn representation(&self, encoding: Encoding) -> Result<&Representation> {
        let slots = || self.compressed.get_or_init(Box::default);
        let Some(slot) = position(encoding).and_then(|position| slots().get(position)) else { return Ok(&self.identity) };
        slot.get_or_try_init(|| async {
            let body = compress(encoding, self.identity.body.clone()).await?;
            let plain = self.identity.etag.as_bytes();
            let plain = plain.strip_suffix(b"\"").unwrap_or(plain);
            let etag = [plain, b"-", encoding.token().as_bytes(), b"\""].concat();
            Ok(Representation { body, etag: HeaderValue::try_from(etag).map_err(Error::internal)? })
        })
        .await
    }

    pub(super) fn with_vouched(mut self, vouched: Option<Vouched>) -> Self {
        self.vouched = vouched.map(Box::new);
        self
    }

    pub(super) fn vouched(&self) -> Option<&Vouched> {
        self.vouched.as_deref()
    }

    /// Which instance loaded it.
    pub fn loaded_by(&self) -> InstanceId {
        self.loaded_by
    }

    /// The tier that it came through; `None` if this process loaded it.
    pub fn came_through(&self) -> Option<Tier> {
        self.tier
    }

    pub(super) fn dependencies(&self) -> &Dependencies {
        &self.dependencies
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// A time at which no guard had moved since before it was loaded, as late as is known.
    pub(super) fn current_until(&self) -> Option<Instant> {
        let moved = self.dependencies.iter().filter(|captured| !captured.is_current());
        moved.map(Captured::current_until).min().flatten()
    }

    /// How long ago it was loaded.
    pub fn age(&self) -> Duration {
        self.age_at(Instant::now())
    }

    /// How long before `now` it was loaded.
    pub fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.loaded_at)
    }

    /// For how much longer than `age` it is fresh if no guard moves; zero once it has expired. Like all that follows it
    /// takes the age, so that a look-up reads the clock once.
    pub fn fresh_for(&self, age: Duration) -> Duration {
        self.lifetime.ttl.saturating_sub(age)
    }

    /// How long before `age` it expired; zero while it is fresh.
    pub fn expired_for(&self, age: Duration) -> Duration {
        age.saturating_sub(self.lifetime.ttl)
    }

    /// Whether no guard has moved since before it was loaded.
    pub fn is_valid(&self) -> bool {
        self.dependencies.iter().all(Captured::is_current)
    }

    /// Finds out whether a load would make it as it is, because none of the changes that moved its guard has touched it. Then it is
    /// valid again. Only for what depends on one selection, with `footprint`, which is its only guard; `shown` reads the ids
    /// of the records that a body shows, and is seldom asked.
    pub fn follow(&self, footprint: &Footprint, shown: impl Fn(&[u8]) -> Option<Vec<RecordId>>) {
        let [selection] = self.dependencies.as_slice() else { return };
        let hash = |id: &RecordId| xxh3_64(id.as_str().as_bytes());
        let hashes = || {
            let mut hashes: Vec<u64> = shown(&self.identity.body)?.iter().map(hash).collect();
            hashes.sort_unstable();
            Some(hashes.into_boxed_slice())
        };
        let is_shown = |change: &Change| match self.attachment(|_| Some(Shown(hashes()))) {
            Some(Shown(Some(hashes))) => hashes.binary_search(&hash(&change.id)).is_ok(),
            Some(Shown(None)) | None => true,
        };
        selection.follow(footprint, is_shown);
    }

    /// Whether it may still be served in place of an error, if for `unknown` something may have changed that moved no guard.
    pub fn is_usable_on_error(&self, age: Duration, unknown: Duration) -> bool {
        self.is_valid() && age <= self.retention() && unknown <= self.lifetime.stale_if_error
    }

    /// How long it is kept: while it is fresh, and while it may stand in for an error.
    pub fn retention(&self) -> Duration {
        self.lifetime.ttl.saturating_add(self.lifetime.stale_if_error)
    }

    /// Whether it is so close to its end at `age` that a refresh should not take it.
    pub fn is_due(&self, age: Duration) -> bool {
        age > self.lifetime.ttl.mul_f64(REFRESH_AFTER)
    }

    /// Whether it is about to expire and nobody refreshes it yet.
    pub fn wants_refresh(&self, age: Duration) -> bool {
        self.is_due(age) && !self.refreshing.load(Ordering::Relaxed)
    }

    /// Whether this caller shall refresh it; true at most once per entry.
    pub fn claims_refresh(&self, age: Duration) -> bool {
        self.wants_refresh(age) && !self.refreshing.swap(true, Ordering::Relaxed)
    }

    /// Somebody begins to load what takes its place.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has begun to load what takes its place.
    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// What `make` makes of the body, which it is asked for once; `None` if it made nothing, or somebody else something else of it.
    pub fn attachment<T: Any + Send + Sync>(&self, make: impl FnOnce(&Bytes) -> Option<T>) -> Option<&T> {
        if self.attached.get().is_none() {
            // Of two that make it at once one is kept.
            let _ = self.attached.set(Box::new(make(&self.identity.body)?));
        }
        self.attached.get()?.downcast_ref()
    }

    /// The memory it takes, in bytes.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(_, value)| value.len() + 48).sum();
        let compressed = self.compressed.get().map_or(0, |slots| {
            let made = slots.iter().filter_map(OnceCell::get).map(|made| allocated(made.body.len()) + made.etag.len());
            size_of::<Encodings>() + made.sum::<usize>()
        });
        OVERHEAD_BYTES + allocated(self.identity.body.len()) + headers + compressed
    }
}

/// The memory behind `length` bytes. An allocator rounds a large block up to its size class, leaves a rest of each of its
/// pages, and gives back late what evictions free: 4,000 pages of 59 kB made the process grow by 1.4 times their bytes, and
/// by up to 1.6 times while they took the place of small entries.
fn allocated(length: usize) -> usize {
    if length < 1_024 { length } else { length + 9 * length / 16 }
}

/// Where in [`Encodings`] it stands; identity does not.
fn position(encoding: Encoding) -> Option<usize> {
    Encoding::COMPRESSED.iter().position(|candidate| *candidate == encoding)
}
