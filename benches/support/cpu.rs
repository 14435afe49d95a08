//! CPU time of this process.

use std::collections::HashMap;
use std::ffi::OsString;

use super::median;

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

/// Costs of two sides, round by round.
#[derive(Default)]
pub struct Ratio {
    bare: Vec<f64>,
    ours: Vec<f64>,
}

impl Ratio {
    /// A round, in seconds of each side.
    pub fn add(&mut self, bare: f64, ours: f64) {
        self.bare.push(bare);
        self.ours.push(ours);
    }

    /// The medians of `name` and of what is `bare`, and of the rounds' ratios; and the cheapest round of each side, which the machine
    /// disturbed least.
    pub fn report(&self, name: &str, bare: &str) {
        let ratio = median(self.ours.iter().zip(&self.bare).map(|(ours, bare)| ours / bare).collect());
        let sides = [&self.ours, &self.bare];
        let [ours, theirs] = sides.map(|costs| median(costs.clone()) * 1e6);
        let [least, their_least] = sides.map(|costs| costs.iter().copied().fold(f64::INFINITY, f64::min) * 1e6);
        println!(
            "{name}: {ours:.1} us of CPU beside {theirs:.1} us {bare}, ratio {ratio:.2}; cheapest rounds {least:.1} beside \
             {their_least:.1}, ratio {:.2}",
            least / their_least,
        );
    }
}
