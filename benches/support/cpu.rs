//! CPU time of this process.

/// CPU time of all threads, in seconds per operation.
pub async fn measured(operations: usize, work: impl AsyncFnOnce()) -> f64 {
    let before = seconds();
    work().await;
    (seconds() - before) / operations as f64
}

/// Time on a CPU of all threads so far, from `/proc/self/task/*/schedstat` (nanoseconds).
fn seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let times = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    times.sum::<u64>() as f64 / 1e9
}
