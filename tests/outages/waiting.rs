//! A start without the database: what waits for it and what does not.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Instant;

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::refused;
use crate::support::DEADLINE;
use crate::support::fixture::{ITEMS, TOTALS, item};
use crate::support::postgres::PrivatePostgres;
use crate::support::process::{Process, command};

const PASSWORD: &str = "a-secret";

/// A place where nobody listens: below the range from which the system gives outgoing connections theirs.
fn nowhere() -> String {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
    let port = candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    format!("postgres://someone:{PASSWORD}@127.0.0.1:{port}/terrace")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_its_database_listens_and_says_what_it_waits_for() {
    let mut process = Process::serve(&nowhere(), &[]);
    process.until("the first attempt", |log| log.contains("waiting for the database"));
    assert_eq!(process.get("/health/live").await.expect(200)["status"], "alive");
    let ready = process.get("/health/ready").await.expect(503);
    let reason = "waiting for the database: No PostgreSQL answers at the address in database.url.";
    assert_eq!(ready, json!({"status": "not ready", "reason": reason}));
    let health = process.get("/health").await.expect(503);
    assert_eq!((&health["status"], &health["database"]), (&json!("unhealthy"), &json!({"status": "down", "reason": reason})));
    for path in [ITEMS, &format!("{ITEMS}?category=a"), &format!("{ITEMS}/A"), &format!("{ITEMS}/_stats"), TOTALS] {
        refused(&process.get(path).await, "database.url");
    }
    let a = item("A", "a");
    let batch = json!({"operations": [{"op": "create", "data": a}]});
    for (method, path, body) in [
        (Method::POST, ITEMS.to_owned(), &a),
        (Method::POST, format!("{ITEMS}/_batch"), &batch),
        (Method::PUT, format!("{ITEMS}/A"), &a),
        (Method::PATCH, format!("{ITEMS}/A"), &a),
        (Method::DELETE, format!("{ITEMS}/A"), &a),
    ] {
        refused(&process.send(method, &path, body).await, "database.url");
    }
    // What needs no database is there.
    assert!(process.get("/openapi.json").await.expect(200)["paths"][ITEMS].is_object());
    assert!(process.get("/metrics").await.text.contains("terrace_http_requests_total"));
    process.get("/nothing").await.problem(404, "not_found");
    process.send(Method::POST, TOTALS, &a).await.problem(405, "method_not_allowed");
    assert_eq!(process.terminate(), Some(0), "{}", process.log());
    assert!(!process.log().contains(PASSWORD) && process.told("a request was refused") == 0, "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_serves_as_soon_as_its_database_is_there() {
    let mut postgres = PrivatePostgres::planned().prepare();
    let mut process = Process::serve(&postgres.url(), &[]);
    process.until("the first attempt", |log| log.contains("waiting for the database"));
    refused(&process.get(ITEMS).await, "database.url");
    postgres.start_again();
    process.answers("/health/ready", 200).await;
    assert_eq!(process.send(Method::POST, ITEMS, &item("A", "a")).await.status, 201);
    assert_eq!(process.get(ITEMS).await.expect(200)["pagination"]["total"], 1);
    assert_eq!((process.told("the database is open"), process.told("waiting for the database")), (1, 1), "{}", process.log());
    assert_eq!(process.terminate(), Some(0), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_waits_for_another_ones_migration_ends_when_it_is_told_to() {
    let postgres = PrivatePostgres::start();
    let mut other = postgres.session();
    // What `terrace migrate` holds while it works.
    other.execute("SELECT pg_advisory_lock(hashtextextended('terrace ' || current_schema(), 0))");
    let mut process = Process::serve(&postgres.url(), &[]);
    let asking = "SELECT FROM pg_stat_activity WHERE application_name = 'terrace' AND query LIKE '%pg_try_advisory_lock%'";
    let deadline = Instant::now() + DEADLINE;
    while postgres.sql(asking).is_empty() {
        assert!(Instant::now() < deadline, "nobody asks for the lock:\n{}", process.log());
    }
    assert_eq!(process.get("/health/ready").await.expect(503)["reason"], "starting");
    process.get(ITEMS).await.problem(503, "unavailable");
    assert_eq!(process.terminate(), Some(0), "{}", process.log());
    drop(other);
    let next = Process::serve(&postgres.url(), &[]);
    next.answers("/health/ready", 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_database_hangs_ends_when_it_is_told_to() {
    let postgres = PrivatePostgres::start();
    let mut process = Process::serve(&postgres.url(), &[("TERRACE_HTTP__SHUTDOWN_TIMEOUT", "1s")]);
    process.answers("/health/ready", 200).await;
    postgres.pause();
    let address = process.address;
    let reading =
        tokio::spawn(async move { reqwest::get(format!("http://{address}{ITEMS}/A")).await.map(|reply| reply.status()) });
    let in_flight = async || process.get("/metrics").await.text.contains("terrace_http_requests_in_flight 2\n");
    let deadline = Instant::now() + DEADLINE;
    while !in_flight().await {
        assert!(Instant::now() < deadline, "the read has not begun");
    }
    assert_eq!(process.terminate(), Some(0), "{}", process.log());
    assert!(reading.await.unwrap().map_or(true, |status| status == 503), "what was not answered was cut off or refused");
}

#[test]
fn a_database_that_a_newer_version_migrated_is_refused() {
    let postgres = PrivatePostgres::start();
    let directory = TempDir::new().unwrap();
    let migrated = command(&directory, &postgres.url(), &["migrate"], &[]).output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    postgres.sql("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')");
    let mut process = Process::serve(&postgres.url(), &[]);
    assert_eq!(process.ended(), Some(1), "{}", process.log());
    let message = "error: The database that database.url names was migrated by a newer Terrace (migration 99991231000000 is";
    process.until("the message", |log| log.contains(message));
    assert_eq!(process.told("waiting"), 0, "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_to_wait_is_told_once_and_again_when_it_changes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://someone:{PASSWORD}@127.0.0.1:{}/terrace", listener.local_addr().unwrap().port());
    // Without others beside it, each connection is an attempt.
    let process = Process::serve(&url, &[("TERRACE_DATABASE__MIN_CONNECTIONS", "0")]);
    // No PostgreSQL: it says something else and ends.
    for _ in 0..4 {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"220 welcome\r\n").unwrap();
    }
    drop(listener);
    process.until("the other reason", |log| log.contains("No PostgreSQL answers"));
    let log = process.log();
    let told: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once("waiting for the database")?.1)).collect();
    // An attempt that was on its way when the listener closed may have a reason of its own.
    assert!((2..4).contains(&told.len()), "{log}");
    assert!(told.iter().enumerate().all(|(at, reason)| !told[..at].contains(reason)), "{log}");
}

#[test]
fn what_waiting_cannot_mend_ends_the_start_with_its_message() {
    let directory = TempDir::new().unwrap();
    let url = nowhere();
    let ca_file = [("TERRACE_DATABASE__CA_FILE", "nothing.pem")];
    for (number, (url, settings, names)) in [
        (format!("{url}?sslmode=perhaps"), &[][..], "database.url"),
        (url.replace("@127.0.0.1:", "@127.0.0.1:x"), &[], "database.url"),
        (format!("{url}?sslmode=require"), &ca_file, "database.ca_file"),
    ]
    .into_iter()
    .enumerate()
    {
        let directory = TempDir::new_in(directory.path()).unwrap();
        let output = command(&directory, &url, &["serve"], settings).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{number}: {told}");
        assert!(told.lines().last().unwrap().starts_with("error: ") && told.contains(names), "{number}: {told}");
        assert!(!told.contains(PASSWORD) && !told.contains("waiting"), "{number}: {told}");
    }
}

#[test]
fn no_other_command_waits() {
    let url = nowhere();
    let begun = Instant::now();
    for arguments in [&["migrate"][..], &["migrate", "--plan"], &["export", "items"], &["import", "items", "/dev/null"]] {
        let directory = TempDir::new().unwrap();
        let output = command(&directory, &url, arguments, &[]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.starts_with("error: ") && told.contains("database.url"), "{arguments:?}: {told}");
        assert!(!told.contains(PASSWORD), "{arguments:?}: {told}");
    }
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}
