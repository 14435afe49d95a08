//! How an entry is laid out in Redis. Numbers are little-endian; a check sum begins it, so that whatever is not whole, or not ours, is
//! a miss.
//!
//! ```text
//! sum u64 | version u8 | flags u8 | server u64 | instance u64 | ttl, stale, kept, age u32 (ms) | nonces u16, 16 bytes each
//! | key u32, bytes | etag u16, bytes | headers u16, each: name u16, bytes, value u32, bytes | body length u32 | body
//! ```

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::entry::{Basis, Content, Entry, Lifetime, Presence};
use crate::cache::instance::InstanceId;
use crate::error::{Error, Result};

/// Another layout has another number.
const VERSION: u8 = 1;
const MISSING: u8 = 1;
const COMPRESSED: u8 = 2;

/// More than the largest body. What says that it unpacks to more is not ours.
const BODY_MAX_BYTES: usize = 1 << 28;

/// The fastest level: it halves a page for a third of the time that the next ones take.
const ZSTD_LEVEL: i32 = 1;

/// What a guard has in Redis.
pub(super) type Nonce = [u8; 16];

/// The nonces of an entry, in the order of its guards.
pub(super) type Nonces = SmallVec<[Nonce; 2]>;

/// Under which circumstances an entry was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The server process that had the nonces.
    pub(super) server: u64,
    /// The nonces before the load.
    pub(super) nonces: Nonces,
}

/// How long a value lives, as of when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// Of the entry.
    pub(super) lifetime: Lifetime,
    /// When Redis forgets it.
    pub(super) kept: Duration,
    /// How old the entry is.
    pub(super) age: Duration,
}

/// A value, read but not unpacked.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) server: u64,
    pub(super) loaded_by: InstanceId,
    pub(super) times: Times,
    nonces: Bytes,
    key: Bytes,
    presence: Presence,
    etag: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    body_len: usize,
    body: Bytes,
    is_compressed: bool,
}

/// Lays an entry out. A body larger than `compress_above` bytes is compressed.
pub(super) fn encode(key: &str, entry: &Entry, stamp: &Stamp, times: &Times, compress_above: usize) -> Result<Vec<u8>> {
    let identity = &entry.identity().body;
    let packed = (identity.len() > compress_above).then(|| zstd::bulk::compress(identity, ZSTD_LEVEL)).transpose();
    // What does not shrink is stored as it is.
    let packed = packed.map_err(Error::internal)?.filter(|packed| packed.len() < identity.len());
    let flags = u8::from(entry.presence() == Presence::Missing) * MISSING + u8::from(packed.is_some()) * COMPRESSED;
    let body: &[u8] = packed.as_deref().unwrap_or(identity);
    let mut bytes = Vec::with_capacity(128 + 16 * stamp.nonces.len() + key.len() + 64 * entry.headers().len() + body.len());
    bytes.extend([0; 8]);
    bytes.extend([VERSION, flags]);
    bytes.extend(stamp.server.to_le_bytes());
    bytes.extend(entry.loaded_by().number().to_le_bytes());
    for time in [times.lifetime.ttl, times.lifetime.stale_if_error, times.kept, times.age] {
        bytes.extend(milliseconds(time).to_le_bytes());
    }
    put_count(&mut bytes, stamp.nonces.len())?;
    stamp.nonces.iter().for_each(|nonce| bytes.extend(nonce));
    put_long(&mut bytes, key.as_bytes())?;
    put_short(&mut bytes, entry.identity().etag.as_bytes())?;
    put_count(&mut bytes, entry.headers().len())?;
    for (name, value) in entry.headers() {
        put_short(&mut bytes, name.as_str().as_bytes())?;
        put_long(&mut bytes, value.as_bytes())?;
    }
    bytes.extend(u32::try_from(identity.len()).map_err(Error::internal)?.to_le_bytes());
    bytes.extend(body);
    let sum = bytes.get(8..).map(xxh3_64).unwrap_or_default().to_le_bytes();
    if let Some(head) = bytes.first_chunk_mut() {
        *head = sum;
    }
    Ok(bytes)
}

/// What the layout has room for: 49 days.
pub(super) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn put_count(bytes: &mut Vec<u8>, count: usize) -> Result<()> {
    bytes.extend(u16::try_from(count).map_err(Error::internal)?.to_le_bytes());
    Ok(())
}

fn put_short(bytes: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    put_count(bytes, text.len())?;
    bytes.extend(text);
    Ok(())
}

fn put_long(bytes: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    bytes.extend(u32::try_from(text.len()).map_err(Error::internal)?.to_le_bytes());
    bytes.extend(text);
    Ok(())
}

impl Value {
    /// Reads a value without unpacking it. `None` for what is cut off, damaged, of another version or not ours.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = Reader(Bytes::from(bytes));
        let sum = rest.number::<8>().map(u64::from_le_bytes)?;
        if xxh3_64(&rest.0) != sum {
            return None;
        }
        let [version, flags] = rest.number::<2>()?;
        if version != VERSION || flags & !(MISSING | COMPRESSED) != 0 {
            return None;
        }
        let server = rest.number().map(u64::from_le_bytes)?;
        let loaded_by = InstanceId::from_number(rest.number().map(u64::from_le_bytes)?);
        let lifetime = Lifetime { ttl: rest.time()?, stale_if_error: rest.time()? };
        let times = Times { lifetime, kept: rest.time()?, age: rest.time()? };
        let count = rest.count()?;
        let nonces = rest.take(count * size_of::<Nonce>())?;
        let key = rest.long()?;
        let etag = HeaderValue::from_bytes(&rest.short()?).ok()?;
        let count = rest.count()?;
        let headers = (0..count).map(|_| rest.header()).collect::<Option<_>>()?;
        let body_len = rest.length()?;
        let is_compressed = flags & COMPRESSED != 0;
        if body_len > BODY_MAX_BYTES || !(is_compressed || body_len == rest.0.len()) {
            return None;
        }
        let presence = if flags & MISSING == 0 { Presence::Found } else { Presence::Missing };
        Some(Self { server, loaded_by, times, nonces, key, presence, etag, headers, body_len, body: rest.0, is_compressed })
    }

    /// Whether it is the value of `key`, and was loaded while the guards had `nonces`, which are in their order.
    pub(super) fn belongs_to<'a>(&self, key: &str, nonces: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> bool {
        let own = self.nonces.chunks_exact(size_of::<Nonce>());
        self.key == key.as_bytes() && own.len() == nonces.len() && own.zip(nonces).all(|(own, now)| now == Some(own))
    }

    /// Unpacks it; `None` if that fails.
    pub(super) fn content(self) -> Option<Content> {
        let body = if self.is_compressed {
            let body = zstd::bulk::decompress(&self.body, self.body_len).ok()?;
            (body.len() == self.body_len).then(|| Bytes::from(body.into_boxed_slice()))?
        } else {
            self.body
        };
        Some(Content { presence: self.presence, body, etag: self.etag, headers: self.headers, basis: Basis::Loaded })
    }
}

/// Takes one part after the other from the front.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn number<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.take(LENGTH)?.first_chunk().copied()
    }

    fn count(&mut self) -> Option<usize> {
        self.number().map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.number()?)).ok()
    }

    fn time(&mut self) -> Option<Duration> {
        self.number().map(|bytes| Duration::from_millis(u64::from(u32::from_le_bytes(bytes))))
    }

    fn short(&mut self) -> Option<Bytes> {
        let length = self.count()?;
        self.take(length)
    }

    fn long(&mut self) -> Option<Bytes> {
        let length = self.length()?;
        self.take(length)
    }

    fn header(&mut self) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(&self.short()?).ok()?;
        Some((name, HeaderValue::from_bytes(&self.long()?).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::entry::{Dependencies, Origin};

    const KEY: &str = "rmetrics\0M-1\0";

    fn content() -> impl Strategy<Value = Content> {
        let text = "[ -~]{0,40}";
        let header = ("x-[a-z]{1,12}", text);
        let body = prop_oneof![prop::collection::vec(any::<u8>(), 0..300), "(terrace ){0,600}".prop_map(String::into_bytes)];
        (any::<bool>(), body, text, prop::collection::vec(header, 0..4)).prop_map(|(found, body, etag, headers)| Content {
            presence: if found { Presence::Found } else { Presence::Missing },
            body: Bytes::from(body),
            etag: HeaderValue::try_from(etag).unwrap(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
                .collect(),
            basis: Basis::Loaded,
        })
    }

    fn times() -> impl Strategy<Value = Times> {
        [any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()].prop_map(|times| {
            let [ttl, stale_if_error, kept, age] = times.map(|time| Duration::from_millis(u64::from(time)));
            Times { lifetime: Lifetime { ttl, stale_if_error }, kept, age }
        })
    }

    fn stamp() -> impl Strategy<Value = Stamp> {
        (any::<u64>(), prop::collection::vec(any::<Nonce>(), 0..5))
            .prop_map(|(server, nonces)| Stamp { server, nonces: nonces.into_iter().collect() })
    }

    fn encoded(content: &Content, stamp: &Stamp, times: &Times) -> (Entry, Vec<u8>) {
        let origin = Origin::Loaded(InstanceId::random());
        let entry = Entry::new(content.clone(), Dependencies::new(), times.lifetime, origin);
        let bytes = encode(KEY, &entry, stamp, times, 100).unwrap();
        (entry, bytes)
    }

    fn is_same(one: &Content, other: &Content) -> bool {
        one.presence == other.presence && one.body == other.body && one.etag == other.etag && one.headers == other.headers
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_written(content in content(), stamp in stamp(), times in times()) {
            let (entry, bytes) = encoded(&content, &stamp, &times);
            let value = Value::parse(bytes).unwrap();
            prop_assert_eq!((value.server, value.times, value.loaded_by), (stamp.server, times, entry.loaded_by()));
            prop_assert!(value.belongs_to(KEY, stamp.nonces.iter().map(|nonce| Some(&nonce[..]))));
            prop_assert!(!value.belongs_to("another", stamp.nonces.iter().map(|nonce| Some(&nonce[..]))));
            for changed in 0..stamp.nonces.len() {
                let nonces = stamp.nonces.iter().enumerate().map(|(at, nonce)| (at != changed).then_some(&nonce[..]));
                prop_assert!(!value.belongs_to(KEY, nonces), "without nonce {}", changed);
            }
            prop_assert!(is_same(&value.content().unwrap(), &content));
        }

        #[test]
        fn what_is_cut_off_or_damaged_is_no_value(
            content in content(), stamp in stamp(), times in times(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let (_, bytes) = encoded(&content, &stamp, &times);
            let at = at.index(bytes.len());
            prop_assert!(Value::parse(bytes[..at].to_vec()).is_none());
            let mut damaged = bytes;
            damaged[at] ^= flip;
            prop_assert!(Value::parse(damaged).is_none());
        }

        #[test]
        fn whatever_has_the_right_sum_is_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200), ours in any::<bool>()) {
            let mut bytes = [0; 8].to_vec();
            if ours {
                bytes.extend([VERSION, COMPRESSED]);
            }
            bytes.extend(body);
            let sum = xxh3_64(&bytes[8..]).to_le_bytes();
            bytes[..8].copy_from_slice(&sum);
            drop(Value::parse(bytes).and_then(Value::content));
        }
    }

    #[test]
    fn only_large_bodies_that_shrink_are_compressed() {
        let content = |body: Vec<u8>| Content {
            presence: Presence::Found,
            body: Bytes::from(body),
            etag: HeaderValue::from_static("\"tag\""),
            headers: Vec::new(),
            basis: Basis::Loaded,
        };
        let times = Times {
            lifetime: Lifetime { ttl: Duration::from_secs(1), stale_if_error: Duration::ZERO },
            kept: Duration::from_secs(1),
            age: Duration::ZERO,
        };
        let stamp = Stamp { server: 1, nonces: Nonces::new() };
        let is_compressed = |body| Value::parse(encoded(&content(body), &stamp, &times).1).unwrap().is_compressed;
        assert!(is_compressed(b"terrace ".repeat(50)));
        assert!(!is_compressed(b"terrace ".repeat(10)));
        let mut random = fastrand::Rng::with_seed(1);
        assert!(!is_compressed((0..400).map(|_| random.u8(..)).collect()));
    }
}
