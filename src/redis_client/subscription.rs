//! A channel, subscribed to again whenever its connection ends. A task of its own does that, so that who waits for the
//! next event may stop waiting at any time.

use std::sync::{Arc, Weak};
use std::time::Instant;

use futures_util::StreamExt as _;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::link::CONNECT_TIMEOUT;
use super::metrics::Metrics;
use super::status::Capped;
use super::{Shared, Target, failure, patiently, pause_after};
use crate::error::{Error, Result};

/// Events that wait for their receiver. Beyond that the connection waits, and in the end the server closes it.
const WAITING: usize = 1024;

/// What a subscription tells.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// From now on messages arrive; those before are lost.
    Connected,
    /// Messages may be lost from now on.
    Disconnected,
    /// Somebody published this.
    Message(bytes::Bytes),
}

/// A channel, subscribed to until this is dropped.
pub struct Subscription {
    events: mpsc::Receiver<BusEvent>,
    again: Arc<Notify>,
    task: AbortHandle,
}

impl Subscription {
    pub(super) fn begin(shared: &Arc<Shared>, channel: String) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let again = Arc::new(Notify::new());
        let (target, metrics) = (Arc::clone(&shared.target), Arc::clone(&shared.metrics));
        let (shared, again_too) = (Arc::downgrade(shared), Arc::clone(&again));
        let subscriber = Subscriber { target, metrics, shared, channel, events: sender, again: again_too };
        let task = tokio::spawn(subscriber.run()).abort_handle();
        Self { events, again, task }
    }

    /// Waits for what happens next. It may be cancelled: nothing is lost by that.
    pub async fn next(&mut self) -> BusEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only with the runtime.
            None => std::future::pending().await,
        }
    }

    /// Gives the connection up, for one that seems dead while nobody says so, and makes a new one: `Disconnected` and
    /// `Connected` follow, after what has arrived before. Between connections it does nothing.
    pub fn reconnect(&self) {
        self.again.notify_waiters();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Subscriber {
    target: Arc<Target>,
    metrics: Arc<Metrics>,
    /// Weak: a subscription does not keep the client's connection.
    shared: Weak<Shared>,
    channel: String,
    events: mpsc::Sender<BusEvent>,
    again: Arc<Notify>,
}

impl Subscriber {
    /// Ends when nobody takes events any more.
    async fn run(self) {
        let mut told = Capped::default();
        loop {
            let (_sink, messages) = patiently(|| self.subscribe(), |error| tell(&mut told, error, &self.shared)).await;
            self.metrics.subscriptions.inc();
            if self.events.send(BusEvent::Connected).await.is_err() {
                return;
            }
            let begun = Instant::now();
            self.pass_on(messages).await;
            if self.events.send(BusEvent::Disconnected).await.is_err() {
                return;
            }
            pause_after(begun).await;
        }
    }

    /// Until the connection ends, or is given up.
    async fn pass_on(&self, mut messages: PubSubStream) {
        let given_up = self.again.notified();
        tokio::pin!(given_up);
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = &mut given_up => None,
            };
            let Some(message) = message else { return };
            let payload = bytes::Bytes::copy_from_slice(message.get_payload_bytes());
            if self.events.send(BusEvent::Message(payload)).await.is_err() {
                return;
            }
        }
    }

    async fn subscribe(&self) -> Result<(PubSubSink, PubSubStream)> {
        let subscribe = async {
            let stream = self.target.address.open().await?;
            let connection = PubSub::new(&self.target.address.login, stream).await;
            let (mut sink, messages) = connection.map_err(|error| failure::from_login(&error))?.split();
            sink.subscribe(&self.channel).await.map_err(|error| failure::from_login(&error))?;
            Ok((sink, messages))
        };
        timeout(CONNECT_TIMEOUT, subscribe).await.unwrap_or_else(|_| Err(failure::too_slow("two seconds")))
    }
}

/// Without a link the reason is told already.
fn tell(told: &mut Capped, error: &Error, shared: &Weak<Shared>) {
    let is_linked = shared.upgrade().is_some_and(|shared| shared.read(|state| state.link.is_some()));
    if is_linked && told.is_due(error.detail(), Instant::now()) {
        tracing::warn!(%error, "Redis lets us send commands and not subscribe");
    }
}
