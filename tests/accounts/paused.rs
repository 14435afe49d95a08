//! An instance that was stopped for a while and goes on: what it knew of callers may have ended meanwhile, and nobody has told it yet.

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tempfile::TempDir;
use terrace::app::App;
use terrace::auth::KeyRequest;
use terrace::model::{Caller, Role};

use crate::support::process::Process;
use crate::support::schema::Schema;
use crate::support::{DEADLINE, fixture, redis, settings_on};

/// After that no instance may let a caller in who was refused elsewhere, whatever has happened to it.
const BOUND: Duration = Duration::from_millis(2_500);

#[derive(Clone, Copy, Debug)]
enum Bus {
    None,
    Redis,
}

async fn is_refused_after_a_pause(bus: Bus) {
    let (schema, directory) = (Schema::create(), TempDir::new().unwrap());
    let mut settings = settings_on(schema.url());
    fixture::declare(&mut settings, directory.path());
    if let Bus::Redis = bus {
        redis::join(&mut settings);
    }
    let (url, prefix) = (settings.redis.url.clone(), settings.redis.prefix.clone());
    let app = App::open(settings).await.unwrap();
    app.migrate().await.unwrap();
    let created = app.accounts().create_key(KeyRequest::new("robot", Role::Viewer), &Caller::OPERATOR).await.unwrap();
    let environment = [("TERRACE_REDIS__URL", url.as_str()), ("TERRACE_REDIS__PREFIX", prefix.as_str())];
    let process = Process::serve(&schema.url(), &environment);
    process.answers("/health/ready", 200).await;
    let key = created.text.expose_secret();
    let ask = async || process.send_as(Method::GET, "/api/v1/auth/me", &json!({}), Some(key)).await.status.as_u16();
    let hit = "terrace_cache_requests_total{collection=\"terrace_keys\",kind=\"principal\",outcome=\"hit\",tier=\"l1\"} ";
    // What is tested is what it has in memory.
    let deadline = std::time::Instant::now() + DEADLINE;
    let hits = async || {
        let text = process.get("/metrics").await.text;
        text.lines().find_map(|line| line.strip_prefix(hit)).is_some_and(|hits| hits != "0")
    };
    while !hits().await {
        assert!(ask().await == 200 && std::time::Instant::now() < deadline, "it does not become known");
    }
    process.signal("STOP");
    app.accounts().revoke_key(&created.prefix, &Caller::OPERATOR).await.unwrap();
    tokio::time::sleep(BOUND).await;
    // These wait for it, and are the first that it sees: before any of its tasks has looked around.
    let asked = futures_util::future::join_all((0..8).map(|_| ask()));
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        process.signal("CONT");
    };
    let (statuses, ()) = tokio::join!(asked, goes_on);
    assert!(statuses.iter().all(|status| *status == 401), "{bus:?}: {statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_paused_lets_nobody_in_who_was_refused_meanwhile() {
    for bus in [Bus::None, Bus::Redis] {
        is_refused_after_a_pause(bus).await;
    }
}
