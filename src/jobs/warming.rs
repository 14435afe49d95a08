//! Warming: what `[cache.warm]` of the collections names is loaded at the start and on a schedule, behind all requests and
//! at a pace of its own. It never makes room for itself: well before L1 is full it stops, and what is valid it leaves alone.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::records::{Records, Resource, Warmed};

/// The share of L1 that warming fills at most. Beyond it, each entry that warming adds might take the place of one that is
/// asked for.
const FULL: f64 = 0.8;
/// After a round that the database was away for.
const RETRY: Duration = Duration::from_secs(5);
/// How much of its schedule a round makes up for after it was held up. More would be a burst.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Warms the cache of this process.
pub struct Warming {
    records: Arc<Records>,
    step: Duration,
    entries: Counter<u64>,
    rounds: Counter<u64>,
}

/// How a round ended. What metrics call it is [`End::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything is there.
    Whole,
    /// L1 is as full as warming may make it.
    Full,
    /// The database does not answer.
    Away,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Full => "full",
            Self::Away => "away",
        }
    }
}

/// A collection that is warmed.
struct Plan {
    resource: Arc<Resource>,
    /// When it is next; `None` for never again.
    due: Option<Instant>,
    /// Whether it was gone through, as far as there was room.
    is_warmed: bool,
    /// Whether the log has been told that the database is away.
    is_away: bool,
}

/// What a round came across.
#[derive(Default)]
struct Tally {
    loaded: u64,
    failed: u64,
}

/// When the next load may begin.
struct Pace {
    step: Duration,
    next: Instant,
}

impl Pace {
    async fn wait(&mut self) {
        tokio::time::sleep_until(self.next).await;
        // The clock of timers is coarser than a fast pace, so the next load is timed by the schedule and not by this one.
        self.next = (self.next + self.step).max(Instant::now() - CATCH_UP);
    }
}

impl Warming {
    /// Warms what `records` declare with at most `loads_per_second`.
    pub fn new(records: Arc<Records>, loads_per_second: u32, meter: &Meter) -> Self {
        let entries = meter.u64_counter("terrace.cache.warmed").with_description(
            "Entries of [cache.warm], by collection, kind and outcome: loaded, present (left alone), missing, failed.",
        );
        let rounds = meter.u64_counter("terrace.cache.warm_rounds").with_description(
            "Rounds of [cache.warm], by collection and how they ended: whole, full (80 % of L1 are taken), away (the database).",
        );
        let step = Duration::from_secs(1) / loads_per_second.max(1);
        Self { records, step, entries: entries.build(), rounds: rounds.build() }
    }

    /// Whether there is anything to warm.
    pub fn has_plans(&self) -> bool {
        !self.plans().is_empty()
    }

    /// Warms until the task is aborted, or there is nothing more to do ever. `first_round` is told when everything was gone
    /// through for the first time. What the database was away for is tried again soon.
    pub async fn run(self, first_round: oneshot::Sender<()>) {
        let mut plans = self.plans();
        let mut first_round = Some(first_round);
        loop {
            for plan in &mut plans {
                if plan.due.is_some_and(|due| due <= Instant::now()) {
                    self.follow(plan).await;
                }
            }
            if plans.iter().all(|plan| plan.is_warmed)
                && let Some(tell) = first_round.take()
            {
                // Nobody waits if readiness does not.
                let _ = tell.send(());
            }
            let Some(next) = plans.iter().filter_map(|plan| plan.due).min() else { return };
            tokio::time::sleep_until(next).await;
        }
    }

    fn plans(&self) -> Vec<Plan> {
        if self.records.cache_fullness().is_none() {
            return Vec::new();
        }
        let declared = self.records.resources().iter().filter(|resource| !resource.collection().warm.is_empty());
        let plan = |resource: &Arc<Resource>| Plan {
            resource: Arc::clone(resource),
            due: Some(Instant::now()),
            is_warmed: false,
            is_away: false,
        };
        declared.map(plan).collect()
    }

    /// One round of a plan, what the log is told of it, and when the next one is.
    async fn follow(&self, plan: &mut Plan) {
        let collection = plan.resource.collection().name.clone();
        let mut tally = Tally::default();
        let end = self.round(&plan.resource, &mut tally).await;
        self.rounds.add(1, &[KeyValue::new("collection", collection.to_string()), KeyValue::new("outcome", end.as_str())]);
        let Tally { loaded, failed } = tally;
        if failed > 0 {
            tracing::warn!(%collection, failed, "entries of [cache.warm] could not be loaded");
        }
        match end {
            End::Whole => tracing::debug!(%collection, loaded, "warmed the cache"),
            End::Full => tracing::info!(
                %collection,
                loaded,
                "stopped warming: {:.0} % of cache.l1_bytes are taken, and more would displace what is asked for",
                FULL * 100.0
            ),
            End::Away if !plan.is_away => {
                tracing::warn!(%collection, "cannot warm the cache while the database does not answer; it is tried again");
            }
            End::Away => {}
        }
        plan.is_away = end == End::Away;
        plan.is_warmed |= end != End::Away;
        // Processes that were started together shall not warm together for ever.
        let spread = |every: Duration| Instant::now() + every.mul_f64(1.0 + 0.1 * fastrand::f64());
        plan.due = if plan.is_away { Some(Instant::now() + RETRY) } else { plan.resource.collection().warm.every.map(spread) };
    }

    /// Lists come first: they are few, and each is worth many records.
    async fn round(&self, resource: &Arc<Resource>, tally: &mut Tally) -> End {
        if self.records.health().await.database.is_err() {
            return End::Away;
        }
        let mut pace = Pace { step: self.step, next: Instant::now() };
        let plan = &resource.collection().warm;
        for raw in &plan.lists {
            if let Some(end) = self.obstacle(&mut pace).await {
                return end;
            }
            if self.count(resource, "list", self.records.warm_list(resource, raw).await, tally) == Database::Away {
                return End::Away;
            }
        }
        if plan.records == 0 {
            return End::Whole;
        }
        let Ok(ids) = self.records.recent_ids(resource, plan.records).await else { return End::Away };
        for id in &ids {
            if let Some(end) = self.obstacle(&mut pace).await {
                return end;
            }
            if self.count(resource, "record", self.records.warm_record(resource, id).await, tally) == Database::Away {
                return End::Away;
            }
        }
        End::Whole
    }

    /// Waits for its turn; says why there is none any more.
    async fn obstacle(&self, pace: &mut Pace) -> Option<End> {
        pace.wait().await;
        let is_full = self.records.cache_fullness().is_none_or(|share| share >= FULL);
        is_full.then_some(End::Full)
    }

    fn count(&self, resource: &Resource, kind: &'static str, warmed: Result<Warmed>, tally: &mut Tally) -> Database {
        let (outcome, database) = match &warmed {
            Ok(Warmed::Loaded) => ("loaded", Database::Answers),
            Ok(Warmed::Present) => ("present", Database::Answers),
            Ok(Warmed::Missing) => ("missing", Database::Answers),
            Err(error) if error.kind() == ErrorKind::Unavailable => ("failed", Database::Away),
            Err(_) => ("failed", Database::Answers),
        };
        tally.loaded += u64::from(outcome == "loaded");
        tally.failed += u64::from(warmed.is_err() && database == Database::Answers);
        let collection = resource.collection().name.to_string();
        self.entries
            .add(1, &[KeyValue::new("collection", collection), KeyValue::new("kind", kind), KeyValue::new("outcome", outcome)]);
        database
    }
}

/// Whether a load found the database there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Database {
    Answers,
    Away,
}
