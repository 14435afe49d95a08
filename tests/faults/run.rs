//! One run of a scenario: the load, what happens meanwhile, the verdict and the figures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::checker::{Bounds, Verdict};
use super::history::{History, Micros, Shown, Source};
use super::stage::{Allowed, Stage};
use super::workload::{RECORDS, Workload, name, read_everything};

/// What the scheduling of a machine with two cores, on which eight processes of debug builds run, may add to any bound: a
/// task that is ready waits for those before it.
pub const ALLOWANCE: Duration = Duration::from_millis(250);

/// From one instance to the others by the bus.
pub const HOP: Duration = Duration::from_millis(10);

/// The default of `cache.reconcile_interval`.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// What a scenario promises.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// How old an answer may be with regard to what other instances acknowledged, before [`ALLOWANCE`].
    pub elsewhere: Duration,
    /// How much older it may be if it says that it is stale.
    pub marked: Duration,
    pub allowed: Allowed,
}

impl Promise {
    pub fn bounds(self) -> Bounds {
        let elsewhere = self.elsewhere + ALLOWANCE;
        Bounds { elsewhere: micros(elsewhere), marked: micros(elsewhere + self.marked) }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Figures {
    pub scenario: String,
    pub reads: usize,
    pub writes: usize,
    pub unanswered: usize,
    pub records_hit_percent: f64,
    pub lists_hit_percent: f64,
    pub stale: usize,
    pub largest_staleness_ms: f64,
    pub probes: usize,
    pub delay_p50_ms: f64,
    pub delay_p99_ms: f64,
    pub violations: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:<44} {:>6} reads ({:.0} % of records and {:.0} % of lists hit, {} stale), {:>5} writes, {} unanswered; largest \
             staleness {:.1} ms; invalidation p50 {:.1} ms, p99 {:.1} ms of {}; {} violations",
            self.scenario,
            self.reads,
            self.records_hit_percent,
            self.lists_hit_percent,
            self.stale,
            self.writes,
            self.unanswered,
            self.largest_staleness_ms,
            self.delay_p50_ms,
            self.delay_p99_ms,
            self.probes,
            self.violations
        )
    }
}

/// Runs the load beside `meanwhile`, and then, once everything is quiet, holds what is left against what was written.
/// Prints the figures; fails on any violation.
pub async fn run(scenario: &str, stage: &Arc<Stage>, promise: Promise, meanwhile: impl Future<Output = ()>) {
    let load = Workload::begin(stage);
    meanwhile.await;
    let delays = load.end().await;
    quiet(promise).await;
    read_everything(stage).await;
    let history = stage.recorder.so_far();
    let mut verdict = history.check(promise.bounds());
    verdict.violations.extend(what_is_lost(stage, &history));
    println!("{}", figures(scenario, &history, &verdict, delays));
    if !verdict.violations.is_empty() {
        let shown: Vec<&String> = verdict.violations.iter().take(5).collect();
        panic!("{scenario}: {} violations, among them {shown:#?}\n{}", verdict.violations.len(), stage.logs());
    }
}

/// Runs the load until a violation is found, which must happen: a part of the protocol is switched off.
pub async fn run_until_found(scenario: &str, stage: &Arc<Stage>, promise: Promise, meanwhile: impl Future<Output = ()>) {
    let load = Workload::begin(stage);
    let find = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let history = stage.recorder.so_far();
            let verdict = history.check(promise.bounds());
            if !verdict.violations.is_empty() {
                return (history, verdict);
            }
            assert!(tokio::time::Instant::now() < deadline, "{scenario}: no violation was found");
        }
    };
    let (history, verdict) = tokio::select! {
        found = find => found,
        () = async { meanwhile.await; std::future::pending().await } => unreachable!(),
    };
    let delays = load.end().await;
    println!("{}\n    {}", figures(scenario, &history, &verdict, delays), verdict.violations[0]);
    assert!(history.problems.is_empty(), "{:#?}", history.problems);
}

/// After this long, nothing that a cache holds may be old.
async fn quiet(promise: Promise) {
    tokio::time::sleep(promise.elsewhere + ALLOWANCE).await;
}

/// Acknowledged writes that the database does not have.
fn what_is_lost(stage: &Stage, history: &History) -> Vec<String> {
    let stored = stage.stored();
    let lost = (0..RECORDS).filter_map(|record| {
        let (states, stored) = (&history.records[record], stored.get(&name(record)).copied());
        let certain = states.iter().rposition(|state| state.acknowledged.is_some()).unwrap();
        let is_explained = states[certain..].iter().any(|state| state.document.map(|document| document.number) == stored);
        (!is_explained).then(|| format!("{} is {stored:?} at last, after {:?}", name(record), &states[certain..]))
    });
    lost.collect()
}

fn figures(scenario: &str, history: &History, verdict: &Verdict, mut delays: Vec<Duration>) -> Figures {
    delays.sort_unstable();
    let quantile = |of: f64| {
        let at = ((delays.len() as f64 * of) as usize).min(delays.len().saturating_sub(1));
        delays.get(at).map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e3)
    };
    let hits = |is_record: bool| {
        let kind = history.reads.iter().filter(|read| matches!(read.shown, Shown::Record { .. }) == is_record);
        let (all, hits) = kind.fold((0, 0), |(all, hits), read| (all + 1, hits + usize::from(read.source == Source::Hit)));
        100.0 * f64::from(hits as u32) / f64::from((all as u32).max(1))
    };
    let written = history.records.iter().flatten().filter(|state| state.acknowledged.is_some()).count();
    Figures {
        scenario: scenario.to_owned(),
        reads: history.reads.len(),
        writes: written - history.records.len(),
        unanswered: history.refusals,
        records_hit_percent: hits(true),
        lists_hit_percent: hits(false),
        stale: history.reads.iter().filter(|read| read.source == Source::Stale).count(),
        largest_staleness_ms: verdict.largest_staleness as f64 / 1e3,
        probes: delays.len(),
        delay_p50_ms: quantile(0.5),
        delay_p99_ms: quantile(0.99),
        violations: verdict.violations.len(),
    }
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap()
}
