//! `_stats` and views.

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::fixture::{SHELVES, TOTALS, item};

async fn filled() -> Server {
    let server = Server::fixture();
    let rows = [("A", "a", json!(1), json!(["x", "y"])), ("B", "a", json!(2), json!(["x"])), ("C", "b", Value::Null, json!([]))];
    for (sku, category, tier, tags) in rows {
        let mut one = item(sku, category);
        one["tags"] = tags;
        if !tier.is_null() {
            one["tier"] = tier;
        }
        server.create_item(one).await;
    }
    server
}

#[tokio::test]
async fn statistics_have_the_total_and_the_count_of_every_value() {
    let server = filled().await;
    let stats = server.get("/api/items/_stats?by=tier,category,tags").await.expect(200);
    assert_eq!(
        stats,
        json!({"total": 3, "by": {
            "category": {"distinct": 2, "values": [{"value": "a", "count": 2}, {"value": "b", "count": 1}]},
            "tags": {"distinct": 2, "values": [{"value": "x", "count": 2}, {"value": null, "count": 1}, {"value": "y", "count": 1}]},
            "tier": {"distinct": 2, "values": [{"value": null, "count": 1}, {"value": 1, "count": 1}, {"value": 2, "count": 1}]},
        }})
    );
    assert_eq!(server.get("/api/items/_stats").await.expect(200), json!({"total": 3, "by": {}}));
}

#[tokio::test]
async fn statistics_can_be_filtered() {
    let server = filled().await;
    let stats = server.get("/api/items/_stats?by=tier&category=a").await.expect(200);
    assert_eq!((&stats["total"], &stats["by"]["tier"]["distinct"]), (&json!(2), &json!(2)));
    let none = server.get("/api/items/_stats?by=tier&category=c").await.expect(200);
    assert_eq!(none, json!({"total": 0, "by": {"tier": {"distinct": 0, "values": []}}}));
    for (query, parameter) in [("by=colour", "by"), ("by=unindexed", "by"), ("q=x", "q"), ("page=1", "page"), ("tier=x", "tier")]
    {
        let problem = server.get(&format!("/api/items/_stats?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
}

#[tokio::test]
async fn a_view_has_the_statistics_of_its_parts() {
    let server = filled().await;
    server.post(SHELVES, &json!({"id": "s", "room": "cellar"})).await.expect(201);
    let view = server.get(TOTALS).await.expect(200);
    assert_eq!(view["data"]["items"], server.get("/api/items/_stats?by=category,tier").await.json());
    assert_eq!(
        view["data"]["shelves"],
        json!({"total": 1, "by": {"room": {"distinct": 1, "values": [{"value": "cellar", "count": 1}]}}})
    );
    let problem = server.get("/api/totals?by=tier").await.problem(400, "invalid_parameter");
    assert_eq!(problem["parameter"], "by");
}
