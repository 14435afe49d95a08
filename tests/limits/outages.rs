//! Redis goes and comes: nobody waits for it, each instance enforces its share, and afterwards they count together again.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{quota, read_as, trust_everybody};
use crate::observability::{metrics, value};
use crate::support::Server;
use crate::support::fixture::{ITEMS, item};
use crate::support::process::Process;
use crate::support::redis::PrivateRedis;

/// Three servers on a Redis of their own that count together already.
async fn three(private: &PrivateRedis, limit: &str) -> [Server; 3] {
    let limit = quota(limit);
    let first = Server::fixture_with(|settings| {
        settings.redis.url = private.url();
        trust_everybody(settings);
        settings.limits.api = limit;
    });
    let servers = [first.beside(|_| {}), first.beside(|_| {}), first];
    for server in &servers {
        until(server, "terrace_quota_instances", 3.0).await;
    }
    servers
}

async fn until(server: &Server, metric: &str, wanted: f64) {
    server.eventually(&format!("{metric} {wanted}"), async || value(&metrics(server).await, metric, &[]) == wanted).await;
}

/// How many reads of a client pass until one is refused.
async fn passing(server: &Server, client: &str) -> u32 {
    for passed in 0.. {
        let begun = Instant::now();
        let reply = read_as(server, client, ITEMS).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "it waited {:?}", begun.elapsed());
        match reply.status.as_u16() {
            200 => {}
            429 => return passed,
            other => panic!("{other}: {}", reply.text),
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_instance_enforces_its_share_and_tells_the_bucket_afterwards() {
    let mut private = PrivateRedis::start();
    let servers = three(&private, "90/1h").await;
    // This one has used half of it when Redis goes; another one comes only then.
    for _ in 0..45 {
        assert_eq!(read_as(&servers[0], "192.0.2.1", ITEMS).await.status, 200);
    }
    private.stop();
    for server in &servers {
        until(server, "terrace_quota_local", 1.0).await;
    }
    let mut passed = 0;
    for server in &servers {
        let share = passing(server, "192.0.2.2").await;
        assert_eq!(share, 30);
        passed += share;
    }
    assert_eq!(passed, 90);
    let half = passing(&servers[0], "192.0.2.1").await;
    assert!((13..=20).contains(&half), "{half}: a third of what was left there, and what was leased");
    private.start_again();
    for server in &servers {
        until(server, "terrace_quota_local", 0.0).await;
    }
    // The server has forgotten everything, and is told what was passed without it.
    let mut again = 0;
    for server in &servers {
        again += passing(server, "192.0.2.2").await;
    }
    assert!(again <= 62, "{again}: the first instance to ask tells of its own thirty, the next ones of theirs");
    assert_eq!(passing(&servers[0], "192.0.2.2").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_waited_for_once() {
    let private = PrivateRedis::start();
    let servers = three(&private, "60/1h").await;
    assert_eq!(read_as(&servers[0], "192.0.2.1", ITEMS).await.status, 200);
    private.pause();
    let begun = Instant::now();
    let share = passing(&servers[0], "192.0.2.1").await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!((19..=20).contains(&share), "{share}");
    private.resume();
    until(&servers[0], "terrace_quota_local", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_is_as_good_as_none() {
    let private = PrivateRedis::planned().option("maxmemory-policy", "noeviction").start();
    let servers = three(&private, "60/1h").await;
    private.configure(&[("maxmemory", "1mb")]);
    for server in &servers {
        until(server, "terrace_quota_local", 1.0).await;
    }
    assert_eq!(passing(&servers[1], "192.0.2.3").await, 20, "a bucket that the server has no room for");
    private.configure(&[("maxmemory", "256mb")]);
    for server in &servers {
        until(server, "terrace_quota_local", 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_once_that_an_instance_counts_alone_and_once_that_it_no_longer_does() {
    let mut private = PrivateRedis::start();
    let directory = tempfile::TempDir::new().unwrap();
    let database = crate::support::sqlite_url(directory.path());
    let settings = [("TERRACE_REDIS__URL", &*private.url()), ("TERRACE_LIMITS__API", "1000/1h")];
    let mut process = Process::serve(&database, &settings);
    process.answers("/health/ready", 200).await;
    private.stop();
    process.until("it counts alone", |log| log.contains("the quotas in Redis are out of reach"));
    for number in 0..5 {
        assert_eq!(process.send(Method::POST, ITEMS, &item(&format!("I{number}"), "a")).await.status, 201);
    }
    private.start_again();
    process.until("it counts with others again", |log| log.contains("the quotas in Redis are in reach again"));
    assert_eq!(process.send(Method::PATCH, &format!("{ITEMS}/I1"), &json!({"tier": 1})).await.status, 200);
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(process.told("the quotas in Redis are out of reach"), 1, "{}", process.log());
    assert_eq!(process.told("the quotas in Redis are in reach again"), 1, "{}", process.log());
}
