//! What is dropped by hand on one instance is dropped on all others within a round over the log, whatever becomes of the messages.

use serde_json::{Value, json};

use super::*;
use crate::faults::proxy::{Proxy, Rule, Rules};
use crate::support::redis::PrivateRedis;

const OFTEN: Duration = Duration::from_millis(200);

async fn drop_by_hand(server: &Server, body: &Value) -> Value {
    server.post("/admin/cache/invalidate", body).await.expect(200)["reach"].clone()
}

async fn would(server: &Server, path: &str) -> Value {
    server.get(&format!("/admin/cache/explain?path={path}")).await.expect(200)["would"].clone()
}

/// Drops each kind of thing on the first server, and waits until `other`, which has it in memory, has dropped it too.
async fn reaches(first: &Server, other: &Server, reach: &str) {
    for (body, path) in [
        (json!({"record": {"collection": "items", "id": "I-1"}}), "/api/items/I-1"),
        (json!({"term": {"collection": "items", "field": "category", "value": "a"}}), "/api/items?category=a"),
        (json!({"records": {"collection": "items", "pattern": "I-*"}}), "/api/items/I-1"),
        (json!({"collection": "items"}), "/api/items?category=b"),
        (json!({"all": true}), "/api/totals"),
    ] {
        warm(other, path).await;
        assert_eq!(drop_by_hand(first, &body).await, reach, "{body}");
        other.eventually(&format!("{body} elsewhere"), async || would(other, path).await == "miss").await;
    }
}

#[tokio::test]
async fn what_is_dropped_by_hand_reaches_an_instance_whose_messages_are_lost() {
    let redis = PrivateRedis::start();
    let way = Proxy::before(([127, 0, 0, 1], redis.port()).into()).await;
    let mut fleet = Fleet::with(1, |settings| settings.redis.url = redis.url()).await;
    let other = fleet.first().beside(|settings| {
        settings.redis.url = format!("redis://{}", way.address);
        settings.cache.reconcile_interval = OFTEN;
    });
    fleet.0.push(other);
    fleet.is_well().await;
    fleet.first().put(&item(1), &named("one")).await.expect(201);
    let (first, other) = (fleet.first(), &fleet.0[1]);
    other.eventually("the record", async || other.get(&item(1)).await.status == 200).await;
    way.set(Rules::bus(Rule::DropAllButHeartbeats));
    reaches(first, other, "published").await;
    let suspected = metric(other, "terrace_bus_suspicions_total{reason=\"silence\"}").await;
    assert!(suspected == 0.0 || metric(other, "terrace_bus_up").await == 1.0, "the bus was missed");
}

#[tokio::test]
async fn what_is_dropped_by_hand_while_redis_is_away_reaches_every_instance() {
    let mut redis = PrivateRedis::start();
    let url = redis.url();
    let fleet = Fleet::with(2, |settings| {
        settings.redis.url = url;
        settings.cache.reconcile_interval = OFTEN;
    })
    .await;
    fleet.first().put(&item(1), &named("one")).await.expect(201);
    redis.stop();
    for server in &fleet.0 {
        server.eventually("the bus is missed", async || metric(server, "terrace_bus_up").await == 0.0).await;
    }
    reaches(fleet.first(), &fleet.others()[0], "pending").await;
    redis.start_again();
    fleet.is_well().await;
}

#[tokio::test]
async fn what_is_dropped_by_hand_without_redis_reaches_who_shares_the_database() {
    let first = Server::fixture_with(|settings| settings.cache.reconcile_interval = OFTEN);
    let other = first.beside(|_| {});
    first.put(&item(1), &named("one")).await.expect(201);
    other.eventually("the record", async || other.get(&item(1)).await.status == 200).await;
    reaches(&first, &other, "alone").await;
}
