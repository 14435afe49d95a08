//! Writers and readers side by side: a reader that starts after an acknowledgement never sees what was before it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::support::Server;
use crate::support::fixture::item;

const RECORDS: usize = 3;
/// How much must happen before the storm is over: writes of each record, and reads.
const WRITES: i64 = 30;
const READS: i64 = 200;
const STORM_DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_starts_after_an_acknowledgement_never_shows_an_older_version() {
    let server = Server::fixture();
    server.create_items((0..RECORDS).map(|number| item(&format!("R{number}"), "a"))).await;
    let acknowledged: Vec<AtomicI64> = (0..RECORDS).map(|_| AtomicI64::new(1)).collect();
    let (ended, reads) = (AtomicBool::new(false), AtomicI64::new(0));
    let (server, acknowledged, ended, reads) = (&server, &acknowledged, &ended, &reads);

    let deadline = Instant::now() + STORM_DEADLINE;
    let is_enough = || {
        let written = acknowledged.iter().all(|version| version.load(Ordering::SeqCst) > WRITES);
        let is_enough = written && reads.load(Ordering::Relaxed) >= READS;
        assert!(is_enough || Instant::now() < deadline, "too little to tell: {acknowledged:?} and {reads:?}");
        is_enough
    };
    let is_enough = &is_enough;

    // One writer per record, so that an acknowledged version is the newest one.
    let writers = (0..RECORDS).map(|number| async move {
        let path = format!("/api/items/R{number}");
        let mut tier = 0;
        while !is_enough() {
            tier += 1;
            let record = server.patch(&path, &json!({"tier": tier, "category": (["a", "b"][tier % 2])})).await.expect(200);
            acknowledged[number].store(record["version"].as_i64().unwrap(), Ordering::SeqCst);
        }
        tier
    });
    let readers = (0..6).map(|reader| async move {
        while !ended.load(Ordering::SeqCst) {
            let before: Vec<i64> = acknowledged.iter().map(|version| version.load(Ordering::SeqCst)).collect();
            if reader % 2 == 0 {
                let number = reader % RECORDS;
                let record = server.get(&format!("/api/items/R{number}")).await.expect(200);
                assert!(record["version"].as_i64().unwrap() >= before[number], "{record} is older than {}", before[number]);
            } else {
                let page = server.get("/api/items?sort=sku").await.expect(200);
                assert_eq!(page["data"].as_array().unwrap().len(), RECORDS);
                for (record, version) in page["data"].as_array().unwrap().iter().zip(before) {
                    assert!(record["version"].as_i64().unwrap() >= version, "{record} is older than {version}");
                }
            }
            reads.fetch_add(1, Ordering::Relaxed);
        }
    });
    let writing = async {
        let written = join_all(writers).await;
        ended.store(true, Ordering::SeqCst);
        written
    };
    let (written, _) = join(writing, join_all(readers)).await;
    for (number, count) in written.iter().enumerate() {
        let record = server.get(&format!("/api/items/R{number}")).await.expect(200);
        assert_eq!(record["version"].as_i64().unwrap(), i64::try_from(*count).unwrap() + 1, "no write was lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_by_term_never_lacks_an_acknowledged_member() {
    let server = Server::fixture();
    let (server, members) = (&server, &AtomicI64::new(0));
    let ended = &AtomicBool::new(false);
    let writer = async move {
        for number in 0..60 {
            server.create_item(item(&format!("M{number}"), "b")).await;
            members.fetch_add(1, Ordering::SeqCst);
            server.create_item(item(&format!("N{number}"), "a")).await;
        }
        ended.store(true, Ordering::SeqCst);
    };
    let readers = ["/api/items?category=b&limit=1", "/api/items/_stats?category=b", "/api/items?category=b&limit=100"].map(
        |path| async move {
            while !ended.load(Ordering::SeqCst) {
                let before = members.load(Ordering::SeqCst);
                let answer = server.get(path).await.expect(200);
                let total = answer["total"].as_i64().or(answer["pagination"]["total"].as_i64()).unwrap();
                assert!(total >= before, "{path}: {total} after {before}");
            }
        },
    );
    join(writer, join_all(readers)).await;
}

#[tokio::test]
async fn many_that_ask_the_same_at_once_cost_one_load() {
    let server = Server::fixture();
    server.create_items((0..100).map(|number| item(&format!("I{number}"), "a"))).await;
    let replies = join_all((0..40).map(|_| server.get("/api/items?category=a&limit=100"))).await;
    assert!(replies.iter().all(|reply| reply.text == replies[0].text));
    let metrics = server.get("/metrics").await.text;
    let line = "terrace_cache_load_duration_seconds_count{collection=\"items\",kind=\"list\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}
