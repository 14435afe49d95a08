//! What an operator does on one instance reaches all, and what it is told of Redis and the bus is true.

use serde_json::json;

use super::{Fleet, warm};
use crate::support::Server;
use crate::support::fixture::item;

const OVERVIEW: &str = "/admin/cache";

async fn would(server: &Server, path: &str) -> String {
    let reply = server.get(&format!("/admin/cache/explain?path={path}")).await;
    reply.expect(200)["would"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_dropped_on_one_instance_is_dropped_on_all_and_in_redis() {
    let fleet = Fleet::of(3).await;
    fleet.first().create_items([item("A", "a"), item("B", "b")]).await;
    for (body, path) in [
        (json!({"record": {"collection": "items", "id": "A"}}), "/api/items/A"),
        (json!({"term": {"collection": "items", "field": "category", "value": "a"}}), "/api/items?category=a"),
        (json!({"records": {"collection": "items", "pattern": "?"}}), "/api/items/B"),
        (json!({"collection": "items"}), "/api/items?category=b"),
        (json!({"all": true}), "/api/totals"),
    ] {
        for server in &fleet.0 {
            warm(server, path).await;
        }
        let answer = fleet.first().post("/admin/cache/invalidate", &body).await.expect(200);
        assert_eq!(answer["reach"], "published", "{body}");
        for server in &fleet.0 {
            server.eventually(&format!("{body} elsewhere"), async || would(server, path).await == "miss").await;
        }
        assert_eq!(fleet.others()[0].get(path).await.cache(), "MISS", "{body}");
    }
}

#[tokio::test]
async fn an_explanation_tells_the_tier_and_who_loaded_it() {
    let fleet = Fleet::of(2).await;
    let (one, other) = (fleet.first(), &fleet.others()[0]);
    one.create_item(item("A", "a")).await;
    warm(one, "/api/items/A").await;
    let instance = one.get(OVERVIEW).await.json()["cache"]["instance"].clone();
    other.eventually("the entry in Redis", async || would(other, "/api/items/A").await == "hit_l2").await;
    let reply = other.get("/api/items/A").await;
    assert_eq!(reply.cache(), "HIT");
    assert!(reply.header("cache-status").ends_with("; detail=l2"), "{}", reply.header("cache-status"));
    let explanation = other.get("/admin/cache/explain?path=/api/items/A").await.expect(200);
    assert_eq!((&explanation["would"], &explanation["entry"]["loaded_by"]), (&json!("hit_l1"), &instance));
    assert!(other.get("/api/items/A").await.header("cache-status").ends_with("; detail=l1"));

    other.patch("/api/items/A", &json!({"tier": 1})).await.expect(200);
    one.eventually("the change", async || would(one, "/api/items/A").await == "miss").await;
    let killed = one.get("/admin/cache/explain?path=/api/items/A").await.expect(200);
    let by = other.get(OVERVIEW).await.json()["cache"]["instance"].clone();
    assert_eq!(killed["guards"][0]["last_move"]["cause"]["by"], by, "{killed}");
}

#[tokio::test]
async fn the_overview_tells_of_redis_and_the_bus() {
    let fleet = Fleet::of(2).await;
    let one = fleet.first();
    one.create_item(item("A", "a")).await;
    warm(one, "/api/items/A").await;
    let other = &fleet.others()[0];
    other.eventually("the entry in Redis", async || would(other, "/api/items/A").await == "hit_l2").await;
    other.get("/api/items/A").await.expect(200);
    let overview = other.get(OVERVIEW).await.expect(200);
    let cache = &overview["cache"];
    assert_eq!((&cache["l2"]["connected"], &cache["l2"]["used"], &cache["trusted"]), (&json!(true), &json!(true), &json!(true)));
    assert!(cache["l2"]["version"].as_str().is_some_and(|version| version.contains('.')), "{overview}");
    assert_eq!((&overview["coherence"]["bus"]["up"], &overview["coherence"]["bus"]["owed"]), (&json!(true), &json!(0)));
    let scopes = cache["scopes"].as_array().unwrap();
    let records = scopes.iter().find(|scope| scope["kind"] == "record" && scope["name"] == "items").unwrap();
    assert_eq!((&records["l2"]["hits"], &records["l2"]["entries"]), (&json!(1), &json!(null)), "{records}");
}
