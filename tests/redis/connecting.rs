//! A server that is there and cannot be used: wrong password, another version, TLS. All of it is mended without a restart.

use std::path::Path;

use terrace::config::RedisSettings;
use terrace::redis_client::{BusEvent, RedisClient, RedisStatus};
use terrace::telemetry::Telemetry;

use super::rewriting::Rewriting;
use super::{Client, get};
use crate::support::redis::PrivateRedis;
use crate::support::tls::Authority;

#[tokio::test]
async fn a_wrong_password_is_told_and_may_become_right() {
    let server = PrivateRedis::planned().password("the-secret").start();
    let with = |login: &str| Client::to(&server.url().replace(":the-secret@", login));
    with("").is_down_because("Redis wants a password, and redis.url has none.").await;
    with("somebody:the-secret@").is_down_because("Redis refuses the user or the password of redis.url.").await;
    let client = with(":another-secret@");
    client.is_down_because("Redis refuses the user or the password of redis.url.").await;
    server.change_password("another-secret");
    client.link().await;
}

#[tokio::test]
async fn a_user_without_permissions_is_told_what_they_are_for() {
    let server = PrivateRedis::start();
    // What the README says that is needed, at first for other keys and channels.
    let commands = ["+@read", "+@write", "+@scripting", "+@pubsub", "+@connection", "+info", "+time"];
    let user = ["ACL", "SETUSER", "limited", "on", ">the-secret", "~other:*", "&other:*"];
    server.command::<()>(&[&user[..], &commands].concat());
    let client = Client::to(&server.url().replace("redis://", "redis://limited:the-secret@"));
    client.is_down_because("The user of redis.url lacks a permission").await;
    server.command::<()>(&["ACL", "SETUSER", "limited", "~terrace:*", "&terrace:*"]);
    let link = client.link().await;
    let mut subscription = client.client.subscribe("terrace:bus".to_owned());
    assert!(matches!(subscription.next().await, BusEvent::Connected));
    link.run::<()>(redis::pipe().del("terrace:a").ignore().publish("terrace:bus", "x").ignore()).await.unwrap();
    link.run::<()>(redis::pipe().mget(&["terrace:a", "terrace:b"]).ignore().pttl("terrace:a").ignore()).await.unwrap();
    let script = redis::Script::new("redis.call('TIME') return redis.call('SET', KEYS[1], 'x', 'NX', 'PX', 1000)");
    link.invoke::<()>(&script.key("terrace:a")).await.unwrap();
    assert!(link.run::<()>(&get("third:a")).await.unwrap_err().detail().contains("lacks a permission"));
    assert!(client.client.link().is_some());
}

#[tokio::test]
async fn databases_and_connections_that_there_are_not_are_told() {
    let server = PrivateRedis::planned().option("databases", "2").start();
    Client::to(&format!("{}/1", server.url())).link().await;
    Client::to(&format!("{}/2", server.url())).is_down_because("no such database as redis.url names").await;
    // One that is in already: later ones would be refused as well.
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut allow = |clients: u32| redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(clients).exec(&mut operator).unwrap();
    allow(1);
    let client = Client::to(&server.url());
    client.is_down_because("no connection left").await;
    allow(100);
    client.link().await;
}

#[tokio::test]
async fn a_host_that_there_is_not_is_told() {
    Client::to("redis://nowhere.invalid").is_down_because("The name of Redis's host in redis.url is not known.").await;
}

#[tokio::test]
async fn a_version_that_is_too_old_is_refused_and_a_newer_one_is_taken() {
    let server = PrivateRedis::start();
    let version: String = server.command(&["INFO", "server"]);
    let version = version.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap().to_owned();
    let major = version.split('.').next().unwrap();
    // Of the same length, for the answer tells it.
    let rewritten = |to: &str| version.replacen(major, &format!("{to:0>width$}", width = major.len()), 1);
    let proxy = Rewriting::start(server.port(), &version, &rewritten("5"));
    let client = Client::to(&server.url_at("127.0.0.1", proxy.port()));
    client.is_down_because(&format!("redis.url names is Redis {}, and Terrace needs 6.2 or later.", rewritten("5"))).await;
    proxy.rewrite_to(&rewritten("9"));
    client.link().await;
    let RedisStatus::Up { version: told, .. } = client.client.status() else { panic!("it is up") };
    assert_eq!(told, rewritten("9"));
}

#[tokio::test]
async fn a_certificate_must_be_the_hosts_and_from_who_is_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = PrivateRedis::planned().tls(&authority.issue("other.example")).start();
    let trusting = |ca_file: &Path| {
        let ca_file = ca_file.to_owned();
        Client::with(RedisSettings { url: server.url(), ca_file, ..RedisSettings::default() })
    };
    trusting(&stranger.file()).is_down_because("comes from nobody whom redis.ca_file names").await;
    // Without a file of ours, those of the system count.
    trusting(Path::new("")).is_down_because("comes from nobody whom redis.ca_file names").await;
    let client = trusting(&authority.file());
    client.is_down_because("for another host name than the one in redis.url").await;
    server.install(&authority.issue("127.0.0.1"));
    client.link().await;
    let mut subscription = client.client.subscribe("channel".to_owned());
    assert!(matches!(subscription.next().await, BusEvent::Connected));
}

#[tokio::test]
async fn tls_and_no_tls_are_told_apart() {
    let authority = Authority::new();
    let plain = PrivateRedis::start();
    let url = plain.url().replace("redis://", "rediss://");
    let client = Client::with(RedisSettings { url, ca_file: authority.file(), ..RedisSettings::default() });
    client.is_down_because("TLS with Redis failed").await;
    let encrypted = PrivateRedis::planned().tls(&authority.issue("127.0.0.1")).start();
    Client::to(&encrypted.url().replace("rediss://", "redis://")).is_down_because("it is no Redis, or one with TLS").await;
}

#[test]
fn mistakes_are_told_before_anything_is_connected() {
    for (url, ca_file, names) in [
        ("redis://:the-secret@127.0.0.1:port", "", "redis.url"),
        ("redis://:the-secret@127.0.0.1/zero", "", "redis.url"),
        ("rediss://127.0.0.1", "nothing.pem", "redis.ca_file"),
    ] {
        let settings = RedisSettings { url: url.to_owned(), ca_file: ca_file.into(), ..RedisSettings::default() };
        let error = RedisClient::check(&settings).unwrap_err();
        assert!(error.detail().contains(names) && !error.to_string().contains("secret"), "{error}");
    }
    let none = RedisClient::connect(&RedisSettings::default(), &Telemetry::new().unwrap()).unwrap();
    assert!(none.is_none());
}
