//! The connections to Redis that cache, bus and limits share. It knows no keys and no values.
//!
//! A [`Link`] is one connection together with the server process that it leads to. It ends with the first command that
//! fails or takes too long; a task makes a new one for as long as it takes. Without a link the tier is away, and whoever
//! asks goes on at once without it: that is the circuit breaker.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use crate::config::RedisSettings;
use crate::error::{Error, Result};
use crate::telemetry::Telemetry;

/// The way to the Redis of an installation. Clones share it.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    client: redis::Client,
    timeout: Duration,
    link: RwLock<Option<Link>>,
    links: watch::Sender<u64>,
}

/// One connection and the server process that it leads to. Clones share the connection.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    server: u64,
    version: Arc<str>,
    number: u64,
    client: RedisClient,
}

/// Whether there is a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisStatus {
    /// There is.
    Up {
        /// The server's version, such as `7.0.15`.
        version: String,
        /// Since when.
        since: SystemTime,
    },
    /// There is none.
    Down {
        /// Why, for operators: it names the setting and no secrets.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

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

/// A channel, subscribed to again whenever its connection ends.
pub struct Subscription {
    client: RedisClient,
    channel: String,
    messages: Option<redis::aio::PubSubStream>,
}

impl RedisClient {
    /// Begins to connect; `None` without a URL. It does not wait for the server.
    pub fn connect(settings: &RedisSettings, _telemetry: &Telemetry) -> Result<Option<Self>> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let client = redis::Client::open(settings.url.as_str()).map_err(Error::internal)?;
        let shared = Shared { client, timeout: settings.timeout, link: RwLock::default(), links: watch::Sender::new(0) };
        let client = Self(Arc::new(shared));
        tokio::spawn(client.clone().keep_linked());
        Ok(Some(client))
    }

    /// The connection, if there is one.
    pub fn link(&self) -> Option<Link> {
        self.0.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is a connection.
    pub fn status(&self) -> RedisStatus {
        let since = SystemTime::now();
        match self.link() {
            Some(link) => RedisStatus::Up { version: link.version.to_string(), since },
            None => RedisStatus::Down { reason: "No Redis answers at the address in redis.url.".to_owned(), since },
        }
    }

    /// Changes whenever a link is made or lost.
    pub fn watch_links(&self) -> watch::Receiver<u64> {
        self.0.links.subscribe()
    }

    /// Subscribes to `channel`, on a connection of its own.
    pub fn subscribe(&self, channel: String) -> Subscription {
        Subscription { client: self.clone(), channel, messages: None }
    }

    async fn keep_linked(self) {
        let mut links = self.watch_links();
        loop {
            while self.link().is_none() {
                match self.make_link().await {
                    Ok(link) => {
                        *self.0.link.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
                        self.0.links.send_modify(|number| *number += 1);
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            if links.changed().await.is_err() {
                return;
            }
        }
    }

    async fn make_link(&self) -> Result<Link> {
        let mut connection = self.0.client.get_multiplexed_async_connection().await.map_err(Error::internal)?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(Error::internal)?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().into();
        let number = *self.0.links.borrow() + 1;
        Ok(Link { connection, server: xxhash_rust::xxh3::xxh3_64(run.as_bytes()), version, number, client: self.clone() })
    }

    fn drop_link(&self, number: u64) {
        let mut link = self.0.link.write().unwrap_or_else(PoisonError::into_inner);
        if link.as_ref().is_some_and(|link| link.number == number) {
            *link = None;
            self.0.links.send_modify(|number| *number += 1);
        }
    }
}

impl Link {
    /// Which server process this is: another number after each restart, and another one for each replica.
    pub fn server(&self) -> u64 {
        self.server
    }

    /// Runs commands in one round trip.
    pub async fn run<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T> {
        let mut connection = self.connection.clone();
        self.judge(tokio::time::timeout(self.client.0.timeout, pipeline.query_async(&mut connection)).await)
    }

    /// Runs a script, which is loaded first if the server does not know it.
    pub async fn invoke<T: FromRedisValue>(&self, script: &redis::ScriptInvocation<'_>) -> Result<T> {
        let mut connection = self.connection.clone();
        self.judge(tokio::time::timeout(self.client.0.timeout, script.invoke_async(&mut connection)).await)
    }

    fn judge<T>(&self, outcome: Result<redis::RedisResult<T>, tokio::time::error::Elapsed>) -> Result<T> {
        let away = |internal: String| Error::unavailable("The second cache tier is away.", Duration::from_secs(1), internal);
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.client.drop_link(self.number);
                Err(away(error.to_string()))
            }
            Err(_) => {
                self.client.drop_link(self.number);
                Err(away("no answer in time".to_owned()))
            }
        }
    }
}

impl Subscription {
    /// Waits for what happens next.
    pub async fn next(&mut self) -> BusEvent {
        use futures_util::StreamExt as _;
        if let Some(messages) = &mut self.messages {
            return match messages.next().await {
                Some(message) => BusEvent::Message(bytes::Bytes::copy_from_slice(message.get_payload_bytes())),
                None => {
                    self.messages = None;
                    BusEvent::Disconnected
                }
            };
        }
        loop {
            if let Ok(subscription) = self.client.0.client.get_async_pubsub().await {
                let (mut sink, messages) = subscription.split();
                if sink.subscribe(&self.channel).await.is_ok() {
                    self.messages = Some(messages);
                    return BusEvent::Connected;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
