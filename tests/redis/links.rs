//! A link: what ends it, what does not, and that there is a new one as soon as there can be.

use std::time::{Duration, Instant};

use terrace::config::RedisSettings;
use terrace::error::ErrorKind;
use terrace::redis_client::RedisStatus;

use super::{Client, get, set, until};
use crate::support::redis::PrivateRedis;

#[tokio::test]
async fn a_link_carries_commands_and_scripts_that_the_server_does_not_know_yet() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let link = client.link().await;
    link.run::<()>(&set("key", "value")).await.unwrap();
    let (value,): (String,) = link.run(&get("key")).await.unwrap();
    assert_eq!(value, "value");
    link.run::<()>(&redis::pipe()).await.expect("nothing to do is no mistake");
    let script = redis::Script::new("return redis.call('GET', KEYS[1]) .. ARGV[1]");
    for _ in 0..2 {
        let value: String = link.invoke(script.key("key").arg("!")).await.unwrap();
        assert_eq!(value, "value!");
        server.command::<()>(&["SCRIPT", "FLUSH"]);
    }
    let RedisStatus::Up { version, complaint: None, .. } = client.client.status() else { panic!("it is up") };
    assert_eq!(version.split('.').count(), 3, "{version}");
    assert_eq!(client.metric("terrace_redis_up"), Some(1.0));
    assert_eq!(client.metric("terrace_redis_commands_total{outcome=\"answered\"}"), Some(4.0));
    assert_eq!(client.metric("terrace_redis_command_duration_seconds_count"), Some(4.0));
}

#[tokio::test]
async fn a_server_that_starts_again_is_another_one() {
    let mut server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let mut links = client.client.watch_links();
    let first = client.link().await;
    first.run::<()>(&set("key", "value")).await.unwrap();
    links.mark_unchanged();
    server.stop();
    // Nobody has asked for anything: the end of the connection is enough.
    tokio::time::timeout(crate::support::DEADLINE, links.changed()).await.unwrap().unwrap();
    assert!(client.client.link().is_none());
    assert_eq!(first.run::<()>(&get("key")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    client.is_down_because("No Redis answers at the address in redis.url.").await;
    assert_eq!(client.metric("terrace_redis_up"), Some(0.0));
    server.start_again();
    let second = client.link().await;
    assert_ne!(second.server(), first.server());
    assert_eq!(second.run::<(Option<String>,)>(&get("key")).await.unwrap().0, None);
    assert_eq!(client.metric("terrace_redis_connections_total{purpose=\"commands\"}"), Some(2.0));
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_again_to_the_same_server() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let first = client.link().await;
    let mut links = client.client.watch_links();
    server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    links.changed().await.unwrap();
    let second = client.link().await;
    assert_eq!(second.server(), first.server());
    assert!(first.run::<()>(&get("key")).await.is_err(), "a link that was lost stays lost");
    assert!(client.client.link().is_some(), "and says nothing about the next one");
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_one_command_and_nobody_after_it() {
    let server = PrivateRedis::start();
    let timeout = Duration::from_millis(300);
    let client = Client::with(RedisSettings { url: server.url(), timeout, ..RedisSettings::default() });
    let link = client.link().await;
    server.pause();
    let begun = Instant::now();
    let error = link.run::<()>(&get("key")).await.unwrap_err();
    assert!((timeout..timeout * 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(error.detail().contains("redis.timeout"), "{error}");
    assert!(client.client.link().is_none());
    client.is_down_because("Redis did not answer within").await;
    assert_eq!(client.metric("terrace_redis_commands_total{outcome=\"too_slow\"}"), Some(1.0));
    server.resume();
    assert_eq!(client.link().await.server(), link.server());
}

#[tokio::test]
async fn a_server_that_is_always_too_slow_is_away() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let link = client.link().await;
    // It takes connections, logins and questions, and holds writes.
    server.command::<()>(&["CLIENT", "PAUSE", "100000", "WRITE"]);
    link.run::<()>(&set("key", "value")).await.unwrap_err();
    client.is_down_because("Redis did not answer within").await;
    server.command::<()>(&["CLIENT", "UNPAUSE"]);
    client.link().await;
}

#[tokio::test]
async fn a_full_server_refuses_values_and_keeps_its_link() {
    let server = PrivateRedis::planned().option("maxmemory-policy", "noeviction").start();
    let client = Client::to(&server.url());
    let link = client.link().await;
    link.run::<()>(&set("key", "value")).await.unwrap();
    server.configure(&[("maxmemory", "1mb")]);
    let error = link.run::<()>(&set("other", &"x".repeat(10_000))).await.unwrap_err();
    assert!(error.detail().contains("Redis is full") && error.detail().contains("redis.url"), "{error}");
    let script = redis::Script::new("return redis.call('SET', KEYS[1], 'x')");
    assert!(link.invoke::<()>(&script.key("other")).await.unwrap_err().detail().contains("Redis is full"));
    assert_eq!(link.run::<(String,)>(&get("key")).await.unwrap().0, "value");
    assert!(client.client.link().is_some());
    let RedisStatus::Up { complaint, .. } = client.client.status() else { panic!("it is up") };
    assert!(complaint.unwrap().contains("Redis is full"));
    // Forgetting is always possible.
    link.run::<()>(redis::pipe().del("key").ignore()).await.unwrap();
    server.configure(&[("maxmemory", "256mb")]);
    link.run::<()>(&set("other", "value")).await.unwrap();
    assert_eq!(client.metric("terrace_redis_connections_total{purpose=\"commands\"}"), Some(1.0));
}

#[tokio::test]
async fn a_mistake_of_ours_does_not_cost_the_link() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let link = client.link().await;
    link.run::<()>(&set("key", "value")).await.unwrap();
    assert!(link.run::<()>(redis::pipe().cmd("LPUSH").arg("key").arg("x")).await.is_err());
    assert!(link.run::<(u64,)>(&get("key")).await.is_err(), "no number");
    assert_eq!(client.client.link().unwrap().run::<(String,)>(&get("key")).await.unwrap().0, "value");
    assert_eq!(client.metric("terrace_redis_connections_total{purpose=\"commands\"}"), Some(1.0));
}

#[tokio::test]
async fn a_replica_is_refused_until_it_is_promoted() {
    let (mut master, replica) = (PrivateRedis::start(), PrivateRedis::start());
    let client = Client::to(&replica.url());
    let before = client.link().await;
    replica.follow(&master);
    // Becoming a replica ends no connection; its answers do.
    let mut links = client.client.watch_links();
    let refused = before.run::<()>(&set("key", "value")).await.unwrap_err();
    assert!(refused.detail().contains("replica") || refused.detail().contains("ended"), "{refused}");
    assert!(links.has_changed().unwrap());
    links.mark_unchanged();
    client.is_down_because("redis.url must name the master").await;
    // One that would take writes is no better: it loses them.
    replica.configure(&[("replica-read-only", "no")]);
    client.is_down_because("redis.url must name the master").await;
    master.stop();
    replica.promote();
    client.link().await.run::<()>(&set("key", "value")).await.unwrap();
}

#[tokio::test]
async fn a_master_that_was_a_replica_meanwhile_is_another_one() {
    let (first, second) = (PrivateRedis::start(), PrivateRedis::start());
    let client = Client::to(&first.url());
    let before = client.link().await;
    second.follow(&first);
    // Nobody sends a command, and in the end it is the same process.
    let mut links = client.client.watch_links();
    second.promote();
    first.follow(&second);
    tokio::time::timeout(crate::support::DEADLINE, links.changed()).await.unwrap().unwrap();
    client.is_down_because("redis.url must name the master").await;
    first.promote();
    assert_ne!(client.link().await.server(), before.server());
}

#[tokio::test]
async fn a_server_that_hangs_is_away_before_anybody_asks() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    client.link().await;
    server.pause();
    client.is_down_because("Redis did not answer within").await;
    server.resume();
    client.link().await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_away() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    client.link().await.run::<()>(&set("key", "value")).await.unwrap();
    server.configure(&[("min-replicas-to-write", "1")]);
    client.client.link().unwrap().run::<()>(&set("key", "other")).await.unwrap_err();
    client.is_down_because("NOREPLICAS").await;
    server.configure(&[("min-replicas-to-write", "0")]);
    client.link().await.run::<()>(&set("key", "other")).await.unwrap();
}

#[tokio::test]
async fn nothing_stays_of_a_client_that_was_dropped() {
    let server = PrivateRedis::start();
    let client = Client::to(&server.url());
    let link = client.link().await;
    let mut subscription = client.client.subscribe("channel".to_owned());
    subscription.next().await;
    let connections = || server.command::<String>(&["CLIENT", "LIST"]).lines().count();
    // The third is what counts them.
    assert_eq!(connections(), 3);
    drop(subscription);
    drop(client);
    assert!(link.run::<(Option<String>,)>(&get("key")).await.is_ok(), "who has a link may finish");
    drop(link);
    until(async || if connections() == 1 { Ok(()) } else { Err(format!("{} connections", connections())) }).await;
}
