//! A revocation that meets a look-up in flight.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use terrace::app::App;
use terrace::auth::KeyRequest;
use terrace::model::{Caller, Role};

use super::keys::prefix;
use crate::support::process::Process;
use crate::support::{DEADLINE, settings};

const ME: &str = "/api/v1/auth/me";

/// The answer of a server to who asks with this credential.
async fn status(server: &Process, authorization: &str) -> u16 {
    let client = reqwest::Client::new();
    let request = client.get(format!("http://{}{ME}", server.address)).header("authorization", authorization);
    request.timeout(DEADLINE).send().await.unwrap().status().as_u16()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a loader read before a revocation is not served after it, however late it comes.
#[tokio::test]
async fn a_key_that_is_revoked_while_it_is_looked_up_is_not_kept() {
    assert_eq!(after_the_race(&[]).await, 401);
}

/// The same race is lost if the guards are captured when the load has ended.
#[tokio::test]
async fn without_the_capture_before_the_load_a_revoked_key_is_kept() {
    assert_eq!(after_the_race(&["capture"]).await, 200);
}

/// The status of the request after one that was looked up while its key was revoked, with some parts of the protocol switched off.
async fn after_the_race(switched_off: &[&str]) -> u16 {
    use secrecy::ExposeSecret as _;
    let (directory, faults) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut settings = settings(directory.path());
    crate::support::fixture::declare(&mut settings, directory.path());
    let (url, orders) = (settings.database.url.clone(), faults.path().display().to_string());
    let server = Process::serve(&url, &[("FAULTS_DIR", &orders), ("TERRACE_CACHE__RECONCILE_INTERVAL", "20ms")]);
    server.answers("/health/ready", 200).await;
    let app = App::open(settings).await.unwrap();
    let key = async || {
        let created = app.accounts().create_key(KeyRequest::new("k", Role::Viewer), &Caller::OPERATOR).await.unwrap();
        format!("Bearer {}", created.text.expose_secret())
    };
    switched_off.iter().for_each(|part| std::fs::write(faults.path().join(part), "").unwrap());
    let (slow, witness) = (key().await, key().await);
    assert_eq!(status(&server, &witness).await, 200);
    std::fs::write(faults.path().join("before_fill"), "pause 2000").unwrap();
    let asked = status(&server, &slow);
    let meanwhile = async {
        let loads = "terrace_cache_load_duration_seconds_count{collection=\"terrace_keys\",kind=\"principal\"} 2";
        until("it has been read", async || server.get("/metrics").await.text.contains(loads)).await;
        app.accounts().revoke_key(prefix(&slow), &Caller::OPERATOR).await.unwrap();
        app.accounts().revoke_key(prefix(&witness), &Caller::OPERATOR).await.unwrap();
        // Who has applied this has applied what was before.
        until("the revocations are applied", async || status(&server, &witness).await == 401).await;
    };
    let (in_flight, ()) = tokio::join!(asked, meanwhile);
    assert_eq!(in_flight, 200, "nobody was in flight");
    std::fs::remove_file(faults.path().join("before_fill")).unwrap();
    status(&server, &slow).await
}
