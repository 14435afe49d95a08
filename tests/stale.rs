//! The database is away: what is cached goes on, what has expired says so, the rest is refused politely, and nothing
//! needs a restart afterwards.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use terrace::config::Settings;

use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::item;
use crate::support::postgres::{PrivatePostgres, Stop};
use crate::support::schema::Tested;

/// A server whose database can be taken away. The database outlives it.
pub struct Mortal {
    pub server: Server,
    home: Home,
}

enum Home {
    /// An outage is a file, and its log, whose contents are rubbish until they are given back.
    File { database: Database, kept: Vec<(PathBuf, Vec<u8>)> },
    /// An outage is a server that is not there.
    Postgres(PrivatePostgres),
}

impl Mortal {
    pub fn start(from: &str, to: &str, change: impl FnOnce(&mut Settings)) -> Self {
        match Tested::now() {
            Tested::Sqlite => {
                let server = Server::fixture_edited(from, to, change);
                let home = Home::File { database: Database::of(&server), kept: Vec::new() };
                Self { server, home }
            }
            Tested::Postgres => {
                let postgres = PrivatePostgres::start();
                let server = Server::fixture_edited(from, to, |settings| {
                    settings.database.url = postgres.url();
                    change(settings);
                });
                Self { server, home: Home::Postgres(postgres) }
            }
        }
    }

    fn lasting() -> Self {
        Self::start("", "", |settings| settings.cache.reconcile_interval = Duration::from_secs(3600))
    }

    /// Reconciling and announcements play no part here; times do.
    fn short_lived() -> Self {
        Self::start("_ttl = \"10m\"", "_ttl = \"300ms\"", |settings| {
            settings.database.acquire_timeout = Duration::from_millis(300);
            settings.cache.reconcile_interval = Duration::from_secs(3600);
        })
    }

    pub fn begin_outage(&mut self) {
        match &mut self.home {
            Home::File { database, kept } => {
                forget_pages(database);
                let path = self.server.settings.database.url.strip_prefix("sqlite://").unwrap();
                let files = ["", "-wal"].map(|suffix| PathBuf::from(format!("{path}{suffix}")));
                *kept = files.map(|file| (file.clone(), fs::read(&file).unwrap())).into();
                for (file, bytes) in kept {
                    overwrite(file, &vec![0xA5; bytes.len()]);
                }
            }
            Home::Postgres(postgres) => postgres.stop(Stop::Immediate),
        }
    }

    pub fn end_outage(&mut self) {
        match &mut self.home {
            Home::File { database, kept } => {
                for (file, bytes) in kept {
                    overwrite(file, bytes);
                }
                forget_pages(database);
            }
            Home::Postgres(postgres) => postgres.start_again(),
        }
    }
}

/// Makes every other connection forget the pages that it holds in memory, as any write does. (An update that changes
/// nothing would not: SQLite leaves equal cells alone.)
fn forget_pages(database: &mut Database) {
    database.execute("CREATE TABLE IF NOT EXISTS rubbish (n); INSERT INTO rubbish VALUES (1)");
}

/// In place: SQLite's connections have the file open.
fn overwrite(file: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all(bytes).unwrap();
}

async fn expired(server: &Server, path: &str) {
    server
        .eventually(&format!("the end of {path}"), async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.get(path).await.cache() == "STALE"
        })
        .await;
}

#[tokio::test]
async fn hits_go_on_while_the_database_is_away() {
    let mut mortal = Mortal::lasting();
    let server = &mortal.server;
    server.create_items([item("A", "a")]).await;
    let paths = ["/api/items/A", "/api/items?category=a", "/api/items/_stats?by=tier", "/api/totals"];
    for path in paths {
        server.get(path).await.expect(200);
    }
    mortal.begin_outage();
    let server = &mortal.server;
    for path in paths {
        let reply = server.get(path).await;
        reply.expect(200);
        assert_eq!(reply.cache(), "HIT", "{path}");
    }
    mortal.end_outage();
}

#[tokio::test]
async fn an_expired_entry_stands_in_and_says_that_it_is_stale() {
    let mut mortal = Mortal::short_lived();
    let server = &mortal.server;
    server.create_items([item("A", "a")]).await;
    let paths = ["/api/items/A", "/api/items?category=a", "/api/items/_stats?by=tier"];
    let mut fresh = Vec::new();
    for path in paths {
        fresh.push(server.get(path).await);
    }
    server.get("/api/items/none").await.problem(404, "not_found");
    mortal.begin_outage();
    let server = &mortal.server;
    for (path, fresh) in paths.into_iter().zip(fresh) {
        expired(server, path).await;
        let reply = server.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.cache(), &reply.text), (200, "STALE", &fresh.text), "{path}");
        assert_eq!(reply.header("etag"), fresh.header("etag"), "{path}");
        let status = reply.header("cache-status");
        assert!(status.starts_with("terrace; hit; ttl=") && status.ends_with("; detail=l1"), "{status}");
        let ttl: i64 = status.trim_start_matches("terrace; hit; ttl=").split(';').next().unwrap().parse().unwrap();
        assert!(ttl <= 0, "RFC 9211, 2.5: {status}");
        let known = server.get_with(path, &[("if-none-match", fresh.header("etag"))]).await;
        assert_eq!((known.status.as_u16(), known.cache()), (304, "STALE"), "{path}");
    }
    expired(server, "/api/items/none").await;
    let missing = server.get("/api/items/none").await;
    assert_eq!((missing.status.as_u16(), missing.cache()), (404, "STALE"));
    mortal.end_outage();
    let server = &mortal.server;
    for path in paths {
        server.eventually(path, async || server.get(path).await.cache() == "MISS").await;
    }
}

#[tokio::test]
async fn what_is_not_cached_is_a_503_until_the_database_is_back() {
    let mut mortal = Mortal::short_lived();
    let server = &mortal.server;
    server.create_items([item("A", "a"), item("B", "b")]).await;
    mortal.begin_outage();
    let server = &mortal.server;
    for path in ["/api/items/A", "/api/items?category=b", "/api/items/_stats?by=tier", "/api/totals"] {
        let reply = server.get(path).await;
        let problem = reply.problem(503, "unavailable");
        assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1, "{path}");
        assert!(!problem["detail"].as_str().unwrap().contains(&server.settings.database.url), "{problem}");
    }
    let write = server.post("/api/items", &item("C", "c")).await;
    write.problem(503, "unavailable");
    let batch = server.post("/api/items/_batch", &json!({"operations": [{"op": "create", "data": item("D", "c")}]})).await;
    batch.problem(503, "unavailable");
    let health = server.get("/health").await;
    let answer = health.expect(503);
    assert_eq!((&answer["status"], &answer["database"]["status"]), (&json!("unhealthy"), &json!("down")));
    assert_eq!(server.get("/health/ready").await.expect(503)["status"], "not ready");
    assert_eq!(server.get("/health/live").await.expect(200)["status"], "alive");

    mortal.end_outage();
    let server = &mortal.server;
    server.eventually("readiness", async || server.get("/health/ready").await.status == 200).await;
    assert_eq!(server.get("/health").await.expect(200)["status"], "healthy");
    server.get("/api/items/A").await.expect(200);
    assert_eq!(server.get("/api/items").await.json()["pagination"]["total"], 2, "what was refused was not written");
    server.create_item(item("C", "c")).await;
}

#[tokio::test]
async fn a_stale_entry_that_a_write_has_outdated_is_not_served() {
    let mut mortal = Mortal::short_lived();
    let server = &mortal.server;
    server.create_items([item("A", "a")]).await;
    server.get("/api/items/A").await.expect(200);
    server.patch("/api/items/A", &json!({"tier": 1})).await.expect(200);
    mortal.begin_outage();
    let server = &mortal.server;
    server.get("/api/items/A").await.problem(503, "unavailable");
    mortal.end_outage();
    let server = &mortal.server;
    server.eventually("the new record", async || server.get("/api/items/A").await.status == 200).await;
    assert_eq!(server.get("/api/items/A").await.json()["tier"], 1);
}

#[tokio::test]
async fn a_write_that_waits_too_long_for_the_lock_is_a_503_and_reads_go_on() {
    let mortal = Mortal::short_lived();
    let server = &mortal.server;
    server.create_items([item("A", "a")]).await;
    let mut database = Database::of(server);
    database.hold_writers();
    let reply = server.patch("/api/items/A", &json!({"tier": 1})).await;
    reply.problem(503, "unavailable");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    server.get("/api/items/A").await.expect(200);
    assert_eq!(server.get("/health").await.status, 200);
    database.let_writers_go();
    server.patch("/api/items/A", &json!({"tier": 2})).await.expect(200);
    assert_eq!(server.get("/api/items/A").await.json()["tier"], 2);
}
