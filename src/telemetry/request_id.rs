//! Request ids: accepted or made once per request, and known to every log line that is written while it is served.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use uuid::Uuid;

/// The longest id that is accepted from a client, in bytes.
const MAX_BYTES: usize = 128;

/// The id of a request: 1 to 128 of `A-Za-z0-9._-`, so it is safe in headers, in log lines and in JSON.
/// Clones are cheap, and one that was made here is only spelled out where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Source);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Made(Uuid),
    Sent(Arc<str>),
}

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
        let text = std::str::from_utf8(text).ok().filter(|_| valid)?;
        Some(Self(Source::Sent(text.into())))
    }

    /// The id that `uuid` spells.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(Source::Made(uuid))
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
        // Boxed: both arms below and whatever carries this on would each have room for all of its state.
        let future = Box::pin(future);
        async move {
            match current {
                Some(id) => id.scope(future).await,
                None => future.await,
            }
        }
    }

    /// Calls `read` with the id as text.
    pub fn with_text<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        match &self.0 {
            Source::Made(uuid) => read(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            Source::Sent(text) => read(text),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| formatter.write_str(text))
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
        assert_eq!(RequestId::accept(b"abc-1.2_Z").unwrap().to_string(), "abc-1.2_Z");
        let uuid = Uuid::now_v7();
        assert_eq!(RequestId::from_uuid(uuid).to_string(), uuid.to_string());
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
