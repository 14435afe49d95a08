//! Creating, reading, replacing, patching and deleting one record.

use chrono::DateTime;
use reqwest::Method;
use serde_json::{Value, json};
use terrace::model::Position;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{ITEMS, NOTES, item};
use crate::support::schema::Tested;

/// A record without the server's members.
fn without_server_members(record: &Value) -> Value {
    let mut record = record.clone();
    for name in ["version", "created_at", "updated_at"] {
        assert!(record.as_object_mut().unwrap().shift_remove(name).is_some(), "no {name}");
    }
    record
}

#[tokio::test]
async fn a_created_record_is_answered_with_its_place_its_tag_and_its_position() {
    let server = Server::fixture();
    let sent =
        json!({"sku": "A 1", "name": "One", "category": "a", "price": 1.50, "tags": ["x", "y"], "extra": {"b": 1, "a": [null]}});
    let created = server.create_item(sent.clone()).await;
    assert_eq!(created.header("location"), "/api/items/A%201");
    assert_eq!(created.header("content-type"), "application/json");
    assert!(created.header("etag").starts_with('"'), "{}", created.header("etag"));
    let position: Position = created.header("consistency-token").parse().unwrap();
    let record = created.json();
    assert_eq!(record["version"], 1);
    assert_eq!(record["created_at"], record["updated_at"]);
    let time = record["created_at"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.len() == "2026-01-31T09:30:00.000000Z".len(), "{time}");
    DateTime::parse_from_rfc3339(time).unwrap();
    assert_eq!(without_server_members(&record), sent);

    let read = server.get(created.header("location")).await;
    assert_eq!(read.expect(200), record);
    assert_eq!(read.text, created.text, "a read and a write answer the same text");
    assert_eq!(read.header("etag"), created.header("etag"));

    let second = server.create_item(item("A2", "a")).await;
    assert!(second.header("consistency-token").parse::<Position>().unwrap() > position);
}

#[tokio::test]
async fn numbers_keep_their_value_and_members_on_sqlite_their_order() {
    let server = Server::fixture();
    let sent = r#"{"name":"Z","category":"b","sku":"N","price":0.1,"extra":{"z":1,"a":2,"n":12345678901234567890,"e":1e3}}"#;
    let request = server.request(Method::POST, ITEMS).header("content-type", "application/json").body(sent);
    assert_eq!(request.send().await.unwrap().status(), 201);
    let text = server.get("/api/items/N").await.text;
    let order: Vec<usize> = ["\"name\"", "\"category\"", "\"sku\"", "\"price\"", "\"extra\"", "\"z\"", "\"a\""]
        .iter()
        .map(|name| text.find(name).unwrap_or_else(|| panic!("{name} in {text}")))
        .collect();
    // jsonb has an order of its own.
    assert!(order.is_sorted() || Tested::now() == Tested::Postgres, "{text}");
    assert!(text.contains("12345678901234567890"), "{text}");
}

#[tokio::test]
async fn a_duplicate_is_a_conflict_and_leaves_the_old_record_alone() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    let before = server.get("/api/items/A").await.text;
    let mut database = Database::of(&server);
    let stored = database.stored();
    let duplicate = server.post(ITEMS, &json!({"sku": "A", "name": "Another", "category": "b"})).await;
    duplicate.problem(409, "already_exists");
    assert_eq!(server.get("/api/items/A").await.text, before);
    assert_eq!(database.stored(), stored);
}

#[tokio::test]
async fn a_natural_key_must_be_in_the_document() {
    let server = Server::fixture();
    let problem = server.post(ITEMS, &json!({"name": "No key", "category": "a"})).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/sku", "{problem}");
    assert_eq!(problem["errors"][0]["code"], "required", "{problem}");
}

#[tokio::test]
async fn ids_that_the_server_makes_are_uuids_of_version_7_in_rising_order() {
    let server = Server::fixture();
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        let created = server.post(NOTES, &json!({"text": text})).await;
        let id = created.expect(201)["id"].as_str().unwrap().to_owned();
        assert_eq!(created.header("location"), format!("{NOTES}/{id}"));
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        assert_eq!(server.get(&format!("{NOTES}/{id}")).await.expect(200)["text"], text);
        ids.push(id);
    }
    assert!(ids.is_sorted(), "{ids:?}");
}

#[tokio::test]
async fn what_only_the_server_writes_is_ignored_when_a_client_sends_it() {
    let server = Server::fixture();
    let mut sent = item("A", "a");
    sent["version"] = json!(99);
    sent["created_at"] = json!("1999-01-01T00:00:00Z");
    sent["updated_at"] = json!("not a time");
    let created = server.create_item(sent).await.json();
    assert_eq!(created["version"], 1);
    assert!(created["created_at"].as_str().unwrap() > "2026", "{created}");
    // What was read may be sent back as it is.
    let unchanged = server.put("/api/items/A", &created).await;
    assert_eq!(unchanged.expect(200), created);
    let patched = server.patch("/api/items/A", &json!({"version": 7, "name": "New"})).await.expect(200);
    assert_eq!((&patched["version"], &patched["name"]), (&json!(2), &json!("New")));
    assert_eq!(patched["created_at"], created["created_at"]);
    assert!(patched["updated_at"].as_str() > created["updated_at"].as_str());
}

#[tokio::test]
async fn put_creates_replaces_and_leaves_an_equal_record_alone() {
    let server = Server::fixture();
    let mut database = Database::of(&server);
    let created = server.put("/api/items/P", &json!({"name": "One", "category": "a", "tier": 1})).await;
    assert_eq!(created.expect(201)["sku"], "P", "the id comes from the path");
    assert_eq!(created.header("location"), "/api/items/P");

    let replaced = server.put("/api/items/P", &json!({"sku": "P", "name": "Two", "category": "b"})).await;
    let record = replaced.expect(200);
    assert_eq!(without_server_members(&record), json!({"sku": "P", "name": "Two", "category": "b"}));
    assert_eq!(record["version"], 2);
    assert_ne!(replaced.header("etag"), created.header("etag"));

    let stored = database.stored();
    let unchanged = server.put("/api/items/P", &json!({"category": "b", "name": "Two", "sku": "P"})).await;
    assert_eq!(unchanged.expect(200), record, "the order of members is no change");
    assert_eq!(unchanged.header("etag"), replaced.header("etag"));
    assert_eq!(unchanged.header("consistency-token"), "", "nothing was written, so there is no position");
    assert_eq!(database.stored(), stored);

    let problem = server.put("/api/items/P", &json!({"sku": "Q", "name": "Two", "category": "b"})).await;
    assert_eq!(problem.problem(422, "validation_failed")["errors"][0]["pointer"], "/sku");
}

#[tokio::test]
async fn put_under_a_new_id_creates_where_the_server_makes_ids_too() {
    let server = Server::fixture();
    let created = server.put("/api/notes/my-own", &json!({"text": "x"})).await;
    assert_eq!(created.expect(201)["id"], "my-own");
    assert_eq!(server.get("/api/notes/my-own").await.expect(200), created.json());
}

#[tokio::test]
async fn patch_merges_as_rfc_7396_says() {
    let server = Server::fixture();
    let start = json!({"sku": "M", "name": "One", "category": "a", "tags": ["x", "y"], "description": "d", "extra": {"a": 1, "b": {"c": 2, "d": 3}}});
    server.create_item(start).await;
    let patch = json!({"description": null, "tags": ["z"], "extra": {"b": {"c": null, "e": 4}}, "tier": 2});
    let patched =
        server.send_with(Method::PATCH, "/api/items/M", &[("content-type", "application/merge-patch+json")], None).await;
    patched.problem(400, "malformed_json");
    let request = server.request(Method::PATCH, "/api/items/M").header("content-type", "application/merge-patch+json");
    let patched = crate::support::Reply::read(request.body(patch.to_string())).await;
    let expected =
        json!({"sku": "M", "name": "One", "category": "a", "tags": ["z"], "extra": {"a": 1, "b": {"d": 3, "e": 4}}, "tier": 2});
    assert_eq!(without_server_members(&patched.expect(200)), expected);
    assert_eq!(server.get("/api/items/M").await.json(), patched.json());

    let same = server.patch("/api/items/M", &json!({"tier": 2})).await;
    assert_eq!(same.expect(200)["version"], 2, "a patch that changes nothing writes nothing");
    let required = server.patch("/api/items/M", &json!({"name": null})).await.problem(422, "validation_failed");
    assert_eq!(required["errors"][0]["pointer"], "/name", "{required}");
    server.patch("/api/items/M", &json!({"sku": "other"})).await.problem(422, "validation_failed");
    server.patch("/api/items/none", &json!({"tier": 2})).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_deleted_record_is_gone_and_can_be_created_anew() {
    let server = Server::fixture();
    server.create_item(item("D", "a")).await;
    server.patch("/api/items/D", &json!({"tier": 1})).await.expect(200);
    let deleted = server.delete("/api/items/D").await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    assert!(!deleted.header("consistency-token").is_empty());
    server.get("/api/items/D").await.problem(404, "not_found");
    server.delete("/api/items/D").await.problem(404, "not_found");
    let again = server.create_item(item("D", "b")).await.json();
    assert_eq!(again["version"], 1);
}

#[tokio::test]
async fn a_head_request_has_the_headers_of_the_get_and_no_body() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "b")]).await;
    for path in ["/api/items/A", "/api/items?limit=1", "/api/items/_stats?by=category", "/api/totals", "/api/items/none"] {
        let get = server.get(path).await;
        let head = server.send_with(Method::HEAD, path, &[], None).await;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for name in ["etag", "content-type", "cache-control", "link", "x-total-count", "vary"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn a_schema_violation_names_every_place() {
    let server = Server::fixture();
    let bad = json!({"sku": "A", "name": "", "category": "x", "tier": 1.5, "tags": ["ok", 7], "price": -1, "colour": "red"});
    let problem = server.post(ITEMS, &bad).await.problem(422, "validation_failed");
    let mut places: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|one| one["pointer"].as_str().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, ["/category", "/colour", "/name", "/price", "/tags/1", "/tier"], "{problem}");
    for error in problem["errors"].as_array().unwrap() {
        assert!(error["code"].is_string() && !error["detail"].as_str().unwrap().is_empty(), "{error}");
    }
}

#[tokio::test]
async fn fields_and_include_shape_a_record() {
    let server = Server::fixture();
    server.post("/api/shelves", &json!({"id": "s1", "room": "cellar"})).await.expect(201);
    let mut with_shelf = item("A", "a");
    with_shelf["shelf_id"] = json!("s1");
    server.create_items([with_shelf, item("B", "b")]).await;
    assert_eq!(server.get("/api/items/A?fields=name").await.expect(200), json!({"sku": "A", "name": "Item A"}));
    let included = server.get("/api/items/A?include=shelf_id").await.expect(200);
    assert_eq!(included["_include"]["shelf_id"]["room"], "cellar", "{included}");
    let none = server.get("/api/items/B?include=shelf_id").await.expect(200);
    assert_eq!(none["_include"], json!({"shelf_id": null}), "{none}");
    // An embedded record may be sent back with its host.
    assert_eq!(server.put("/api/items/A", &included).await.expect(200)["version"], 1);

    for (path, parameter) in
        [("/api/items/A?fields=colour", "fields"), ("/api/items/A?include=category", "include"), ("/api/items/A?page=1", "page")]
    {
        let problem = server.get(path).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{path}");
        assert!(!problem["allowed"].as_array().unwrap().is_empty(), "{path}");
    }
}
