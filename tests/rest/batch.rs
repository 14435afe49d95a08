//! `_batch`: many writes, one transaction, every failure named.

use serde_json::{Value, json};
use terrace::model::Position;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{NOTES, item, skus};

const BATCH: &str = "/api/items/_batch";

fn operations(operations: impl IntoIterator<Item = Value>) -> Value {
    json!({"operations": operations.into_iter().collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_batch_creates_updates_patches_upserts_and_deletes() {
    let server = Server::fixture();
    server.create_items([item("U", "a"), item("P", "a"), item("D", "a"), item("S", "a")]).await;
    let reply = server
        .post(
            BATCH,
            &operations([
                json!({"op": "create", "data": item("C", "b")}),
                json!({"op": "update", "id": "U", "data": {"name": "New", "category": "b"}}),
                json!({"op": "patch", "id": "P", "data": {"tier": 3}}),
                json!({"op": "upsert", "id": "N", "data": {"name": "N", "category": "c"}}),
                json!({"op": "upsert", "data": item("S", "a")}),
                json!({"op": "delete", "id": "D"}),
            ]),
        )
        .await;
    let answer = reply.expect(200);
    let results = answer["results"].as_array().unwrap();
    let told: Vec<(&str, &str)> =
        results.iter().map(|one| (one["status"].as_str().unwrap(), one["id"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [("created", "C"), ("updated", "U"), ("updated", "P"), ("created", "N"), ("unchanged", "S"), ("deleted", "D")]
    );
    for result in results.iter().filter(|result| result["status"] != "deleted") {
        let path = format!("/api/items/{}", result["id"].as_str().unwrap());
        assert_eq!(server.get(&path).await.header("etag"), result["etag"], "{path}");
    }
    assert!(results[5].get("etag").is_none());
    let token: Position = reply.header("consistency-token").parse().unwrap();
    assert_eq!(Database::of(&server).number("SELECT max(position) AS value FROM changes"), token.sequence);
    assert_eq!(skus(&server.get("/api/items?sort=sku").await.json()), ["C", "N", "P", "S", "U"]);
}

#[tokio::test]
async fn one_bad_operation_stops_all_and_every_failure_is_named_by_its_position() {
    let server = Server::fixture();
    server.create_items([item("A", "a")]).await;
    let mut database = Database::of(&server);
    let (before, stored) = (server.get("/api/items").await.text, database.stored());
    let problem = server
        .post(
            BATCH,
            &operations([
                json!({"op": "create", "data": item("OK", "a")}),
                json!({"op": "create", "data": {"sku": "X", "category": "no"}}),
                json!({"op": "update", "id": "A", "data": item("B", "a")}),
                json!({"op": "fly", "id": "A"}),
                json!({"op": "delete"}),
                json!({"op": "patch", "id": "A"}),
                json!({"op": "delete", "id": "A", "data": {}}),
                json!({"op": "create", "data": {"name": "no id", "category": "a"}}),
                json!({"op": "delete", "id": "a/b"}),
                json!(7),
                json!({"op": "create", "data": item("Y", "a"), "extra": 1}),
            ]),
        )
        .await;
    let problem = problem.problem(422, "batch_failed");
    let named = |position: usize| {
        problem["errors"].as_array().unwrap().iter().any(|error| {
            let pointer = error["pointer"].as_str().unwrap();
            pointer == format!("/operations/{position}") || pointer.starts_with(&format!("/operations/{position}/"))
        })
    };
    // Position 1 breaks rules that are only looked at when all operations can be read.
    for position in [2, 3, 4, 5, 6, 7, 8, 9, 10] {
        assert!(named(position), "{position}: {problem}");
    }
    assert!(!named(0), "{problem}");
    let no_object = problem["errors"].as_array().unwrap().iter().find(|error| error["pointer"] == "/operations/9").unwrap();
    let expected = "invalid type: integer `7`, expected an object such as {\"op\": \"delete\", \"id\": \"…\"}.";
    assert_eq!(no_object["detail"], expected);
    assert_eq!(server.get("/api/items").await.text, before);
    assert_eq!(database.stored(), stored);
}

#[tokio::test]
async fn what_contradicts_the_stored_state_is_named_by_its_position_too() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "a")]).await;
    let mut database = Database::of(&server);
    let stored = database.stored();
    for (bad, status, pointer) in [
        (json!({"op": "create", "data": item("A", "b")}), 409, "/operations/1"),
        (json!({"op": "update", "id": "Z", "data": item("Z", "b")}), 404, "/operations/1"),
        (json!({"op": "delete", "id": "Z"}), 404, "/operations/1"),
        (json!({"op": "patch", "id": "A", "data": {"tier": 1}, "if_match": "\"old\""}), 412, "/operations/1"),
        (json!({"op": "create", "data": {"sku": "X", "name": 5, "category": "a"}}), 422, "/operations/1/data/name"),
        (json!({"op": "patch", "id": "A", "data": {"tags": ["x", 2]}}), 422, "/operations/1/data/tags/1"),
        (json!({"op": "patch", "id": "A", "data": {"shelf_id": "none"}}), 422, "/operations/1/data/shelf_id"),
    ] {
        let batch = operations([json!({"op": "create", "data": item("NEW", "a")}), bad.clone()]);
        let problem = server.post(BATCH, &batch).await.problem(status, "batch_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{bad}: {problem}");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{bad}: {problem}");
        assert_eq!(database.stored(), stored, "{bad}");
    }
    server.get("/api/items/NEW").await.problem(404, "not_found");
}

#[tokio::test]
async fn operations_on_one_record_see_each_other_and_are_one_change() {
    let server = Server::fixture();
    let mut database = Database::of(&server);
    let stored = database.stored();
    let batch = operations([
        json!({"op": "create", "data": item("A", "a")}),
        json!({"op": "patch", "id": "A", "data": {"tier": 1}}),
        json!({"op": "patch", "id": "A", "data": {"category": "b"}}),
        json!({"op": "create", "data": item("T", "a")}),
        json!({"op": "delete", "id": "T"}),
    ]);
    server.post(BATCH, &batch).await.expect(200);
    let record = server.get("/api/items/A").await.expect(200);
    assert_eq!((&record["version"], &record["tier"], &record["category"]), (&json!(1), &json!(1), &json!("b")));
    server.get("/api/items/T").await.problem(404, "not_found");
    let after = database.stored();
    assert_eq!((after.records, after.changes), (stored.records + 1, stored.changes + 1));
    let twice = operations([json!({"op": "create", "data": item("B", "a")}), json!({"op": "create", "data": item("B", "a")})]);
    let problem = server.post(BATCH, &twice).await.problem(409, "batch_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/operations/1");
}

#[tokio::test]
async fn operations_that_cancel_each_other_change_nothing() {
    let server = Server::fixture();
    let etag = server.create_item(item("A", "a")).await.header("etag").to_owned();
    let mut database = Database::of(&server);
    let stored = database.stored();
    let there_and_back = operations([
        json!({"op": "patch", "id": "A", "data": {"category": "b"}}),
        json!({"op": "patch", "id": "A", "data": {"category": "a"}}),
        json!({"op": "create", "data": item("T", "a")}),
        json!({"op": "delete", "id": "T"}),
    ]);
    let reply = server.post(BATCH, &there_and_back).await;
    let answer = reply.expect(200);
    for position in [0, 1] {
        assert_eq!(answer["results"][position]["status"], "unchanged", "{answer}");
        assert_eq!(answer["results"][position]["etag"], etag, "{answer}");
    }
    assert!(!reply.headers.contains_key("consistency-token"));
    assert_eq!(server.get("/api/items/A").await.header("etag"), etag);
    assert_eq!(database.stored(), stored);
}

#[tokio::test]
async fn a_record_that_is_deleted_and_created_in_one_batch_begins_anew() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "a")]).await;
    for id in ["A", "B"] {
        server.patch(&format!("/api/items/{id}"), &json!({"tier": 1})).await.expect(200);
    }
    let anew = operations([
        json!({"op": "delete", "id": "A"}),
        json!({"op": "create", "data": item("A", "a")}),
        json!({"op": "delete", "id": "B"}),
        json!({"op": "create", "data": item("B", "a")}),
        json!({"op": "patch", "id": "B", "data": {"tier": 2}}),
    ]);
    server.post(BATCH, &anew).await.expect(200);
    for id in ["A", "B"] {
        let record = server.get(&format!("/api/items/{id}")).await.json();
        assert_eq!(record["version"], 1, "{record}");
        assert_eq!(record["created_at"], record["updated_at"], "{record}");
    }
}

#[tokio::test]
async fn if_match_holds_within_a_batch() {
    let server = Server::fixture();
    let etag = server.create_item(item("A", "a")).await.header("etag").to_owned();
    let patch = |tag: &str, tier: i64| operations([json!({"op": "patch", "id": "A", "data": {"tier": tier}, "if_match": tag})]);
    server.post(BATCH, &patch(&etag, 1)).await.expect(200);
    server.post(BATCH, &patch(&etag, 2)).await.problem(412, "batch_failed");
    server.post(BATCH, &patch("*", 3)).await.expect(200);
    assert_eq!(server.get("/api/items/A").await.json()["tier"], 3);
}

#[tokio::test]
async fn a_thousand_operations_are_taken_and_one_more_is_refused() {
    let server = Server::fixture();
    let notes =
        |count: usize| operations((0..count).map(|number| json!({"op": "create", "data": {"text": format!("{number}")}})));
    let done = server.post(&format!("{NOTES}/_batch"), &notes(1_000)).await.expect(200);
    assert_eq!(done["results"].as_array().unwrap().len(), 1_000);
    let problem = server.post(&format!("{NOTES}/_batch"), &notes(1_001)).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/operations");
    assert_eq!(server.get(NOTES).await.json()["pagination"]["total"], 1_000);
}

#[tokio::test]
async fn a_batch_does_sixteen_things_to_one_record_and_no_more() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    let patches =
        |count: i64| operations((0..count).map(|tier| json!({"op": "patch", "id": "A", "data": {"tier": 1 + tier % 2}})));
    server.post(BATCH, &patches(16)).await.expect(200);
    let problem = server.post(BATCH, &patches(18)).await.problem(422, "batch_failed");
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/operations/16", "/operations/17"]);
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused() {
    let server = Server::fixture();
    for (body, pointer) in [
        (json!({}), "/operations"),
        (json!({"operations": []}), "/operations"),
        (json!({"operations": {}}), "/operations"),
        (json!({"operations": null}), "/operations"),
        (json!([]), ""),
        (json!({"operations": [{"op": "delete", "id": "A"}], "mode": "x"}), "/mode"),
    ] {
        let problem = server.post(BATCH, &body).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}

/// Each operation is a few bytes, and what it is about may be as large as a request.
#[tokio::test]
async fn a_batch_about_more_than_fits_into_memory_is_refused_before_it_is_read() {
    let server = Server::fixture_with(|settings| settings.http.max_body_bytes = bytesize::ByteSize::mib(5));
    let mut large = item("", "a");
    large["extra"] = json!({"m": "x".repeat(4 << 20)});
    for number in 0..17 {
        large["sku"] = json!(format!("L{number:02}"));
        server.create_item(large.clone()).await;
    }
    let delete = |count: usize| operations((0..count).map(|number| json!({"op": "delete", "id": format!("L{number:02}")})));
    let problem = server.post(BATCH, &delete(17)).await.problem(413, "batch_too_large");
    assert!(problem["detail"].as_str().unwrap().contains("fewer operations"), "{problem}");
    assert_eq!(Database::of(&server).stored().records, 17);
    // An import goes on in smaller steps.
    let app = server.app().await;
    let items = app.records().resource("items").unwrap();
    let others = (0..17).map(|number| json!({"sku": format!("L{number:02}"), "name": "n", "category": "b"}));
    let imported =
        app.records().import(items, &terrace::model::Caller::OPERATOR, others.collect(), terrace::records::ImportMode::Upsert);
    assert!(imported.await.unwrap().iter().all(|outcome| outcome.is_ok()));
    server.post(BATCH, &delete(17)).await.expect(200);
    assert_eq!(Database::of(&server).stored().records, 0);
}
