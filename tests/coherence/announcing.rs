//! All well: what one server commits reaches the others over the bus.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

/// What a busy machine may take for one hop.
const HOP: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_one_server_writes_the_others_serve_after_one_hop() {
    let fleet = Fleet::of(3).await;
    let paths =
        [item(1), "/api/items?category=a".into(), "/api/items".into(), "/api/items/_stats?by=tier".into(), "/api/totals".into()];
    fleet.first().put(&item(1), &named("old")).await.expect(201);
    fleet.first().put(&item(2), &json!({"name": "other", "category": "b"})).await.expect(201);
    let mut suspected = Vec::new();
    for server in &fleet.0 {
        suspected.push(suspicions(server).await);
    }
    for round in 0..3 {
        let writer = &fleet.0[round];
        for server in &fleet.0 {
            warm(server, "/api/items?category=b").await;
            for path in &paths {
                warm(server, path).await;
            }
        }
        let body = json!({"name": format!("new {round}"), "category": "a", "tier": round});
        assert!(writer.put(&item(1), &body).await.status.is_success());
        let written = Instant::now();
        assert_eq!(writer.get(&item(1)).await.json()["name"], body["name"], "the writer at once");
        for server in &fleet.0 {
            server.eventually("the new record", async || server.get(&item(1)).await.json()["name"] == body["name"]).await;
            assert!(written.elapsed() < HOP, "{:?}", written.elapsed());
            let list = server.get("/api/items?category=a").await.json();
            assert_eq!(list["data"][0]["name"], body["name"], "the record is newer than its list");
            for path in &paths {
                assert_eq!(server.get(path).await.status, 200, "{path}");
            }
            // What it did not touch has stayed.
            assert_eq!(server.get("/api/items?category=b").await.cache(), "HIT");
        }
    }
    for (server, suspected) in fleet.0.iter().zip(suspected) {
        // A machine that was too busy for heartbeats has had the log read.
        if suspicions(server).await == suspected {
            assert_eq!(metric(server, "terrace_reconcile_unannounced_total").await, 0.0, "the log told, and not the bus");
        }
        assert!(metric(server, "terrace_bus_messages_total{direction=\"received\",kind=\"changes\"}").await >= 2.0);
        assert_eq!(metric(server, "terrace_bus_messages_total{direction=\"received\",kind=\"unreadable\"}").await, 0.0);
    }
}

#[tokio::test]
async fn a_large_batch_reaches_the_others_as_one_message() {
    let fleet = Fleet::of(2).await;
    let operations = |name: &str| -> Vec<_> {
        (0..500).map(|id| json!({"op": "upsert", "id": format!("I-{id}"), "data": named(name)})).collect()
    };
    fleet.first().post("/api/items/_batch", &json!({"operations": operations("old")})).await.expect(200);
    let other = &fleet.others()[0];
    for id in [0, 250, 499] {
        warm(other, &item(id)).await;
    }
    let sent = "terrace_bus_messages_total{direction=\"sent\",kind=\"changes\"}";
    let before = metric(fleet.first(), sent).await;
    fleet.first().post("/api/items/_batch", &json!({"operations": operations("new")})).await.expect(200);
    for id in [0, 250, 499] {
        other.eventually("the new record", async || other.get(&item(id)).await.json()["name"] == "new").await;
    }
    assert_eq!(metric(fleet.first(), sent).await, before + 1.0);
}

#[tokio::test]
async fn a_token_is_as_good_on_every_server_at_once() {
    let fleet = Fleet::of(3).await;
    for round in 0..20 {
        let name = format!("{round}");
        let written = fleet.0[round % 3].put(&item(1), &named(&name)).await;
        let token = written.header("consistency-token");
        for server in &fleet.0 {
            let reply = server.get_with(&item(1), &[("consistency-token", token)]).await;
            assert_eq!(reply.json()["name"], name, "{}", reply.cache());
            let list = server.get_with("/api/items?category=a", &[("consistency-token", token)]).await;
            assert_eq!(list.json()["data"][0]["name"], name, "{}", list.cache());
        }
    }
}

async fn suspicions(server: &Server) -> f64 {
    let mut sum = 0.0;
    for reason in ["connected", "disconnected", "silence", "other_server"] {
        sum += metric(server, &format!("terrace_bus_suspicions_total{{reason=\"{reason}\"}}")).await;
    }
    sum
}

#[tokio::test]
async fn a_list_stays_a_hit_on_the_others_if_a_write_does_not_touch_it() {
    let fleet = Fleet::of(2).await;
    let (writer, reader) = (&fleet.0[0], &fleet.0[1]);
    for number in [1, 2] {
        writer.put(&item(number), &named("a lamp")).await.expect(201);
    }
    let list = "/api/items?sort=sku&limit=1";
    warm(reader, list).await;
    for body in [json!({"unindexed": "1"}), json!({"unindexed": "2", "tier": 3}), json!({"unindexed": "3", "name": "a bulb"})] {
        writer.patch(&item(2), &body).await.expect(200);
        let is_there = async || reader.get(&item(2)).await.json()["unindexed"] == body["unindexed"];
        reader.eventually("the new record", is_there).await;
        assert_eq!(reader.get(list).await.cache(), "HIT", "{body}");
    }
    writer.patch(&item(1), &json!({"unindexed": "9"})).await.expect(200);
    reader.eventually("the new record", async || reader.get(&item(1)).await.json()["unindexed"] == "9").await;
    let reply = reader.get(list).await;
    assert_eq!((reply.cache(), &reply.json()["data"][0]["unindexed"]), ("MISS", &json!("9")), "it shows the record");
}
