//! The checker finds what it is there for: with a part of the protocol switched off, there are violations.

use std::time::Duration;

use super::proxy::{Rule, Rules};
use super::run::{HOP, INTERVAL, Promise, run_until_found};
use super::scenarios::alone;
use super::stage::{Allowed, SERVERS, Stage};
use super::workload::RECORDS;

const PROMISE: Promise = Promise {
    elsewhere: INTERVAL.saturating_add(HOP),
    marked: Duration::ZERO,
    allowed: Allowed { refusals: false, cuts: false },
};

/// Runs until a violation is found, in the circumstances that need that part.
async fn without(part: &str, circumstances: impl FnOnce(&Stage)) {
    let _turn = alone().await;
    let stage = Stage::set(RECORDS, PROMISE.allowed, |_| Vec::new()).await;
    stage.switch_off(part);
    circumstances(&stage);
    run_until_found(&format!("without the {part}"), &stage, PROMISE, std::future::ready(())).await;
}

fn of_the_bus(stage: &Stage, rule: Rule) {
    stage.to_redis.iter().for_each(|proxy| proxy.set(Rules::bus(rule)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_capture_before_the_load_a_violation_is_found() {
    without("capture", |stage| (0..SERVERS).for_each(|server| stage.arm(server, "before_fill", "pause 100"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_reconciling_a_violation_is_found() {
    without("reconcile", |stage| of_the_bus(stage, Rule::DropAllButHeartbeats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_check_of_tokens_a_violation_is_found() {
    without("token", |stage| of_the_bus(stage, Rule::Delay(Duration::from_millis(200)))).await;
}
