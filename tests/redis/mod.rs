//! The bad days of a Redis server, each with a real server of its own that is stopped, filled or broken. They need
//! `scripts/with-servers`.

mod connecting;
mod links;
mod rewriting;
mod serving;
mod subscriptions;

use std::time::{Duration, Instant};

use terrace::config::RedisSettings;
use terrace::redis_client::{Link, RedisClient, RedisStatus};
use terrace::telemetry::Telemetry;

use crate::support::DEADLINE;

/// A client, and what it measures.
struct Client {
    client: RedisClient,
    telemetry: Telemetry,
}

impl Client {
    /// One that begins to connect.
    fn to(url: &str) -> Self {
        Self::with(RedisSettings { url: url.to_owned(), ..RedisSettings::default() })
    }

    fn with(settings: RedisSettings) -> Self {
        let telemetry = Telemetry::new().unwrap();
        let client = RedisClient::connect(&settings, &telemetry).unwrap().expect("there is a URL");
        Self { client, telemetry }
    }

    /// A link, as soon as there is one.
    async fn link(&self) -> Link {
        until(async || self.client.link().ok_or_else(|| format!("{:?}", self.client.status()))).await
    }

    /// Waits until there is no link for this reason, which names a setting.
    async fn is_down_because(&self, reason: &str) {
        let told = async || match self.client.status() {
            RedisStatus::Down { reason: told, .. } if told.contains(reason) => Ok(told),
            other => Err(format!("{other:?} and not {reason:?}")),
        };
        let told = until(told).await;
        assert!(told.contains("redis."), "{told}");
        assert!(!told.contains("127.0.0.1") && !told.contains("secret"), "{told}");
        assert!(self.client.link().is_none());
    }

    fn metric(&self, line: &str) -> Option<f64> {
        let text = self.telemetry.encode().unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map(|value| value.parse().unwrap())
    }
}

/// Repeats `check` until it is well.
async fn until<T>(check: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(told) => assert!(Instant::now() < deadline, "{told}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `SET` of a key.
fn set(key: &str, value: &str) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.set(key, value).ignore();
    pipeline
}

/// `GET` of a key.
fn get(key: &str) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.get(key);
    pipeline
}
