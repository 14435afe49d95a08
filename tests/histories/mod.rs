//! Concurrent histories: whatever several clients do to few records at once, the answers and the change log are those of
//! one request after the other. `clients` makes and runs the histories, `checker` holds them against the `model`.

mod by_hand;
mod checker;
mod clients;
mod model;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use reqwest::Method;
use serde_json::json;
use terrace::config::Settings;

use crate::support::Server;
use checker::Request;
use clients::{Stage, THINGS, THINGS_FILE, plans};

/// How often servers with caches look for what others wrote, and what a busy machine may add to that.
const INTERVAL: Duration = Duration::from_millis(50);
const MARGIN: Duration = Duration::from_secs(1);

/// Random histories on `servers`, which share a database and may know `lag` later what another one wrote. `TEST_SEED` (hexadecimal) repeats the requests of a run,
/// though not how they met.
fn random_histories(servers: &[Server], cases: u32, lag: Duration) {
    let given = std::env::var("TEST_SEED").ok();
    let number = given.map_or_else(|| fastrand::u128(..), |text| u128::from_str_radix(&text, 16).unwrap());
    let seed = [number.to_be_bytes(), number.to_le_bytes()].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (answers, count) = (RefCell::new(BTreeMap::<&str, usize>::new()), RefCell::new(0));
    let config = Config { cases, max_shrink_iters: 50, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&plans(), |plans| {
        let name = count.replace_with(|count| *count + 1).to_string();
        let history = runtime.block_on(Stage::new(servers, &name, lag).play(&plans));
        for answered in &history.answered {
            let (is_batch, token) = (matches!(answered.request, Request::Batch(_)), answered.answer.token);
            let kind = match (&answered.request, answered.answer.status, token) {
                (Request::Read(_), ..) => "read",
                (_, 200..300, Some(_)) if is_batch => "batch",
                (_, 200..300, Some(_)) => "write",
                (_, 200..300, None) => "nothing changed",
                (_, 404, _) => "missing",
                (_, 409, _) => "conflict",
                (_, 412, _) => "precondition",
                (_, _, _) => return Err(TestCaseError::fail(format!("an answer that nothing explains: {answered:?}"))),
            };
            *answers.borrow_mut().entry(kind).or_default() += 1;
            *answers.borrow_mut().entry("hit").or_default() += usize::from(answered.answer.is_hit);
        }
        history.check().map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|failure| panic!("with TEST_SEED={number:x}: {failure}"));
    let answers = answers.into_inner();
    println!("{cases} histories: {answers:?}");
    assert!(servers[0].settings.cache.enabled == (answers["hit"] > 5), "too few hits to tell, or too many: {answers:?}");
    for kind in ["read", "batch", "write", "nothing changed", "missing", "conflict", "precondition"] {
        assert!(answers.get(kind).is_some_and(|count| *count > 5), "too few to tell: {answers:?}");
    }
}

#[test]
fn what_concurrent_clients_do_is_what_some_order_of_their_requests_would_do() {
    random_histories(&[Server::with_collections(&[("things", THINGS_FILE)])], 40, Duration::ZERO);
}

/// Without caches, for only what is asked of the database is new on both at once.
#[test]
fn two_servers_on_one_database_write_as_one() {
    let one = Server::with_files(&[("things", THINGS_FILE)], &[], |settings| settings.cache.enabled = false);
    let other = one.beside(|_| {});
    // In this order they end.
    random_histories(&[other, one], 20, Duration::ZERO);
}

/// A cache may lag behind what another server wrote, and never behind its own.
#[test]
fn two_servers_with_caches_write_as_one_and_soon_read_as_one() {
    let often = |settings: &mut Settings| settings.cache.reconcile_interval = INTERVAL;
    let one = Server::with_files(&[("things", THINGS_FILE)], &[], often);
    let other = one.beside(|_| {});
    random_histories(&[other, one], 40, INTERVAL + MARGIN);
}

#[tokio::test]
async fn fifty_patches_at_once_each_of_a_member_of_its_own_all_survive() {
    let server = Server::with_collections(&[("things", THINGS_FILE)]);
    server.post(THINGS, &json!({"key": "one"})).await.expect(201);
    let patches = (0..50).map(async |number| {
        let reply = server.patch(&format!("{THINGS}/one"), &json!({format!("m{number}"): number})).await;
        reply.expect(200)["version"].as_i64().unwrap()
    });
    let mut versions = futures_util::future::join_all(patches).await;
    versions.sort_unstable();
    assert_eq!(versions, (2..=51).collect::<Vec<_>>());
    let record = server.get(&format!("{THINGS}/one")).await.expect(200);
    for number in 0..50 {
        assert_eq!(record[format!("m{number}")], number, "{record}");
    }
}

#[tokio::test]
async fn of_twenty_patches_with_one_tag_exactly_one_wins() {
    let server = Server::with_collections(&[("things", THINGS_FILE)]);
    let etag = server.post(THINGS, &json!({"key": "one"})).await.header("etag").to_owned();
    let (path, headers) = (format!("{THINGS}/one"), [("if-match", etag.as_str())]);
    let patches = (0..20).map(async |number| {
        let reply = server.send_with(Method::PATCH, &path, &headers, Some(&json!({"a": number}))).await;
        (reply.status.as_u16(), reply.header("etag").to_owned(), number)
    });
    let answers = futures_util::future::join_all(patches).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, ..)| *status == 200);
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(lost.iter().all(|(status, tag, _)| *status == 412 && *tag == won[0].1), "{answers:?}");
    let record = server.get(&path).await.expect(200);
    assert_eq!((&record["a"], &record["version"]), (&json!(won[0].2), &json!(2)));
}
