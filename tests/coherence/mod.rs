//! Several servers on one database and one Redis: what one writes, the others serve, whatever fails between them.
//!
//! Rounds over the log come once a minute here, unless a test says otherwise: what is seen earlier came over the bus, or because
//! somebody had a reason to look.

mod administration;
mod announcing;
mod by_hand;
mod losing;

use std::time::Duration;

use serde_json::{Value, json};
use terrace::config::Settings;

use crate::support::redis;
use crate::support::{Reply, Server};

const SELDOM: Duration = Duration::from_secs(60);

/// Servers on one database and one Redis.
struct Fleet(Vec<Server>);

impl Fleet {
    /// On the Redis that all tests share.
    async fn of(count: usize) -> Self {
        Self::with(count, redis::join).await
    }

    /// With settings changed by `change`, which must name a Redis.
    async fn with(count: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let first = Server::fixture_with(|settings| {
            settings.cache.reconcile_interval = SELDOM;
            change(settings);
        });
        let others: Vec<Server> = (1..count).map(|_| first.beside(|_| {})).collect();
        let fleet = Self([first].into_iter().chain(others).collect());
        fleet.is_well().await;
        fleet
    }

    /// Waits until all hear themselves, trust what they have, and use Redis.
    async fn is_well(&self) {
        for server in &self.0 {
            for gauge in ["terrace_bus_up", "terrace_cache_trusted", "terrace_cache_second_tier_open"] {
                server.eventually(gauge, async || metric(server, gauge).await == 1.0).await;
            }
        }
    }

    fn first(&self) -> &Server {
        &self.0[0]
    }

    fn others(&self) -> &[Server] {
        &self.0[1..]
    }
}

/// The value of a series, spelled as in `/metrics`; 0 if it is not there.
async fn metric(server: &Server, series: &str) -> f64 {
    let text = server.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Reads `path` until it is a hit in the process; returns the last answer.
async fn warm(server: &Server, path: &str) -> Reply {
    server.eventually(&format!("a hit of {path}"), async || server.get(path).await.cache() == "HIT").await;
    server.get(path).await
}

fn named(name: &str) -> Value {
    json!({"name": name, "category": "a"})
}

fn item(id: usize) -> String {
    format!("/api/items/I-{id}")
}
