//! What counts against which quota, and how answers say so.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use terrace::auth::KeyRequest;
use terrace::model::Role;

use super::{left, quota, read_as, refused, trust_everybody};
use crate::observability::{metrics, value};
use crate::support::accounts::PASSWORD;
use crate::support::fixture::{ITEMS, NOTES, SHELVES, TOTALS, declare_edited, item};
use crate::support::{Server, redis};

const POLICY: &str = "\"api\";q=5;w=3600";

#[tokio::test]
async fn hits_304s_misses_and_failures_count_alike_and_say_what_is_left() {
    let server = Server::fixture_with(|settings| settings.limits.api = quota("5/1h"));
    let created = server.create_item(item("A", "a")).await;
    assert_eq!(left(&created, POLICY), 4);
    let path = format!("{ITEMS}/A");
    assert_eq!(left(&server.get(&path).await, POLICY), 3);
    let hit = server.get(&path).await;
    assert_eq!((hit.cache(), left(&hit, POLICY)), ("HIT", 2));
    let known = server.get_with(&path, &[("if-none-match", "*")]).await;
    assert_eq!((known.status.as_u16(), left(&known, POLICY)), (304, 1));
    let missing = server.get(&format!("{ITEMS}/none")).await;
    assert_eq!((missing.status.as_u16(), left(&missing, POLICY)), (404, 0));
    assert_eq!(missing.header("ratelimit"), "\"api\";r=0;t=3600");
    let refusal = server.get(&path).await;
    assert!((Duration::from_secs(700)..=Duration::from_secs(720)).contains(&refused(&refusal)), "{:?}", refusal.headers);
    assert_eq!(left(&refusal, POLICY), 0);
    let text = metrics(&server).await;
    assert_eq!(value(&text, "terrace_quota_refusals_total", &["quota=\"api\""]), 1.0);
    assert_eq!(value(&text, "terrace_quota_local", &[]), 0.0, "there is nobody to count together with");
}

#[tokio::test]
async fn what_operators_and_browsers_ask_first_does_not_count() {
    let server = Server::fixture_with(|settings| settings.limits.api = quota("1/1h"));
    for path in ["/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/nothing"] {
        for _ in 0..2 {
            let reply = server.get(path).await;
            assert_ne!(reply.status, 429, "{path}");
            assert_eq!((reply.header("ratelimit"), reply.header("ratelimit-policy")), ("", ""), "{path}");
        }
    }
    let preflight = server.send_with(Method::OPTIONS, ITEMS, &[], None).await;
    assert_eq!((preflight.status.as_u16(), preflight.header("ratelimit")), (204, ""));
    assert_eq!(server.get(ITEMS).await.status, 200);
    refused(&server.get(TOTALS).await);
}

#[tokio::test]
async fn without_a_quota_nothing_is_said() {
    let server = Server::fixture();
    let reply = server.get(ITEMS).await;
    assert_eq!((reply.header("ratelimit"), reply.header("ratelimit-policy")), ("", ""));
}

#[tokio::test]
async fn a_collection_has_a_class_or_quotas_of_its_own() {
    let directory = tempfile::TempDir::new().unwrap();
    let own = "name = \"A\"\ndescription = \"B\"\n\n[limits]\nread = \"3/1h\"\nwrite = \"\"";
    let class = "indexes = [\"room\"]\n\n[limits]\nclass = \"export\"";
    let dir = declare_edited(directory.path(), &[("name = \"A\"\ndescription = \"B\"", own), ("indexes = [\"room\"]", class)]);
    let server = Server::fixture_with(|settings| {
        settings.collections.dir = dir;
        (settings.limits.api, settings.limits.export) = (quota("2/1h"), quota("1/1h"));
    });
    for number in 0..4 {
        let created = server.create_item(item(&format!("I{number}"), "a")).await;
        assert_eq!(created.header("ratelimit"), "", "writes of it are not limited");
    }
    for number in 0..3 {
        assert_eq!(left(&server.get(&format!("{ITEMS}/I{number}")).await, "\"items:read\";q=3;w=3600"), 2 - number);
    }
    refused(&server.get(ITEMS).await);
    assert_eq!(left(&server.post(SHELVES, &json!({"id": "s"})).await, "\"export\";q=1;w=3600"), 0);
    refused(&server.get(SHELVES).await);
    assert_eq!(left(&server.get(NOTES).await, "\"api\";q=2;w=3600"), 1);
    assert_eq!(left(&server.get(TOTALS).await, "\"api\";q=2;w=3600"), 0);
    refused(&server.post(NOTES, &json!({"text": "t"})).await);
}

#[tokio::test]
async fn each_address_has_a_quota_and_a_network_of_version_6_has_one() {
    let server = Server::fixture_with(|settings| {
        trust_everybody(settings);
        settings.limits.api = quota("1/1h");
    });
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"] {
        assert_eq!(read_as(&server, client, ITEMS).await.status, 200, "{client}");
    }
    for client in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::ffff", "[2001:db8:0:1::2]:80"] {
        refused(&read_as(&server, client, ITEMS).await);
    }
}

#[tokio::test]
async fn names_in_redis_tell_nobody_who_asks_and_go_by_themselves() {
    let private = redis::PrivateRedis::start();
    let server = Server::fixture_with(|settings| {
        settings.redis.url = private.url();
        settings.cache.enabled = false;
        settings.limits.api = quota("40/1s");
        trust_everybody(settings);
    });
    let buckets = || {
        let keys: Vec<String> = private.command(&["KEYS", "*:q2:*"]);
        keys
    };
    server
        .eventually("the quotas are shared", async || {
            read_as(&server, "192.0.2.77", ITEMS).await;
            !buckets().is_empty()
        })
        .await;
    for key in private.command::<Vec<String>>(&["KEYS", "*"]) {
        let value = private.command::<redis_value::Text>(&["DUMP", &key]).0;
        assert!(!key.contains("192.0.2.77") && !value.contains("192.0.2.77"), "{key}");
    }
    server.eventually("the bucket has gone", async || buckets().is_empty()).await;
}

/// What Redis answers, as text.
mod redis_value {
    pub struct Text(pub String);

    impl redis::FromRedisValue for Text {
        fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
            Ok(Self(format!("{value:?}")))
        }
    }
}

#[tokio::test]
async fn logins_are_limited_by_address_whoever_asks() {
    let server = Server::fixture_with(|settings| {
        trust_everybody(settings);
        settings.limits.auth = quota("3/1h");
        settings.limits.api = quota("50/1h");
    });
    server.add_user("somebody@example.com", Role::Viewer).await;
    let key = server.key_for(Role::Viewer, &[]).await;
    let login = async |client: &str, password: &str| {
        let body = json!({"email": "somebody@example.com", "password": password});
        let headers = [("x-forwarded-for", client), ("authorization", key.as_str())];
        server.send_with(Method::POST, "/api/v1/auth/login", &headers, Some(&body)).await
    };
    for left_over in [2, 1] {
        let reply = login("192.0.2.1", "a wrong password, too").await;
        reply.problem(401, "invalid_credentials");
        assert_eq!(left(&reply, "\"auth\";q=3;w=3600"), left_over);
    }
    let session = login("192.0.2.1", PASSWORD).await.expect(200);
    assert!(refused(&login("192.0.2.1", PASSWORD).await) <= Duration::from_secs(1200));
    login("192.0.2.2", PASSWORD).await.expect(200);
    // Who has a session keeps it: renewing it is no login.
    let refreshed = server.post("/api/v1/auth/refresh", &json!({"refresh_token": session["refresh_token"]})).await;
    assert_eq!(left(&refreshed, "\"api\";q=50;w=3600"), 49, "{}", refreshed.text);
}

#[tokio::test]
async fn a_caller_has_one_quota_wherever_it_asks_from_and_a_key_may_have_its_own() {
    let server = Server::fixture_with(|settings| {
        trust_everybody(settings);
        settings.limits.api = quota("2/1h");
    });
    let key = server.key_for(Role::Viewer, &[]).await;
    let own = server.key(KeyRequest { quota: quota("4/1m"), ..KeyRequest::new("own", Role::Viewer) }).await;
    let read = async |key: &str, client: &str| {
        server.send_with(Method::GET, ITEMS, &[("authorization", key), ("x-forwarded-for", client)], None).await
    };
    assert_eq!(left(&read(&key, "192.0.2.1").await, "\"api\";q=2;w=3600"), 1);
    assert_eq!(left(&read(&key, "192.0.2.2").await, "\"api\";q=2;w=3600"), 0);
    refused(&read(&key, "192.0.2.3").await);
    assert_eq!(read_as(&server, "192.0.2.1", ITEMS).await.status, 200, "the address has not asked");
    for expected in (0..4).rev() {
        assert_eq!(left(&read(&own, "192.0.2.1").await, "\"key\";q=4;w=60"), expected);
    }
    refused(&read(&own, "192.0.2.1").await);
}

#[tokio::test]
async fn guessing_credentials_counts_against_the_address() {
    let server = Server::fixture_with(|settings| settings.limits.api = quota("3/1h"));
    for guess in ["Bearer nothing", "Bearer trk_aaaaaaaa_bbbbbbbb", "Basic YTpi"] {
        let reply = server.get_with(ITEMS, &[("authorization", guess)]).await;
        assert_eq!(reply.status, 401, "{}", reply.text);
        assert!(reply.header("ratelimit").starts_with("\"api\";r="), "{:?}", reply.headers);
    }
    refused(&server.get_with(ITEMS, &[("authorization", "Bearer nothing")]).await);
    refused(&server.get(ITEMS).await);
}
