//! Explaining: what a plain request for one key would get at this moment, and why. It counts as no look-up, loads nothing
//! and starts no refresh.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::cell::Captured;
use super::demand::{Demand, Verdict};
use super::target::{Cause, Target};
use super::{Cache, CacheKey, Entry, InstanceId, Presence, Scope, Tier};
use crate::model::{Freshness, Guard};

/// What a plain request would get, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What would happen.
    pub would: Would,
    /// The key, `|` between its parts.
    pub key: String,
    /// What is stored under it, if anything is: in L1, else in L2.
    pub entry: Option<EntryState>,
    /// What the answer depends on.
    pub guards: Vec<GuardState>,
}

/// What would happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// It would be answered from the process.
    HitL1,
    /// It would be answered from Redis.
    HitL2,
    /// It would get what a change has outdated, or what has expired, marked as such, while a load runs.
    Stale,
    /// It would be answered by a load.
    Miss,
    /// It would be answered by a load that nothing is kept of.
    Bypass,
}

/// A stored entry.
#[derive(Clone, Debug, Serialize)]
pub struct EntryState {
    /// Where it was found.
    pub tier: Tier,
    /// Whether it says that there is such a record.
    pub is_found: bool,
    /// How long ago it was loaded, in milliseconds.
    pub age_ms: u64,
    /// For how much longer it would be fresh if nothing changed, in milliseconds.
    pub fresh_for_ms: u64,
    /// The instance that loaded it.
    pub loaded_by: InstanceId,
    /// Whether no guard has moved since before it was loaded.
    pub is_current: bool,
    /// Its memory in L1, in bytes.
    pub size_bytes: usize,
}

/// One guard of an answer, as this process knows it.
#[derive(Clone, Debug, Serialize)]
pub struct GuardState {
    /// The guard: `r:` record, `t:` term, `c:` collection.
    pub guard: Target,
    /// Its generation; `None` if nothing depends on it.
    pub generation: Option<u64>,
    /// The generation that the stored entry has captured.
    pub captured: Option<u64>,
    /// What moved it last, if that was since something depends on it.
    pub last_move: Option<LastMove>,
}

/// What moved a guard.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LastMove {
    /// Why.
    pub cause: Cause,
    /// At most so long ago, in milliseconds.
    pub ago_ms: u64,
}

impl Cache {
    /// What a plain request for `key` would get now. `guards` are those that its look-up would name.
    pub async fn explain(&self, scope: &Scope, key: &CacheKey, guards: &[Guard]) -> Explanation {
        let demand = Demand::new(&Freshness::ANY, scope.max_lag(), self.is_trusted());
        let judge = |entry: &Entry| demand.judge(entry, entry.age());
        let mut found = self.l1.get(key).map(|entry| (entry, Tier::L1));
        if found.as_ref().is_none_or(|(entry, _)| judge(entry) == Verdict::Refused)
            && let Some(entry) = self.stored_elsewhere(scope, key, guards).await
        {
            found = Some((entry, Tier::L2));
        }
        let would = match &found {
            _ if !self.enabled => Would::Bypass,
            None => Would::Miss,
            Some((entry, tier)) => match (judge(entry), tier) {
                (Verdict::Fresh, Tier::L1) => Would::HitL1,
                (Verdict::Fresh, Tier::L2) => Would::HitL2,
                (Verdict::Allowed | Verdict::Lagging, _) => Would::Stale,
                (Verdict::Refused, _) => Would::Miss,
            },
        };
        let captured = |position: usize| found.as_ref()?.0.dependencies().get(position).map(Captured::generation);
        let states = guards.iter().enumerate().map(|(position, guard)| self.guard_state(guard, captured(position)));
        let guards = states.collect();
        Explanation { would, key: key.to_string(), entry: found.map(|(entry, tier)| state(&entry, tier)), guards }
    }

    async fn stored_elsewhere(&self, scope: &Scope, key: &CacheKey, guards: &[Guard]) -> Option<Arc<Entry>> {
        let tier = self.second_tier()?;
        let captured = guards.iter().map(|guard| self.guards.capture(guard, scope.max_lag())).collect();
        // A Redis that does not answer is as good as none.
        tier.peek(&tier.address(scope, key, guards), &captured).await.ok().flatten().map(Arc::new)
    }

    fn guard_state(&self, guard: &Guard, captured: Option<u64>) -> GuardState {
        let cell = self.guards.state(guard);
        let last_move = cell.and_then(|cell| cell.last);
        GuardState {
            guard: Target::Guard(guard.clone()),
            generation: cell.map(|cell| cell.generation),
            captured,
            last_move: last_move.map(|last| LastMove { cause: last.cause, ago_ms: milliseconds(last.since.elapsed()) }),
        }
    }
}

fn state(entry: &Entry, tier: Tier) -> EntryState {
    let age = entry.age();
    EntryState {
        tier,
        is_found: entry.presence() == Presence::Found,
        age_ms: milliseconds(age),
        fresh_for_ms: milliseconds(entry.fresh_for(age)),
        loaded_by: entry.loaded_by(),
        is_current: entry.is_valid(),
        size_bytes: entry.size_bytes(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
