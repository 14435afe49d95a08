//! What is known of callers on other servers, and while servers are away.

use std::time::Duration;

use terrace::auth::{KeyRequest, UserState};
use terrace::model::{Caller, Role};

use super::keys::prefix;
use crate::support::database::Database;
use crate::support::{Server, redis};

const ME: &str = "/api/v1/auth/me";
const EMAIL: &str = "ada@example.org";

/// Rounds over the log come so seldom that only the bus can tell of a change in time.
fn joined() -> [Server; 3] {
    let first = Server::fixture_with(|settings| {
        settings.cache.reconcile_interval = Duration::from_secs(60);
        redis::join(settings);
    });
    let others = [first.beside(|_| {}), first.beside(|_| {})];
    let [second, third] = others;
    [first, second, third]
}

#[tokio::test]
async fn what_ends_on_one_server_has_ended_on_all_that_are_on_the_bus() {
    let servers = joined();
    for server in &servers {
        for gauge in ["terrace_bus_up", "terrace_cache_second_tier_open"] {
            let is_up = async || server.get("/metrics").await.text.contains(&format!("{gauge} 1"));
            server.eventually(gauge, is_up).await;
        }
    }
    let [first, second, third] = &servers;
    first.add_user(EMAIL, Role::Viewer).await;
    let key = first.key(KeyRequest { user: Some(EMAIL.to_owned()), ..KeyRequest::new("hers", Role::Viewer) }).await;
    let lone = first.key_for(Role::Viewer, &[]).await;
    let token = second.token(EMAIL).await;
    for server in &servers {
        for credential in [&key, &lone, &token] {
            server.get_as(credential, ME).await.expect(200);
        }
    }
    // The command beside them is on the bus as well.
    let app = third.app().await;
    app.accounts().revoke_key(prefix(&lone), &Caller::OPERATOR).await.unwrap();
    app.accounts().set_user_state(EMAIL, UserState::Disabled, &Caller::OPERATOR).await.unwrap();
    for server in &servers {
        for credential in [&key, &lone, &token] {
            server.eventually("it is refused", async || server.get_as(credential, ME).await.status == 401).await;
        }
    }
}

#[tokio::test]
async fn a_principal_that_another_sealed_is_not_taken_from_the_second_tier() {
    let private = redis::PrivateRedis::start();
    let first = Server::fixture_with(|settings| settings.redis.url = private.url());
    let second = first.beside(|_| {});
    Database::of(&first).execute("UPDATE installation SET value = 'another' WHERE name = 'secret'");
    let stranger = first.beside(|_| {});
    // All of them before anything is kept: who comes later may have everything given up that is in the second tier.
    for server in [&first, &second, &stranger] {
        for gauge in ["terrace_bus_up 1", "terrace_cache_trusted 1", "terrace_cache_second_tier_open 1"] {
            server.eventually(gauge, async || server.get("/metrics").await.text.contains(gauge)).await;
        }
    }
    let key = first.key_for(Role::Viewer, &[]).await;
    first.get_as(&key, ME).await.expect(200);
    let counted = async |server: &Server, series: &str| server.get("/metrics").await.text.contains(series);
    let filled = "terrace_cache_fills_total{collection=\"terrace_keys\",kind=\"principal\",outcome=\"stored\"} 1";
    first.eventually("it is in the second tier", async || counted(&first, filled).await).await;
    let hit = "terrace_cache_requests_total{collection=\"terrace_keys\",kind=\"principal\",outcome=\"hit\",tier=\"l2\"} 1";
    let loaded = "terrace_cache_load_duration_seconds_count{collection=\"terrace_keys\",kind=\"principal\"} 1";
    // One that has the same secret takes it as it is.
    second.get_as(&key, ME).await.expect(200);
    assert!(counted(&second, hit).await && !counted(&second, loaded).await);
    stranger.get_as(&key, ME).await.expect(200);
    assert!(counted(&stranger, hit).await && counted(&stranger, loaded).await);
}

#[tokio::test]
async fn nothing_of_a_credential_is_in_redis() {
    let private = redis::PrivateRedis::start();
    let server = Server::fixture_with(|settings| settings.redis.url = private.url());
    server
        .eventually("the second tier is open", async || {
            server.get("/metrics").await.text.contains("terrace_cache_second_tier_open 1")
        })
        .await;
    server.add_user(EMAIL, Role::Viewer).await;
    let (key, token) = (server.key_for(Role::Viewer, &[]).await, server.token(EMAIL).await);
    for credential in [&key, &token] {
        server.get_as(credential, ME).await.expect(200);
    }
    let is_filled = async || {
        let text = server.get("/metrics").await.text;
        ["terrace_keys", "terrace_sessions"].iter().all(|scope| {
            let series = format!("terrace_cache_fills_total{{collection=\"{scope}\",kind=\"principal\",outcome=\"stored\"}} 1");
            text.contains(&series)
        })
    };
    server.eventually("both are in the second tier", is_filled).await;
    let names: Vec<String> = private.command(&["KEYS", "*"]);
    // The names of the instances that share quotas are no string, and no credential.
    let names: Vec<String> = names.into_iter().filter(|name| !name.ends_with(":q-instances")).collect();
    let values = names.iter().map(|name| private.command::<Vec<u8>>(&["GET", name]));
    let values: Vec<String> = values.map(|value| String::from_utf8_lossy(&value).into_owned()).collect();
    let dump = format!("{names:?} {values:?}").replace('\\', "");
    assert!(dump.contains("\"role\":\"viewer\""), "nothing was found");
    let secret = key.split('_').nth(2).unwrap();
    let signature = token.rsplit('.').next().unwrap();
    for hidden in [secret, signature, &key[7..], &token[7..], EMAIL] {
        assert!(!dump.contains(hidden), "{hidden}");
    }
}
