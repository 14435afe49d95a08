//! CPU time of this process.

use std::collections::HashMap;
use std::ffi::OsString;

/// CPU time of all threads, in seconds per operation.
pub async fn measured(operations: usize, work: impl AsyncFnOnce()) -> f64 {
    let before = times();
    work().await;
    let spent = times().into_iter().map(|(thread, time)| time - before.get(&thread).copied().unwrap_or_default());
    spent.sum::<u64>() as f64 / 1e9 / operations as f64
}

/// Time on a CPU of each thread so far, from `/proc/self/task/*/schedstat` (nanoseconds). One by one, because a thread that ends
/// takes its time with it.
fn times() -> HashMap<OsString, u64> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let times = threads.filter_map(|thread| {
        let thread = thread.ok()?;
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((thread.file_name(), stat.split(' ').next()?.parse().ok()?))
    });
    times.collect()
}
