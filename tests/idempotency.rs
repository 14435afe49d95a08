//! `Idempotency-Key`: a request that comes again is answered as it was, on any instance, also after a crash.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::fixture::{ITEMS, NOTES, item};
use crate::support::process::Process;
use crate::support::schema::{Schema, Session, Tested};
use crate::support::{Reply, Server, sqlite_url};

async fn send(server: &Server, method: Method, path: &str, key: &str, body: Option<&Value>) -> Reply {
    server.send_with(method, path, &[("idempotency-key", key)], body).await
}

/// What the two answers have in common, which is all but what is about the one request.
fn content(reply: &Reply) -> (u16, [String; 5], String) {
    let headers = ["location", "etag", "consistency-token", "content-type", "preference-applied"];
    (reply.status.as_u16(), headers.map(|name| reply.header(name).to_owned()), reply.text.clone())
}

#[tokio::test]
async fn a_request_that_comes_again_is_answered_as_it_was_on_every_instance() {
    let server = Server::fixture();
    let other = server.beside(|_| {});
    let mut database = Database::of(&server);
    let batch = json!({"operations": [{"op": "create", "data": {"text": "b"}}, {"op": "create", "data": {"text": "c"}}]});
    let (note, full, patch) = (json!({"text": "a"}), item("A", "b"), json!({"tier": 1}));
    let requests: [(Method, String, Option<&Value>); 5] = [
        (Method::POST, NOTES.to_owned(), Some(&note)),
        (Method::POST, format!("{NOTES}/_batch"), Some(&batch)),
        (Method::PUT, format!("{ITEMS}/A"), Some(&full)),
        (Method::PATCH, format!("{ITEMS}/A"), Some(&patch)),
        (Method::DELETE, format!("{ITEMS}/A"), None),
    ];
    for (number, (method, path, body)) in requests.into_iter().enumerate() {
        let key = format!("key-{number}");
        let first = send(&server, method.clone(), &path, &key, body).await;
        assert!(first.status.is_success() && first.header("idempotency-replayed").is_empty(), "{path}: {}", first.text);
        let stored = database.stored();
        // In quotes it is the same key.
        for (instance, key) in [(&server, key.clone()), (&other, format!("\"{key}\""))] {
            let again = send(instance, method.clone(), &path, &key, body).await;
            assert_eq!(content(&again), content(&first), "{method} {path}");
            assert_eq!(again.header("idempotency-replayed"), "true");
        }
        assert_eq!(database.stored(), stored, "{method} {path} wrote again");
    }
    assert_eq!(server.get(&format!("{ITEMS}/A")).await.status, 404);
}

#[tokio::test]
async fn requests_that_change_nothing_keep_no_large_answers() {
    let server = Server::fixture();
    let text = "x".repeat(200 * 1024);
    let note = server.post(NOTES, &json!({"text": text})).await.expect(201);
    let (path, nothing) = (format!("{NOTES}/{}", note["id"].as_str().unwrap()), json!({}));
    let first = send(&server, Method::PATCH, &path, "k", Some(&nothing)).await;
    assert_eq!((first.status.as_u16(), first.json()), (200, note));
    let again = send(&server, Method::PATCH, &path, "k", Some(&nothing)).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (204, ""));
    assert_eq!((again.header("etag"), again.header("idempotency-replayed")), (first.header("etag"), "true"));
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_kept_is_refused_before_anything_is_written() {
    let server = Server::fixture();
    let text = "x".repeat(900 * 1024);
    let mut operations = Vec::new();
    for _ in 0..5 {
        let note = server.post(NOTES, &json!({"text": text})).await.expect(201);
        operations.push(json!({"op": "patch", "id": note["id"], "data": {}}));
    }
    operations.push(json!({"op": "create", "data": {"text": "new"}}));
    let (path, batch) = (format!("{NOTES}/_batch"), json!({"operations": operations}));
    let send = async |key: &'static str| {
        let headers = [("prefer", "return=representation"), ("idempotency-key", key)];
        server.send_with(Method::POST, &path, if key.is_empty() { &headers[..1] } else { &headers }, Some(&batch)).await
    };
    send("k").await.problem(413, "answer_too_large");
    assert_eq!(server.get(NOTES).await.expect(200)["pagination"]["total"], 5);
    send("").await.expect(200);
    assert_eq!(server.get(NOTES).await.expect(200)["pagination"]["total"], 6);
}

#[tokio::test]
async fn the_answer_shows_on_the_instance_that_repeats_it() {
    let server = Server::fixture();
    // It finds out by itself only after a minute.
    let other = server.beside(|settings| settings.cache.reconcile_interval = std::time::Duration::from_secs(60));
    let path = format!("{ITEMS}?sort=sku");
    assert_eq!(other.get(&path).await.expect(200)["data"], json!([]));
    send(&server, Method::POST, ITEMS, "k", Some(&item("A", "a"))).await.expect(201);
    assert_eq!(send(&other, Method::POST, ITEMS, "k", Some(&item("A", "a"))).await.header("idempotency-replayed"), "true");
    assert_eq!(other.get(&path).await.expect(200)["data"][0]["sku"], "A");
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused() {
    let server = Server::fixture();
    send(&server, Method::POST, ITEMS, "k", Some(&item("A", "a"))).await.expect(201);
    let others = [
        (Method::POST, ITEMS.to_owned(), item("A", "b")),
        (Method::PUT, format!("{ITEMS}/A"), item("A", "a")),
        (Method::POST, format!("{ITEMS}/_batch"), json!({"operations": [{"op": "delete", "id": "A"}]})),
    ];
    for (method, path, body) in others {
        let problem = send(&server, method, &path, "k", Some(&body)).await.problem(422, "idempotency_key_reused");
        assert!(problem["detail"].as_str().unwrap().contains("\"k\""), "{problem}");
    }
    assert_eq!(send(&server, Method::POST, ITEMS, "a b", Some(&item("B", "a"))).await.status, 400);
    send(&server, Method::POST, ITEMS, "", Some(&item("B", "a"))).await.problem(400, "invalid_idempotency_key");
}

#[tokio::test]
async fn what_failed_is_tried_again() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    for _ in 0..2 {
        send(&server, Method::POST, ITEMS, "k", Some(&item("A", "a"))).await.problem(409, "already_exists");
    }
    server.delete(&format!("{ITEMS}/A")).await;
    let reply = send(&server, Method::POST, ITEMS, "k", Some(&item("A", "a"))).await;
    assert_eq!((reply.status.as_u16(), reply.header("idempotency-replayed")), (201, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_requests_at_once_on_two_instances_one_creates() {
    let server = Server::fixture();
    let other = server.beside(|_| {});
    let note = json!({"text": "once"});
    let requests =
        (0..16).map(|number| send(if number % 2 == 0 { &server } else { &other }, Method::POST, NOTES, "k", Some(&note)));
    let replies = futures_util::future::join_all(requests).await;
    let ids: Vec<Value> = replies.iter().map(|reply| reply.expect(201)["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(replies.iter().filter(|reply| reply.header("idempotency-replayed").is_empty()).count(), 1);
    assert_eq!(Database::of(&server).stored().records, 1);
}

/// The process ends, as SIGKILL ends it, after the commit and before anybody is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_commit_and_answer_leaves_a_write_that_is_not_done_again() {
    let (directory, faults) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let schema = (Tested::now() == Tested::Postgres).then(Schema::create);
    let url = schema.as_ref().map_or_else(|| sqlite_url(directory.path()), Schema::url);
    let armed = faults.path().display().to_string();
    let few = ("TERRACE_DATABASE__MAX_CONNECTIONS", "4");
    let mut first = Process::serve(&url, &[("FAULTS_DIR", &armed), few, ("TERRACE_DATABASE__MIN_CONNECTIONS", "1")]);
    first.answers("/health/ready", 200).await;
    std::fs::write(faults.path().join("before_announce"), "kill").unwrap();
    let note = json!({"text": "once"});
    let client = reqwest::Client::new();
    let post = |address| client.post(format!("http://{address}{NOTES}")).header("idempotency-key", "k").json(&note);
    assert!(post(first.address).send().await.is_err(), "it was answered");
    assert_eq!(first.ended(), None);

    let second = Process::serve(&url, &[few, ("TERRACE_DATABASE__MIN_CONNECTIONS", "1")]);
    second.answers("/health/ready", 200).await;
    let again = Reply::read(post(second.address)).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"), "{}", again.text);
    let all = second.answers(NOTES, 200).await.json();
    assert_eq!((all["pagination"]["total"].clone(), &all["data"][0]["id"]), (json!(1), &again.json()["id"]));
    drop(second);
    if let Some(schema) = schema {
        let rows =
            Session::open(&schema.url()).unwrap().query("SELECT count(*) FROM changes WHERE collection = 'notes'").unwrap();
        assert_eq!(rows[0][0].as_deref(), Some("1"));
    }
}
