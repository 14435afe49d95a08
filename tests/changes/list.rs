//! `GET path/_changes`: who did what, from where, before and after.

use reqwest::Method;
use serde_json::{Value, json};

use super::{public, public_with};
use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{ITEMS, item};

const CHANGES: &str = "/api/items/_changes";

async fn page(server: &Server, query: &str) -> Value {
    server.get(&format!("{CHANGES}?{query}")).await.expect(200)
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|change| change["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_change_says_who_did_what_from_where_before_and_after() {
    let server = public();
    let created = server.create_item(item("A", "a")).await;
    let patched = server.patch(&format!("{ITEMS}/A"), &json!({"tier": 7})).await;
    server.delete(&format!("{ITEMS}/A")).await;
    server.create_item(item("B", "b")).await;
    let reply = server.get(&format!("{CHANGES}?record=A")).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let page = reply.expect(200);
    assert_eq!(page["pagination"], json!({"limit": 50, "hasNext": false}));
    let told = |change: &Value| {
        assert_eq!((&change["id"], &change["actor"], &change["origin"]), (&json!("A"), &json!("anonymous"), &json!("127.0.0.1")));
        assert!(chrono::DateTime::parse_from_rfc3339(change["at"].as_str().unwrap()).is_ok());
        (change["operation"].as_str().unwrap().to_owned(), change["version"].as_i64().unwrap())
    };
    let changes = page["data"].as_array().unwrap();
    let order: Vec<_> = changes.iter().map(told).collect();
    assert_eq!(order, [("delete".to_owned(), 2), ("update".to_owned(), 2), ("create".to_owned(), 1)]);
    assert_eq!([&changes[2]["before"], &changes[2]["after"]], [&Value::Null, &created.json()]);
    assert_eq!([&changes[1]["before"], &changes[1]["after"]], [&created.json(), &patched.json()]);
    assert_eq!([&changes[0]["before"], &changes[0]["after"]], [&patched.json(), &Value::Null]);
    assert_eq!(changes[1]["position"], patched.header("consistency-token"));
    assert!(changes[0].get("redacted").is_none());
}

#[tokio::test]
async fn changes_are_found_by_record_actor_operation_and_time() {
    let server = public();
    server.create_items((0..6).map(|number| item(&format!("A{number}"), "a"))).await;
    server.patch(&format!("{ITEMS}/A1"), &json!({"tier": 1})).await;
    server.delete(&format!("{ITEMS}/A2")).await;
    let mut database = Database::of(&server);
    database.execute("UPDATE changes SET actor = 'user:1' WHERE id IN ('A3', 'A4')");
    database
        .execute("UPDATE changes SET at = '2026-01-0' || (position % 6 + 1) || 'T00:00:00.000000Z' WHERE operation = 'create'");
    assert_eq!(ids(&page(&server, "record=A1").await), ["A1", "A1"]);
    assert_eq!(ids(&page(&server, "operation=delete").await), ["A2"]);
    assert_eq!(ids(&page(&server, "operation=update&record=A1").await), ["A1"]);
    let mut by_actor = ids(&page(&server, "actor=user:1").await).into_iter().map(str::to_owned).collect::<Vec<_>>();
    by_actor.sort();
    assert_eq!(by_actor, ["A3", "A4"]);
    let between = page(&server, "since=2026-01-02T00:00:00Z&until=2026-01-04T01:00:00%2B01:00").await;
    let times: Vec<&str> = between["data"].as_array().unwrap().iter().map(|change| change["at"].as_str().unwrap()).collect();
    assert_eq!(times, ["2026-01-03T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"]);
    assert_eq!(ids(&page(&server, "record=none").await), Vec::<&str>::new());
    // Another collection's changes are its own.
    assert_eq!(server.get("/api/shelves/_changes").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn pages_neither_repeat_nor_miss_anything_while_changes_are_added() {
    let server = public();
    server.create_items((0..25).map(|number| item(&format!("A{number:02}"), "a"))).await;
    // All in one moment: the number decides.
    Database::of(&server).execute("UPDATE changes SET at = '2026-01-01T00:00:00.000000Z'");
    for filter in ["", "&operation=create", "&actor=anonymous"] {
        let (mut cursor, mut seen) = (String::new(), Vec::new());
        loop {
            let page = page(&server, &format!("limit=10&cursor={cursor}{filter}&until=2026-01-02T00:00:00Z")).await;
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            server.create_item(item(&format!("NEW{}{}", filter.len(), seen.len()), "a")).await;
            let pagination = &page["pagination"];
            assert_eq!(pagination["hasNext"], pagination.get("nextCursor").is_some());
            match pagination["nextCursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        let all: Vec<String> = (0..25).rev().map(|number| format!("A{number:02}")).collect();
        assert_eq!(seen, all, "{filter}");
    }
}

#[tokio::test]
async fn a_rare_operation_is_looked_for_in_bounded_steps_and_found() {
    let server = public();
    server.create_item(item("A", "a")).await;
    let mut database = Database::of(&server);
    // More than is looked through at a time, above the one creation.
    database.execute(
        "INSERT INTO changes (collection, id, operation, version, actor, at) WITH RECURSIVE n (n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10500) \
         SELECT 'items', 'A', 'update', n, 'x', '2030-01-01T00:00:00.000000Z' FROM n",
    );
    let first = page(&server, "operation=create&limit=5").await;
    assert_eq!((first["data"].clone(), &first["pagination"]["hasNext"]), (json!([]), &json!(true)));
    let next = first["pagination"]["nextCursor"].as_str().unwrap();
    let second = page(&server, &format!("operation=create&limit=5&cursor={next}")).await;
    assert_eq!((ids(&second), &second["pagination"]["hasNext"]), (vec!["A"], &json!(false)));
}

#[tokio::test]
async fn only_administrators_read_a_change_log_that_says_nothing_else() {
    let server = Server::fixture();
    for (method, path) in [(Method::GET, CHANGES.to_owned()), (Method::GET, format!("{CHANGES}?live"))] {
        server.send_with(method, &path, &[], None).await.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn what_is_to_be_redacted_is_left_out_and_named() {
    let server = public_with(|settings| {
        let file = settings.collections.dir.join("items.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replace("[schema]\nrequired", "[audit]\nredact = [\"price\", \"owner\"]\n\n[schema]\nrequired");
        assert!(text.contains("[audit]"));
        std::fs::write(&file, text).unwrap();
    });
    let mut secret = item("A", "a");
    secret["price"] = json!(12.5);
    server.create_item(secret).await;
    server.patch(&format!("{ITEMS}/A"), &json!({"price": null, "owner": "me", "tier": 1})).await;
    server.patch(&format!("{ITEMS}/A"), &json!({"owner": null})).await;
    server.patch(&format!("{ITEMS}/A"), &json!({"tier": 2})).await;
    let page = page(&server, "").await;
    let told: Vec<Value> = page["data"].as_array().unwrap().iter().map(|change| change["redacted"].clone()).collect();
    assert_eq!(told, [Value::Null, json!(["owner"]), json!(["owner", "price"]), json!(["price"])]);
    let text = page.to_string();
    assert!(!text.contains("12.5") && !text.contains("\"me\"") && text.contains("\"tier\":2"), "{text}");
    // The records themselves are as they were.
    assert_eq!(server.get(&format!("{ITEMS}/A")).await.expect(200)["tier"], 2);
}
