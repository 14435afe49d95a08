//! Changes that another process makes to the same database are seen within the reconcile interval.

use std::time::{Duration, Instant};

use serde_json::json;
use terrace::app::App;
use terrace::model::{Caller, RecordId};
use terrace::records::Precondition;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{SHELVES, item};
use crate::support::schema::Tested;

const INTERVAL: Duration = Duration::from_millis(100);
/// What a busy machine may add to the interval.
const MARGIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_writes_is_seen_within_the_reconcile_interval() {
    let server = Server::fixture_with(|settings| settings.cache.reconcile_interval = INTERVAL);
    server.post(SHELVES, &json!({"id": "s", "room": "cellar"})).await.expect(201);
    server.create_items([item("A", "a"), item("B", "b")]).await;
    // Nothing of it serves: it is an import beside the running server.
    let other = App::open(server.settings.clone()).await.unwrap();
    let items = other.records().resource("items").unwrap();
    let paths =
        ["/api/items/A", "/api/items?category=a", "/api/items", "/api/items/_stats?by=category", "/api/totals", "/api/items/NEW"];
    let warm = async || {
        let mut texts = Vec::new();
        for path in paths {
            server.get(path).await;
            let reply = server.get(path).await;
            assert_eq!(reply.cache(), "HIT", "{path}");
            texts.push(reply.header("etag").to_owned() + reply.status.as_str());
        }
        texts
    };

    let before = warm().await;
    let id = RecordId::parse("A").unwrap();
    let patch = json!({"tier": 5});
    other.records().patch(items, &Caller::OPERATOR, id.clone(), patch, Precondition::None, None).await.unwrap();
    other.records().create(items, &Caller::OPERATOR, item("NEW", "a"), None).await.unwrap();
    let written = Instant::now();
    for (path, old) in paths.iter().zip(before) {
        server
            .eventually(&format!("{path} after a write elsewhere"), async || {
                let reply = server.get(path).await;
                reply.header("etag").to_owned() + reply.status.as_str() != old
            })
            .await;
    }
    assert!(written.elapsed() < INTERVAL + MARGIN, "{:?}", written.elapsed());
    assert_eq!(server.get("/api/items/A").await.json()["tier"], 5);
    assert_eq!(server.get("/api/items?category=a").await.json()["pagination"]["total"], 2);

    warm().await;
    other.records().delete(items, &Caller::OPERATOR, id, Precondition::None, None).await.unwrap();
    server.eventually("a deletion elsewhere", async || server.get("/api/items/A").await.status == 404).await;
    // What the other one did not touch has stayed.
    assert_eq!(server.get("/api/items?category=b").await.cache(), "MISS");
    other.records().create(items, &Caller::OPERATOR, item("LAST", "a"), None).await.unwrap();
    server.eventually("a creation elsewhere", async || server.get("/api/items/LAST").await.status == 200).await;
    assert_eq!(server.get("/api/items?category=b").await.cache(), "HIT");
}

#[tokio::test]
async fn two_servers_on_one_database_agree_after_writes_on_both() {
    let one = Server::fixture_with(|settings| settings.cache.reconcile_interval = INTERVAL);
    let other = one.beside(|_| {});
    for round in 0..5 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        reader.get("/api/items/A").await;
        let reply = writer.put("/api/items/A", &json!({"name": format!("{round}"), "category": "a"})).await;
        assert!(reply.status.is_success(), "{}", reply.text);
        assert_eq!(writer.get("/api/items/A").await.json()["name"], round.to_string(), "the writer at once");
        reader
            .eventually("the other server's write", async || {
                reader.get("/api/items/A").await.header("etag") == reply.header("etag")
            })
            .await;
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_read_does_not_hide_later_ones() {
    let server = Server::fixture_with(|settings| settings.cache.reconcile_interval = INTERVAL);
    server.create_items([item("A", "a")]).await;
    server.get("/api/items/A").await;
    // On PostgreSQL the log writes the second change by itself.
    Database::of(&server).execute(match Tested::now() {
        Tested::Sqlite => {
            "INSERT INTO changes (collection, id, operation, version, actor, at, after) \
             VALUES ('items', 'X', 'create', 1, 'x', 'x', '{\"half');\
             UPDATE records SET data = json_set(data, '$.tier', 9) WHERE id = 'A';\
             INSERT INTO changes (collection, id, operation, version, actor, at) VALUES ('items', 'A', 'update', 2, 'x', 'x');"
        }
        Tested::Postgres => {
            "INSERT INTO changes (collection, id, operation, version, actor, at, after) \
             VALUES ('items', 'X', 'create', 1, 'x', 'x', '\"no document\"');\
             UPDATE records SET data = jsonb_set(data, '{tier}', '9') WHERE id = 'A';"
        }
    });
    server.eventually("the later change", async || server.get("/api/items/A").await.json()["tier"] == 9).await;
}

#[tokio::test]
async fn a_change_whose_document_cannot_be_read_leaves_no_list_stale() {
    let server = Server::fixture_with(|settings| settings.cache.reconcile_interval = INTERVAL);
    server.create_items([item("A", "a")]).await;
    let path = "/api/items?category=b";
    // The header, for this client cannot read such a body either.
    let total = async || server.get(path).await.header("x-total-count").to_owned();
    assert_eq!(total().await, "0");
    Database::of(&server).execute(match Tested::now() {
        Tested::Sqlite => {
            "UPDATE records SET data = json_set(data, '$.category', 'b') WHERE id = 'A';\
             INSERT INTO changes (collection, id, operation, version, actor, at, after) \
             VALUES ('items', 'A', 'update', 2, 'x', 'x', '{\"half');"
        }
        // A number that PostgreSQL has and no double is.
        Tested::Postgres => {
            "UPDATE records SET data = jsonb_set(jsonb_set(data, '{category}', '\"b\"'), '{extra}', '{\"big\": 1e400}') \
             WHERE id = 'A'"
        }
    });
    server.eventually("the record in a list that nobody can tell from its document", async || total().await == "1").await;
}
