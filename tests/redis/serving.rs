//! A whole server while Redis has a bad day: it says which setting to look at, answers reads and writes all the same, and
//! goes on as before when the day is over.

use reqwest::Method;
use serde_json::{Value, json};
use terrace::config::RedisSettings;

use super::rewriting::Rewriting;
use crate::support::Server;
use crate::support::fixture::{ITEMS, item};
use crate::support::process::{Process, command};
use crate::support::redis::{self, PrivateRedis};
use crate::support::tls::Authority;

fn using(settings: RedisSettings) -> Server {
    Server::fixture_with(|all| all.redis = settings)
}

fn at(url: &str) -> RedisSettings {
    RedisSettings { url: url.to_owned(), ..RedisSettings::default() }
}

async fn redis_of(server: &Server) -> Value {
    let health = server.get("/health").await.expect(200);
    assert_eq!(health["status"], "healthy", "{health}");
    health["redis"].clone()
}

/// The state and, in the reason, this text.
async fn says(server: &Server, status: &str, reason: &str) {
    let told = async || {
        let redis = redis_of(server).await;
        redis["status"] == status && redis["reason"].as_str().unwrap_or_default().contains(reason)
    };
    server.eventually(&format!("{status}: {reason}"), told).await;
}

/// Writes are taken, and every read after one sees it.
async fn goes_on(server: &Server) {
    let sku = uuid::Uuid::now_v7().simple().to_string();
    let path = format!("{ITEMS}/{sku}");
    server.create_item(item(&sku, "a")).await;
    for name in ["one", "two"] {
        server.patch(&path, &json!({"name": name})).await.expect(200);
        for _ in 0..2 {
            assert_eq!(server.get(&path).await.expect(200)["name"], name);
            let list = server.get(&format!("{ITEMS}?category=a&limit=100")).await.expect(200);
            let names: Vec<&Value> = list["data"].as_array().unwrap().iter().filter(|item| item["sku"] == sku.as_str()).collect();
            assert_eq!(names.iter().map(|item| &item["name"]).collect::<Vec<_>>(), [name]);
        }
    }
    assert_eq!(server.delete(&path).await.status, 204);
    assert_eq!(server.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_server_without_the_setting_says_that_it_has_no_second_tier() {
    let server = Server::fixture();
    assert_eq!(redis_of(&server).await, json!({"status": "off"}));
}

#[tokio::test]
async fn a_server_with_redis_serves_and_says_so() {
    let server = Server::fixture_with(redis::join);
    says(&server, "up", "").await;
    goes_on(&server).await;
    assert!(server.get("/metrics").await.text.contains("terrace_redis_up 1\n"));
}

#[tokio::test]
async fn an_unreachable_host_at_start_holds_up_nothing() {
    let mut private = PrivateRedis::planned().prepare();
    let server = using(at(&private.url()));
    says(&server, "down", "No Redis answers at the address in redis.url.").await;
    assert_eq!(server.get("/health/ready").await.status, 200);
    goes_on(&server).await;
    private.start_again();
    says(&server, "up", "").await;
    goes_on(&server).await;
}

#[tokio::test]
async fn a_wrong_password_holds_up_nothing() {
    let private = PrivateRedis::planned().password("the-secret").start();
    let server = using(at(&private.url().replace("the-secret", "another-secret")));
    says(&server, "down", "the password of redis.url").await;
    goes_on(&server).await;
    private.change_password("another-secret");
    says(&server, "up", "").await;
    goes_on(&server).await;
}

#[tokio::test]
async fn a_bad_certificate_holds_up_nothing() {
    let authority = Authority::new();
    let private = PrivateRedis::planned().tls(&authority.issue("other.example")).start();
    let server = using(RedisSettings { ca_file: authority.file(), ..at(&private.url()) });
    let stranger = using(RedisSettings { ca_file: Authority::new().file(), ..at(&private.url()) });
    says(&stranger, "down", "redis.ca_file").await;
    says(&server, "down", "another host name than the one in redis.url").await;
    goes_on(&server).await;
    private.install(&authority.issue("127.0.0.1"));
    says(&server, "up", "").await;
    goes_on(&server).await;
}

#[tokio::test]
async fn a_full_redis_holds_up_nothing() {
    let private = PrivateRedis::planned().option("maxmemory-policy", "noeviction").start();
    let server = using(at(&private.url()));
    says(&server, "up", "").await;
    goes_on(&server).await;
    private.configure(&[("maxmemory", "1mb")]);
    goes_on(&server).await;
    private.configure(&[("maxmemory", "256mb")]);
    goes_on(&server).await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_up_nothing_for_long() {
    let private = PrivateRedis::start();
    let server = using(at(&private.url()));
    says(&server, "up", "").await;
    goes_on(&server).await;
    private.pause();
    goes_on(&server).await;
    private.resume();
    says(&server, "up", "").await;
    goes_on(&server).await;
}

#[tokio::test]
async fn a_replica_and_its_promotion_hold_up_nothing() {
    let (mut master, replica) = (PrivateRedis::start(), PrivateRedis::start());
    replica.follow(&master);
    let server = using(at(&replica.url()));
    says(&server, "down", "redis.url must name the master").await;
    goes_on(&server).await;
    master.stop();
    replica.promote();
    says(&server, "up", "").await;
    goes_on(&server).await;
}

#[tokio::test]
async fn another_major_version_holds_up_nothing() {
    let private = PrivateRedis::start();
    let info: String = private.command(&["INFO", "server"]);
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    let (major, rest) = version.split_at(1);
    assert_ne!(major, "4");
    let proxy = Rewriting::start(private.port(), version, &format!("4{rest}"));
    let server = using(at(&private.url_at("127.0.0.1", proxy.port())));
    says(&server, "down", "Terrace needs 6.2 or later").await;
    goes_on(&server).await;
    proxy.rewrite_to(version);
    says(&server, "up", "").await;
    goes_on(&server).await;
}

#[tokio::test]
async fn a_redis_that_starts_again_empty_holds_up_nothing() {
    let mut private = PrivateRedis::start();
    let server = using(at(&private.url()));
    says(&server, "up", "").await;
    goes_on(&server).await;
    private.stop();
    goes_on(&server).await;
    private.start_again();
    says(&server, "up", "").await;
    goes_on(&server).await;
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
