//! Answers to writes.

use reqwest::Method;
use serde_json::{Value, json};
use terrace::model::Position;

use crate::support::{Reply, Server};

fn metric(id: &str) -> Value {
    json!({"metric_id": id, "name": "A test", "category": "tactical"})
}

#[tokio::test]
async fn a_record_goes_through_its_life() {
    let server = Server::start();
    let created = server.post("/api/v1/metrics", &metric("T-1")).await;
    assert_eq!(created.expect(201)["version"], 1);
    assert_eq!(created.header("location"), "/api/v1/metrics/T-1");
    let token: Position = created.header("consistency-token").parse().unwrap();
    server.post("/api/v1/metrics", &metric("T-1")).await.problem(409, "already_exists");

    let read = server.get("/api/v1/metrics/T-1").await;
    assert_eq!(read.header("etag"), created.header("etag"));
    let patch = server.request(Method::PATCH, "/api/v1/metrics/T-1").header("content-type", "application/merge-patch+json");
    let patched = Reply::read(patch.header("if-match", read.header("etag")).body("{\"tier\": 2}")).await;
    assert_eq!(patched.expect(200)["tier"], 2);
    assert!(patched.header("consistency-token").parse::<Position>().unwrap() > token);

    let stale = server.request(Method::DELETE, "/api/v1/metrics/T-1").header("if-match", read.header("etag"));
    let refused = Reply::read(stale).await;
    assert_eq!(refused.problem(412, "precondition_failed")["current_etag"], patched.header("etag"));
    assert_eq!(refused.header("etag"), patched.header("etag"));

    let same = server.send(Method::PUT, "/api/v1/metrics/T-1", &patched.json()).await;
    assert_eq!((same.status.as_u16(), same.header("consistency-token")), (200, ""));
    let absent = server.request(Method::PUT, "/api/v1/metrics/T-1").header("if-none-match", "*").json(&metric("T-1"));
    Reply::read(absent).await.problem(412, "precondition_failed");

    let deleted = server.delete("/api/v1/metrics/T-1").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    assert!(!deleted.header("consistency-token").is_empty());
    server.get("/api/v1/metrics/T-1").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_batch_answers_documents_when_they_are_preferred() {
    let server = Server::start();
    let body = json!({"operations": [{"op": "create", "data": metric("T-1")}, {"op": "create", "data": metric("T-2")}]});
    let done = server.post("/api/v1/metrics/_batch", &body).await;
    let earlier: Position = done.header("consistency-token").parse().unwrap();
    assert_eq!(done.expect(200)["results"][1]["id"], "T-2");
    assert_eq!(done.json()["results"][1].get("data"), None);
    let body = json!({"operations": [{"op": "patch", "id": "T-1", "data": {"tier": 3}}, {"op": "delete", "id": "T-2"}]});
    let request = server.request(Method::POST, "/api/v1/metrics/_batch").header("prefer", "return=representation");
    let done = Reply::read(request.json(&body)).await;
    assert_eq!(done.expect(200)["results"][0]["data"]["tier"], 3);
    assert_eq!(done.json()["results"][1], json!({"status": "deleted", "id": "T-2"}));
    assert_eq!(done.header("preference-applied"), "return=representation");
    let token: Position = done.header("consistency-token").parse().unwrap();
    assert!(token > earlier);
}
