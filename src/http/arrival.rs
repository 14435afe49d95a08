//! Bodies on their way: how long one may take, and how much memory all of them together. Every body that a handler reads comes
//! through here, so no handler has to think of it. It knows nothing of what bodies say.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Error, ErrorKind};

/// What all bodies that are being read may take together, in bytes, at least. A thousand slow clients with a body of 1 MiB each
/// would otherwise take a gigabyte.
const LEAST_BYTES: usize = 64 * 1024 * 1024;
/// And as a multiple of the largest one.
const LARGEST_BODIES: usize = 16;
/// The beginning of a body is taken whatever others take: that of a login, or of a record of common size. Connections bound how much
/// memory these are together.
const FREE_BYTES: usize = 16 * 1024;

/// The bodies that are being read. Clones share the account.
#[derive(Clone)]
pub(super) struct Arrivals(Arc<Shared>);

struct Shared {
    timeout: Duration,
    most_bytes: usize,
    free: usize,
    bytes: AtomicUsize,
}

impl Arrivals {
    /// Bodies of at most `largest` bytes that arrive within `timeout`.
    pub(super) fn new(timeout: Duration, largest: usize) -> Self {
        Self::within(timeout, largest.saturating_mul(LARGEST_BODIES).max(LEAST_BYTES), FREE_BYTES)
    }

    fn within(timeout: Duration, most_bytes: usize, free: usize) -> Self {
        Self(Arc::new(Shared { timeout, most_bytes, free, bytes: AtomicUsize::new(0) }))
    }

    /// The same body, which fails when it comes too late or there are too many. Its memory counts until this is dropped.
    pub(super) fn limited(&self, body: Payload) -> Payload {
        match body {
            Payload::None => Payload::None,
            body @ (Payload::H1 { .. } | Payload::H2 { .. } | Payload::Stream { .. }) => {
                let deadline = Instant::now() + self.0.timeout;
                let free = self.0.free;
                let arriving = Arriving { arrivals: self.clone(), body, deadline, timer: None, free, bytes: 0 };
                Payload::Stream { payload: Box::pin(arriving) }
            }
        }
    }
}

/// What a client is told whose body failed.
pub(super) fn failure(error: &PayloadError) -> Error {
    let kind = match error {
        PayloadError::Io(error) => Some(error.kind()),
        // The enum is open to more.
        _ => None,
    };
    match kind {
        Some(io::ErrorKind::TimedOut) => {
            Error::new(ErrorKind::RequestTimeout, "body_timeout", "The body did not arrive in time (http.body_timeout).")
        }
        Some(io::ErrorKind::OutOfMemory) => {
            let detail = "This server reads as many bodies as it takes at once (http.max_body_bytes); try again.";
            Error::new(ErrorKind::Unavailable, "overloaded", detail).with_retry_after(Duration::from_secs(1))
        }
        _ => Error::bad_request("incomplete_body", "The body ended before it was complete.").with_internal(error),
    }
}

/// A body on its way.
struct Arriving {
    arrivals: Arrivals,
    body: Payload,
    deadline: Instant,
    /// Made when it must be waited for: most bodies arrive with their heads.
    timer: Option<Pin<Box<Sleep>>>,
    /// How much of it may still come that does not count.
    free: usize,
    /// What counts.
    bytes: usize,
}

impl Arriving {
    fn account(&mut self, chunk: &Bytes) -> Result<(), PayloadError> {
        let shared = &self.arrivals.0;
        let free = chunk.len().min(self.free);
        self.free -= free;
        let counted = chunk.len() - free;
        self.bytes += counted;
        let others = shared.bytes.fetch_add(counted, Ordering::Relaxed);
        if counted > 0 && others.saturating_add(counted) > shared.most_bytes {
            return Err(PayloadError::Io(io::ErrorKind::OutOfMemory.into()));
        }
        Ok(())
    }
}

impl Stream for Arriving {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // Also when something is there: who sends a byte now and then is as late as who sends nothing.
        if this.timer.is_some() && Instant::now() >= this.deadline {
            return Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))));
        }
        if let Poll::Ready(arrived) = Pin::new(&mut this.body).poll_next(context) {
            return Poll::Ready(arrived.map(|chunk| chunk.and_then(|chunk| this.account(&chunk).map(|()| chunk))));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into())))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrivals.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    fn body(chunks: &[&'static str]) -> Payload {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Payload::Stream { payload: Box::pin(stream::iter(chunks)) }
    }

    #[actix_web::test]
    async fn all_bodies_together_have_one_account() {
        let arrivals = Arrivals::within(Duration::from_secs(60), 10, 0);
        let mut first = arrivals.limited(body(&["12345", "678"]));
        let mut second = arrivals.limited(body(&["12", "3"]));
        assert_eq!(first.next().await.unwrap().unwrap(), "12345");
        assert_eq!(second.next().await.unwrap().unwrap(), "12");
        assert_eq!(first.next().await.unwrap().unwrap(), "678");
        let refusal = failure(&second.next().await.unwrap().unwrap_err());
        assert_eq!((refusal.kind(), refusal.code()), (ErrorKind::Unavailable, "overloaded"));
        assert!(refusal.retry_after().is_some());
        drop((first, second));
        assert_eq!(arrivals.0.bytes.load(Ordering::Relaxed), 0);
        assert!(arrivals.limited(body(&["1234567890"])).next().await.unwrap().is_ok());
    }

    #[actix_web::test]
    async fn the_beginning_of_a_body_is_taken_whatever_others_take() {
        let arrivals = Arrivals::within(Duration::from_secs(60), 10, 4);
        let mut large = arrivals.limited(body(&["1234", "1234567890"]));
        assert!(large.next().await.unwrap().is_ok() && large.next().await.unwrap().is_ok());
        let mut small = arrivals.limited(body(&["12", "34", "5"]));
        assert!(small.next().await.unwrap().is_ok() && small.next().await.unwrap().is_ok());
        assert_eq!(failure(&small.next().await.unwrap().unwrap_err()).code(), "overloaded");
    }

    #[actix_web::test]
    async fn who_sends_a_byte_now_and_then_is_as_late_as_who_sends_nothing() {
        tokio::time::pause();
        let drips = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        });
        let dripping: Payload = Payload::Stream { payload: Box::pin(drips) };
        let silent: Payload = Payload::Stream { payload: Box::pin(stream::pending()) };
        for (slow, arrives) in [(dripping, 2), (silent, 0)] {
            let began = Instant::now();
            let mut limited = Arrivals::new(Duration::from_millis(2_500), 1_000).limited(slow);
            for _ in 0..arrives {
                limited.next().await.unwrap().unwrap();
            }
            let refusal = failure(&limited.next().await.unwrap().unwrap_err());
            assert_eq!((refusal.kind(), refusal.code()), (ErrorKind::RequestTimeout, "body_timeout"));
            assert!((2_500..2_600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        }
    }
}
