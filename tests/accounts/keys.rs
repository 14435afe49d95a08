//! API keys: what they are taken for, how they end, and what is told of them.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use terrace::auth::{KeyRequest, UserState};
use terrace::model::{Caller, Role};

use crate::support::accounts::PASSWORD;
use crate::support::{Reply, Server};

const ME: &str = "/api/v1/auth/me";

/// The prefix of the key in an `Authorization` field.
pub fn prefix(authorization: &str) -> &str {
    authorization.split('_').nth(1).unwrap()
}

#[tokio::test]
async fn a_key_is_its_role_its_scopes_and_its_quota() {
    let server = Server::fixture();
    let request = KeyRequest {
        scopes: Some(vec!["items:read".parse().unwrap(), "*:write".parse().unwrap()]),
        quota: Some("10/1m".parse().unwrap()),
        ..KeyRequest::new("robot", Role::Editor)
    };
    let key = server.key(request).await;
    let actor = format!("key:{}", prefix(&key));
    for _ in 0..2 {
        let reply = server.get_as(&key, ME).await;
        assert_eq!(reply.header("cache-control"), "no-store");
        let expected = json!({
            "actor": actor, "subject": actor, "role": "editor", "scopes": ["items:read", "*:write"], "quota": "10/1m",
        });
        assert_eq!(reply.expect(200), expected);
    }
    server.get(ME).await.problem(401, "unauthenticated");
    let made = server.send_as(&key, Method::POST, "/api/shelves", Some(&json!({"id": "s"}))).await;
    assert_eq!((made.status.as_u16(), made.text.as_str()), (201, ""), "it may write shelves and not read them");
    let changes =
        server.app().await.store().copy_changes(0, terrace::store::BatchLimit { rows: 100, size_bytes: 1 << 20 }).await.unwrap();
    let written = changes.iter().find(|change| change.collection == "shelves").unwrap();
    assert_eq!(written.actor, actor, "the log does not say who wrote");
}

#[tokio::test]
async fn a_credential_that_does_not_hold_is_refused_even_where_none_is_needed() {
    let server = Server::fixture();
    let key = server.key_for(Role::Viewer, &[]).await;
    let other_secret = {
        let other = server.key_for(Role::Viewer, &[]).await;
        let text = format!("trk_{}_{}", prefix(&key), other.split('_').nth(2).unwrap());
        // Its check sum is wrong now; a right one for a wrong secret is what `auth::credential` tests.
        format!("Bearer {text}")
    };
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwic2lkIjoiYiIsInJvbGUiOiJhZG1pbiIsImlhdCI6MCwiZXhwIjo5OTk5OTk5OTk5fQ.";
    let unsigned = format!("Bearer {token}");
    let mistyped = format!("{key}a");
    for wrong in [&other_secret, &unsigned, &mistyped, "Bearer x", "Basic dTpw", "Bearer", "Bearer trk_a_b", "x"] {
        for path in ["/api/items", "/api/items/A", "/api/totals", "/admin/cache", ME] {
            let reply = server.get_as(wrong, path).await;
            assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"terrace\", error=\"invalid_token\"", "{wrong} {path}");
            let problem = reply.problem(401, "invalid_token");
            assert!(!problem.to_string().contains(prefix(&key)), "{problem}");
        }
        server.send_as(wrong, Method::POST, "/api/shelves", Some(&json!({"id": "s"}))).await.problem(401, "invalid_token");
        // Whether the server lives is told to anybody.
        assert_eq!(server.get_as(wrong, "/health").await.status, 200);
    }
    let twice = server.anonymous_request(Method::GET, "/api/items").header("authorization", &key).header("authorization", &key);
    Reply::read(twice).await.problem(400, "invalid_authorization");
    let none = server.get(ME).await;
    assert_eq!(none.header("www-authenticate"), "Bearer realm=\"terrace\"");
}

/// Nothing that is asked so depends on who asks, and no quota counts it: a key that somebody made up must not cost a look-up.
#[tokio::test]
async fn who_asks_for_the_methods_of_a_resource_is_not_looked_up() {
    let (server, other) = (Server::fixture(), Server::fixture());
    // With a check sum, and known to nobody here.
    let made_up = other.key_for(Role::Viewer, &[]).await;
    let asked = async || server.get("/metrics").await.text.lines().find(|line| line.contains("\"key_read\"")).map(str::to_owned);
    let before = asked().await;
    for path in ["/api/items", "/api/items/A", "/api/items/_batch", ME, "/admin/cache", "/metrics"] {
        for credential in [&made_up, "Bearer x"] {
            let reply = server.send_as(credential, Method::OPTIONS, path, None).await;
            assert_eq!((reply.status.as_u16(), reply.header("allow").is_empty()), (204, false), "{path}: {}", reply.text);
        }
    }
    assert_eq!(asked().await, before);
    server.get_as(&made_up, "/api/items").await.problem(401, "invalid_token");
    assert_ne!(asked().await, before, "the metric is not of this");
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_an_expired_one_by_itself() {
    let server = Server::fixture();
    let app = server.app().await;
    let key = server.key_for(Role::Viewer, &[]).await;
    server.get_as(&key, ME).await.expect(200);
    // As a command beside the server does it, which the server finds in the log.
    app.accounts().revoke_key(prefix(&key), &Caller::OPERATOR).await.unwrap();
    server.eventually("the key is refused", async || server.get_as(&key, ME).await.status == 401).await;
    app.accounts().revoke_key(prefix(&key), &Caller::OPERATOR).await.unwrap();
    assert!(app.accounts().revoke_key("nosuchprefix", &Caller::OPERATOR).await.is_err());

    let short = KeyRequest { expires_in: Some(Duration::from_millis(1_500)), ..KeyRequest::new("short", Role::Viewer) };
    let short = server.key(short).await;
    server.get_as(&short, ME).await.expect(200);
    server.eventually("the key has expired", async || server.get_as(&short, ME).await.status == 401).await;
}

#[tokio::test]
async fn a_key_acts_for_its_user_as_long_as_the_user_may_act() {
    let server = Server::fixture();
    let app = server.app().await;
    server.add_user("ada@example.org", Role::Editor).await;
    let request = || KeyRequest { user: Some("Ada@Example.org".to_owned()), ..KeyRequest::new("hers", Role::Admin) };
    let key = server.key(request()).await;
    let id = app.accounts().users().await.unwrap()[0].id.clone();
    let me = server.get_as(&key, ME).await.expect(200);
    assert_eq!((&me["subject"], &me["role"]), (&json!(id), &json!("editor")), "{me}");
    app.accounts().set_user_state("ada@example.org", UserState::Disabled, &Caller::OPERATOR).await.unwrap();
    server.eventually("the key is refused", async || server.get_as(&key, ME).await.status == 401).await;
    let refused = app.accounts().create_key(request(), &Caller::OPERATOR).await.err().unwrap();
    assert_eq!(refused.code(), "user_disabled");
    app.accounts().set_user_state("ada@example.org", UserState::Active, &Caller::OPERATOR).await.unwrap();
    server.eventually("the key is taken again", async || server.get_as(&key, ME).await.status == 200).await;
    app.accounts().set_password("ada@example.org", format!("{PASSWORD}!").into(), &Caller::OPERATOR).await.unwrap();
    server.get_as(&key, ME).await.expect(200);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_noted_and_is_no_change() {
    let server = Server::fixture();
    let app = server.app().await;
    let key = server.key_for(Role::Viewer, &[]).await;
    let used = async || {
        let keys = app.accounts().keys().await.unwrap();
        keys.into_iter().find(|stored| stored.prefix == prefix(&key)).unwrap().last_used_at
    };
    assert_eq!(used().await, None);
    let changes = || app.store().copy_contents();
    let before = changes().await.unwrap().changes;
    server.get_as(&key, ME).await.expect(200);
    server.eventually("its use is noted", async || used().await.is_some()).await;
    let noted = used().await;
    for _ in 0..5 {
        server.get_as(&key, ME).await.expect(200);
    }
    assert_eq!((used().await, changes().await.unwrap().changes), (noted, before));
}

#[tokio::test]
async fn a_principal_is_loaded_once_and_a_wrong_one_is_not_kept() {
    let server = Server::fixture();
    let key = server.key_for(Role::Viewer, &[]).await;
    let outcomes = async |outcome: &str| {
        let series = format!(
            "terrace_cache_requests_total{{collection=\"terrace_keys\",kind=\"principal\",outcome=\"{outcome}\",tier=\"l1\"}} "
        );
        let text = server.get("/metrics").await.text;
        let value = text.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value.parse::<f64>().unwrap());
        value.unwrap_or_default() as u64
    };
    for _ in 0..10 {
        server.get_as(&key, "/api/items").await.expect(200);
    }
    assert_eq!((outcomes("miss").await, outcomes("hit").await), (1, 9));
    // A key that would be one, and is not stored, is refused before it is looked up.
    let unknown = Server::fixture().key_for(Role::Viewer, &[]).await;
    for _ in 0..3 {
        server.get_as(&unknown, "/api/items").await.problem(401, "invalid_token");
    }
    assert_eq!(outcomes("miss").await, 1);
    // One that has ended is refused out of the cache.
    server.app().await.accounts().revoke_key(prefix(&key), &Caller::OPERATOR).await.unwrap();
    server.eventually("it is refused", async || server.get_as(&key, "/api/items").await.status == 401).await;
    let misses = outcomes("miss").await;
    for _ in 0..5 {
        server.get_as(&key, "/api/items").await.problem(401, "invalid_token");
    }
    assert_eq!(outcomes("miss").await, misses);
}

#[tokio::test]
async fn without_a_cache_the_database_is_asked_for_each_request() {
    let server = Server::fixture_with(|settings| settings.cache.enabled = false);
    let key = server.key_for(Role::Viewer, &[]).await;
    server.get_as(&key, ME).await.expect(200);
    server.app().await.accounts().revoke_key(prefix(&key), &Caller::OPERATOR).await.unwrap();
    server.get_as(&key, ME).await.problem(401, "invalid_token");
}
