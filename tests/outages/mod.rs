//! The bad days of a database server, each with a real server of its own that is stopped, starved or broken. They run
//! whatever database the other tests are about, and need `scripts/with-servers`.

mod another_run;
mod connecting;
mod pool;
mod running;
mod starved;
mod waiting;

use std::time::{Duration, Instant};

use crate::support::{DEADLINE, Reply, Server};

/// Refused politely: a problem with a time to come back, which names the setting and gives nothing away.
#[track_caller]
fn refused(reply: &Reply, names: &str) {
    let problem = reply.problem(503, "unavailable");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(names) && detail.contains("database."), "{names}: {detail}");
    assert!(!reply.text.contains("127.0.0.1"), "{}", reply.text);
}

/// Waits until the server is ready.
pub async fn ready(server: &Server) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let reply = server.get("/health/ready").await;
        if reply.status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "{}", reply.text);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a server that is not ready gives this reason.
async fn waits_because(server: &Server, reason: &str) {
    let told = async || {
        let reply = server.get("/health/ready").await;
        reply.status == 503 && reply.json()["reason"].as_str().is_some_and(|told| told.contains(reason))
    };
    server.eventually(reason, told).await;
}
