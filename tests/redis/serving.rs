//! A whole server while Redis has a bad day: it says which setting to look at, answers reads and writes all the same, and
//! goes on as before when the day is over.

use std::cell::RefCell;

use reqwest::Method;
use serde_json::{Value, json};
use terrace::config::{RedisSettings, Settings};

use super::rewriting::Rewriting;
use crate::support::fixture::{ITEMS, item};
use crate::support::process::{Process, command};
use crate::support::redis::{self, PrivateRedis};
use crate::support::tls::Authority;
use crate::support::{Reply, Server};

/// Two servers on one database and one Redis.
struct Pair {
    one: Server,
    other: Server,
}

impl Pair {
    fn using(settings: RedisSettings) -> Self {
        let one = Server::fixture_with(|all| all.redis = settings);
        let other = one.beside(|_| {});
        Self { one, other }
    }

    /// Both say that it is like this and, in the reason, this text.
    async fn says(&self, status: &str, reason: &str) {
        for server in [&self.one, &self.other] {
            let told = async || {
                let redis = redis_of(server).await;
                redis["status"] == status && redis["reason"].as_str().unwrap_or_default().contains(reason)
            };
            server.eventually(&format!("{status}: {reason}"), told).await;
        }
    }

    /// Writes are taken, every read after one sees it, and the other server's reads see it soon, or at once with the token.
    async fn goes_on(&self) {
        let sku = uuid::Uuid::now_v7().simple().to_string();
        let path = format!("{ITEMS}/{sku}");
        let list = format!("{ITEMS}?category=a&limit=100");
        self.one.create_item(item(&sku, "a")).await;
        for name in ["one", "two"] {
            let written = self.one.patch(&path, &json!({"name": name})).await;
            written.expect(200);
            let token = [("consistency-token", written.header("consistency-token"))];
            assert_eq!(self.other.get_with(&path, &token).await.expect(200)["name"], name);
            assert_eq!(name_in(&self.other.get_with(&list, &token).await, &sku), name);
            for _ in 0..2 {
                assert_eq!(self.one.get(&path).await.expect(200)["name"], name);
                assert_eq!(name_in(&self.one.get(&list).await, &sku), name);
            }
            let is_seen = async || self.other.get(&path).await.expect(200)["name"] == name;
            self.other.eventually("the other one sees it", is_seen).await;
        }
        assert_eq!(self.one.delete(&path).await.status, 204);
        assert_eq!(self.one.get(&path).await.status, 404);
        self.other.eventually("the other one sees it go", async || self.other.get(&path).await.status == 404).await;
    }

    /// What one has loaded the other one takes from Redis. Reads of what was just written would not show it: whoever learns of
    /// a change from the log announces it once more.
    async fn shares(&self) {
        let name = uuid::Uuid::now_v7().simple().to_string();
        self.one.create_items((0..500).map(|number| item(&format!("{name}-{number}"), "b"))).await;
        let unread = RefCell::new(0..500);
        let is_shared = async || {
            let number = unread.borrow_mut().next().expect("nothing was shared");
            let path = format!("{ITEMS}/{name}-{number}");
            self.one.get(&path).await.expect(200);
            let reply = self.other.get(&path).await;
            reply.header("cache-status").contains("l2")
        };
        self.one.eventually("the other one takes it from Redis", is_shared).await;
    }
}

fn at(url: &str) -> RedisSettings {
    RedisSettings { url: url.to_owned(), ..RedisSettings::default() }
}

async fn redis_of(server: &Server) -> Value {
    let health = server.get("/health").await.expect(200);
    assert_eq!(health["status"], "healthy", "{health}");
    health["redis"].clone()
}

/// The name that a page has for an item.
fn name_in(page: &Reply, sku: &str) -> Value {
    let page = page.expect(200);
    let found: Vec<&Value> = page["data"].as_array().unwrap().iter().filter(|item| item["sku"] == sku).collect();
    assert_eq!(found.len(), 1, "{page}");
    found[0]["name"].clone()
}

#[tokio::test]
async fn a_server_without_the_setting_says_that_it_has_no_second_tier() {
    let server = Server::fixture();
    assert_eq!(redis_of(&server).await, json!({"status": "off"}));
}

#[tokio::test]
async fn servers_with_redis_share_what_they_load_and_say_so() {
    let mut settings = Settings::default();
    redis::join(&mut settings);
    let servers = Pair::using(settings.redis);
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
    assert!(servers.one.get("/metrics").await.text.contains("terrace_redis_up 1\n"));
}

#[tokio::test]
async fn an_unreachable_host_at_start_holds_up_nothing() {
    let mut private = PrivateRedis::planned().prepare();
    let servers = Pair::using(at(&private.url()));
    servers.says("down", "No Redis answers at the address in redis.url.").await;
    assert_eq!(servers.one.get("/health/ready").await.status, 200);
    servers.goes_on().await;
    private.start_again();
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn a_wrong_password_holds_up_nothing() {
    let private = PrivateRedis::planned().password("the-secret").start();
    let servers = Pair::using(at(&private.url().replace("the-secret", "another-secret")));
    servers.says("down", "the password of redis.url").await;
    servers.goes_on().await;
    private.change_password("another-secret");
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn a_bad_certificate_holds_up_nothing() {
    let authority = Authority::new();
    let private = PrivateRedis::planned().tls(&authority.issue("other.example")).start();
    let servers = Pair::using(RedisSettings { ca_file: authority.file(), ..at(&private.url()) });
    let stranger = Pair::using(RedisSettings { ca_file: Authority::new().file(), ..at(&private.url()) });
    stranger.says("down", "redis.ca_file").await;
    servers.says("down", "another host name than the one in redis.url").await;
    servers.goes_on().await;
    private.install(&authority.issue("127.0.0.1"));
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn a_full_redis_holds_up_nothing() {
    let private = PrivateRedis::planned().option("maxmemory-policy", "noeviction").start();
    let servers = Pair::using(at(&private.url()));
    servers.says("up", "").await;
    servers.goes_on().await;
    private.configure(&[("maxmemory", "1mb")]);
    servers.goes_on().await;
    servers.says("up", "Redis is full and refuses values").await;
    private.configure(&[("maxmemory", "256mb")]);
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_up_nothing_for_long() {
    let private = PrivateRedis::start();
    let servers = Pair::using(at(&private.url()));
    servers.says("up", "").await;
    servers.goes_on().await;
    private.pause();
    servers.goes_on().await;
    private.resume();
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn a_replica_and_its_promotion_hold_up_nothing() {
    let (mut master, replica) = (PrivateRedis::start(), PrivateRedis::start());
    replica.follow(&master);
    let servers = Pair::using(at(&replica.url()));
    servers.says("down", "redis.url must name the master").await;
    servers.goes_on().await;
    master.stop();
    replica.promote();
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn another_major_version_holds_up_nothing() {
    let private = PrivateRedis::start();
    let info: String = private.command(&["INFO", "server"]);
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    let (major, rest) = version.split_at(1);
    assert_ne!(major, "4");
    let proxy = Rewriting::start(private.port(), version, &format!("4{rest}"));
    let servers = Pair::using(at(&private.url_at("127.0.0.1", proxy.port())));
    servers.says("down", "Terrace needs 6.2 or later").await;
    servers.goes_on().await;
    proxy.rewrite_to(version);
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test]
async fn a_redis_that_starts_again_empty_holds_up_nothing() {
    let mut private = PrivateRedis::start();
    let servers = Pair::using(at(&private.url()));
    servers.says("up", "").await;
    servers.goes_on().await;
    private.stop();
    servers.goes_on().await;
    private.start_again();
    servers.says("up", "").await;
    servers.goes_on().await;
    servers.shares().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_each_change_once_and_no_secret() {
    let mut private = PrivateRedis::planned().password("the-secret").start();
    let directory = tempfile::TempDir::new().unwrap();
    let database = crate::support::sqlite_url(directory.path());
    let mut process = Process::serve(&database, &[("TERRACE_REDIS__URL", &private.url())]);
    process.until("Redis is there", |log| log.contains("Redis is there"));
    process.answers("/health/ready", 200).await;
    private.stop();
    process.until("Redis is away", |log| log.contains("No Redis answers at the address in redis.url."));
    // Time for some attempts more.
    for number in 0..20 {
        let created = process.send(Method::POST, ITEMS, &item(&format!("I{number}"), "a")).await;
        assert_eq!(created.status, 201, "{}", created.text);
    }
    private.start_again();
    process.until("Redis is back", |log| log.matches("Redis is there").count() == 2);
    assert_eq!(process.terminate(), Some(0));
    // One line that the connection ended, one that nobody is there.
    assert!((1..=2).contains(&process.told("Redis is away")), "{}", process.log());
    assert_eq!(process.told("the-secret"), 0, "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_newer_than_the_tested_ones_is_used_and_told_once() {
    let private = PrivateRedis::start();
    let info: String = private.command(&["INFO", "server"]);
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    let proxy = Rewriting::start(private.port(), version, &format!("9{}", &version[1..]));
    let directory = tempfile::TempDir::new().unwrap();
    let database = crate::support::sqlite_url(directory.path());
    let url = private.url_at("127.0.0.1", proxy.port());
    let mut process = Process::serve(&database, &[("TERRACE_REDIS__URL", &url)]);
    process.until("Redis is there", |log| log.contains("Redis is there"));
    private.command::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    process.until("Redis is back", |log| log.matches("Redis is there").count() == 2);
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(process.told("newer than those that Terrace was tested with"), 1, "{}", process.log());
}

#[test]
fn a_mistake_in_the_url_ends_the_start_and_is_found_by_a_check() {
    let directory = tempfile::TempDir::new().unwrap();
    let database = crate::support::sqlite_url(directory.path());
    let settings = [("TERRACE_REDIS__URL", "redis://:the-secret@127.0.0.1/zero")];
    for arguments in ["serve", "check"] {
        let directory = tempfile::TempDir::new().unwrap();
        let output = command(&directory, &database, &[arguments], &settings).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains("redis.url"), "{arguments}: {told}");
        assert!(!told.contains("the-secret"), "{told}");
    }
}
