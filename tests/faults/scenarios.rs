//! What happens meanwhile.

use std::time::Duration;

use super::run::{HOP, INTERVAL, Promise, run};
use super::stage::{Allowed, Stage};
use super::workload::RECORDS;

const LOAD: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_wrong() {
    let promise = Promise { elsewhere: INTERVAL + HOP, allowed: Allowed::default() };
    let stage = Stage::set(RECORDS, promise.allowed, |_| Vec::new()).await;
    run("nothing wrong", &stage, promise, tokio::time::sleep(LOAD)).await;
}
