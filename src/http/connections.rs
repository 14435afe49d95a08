//! Connections: how many there are, and how long each may do nothing. actix-web gives a new connection a time limit for its
//! first head and ends one that is silent; but a client that has begun its second head, or does not read its answer, could
//! stay for ever. So every connection has a deadline here: it is over when that much time has passed since the last answer
//! (or since it began) without a new request. It knows nothing of what requests say.

use std::any::Any;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream as Socket};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use actix_web::http::ConnectionType;
use actix_web::rt::net::TcpStream;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::overload::{Capacity, Slot};

/// Requests at once on one connection. HTTP/2 lets a client send any number; HTTP/1.1 never has more than one.
const MOST_REQUESTS: u32 = 100;
/// How often connections are looked at, at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// All connections of a server. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    capacity: Capacity,
    patience: Duration,
    began: Instant,
    /// Held for a look-up, or for one pass over all, never across an await.
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
}

/// One connection, as its requests see it. The server drops it with the connection.
pub(super) struct Connection {
    connections: Connections,
    number: u64,
    activity: Arc<Activity>,
    slot: Option<Slot>,
}

/// What a connection does. Only its own thread writes it, so nothing here is contended.
struct Activity {
    requests: AtomicU32,
    /// Milliseconds from the beginning of the server to the end of the last answer.
    idle_since: AtomicU64,
    /// A second handle of the socket, to end the connection from outside; the first belongs to the server.
    socket: Socket,
}

impl Connections {
    /// No connections. Beyond `capacity` they are surplus; each may do nothing for `patience`.
    pub(super) fn new(capacity: Capacity, patience: Duration) -> Self {
        let (open, next) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Shared { capacity, patience, began: Instant::now(), open, next }))
    }

    /// Notes a connection that has just been made; its requests find it through [`Connection::of`].
    pub(super) fn note(&self, stream: &dyn Any, data: &mut Extensions) {
        let plain = stream.downcast_ref::<TcpStream>();
        let Some(stream) = plain.or_else(|| stream.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0))
        else {
            return;
        };
        // Out of file descriptors: the connection is served, and ends by the limits that actix-web has.
        let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
        let idle_since = AtomicU64::new(self.millis(Instant::now()));
        let activity = Arc::new(Activity { requests: AtomicU32::new(0), idle_since, socket: socket.into() });
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, Arc::clone(&activity));
        data.insert(Connection { connections: self.clone(), number, activity, slot: self.0.capacity.take().ok() });
    }

    /// Ends connections that have done nothing for too long, until the task is aborted.
    pub(super) async fn end_idle(self) {
        let mut ticks = tokio::time::interval((self.0.patience / 8).clamp(SWEEP.0, SWEEP.1));
        loop {
            ticks.tick().await;
            let now = self.millis(Instant::now());
            let patience = u64::try_from(self.0.patience.as_millis()).unwrap_or(u64::MAX);
            for activity in self.open().values() {
                let is_idle = activity.requests.load(Ordering::Relaxed) == 0;
                if is_idle && now.saturating_sub(activity.idle_since.load(Ordering::Relaxed)) > patience {
                    // It may be over already.
                    let _ = activity.socket.shutdown(Shutdown::Both);
                }
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.0.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The connection of a request. A request in a unit test has none.
    pub(super) fn of(request: &HttpRequest) -> Option<&Self> {
        request.conn_data()
    }

    /// Whether it is one too many.
    pub(super) fn is_surplus(&self) -> bool {
        self.slot.is_none()
    }

    /// What a surplus connection is told when it asks for more than what is in memory.
    pub(super) fn refusal(&self) -> Error {
        self.connections.0.capacity.refusal()
    }

    /// A request begins. Each begins and ends, whether it is refused or not.
    pub(super) fn begin(&self) -> Result<()> {
        if self.activity.begin() <= MOST_REQUESTS {
            return Ok(());
        }
        let detail = format!("A connection has at most {MOST_REQUESTS} requests at once; wait for answers.");
        Err(Error::new(ErrorKind::Unavailable, "overloaded", detail).with_retry_after(Duration::from_secs(1)))
    }

    /// A request has its answer. One that goes on for as long as somebody listens ends with its body.
    pub(super) fn end(&self, mut response: HttpResponse, now: Instant) -> HttpResponse {
        if self.is_surplus() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        match response.body().size() {
            BodySize::None | BodySize::Sized(_) => {
                self.activity.end(self.connections.millis(now));
                response
            }
            BodySize::Stream => {
                let (connections, activity) = (self.connections.clone(), Arc::clone(&self.activity));
                response.map_body(|_, body| BoxBody::new(Lasting { body, connections, activity }))
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
    }
}

impl Activity {
    /// How many requests there are with this one. Nobody else writes, so that loading and storing is enough.
    fn begin(&self) -> u32 {
        let requests = self.requests.load(Ordering::Relaxed).saturating_add(1);
        self.requests.store(requests, Ordering::Relaxed);
        requests
    }

    fn end(&self, now: u64) {
        self.idle_since.store(now, Ordering::Relaxed);
        self.requests.store(self.requests.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

/// A body that is made while it is sent. Its request ends when it is dropped.
struct Lasting {
    body: BoxBody,
    connections: Connections,
    activity: Arc<Activity>,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.activity.end(self.connections.millis(Instant::now()));
    }
}

impl MessageBody for Lasting {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(context)
    }
}
