//! Request ids: accepted or made once per request, and known to every log line that is written while it is served.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;

use bytes::Bytes;

/// The longest id that is accepted from a client, in bytes.
const MAX_BYTES: usize = 128;

/// The id of a request: 1 to 128 of `A-Za-z0-9._-`, so it is safe in headers, in log lines and in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Bytes);

thread_local! {
    /// The id of the request that this thread works for at the moment. It is the way a log line gets its id without a
    /// span per request, which would cost more than a cache hit.
    static CURRENT: RefCell<Option<RequestId>> = const { RefCell::new(None) };
}

impl RequestId {
    /// The id that a client or proxy sent, if it is acceptable; anything else could forge log lines.
    pub fn accept(text: &[u8]) -> Option<Self> {
        let valid = (1..=MAX_BYTES).contains(&text.len())
            && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        valid.then(|| Self(Bytes::copy_from_slice(text)))
    }

    /// The id that `uuid` spells.
    pub fn from_uuid(uuid: uuid::Uuid) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(Bytes::copy_from_slice(uuid.hyphenated().encode_lower(&mut buffer).as_bytes()))
    }

    /// The id of the request that this thread works for at the moment.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs `future` with this id as the current one, in whatever thread polls it. What `future` spawns is not part of
    /// it, unless it is given to [`Self::carry`].
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let _entered = Entered(CURRENT.replace(Some(self.clone())));
            future.as_mut().poll(context)
        })
        .await
    }

    /// Wraps what is about to be spawned for the current request, so that its log lines name the request that caused
    /// them, also after that has ended.
    pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
        let current = Self::current();
        async move {
            match current {
                Some(id) => id.scope(future).await,
                None => future.await,
            }
        }
    }

    /// The id's bytes, shared.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Puts the id that was current before back, also when a poll panics.
struct Entered(Option<RequestId>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_ids_are_accepted() {
        assert_eq!(RequestId::accept(b"abc-1.2_Z").unwrap().as_str(), "abc-1.2_Z");
        for bad in [&b""[..], b"a b", b"a\nb", b"\xff", b"a\"b", &[b'x'; 129]] {
            assert_eq!(RequestId::accept(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_task_names_the_request_that_spawned_it() {
        let id = RequestId::accept(b"one").unwrap();
        let spawned = id.clone().scope(async {
            let task = async { (RequestId::current(), tokio::task::yield_now().await) };
            (tokio::spawn(RequestId::carry(task)), tokio::spawn(async { RequestId::current() }))
        });
        let (carried, plain) = spawned.await;
        assert_eq!(carried.await.unwrap().0, Some(id));
        assert_eq!(plain.await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_id_is_current_only_while_its_future_is_polled() {
        let id = RequestId::accept(b"one").unwrap();
        assert_eq!(RequestId::current(), None);
        let seen = id.clone().scope(async {
            tokio::task::yield_now().await;
            let inner = RequestId::accept(b"two").unwrap().scope(async { RequestId::current() }).await;
            (inner, RequestId::current())
        });
        assert_eq!(seen.await, (RequestId::accept(b"two"), Some(id)));
        assert_eq!(RequestId::current(), None);
    }
}
