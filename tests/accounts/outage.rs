//! Callers while the database is away.

use std::time::Duration;

use terrace::model::Role;

use crate::support::Server;
use crate::support::postgres::{PrivatePostgres, Stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_outlive_the_database_for_as_long_as_is_said_and_no_longer() {
    let mut postgres = PrivatePostgres::start();
    let server = Server::fixture_with(|settings| {
        settings.database.url = postgres.url();
        settings.auth.stale_if_error = Duration::from_secs(3);
        settings.cache.reconcile_interval = Duration::from_millis(50);
        settings.database.acquire_timeout = Duration::from_millis(300);
    });
    let (known, unknown) = (server.key_for(Role::Viewer, &[]).await, server.key_for(Role::Viewer, &[]).await);
    server.get_as(&known, "/api/items").await.expect(200);
    postgres.stop(Stop::Immediate);
    server.get_as(&known, "/api/items").await.expect(200);
    let refused = server.get_as(&unknown, "/api/items").await;
    assert!(!refused.header("retry-after").is_empty());
    assert!(refused.problem(503, "unavailable")["detail"].as_str().unwrap().starts_with("Who is asking"));
    server.eventually("nobody can say who it is", async || server.get_as(&known, "/api/items").await.status == 503).await;
    // What is public, and asked for by nobody in particular, goes on.
    assert_eq!(server.get("/api/items").await.status, 200);
    postgres.start_again();
    for key in [&known, &unknown] {
        server.eventually("it is known again", async || server.get_as(key, "/api/items").await.status == 200).await;
    }
}
