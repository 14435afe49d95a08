//! `GET path/_changes?live`: each change once, wherever it was made and wherever one listens.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use terrace::model::{Caller, Role};

use super::events::Events;
use super::{public, public_with};
use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{ITEMS, item};

const LIVE: &str = "/api/items/_changes?live";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_all_instances_are_told_on_each_of_them_as_the_list_has_them() {
    let first = public();
    let (second, third) = (first.beside(|_| {}), first.beside(|_| {}));
    let instances = [&first, &second, &third];
    let mut feeds = Vec::new();
    for instance in instances {
        feeds.push(Events::open(instance, LIVE, None).await);
    }
    for (number, instance) in instances.into_iter().enumerate() {
        instance.create_item(item(&format!("A{number}"), "a")).await;
        instance.post("/api/shelves", &json!({"id": format!("s{number}")})).await.expect(201);
    }
    first.delete(&format!("{ITEMS}/A1")).await;
    let mut list = first.get("/api/items/_changes").await.expect(200)["data"].as_array().unwrap().clone();
    list.reverse();
    for feed in &mut feeds {
        let mut told = Vec::new();
        for _ in 0..4 {
            told.push(feed.change().await);
        }
        assert_eq!(told, list);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_cut_off_goes_on_at_another_instance_with_nothing_lost_or_told_twice() {
    let server = public();
    let other = server.beside(|_| {});
    let mut feed = Events::open(&server, LIVE, None).await;
    server.create_items((0..3).map(|number| item(&format!("A{number}"), "a"))).await;
    assert_eq!(feed.ids(2).await, ["A0", "A1"]);
    // In the middle of a transaction.
    let last = feed.last.clone();
    drop(feed);
    other.create_item(item("B", "a")).await;
    let mut feed = Events::open(&other, LIVE, last.as_deref()).await;
    assert_eq!(feed.ids(2).await, ["A2", "B"]);
    server.create_item(item("C", "a")).await;
    assert_eq!(feed.ids(1).await, ["C"]);
    // The same place again.
    let mut again = Events::open(&server, LIVE, last.as_deref()).await;
    assert_eq!(again.ids(3).await, ["A2", "B", "C"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_quiet_collection_is_moved_on_by_heartbeats() {
    let server = public_with(|settings| settings.changes.heartbeat = Duration::from_millis(30));
    let mut feed = Events::open(&server, LIVE, None).await;
    let first = feed.last.clone();
    server.post("/api/shelves", &json!({"id": "s"})).await.expect(201);
    let deadline = Instant::now() + crate::support::DEADLINE;
    while feed.last == first {
        assert!(Instant::now() < deadline);
        feed.beat().await;
    }
    let last = feed.last.clone();
    drop(feed);
    // What it has passed may be removed.
    let mut database = Database::of(&server);
    database.execute("DELETE FROM changes");
    server.create_item(item("A", "a")).await;
    let mut feed = Events::open(&server, LIVE, last.as_deref()).await;
    assert_eq!(feed.ids(1).await, ["A"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_may_be_about_one_record_actor_or_operation() {
    let server = public();
    let mut feed = Events::open(&server, &format!("{LIVE}&record=B&operation=update&actor=anonymous"), None).await;
    for sku in ["A", "B"] {
        server.create_item(item(sku, "a")).await;
        server.patch(&format!("{ITEMS}/{sku}"), &json!({"tier": 1})).await;
    }
    let change = feed.change().await;
    assert_eq!((&change["id"], &change["operation"]), (&json!("B"), &json!("update")));
}

#[tokio::test]
async fn a_place_that_the_log_no_longer_reaches_is_gone_and_one_that_is_none_is_refused() {
    let server = public();
    let feed = Events::open(&server, LIVE, None).await;
    let last = feed.last.clone().unwrap();
    drop(feed);
    server.create_items((0..3).map(|number| item(&format!("A{number}"), "a"))).await;
    let app = terrace::app::App::open(server.settings.clone()).await.unwrap();
    let seen = app.store().snapshot().await.unwrap();
    assert_eq!(app.store().changes_prune("2999-01-01T00:00:00.000000Z", &seen, 2).await.unwrap(), 2);
    let reply = server.get_with(LIVE, &[("last-event-id", &last)]).await;
    let problem = reply.problem(410, "changes_gone");
    assert!(problem["detail"].as_str().unwrap().contains("changes.retention"), "{problem}");
    // Of another installation.
    let foreign = public();
    foreign.get_with(LIVE, &[("last-event-id", &last)]).await.problem(410, "changes_gone");
    for wrong in ["x", "1.2.3", "1.1.1.1.1.9.", "-1"] {
        server.get_with(LIVE, &[("last-event-id", wrong)]).await.problem(400, "invalid_last_event_id");
    }
    server.get_with(LIVE, &[("accept", "application/json")]).await.problem(406, "not_acceptable");
    server.get(&format!("{LIVE}&limit=5")).await.problem(400, "invalid_parameter");
    let head = server.send_with(Method::HEAD, LIVE, &[], None).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_no_more_feeds_than_may_be_and_one_that_ends_makes_room() {
    // Who has hung up without a word is found out by a heartbeat.
    let server = public_with(|settings| {
        settings.changes.streams = 2;
        settings.changes.heartbeat = Duration::from_millis(50);
    });
    let (first, _second) = (Events::open(&server, LIVE, None).await, Events::open(&server, LIVE, None).await);
    let refused = server.get(LIVE).await;
    refused.problem(503, "too_many_streams");
    assert_eq!(refused.header("retry-after"), "5");
    // Reading and writing go on.
    server.create_item(item("A", "a")).await;
    drop(first);
    server
        .eventually("room for another", async || {
            let mut reply = server.request(Method::GET, LIVE).send().await.unwrap();
            reply.status() == 200 && reply.chunk().await.unwrap().is_some()
        })
        .await;
    let told = server.get("/metrics").await.text;
    assert!(told.contains("terrace_changes_feeds_ended_total{reason=\"left\"}"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_does_not_take_the_places_of_all() {
    let server = public_with(|settings| {
        (settings.changes.streams, settings.changes.streams_per_caller) = (3, 2);
        settings.changes.heartbeat = Duration::from_millis(50);
    });
    let key = server.key_for(Role::Viewer, &[]).await;
    let (first, _second) = (Events::open(&server, LIVE, None).await, Events::open(&server, LIVE, None).await);
    let refused = server.get(LIVE).await;
    let problem = refused.problem(429, "too_many_streams");
    assert!(problem["detail"].as_str().unwrap().contains("changes.streams_per_caller"), "{problem}");
    assert_eq!(refused.header("retry-after"), "5");
    let _another = Events::open_as(&server, LIVE, None, Some(&key)).await;
    server.get_as(&key, LIVE).await.problem(503, "too_many_streams");
    drop(first);
    server
        .eventually("room for one more", async || {
            let mut reply = server.request(Method::GET, LIVE).send().await.unwrap();
            reply.status() == 200 && reply.chunk().await.unwrap().is_some()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_its_feeds_and_another_goes_on() {
    let mut server = public();
    let other = server.beside(|_| {});
    let _files = server.keep_files();
    let mut feed = Events::open(&server, LIVE, None).await;
    server.create_item(item("A", "a")).await;
    assert_eq!(feed.ids(1).await, ["A"]);
    let began = Instant::now();
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    let end = feed.next().await.unwrap();
    assert_eq!((end.name.as_str(), &end.data["reason"]), ("end", &json!("stopping")));
    assert_eq!(feed.next().await, None);
    stopping.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "the feed held the server up: {:?}", began.elapsed());
    other.create_item(item("B", "a")).await;
    let mut feed = Events::open(&other, LIVE, feed.last.as_deref()).await;
    assert_eq!(feed.ids(1).await, ["B"]);
}

/// A client that takes nothing: its feed ends, and nothing piles up for it. When it comes back it is told all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_ended_and_comes_back_to_where_it_was() {
    use tokio::io::AsyncWriteExt as _;
    let server = public_with(|settings| settings.changes.heartbeat = Duration::from_millis(100));
    let place = Events::open(&server, LIVE, None).await.last.clone().unwrap();
    let mut lazy = tokio::net::TcpStream::connect(server.address).await.unwrap();
    lazy.write_all(format!("GET {LIVE} HTTP/1.1\r\nhost: x\r\nlast-event-id: {place}\r\n\r\n").as_bytes()).await.unwrap();
    // Far more than the system's buffers take.
    let mut big = item("A", "a");
    big["description"] = json!("x".repeat(900_000));
    for number in 0..20 {
        big["sku"] = json!(format!("A{number:02}"));
        server.create_item(big.clone()).await;
    }
    let ended = async || server.get("/metrics").await.text.contains("terrace_changes_feeds_ended_total{reason=\"too_slow\"} 1");
    server.eventually("the end of the lazy one", ended).await;
    let mut feed = Events::open(&server, LIVE, Some(&place)).await;
    let all: Vec<String> = (0..20).map(|number| format!("A{number:02}")).collect();
    assert_eq!(feed.ids(20).await, all);
    drop(lazy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_ends_when_its_key_is_revoked_by_another_process() {
    let server = Server::fixture_with(|settings| settings.changes.heartbeat = Duration::from_millis(50));
    let key = server.key_for(Role::Admin, &["items:read", "items:write"]).await;
    let mut feed = Events::open_as(&server, LIVE, None, Some(&key)).await;
    server.send_as(&key, Method::POST, ITEMS, Some(&item("A", "a"))).await.expect(201);
    let change = feed.change().await;
    let prefix = change["actor"].as_str().unwrap().strip_prefix("key:").unwrap().to_owned();
    assert!(key.contains(&prefix) && key.len() > prefix.len() + 40, "{prefix}");
    // A key for another collection does not open it.
    let other = server.key_for(Role::Admin, &["shelves:*"]).await;
    server.get_as(&other, LIVE).await.problem(403, "insufficient_scope");
    let viewer = server.key_for(Role::Viewer, &[]).await;
    server.get_as(&viewer, "/api/items/_changes").await.problem(403, "forbidden");
    server.app().await.accounts().revoke_key(&prefix, &Caller::OPERATOR).await.unwrap();
    let end = feed.next().await.unwrap();
    assert_eq!((end.name.as_str(), &end.data["reason"]), ("end", &json!("forbidden")));
    assert_eq!(feed.next().await, None);
    server.get_as(&key, LIVE).await.problem(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_a_role_may_not_see_are_not_there_in_its_changes() {
    let edit = "read = \"public\"\nchanges = \"viewer\"\nfields = { price = { read = \"admin\", write = \"admin\" } }\nwrite";
    let server = Server::fixture_with(|settings| {
        let file = settings.collections.dir.join("items.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("read = \"public\"\nwrite", edit)).unwrap();
    });
    let [viewer, admin] = [server.key_for(Role::Viewer, &[]).await, server.key_for(Role::Admin, &[]).await];
    let mut feeds =
        [Events::open_as(&server, LIVE, None, Some(&viewer)).await, Events::open_as(&server, LIVE, None, Some(&admin)).await];
    let mut secret = item("A", "a");
    secret["price"] = json!(12.5);
    server.send_as(&admin, Method::POST, ITEMS, Some(&secret)).await.expect(201);
    let listed = server.get_as(&viewer, "/api/items/_changes").await.expect(200);
    let [seen, whole] = [feeds[0].change().await, feeds[1].change().await];
    assert_eq!(listed["data"][0], seen);
    assert!(seen["after"].get("price").is_none() && seen.get("redacted").is_none(), "{seen}");
    assert_eq!(whole["after"]["price"], json!(12.5));
}
