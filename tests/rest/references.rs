//! References: checked on write, protecting from deletion.

use serde_json::json;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{ITEMS, SHELVES, item};

#[tokio::test]
async fn a_write_that_refers_to_nothing_is_refused_at_its_pointer() {
    let server = Server::fixture();
    let mut database = Database::of(&server);
    let stored = database.stored();
    let mut one = item("A", "a");
    one["shelf_id"] = json!("nowhere");
    for reply in [server.post(ITEMS, &one).await, server.put("/api/items/A", &one).await] {
        let problem = reply.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/shelf_id", "{problem}");
        assert_eq!(problem["errors"][0]["code"], "unknown_reference", "{problem}");
    }
    assert_eq!(database.stored(), stored);
    server.create_item(item("A", "a")).await;
    let problem = server.patch("/api/items/A", &json!({"shelf_id": "nowhere"})).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/shelf_id", "{problem}");
}

#[tokio::test]
async fn a_record_that_others_refer_to_cannot_be_deleted() {
    let server = Server::fixture();
    server.post(SHELVES, &json!({"id": "s"})).await.expect(201);
    let mut one = item("A", "a");
    one["shelf_id"] = json!("s");
    server.create_item(one).await;
    let problem = server.delete("/api/shelves/s").await.problem(409, "referenced");
    assert!(!problem["errors"].as_array().unwrap().is_empty(), "{problem}");
    server.get("/api/shelves/s").await.expect(200);
    let batch = json!({"operations": [{"op": "create", "data": {"id": "t"}}, {"op": "delete", "id": "s"}]});
    let problem = server.post("/api/shelves/_batch", &batch).await.problem(409, "batch_failed");
    assert!(problem["errors"][0]["pointer"].as_str().unwrap().starts_with("/operations/1"), "{problem}");
    server.get("/api/shelves/t").await.problem(404, "not_found");

    server.patch("/api/items/A", &json!({"shelf_id": null})).await.expect(200);
    assert_eq!(server.delete("/api/shelves/s").await.status, 204);
}

#[tokio::test]
async fn in_a_batch_a_reference_may_be_to_what_the_batch_makes_in_its_own_collection() {
    let tree = "name = \"tree\"\npath = \"/tree\"\nid = \"id\"\nindexes = [\"parent\"]\n[references]\nparent = \"tree\"\n[schema]\nrequired = [\"id\"]\n\
                [schema.properties]\nid = { type = \"string\" }\nparent = { type = \"string\" }\n";
    let server = Server::with_files(&[("tree", tree)], &[], |_| {});
    let batch = json!({"operations": [
        {"op": "create", "data": {"id": "leaf", "parent": "root"}},
        {"op": "create", "data": {"id": "root"}},
    ]});
    server.post("/tree/_batch", &batch).await.expect(200);
    server.delete("/tree/root").await.problem(409, "referenced");
    let both = json!({"operations": [{"op": "delete", "id": "root"}, {"op": "delete", "id": "leaf"}]});
    server.post("/tree/_batch", &both).await.expect(200);
    assert_eq!(server.get("/tree").await.json()["pagination"]["total"], 0);
    // A record may refer to itself, and that alone does not keep it.
    server.post("/tree", &json!({"id": "self", "parent": "self"})).await.expect(201);
    assert_eq!(server.delete("/tree/self").await.status, 204);
}
