//! Whether an entry will do for a request: what the request asks of its age, and what the collection allows. The one place that
//! decides it, for both tiers.

use std::time::{Duration, Instant};

use super::entry::Entry;
use crate::model::Freshness;

/// What a request takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand<'a> {
    freshness: &'a Freshness,
    max_lag: Duration,
    is_trusted: bool,
}

/// Whether an entry will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is fresh.
    Fresh,
    /// The request allows it, though it has expired or something changed.
    Allowed,
    /// Something changed, but only just: the collection allows it while it is loaded again.
    Lagging,
    /// It will not do.
    Refused,
}

impl<'a> Demand<'a> {
    /// The collection lets entries lag by `max_lag`. What is not trusted is never fresh.
    pub(super) fn new(freshness: &'a Freshness, max_lag: Duration, is_trusted: bool) -> Self {
        Self { freshness, max_lag, is_trusted }
    }

    /// Whether `entry`, which is of this age, will do.
    pub(super) fn judge(&self, entry: &Entry, age: Duration) -> Verdict {
        if !self.is_trusted || self.freshness.reload || self.is_too_old(age) {
            return Verdict::Refused;
        }
        let fresh_for = entry.fresh_for(age);
        if entry.is_valid() && !fresh_for.is_zero() {
            return if fresh_for < self.freshness.min_fresh { Verdict::Refused } else { Verdict::Fresh };
        }
        // Who asks for time that is left does not get what has none.
        if !self.freshness.min_fresh.is_zero() {
            return Verdict::Refused;
        }
        let is_too_late = fresh_for.is_zero() && entry.expired_for(age) > self.freshness.max_stale;
        if is_too_late || self.freshness.max_stale.is_zero() && fresh_for.is_zero() {
            return Verdict::Refused;
        }
        if entry.is_valid() { Verdict::Allowed } else { self.judge_outdated(entry) }
    }

    /// Whether it may stand in for an answer that cannot be had, if its guards have not moved.
    pub(super) fn allows_stand_in(&self, age: Duration) -> bool {
        !self.freshness.reload && self.freshness.min_fresh.is_zero() && !self.is_too_old(age)
    }

    /// Whether what another instance has may be too old for it, and so nothing but a load is sure to do.
    pub(super) fn is_particular(&self) -> bool {
        self.freshness.reload || self.freshness.max_age.is_some() || !self.freshness.min_fresh.is_zero()
    }

    fn is_too_old(&self, age: Duration) -> bool {
        self.freshness.max_age.is_some_and(|max_age| age > max_age)
    }

    fn judge_outdated(&self, entry: &Entry) -> Verdict {
        // The writer of the token's change must not be answered from before it, and the entry does not say what it is from before.
        if self.freshness.token.is_some() {
            return Verdict::Refused;
        }
        // Who says how old an answer may be asked for less than the collection allows.
        let max_lag = if self.freshness.max_age.is_some() { Duration::ZERO } else { self.max_lag };
        let allowed = max_lag.max(self.freshness.max_stale);
        if allowed.is_zero() {
            return Verdict::Refused;
        }
        match entry.current_until().map(|until| Instant::now().saturating_duration_since(until)) {
            Some(lag) if lag <= max_lag => Verdict::Lagging,
            Some(lag) if lag <= self.freshness.max_stale => Verdict::Allowed,
            Some(_) | None => Verdict::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::cache::entry::{Basis, Content, Lifetime, Origin, Presence};
    use crate::cache::target::{Cause, Move, Target};
    use crate::cache::tests::record;
    use crate::cache::{Guards, InstanceId};
    use crate::model::Position;

    const SECOND: Duration = Duration::from_secs(1);
    /// The entries of these tests are fresh for that long.
    const TTL: Duration = Duration::from_secs(60);

    fn entry(guards: &Guards, lag: Duration) -> Arc<Entry> {
        let content = Content {
            presence: Presence::Found,
            body: Bytes::new(),
            etag: HeaderValue::from_static("\"tag\""),
            headers: Vec::new(),
            basis: Basis::Loaded,
        };
        let captured = [guards.capture(&record("M-1"), lag)].into_iter().collect();
        let lifetime = Lifetime { ttl: TTL, stale_if_error: TTL };
        Arc::new(Entry::new(content, captured, lifetime, Origin::Loaded(InstanceId::random())))
    }

    fn judge(freshness: Freshness, max_lag: Duration, entry: &Entry, age: Duration) -> Verdict {
        Demand::new(&freshness, max_lag, true).judge(entry, age)
    }

    #[test]
    fn what_is_fresh_will_do_unless_the_request_asks_for_more() {
        let guards = Guards::default();
        let entry = entry(&guards, Duration::ZERO);
        let at = |freshness, age| judge(freshness, Duration::ZERO, &entry, age);
        assert_eq!(at(Freshness::ANY, 10 * SECOND), Verdict::Fresh);
        assert_eq!(at(Freshness::ANY, TTL), Verdict::Refused);
        assert_eq!(at(Freshness { reload: true, ..Freshness::ANY }, Duration::ZERO), Verdict::Refused);
        let young = Freshness { max_age: Some(10 * SECOND), ..Freshness::ANY };
        assert_eq!(at(young, 10 * SECOND), Verdict::Fresh);
        assert_eq!(at(young, 11 * SECOND), Verdict::Refused);
        let lasting = Freshness { min_fresh: 10 * SECOND, ..Freshness::ANY };
        assert_eq!(at(lasting, 50 * SECOND), Verdict::Fresh);
        assert_eq!(at(lasting, 51 * SECOND), Verdict::Refused);
        assert_eq!(Demand::new(&Freshness::ANY, TTL, false).judge(&entry, Duration::ZERO), Verdict::Refused, "not trusted");
    }

    #[test]
    fn what_has_expired_will_do_for_as_long_as_the_request_says() {
        let guards = Guards::default();
        let entry = entry(&guards, Duration::ZERO);
        let at = |freshness, age| judge(freshness, TTL, &entry, age);
        let patient = Freshness { max_stale: 10 * SECOND, ..Freshness::ANY };
        assert_eq!(at(patient, TTL), Verdict::Allowed);
        assert_eq!(at(patient, TTL + 10 * SECOND), Verdict::Allowed);
        assert_eq!(at(patient, TTL + 11 * SECOND), Verdict::Refused);
        assert_eq!(at(Freshness { min_fresh: SECOND, ..patient }, TTL), Verdict::Refused);
        assert_eq!(at(Freshness { max_age: Some(TTL), ..patient }, TTL + SECOND), Verdict::Refused);
        assert_eq!(at(Freshness { max_stale: Duration::MAX, ..Freshness::ANY }, 9 * TTL), Verdict::Allowed);
    }

    #[test]
    fn what_is_outdated_will_do_for_as_long_as_the_collection_or_the_request_says() {
        let guards = Guards::default();
        let entry = entry(&guards, 10 * SECOND);
        let before = Instant::now().checked_sub(5 * SECOND).unwrap();
        guards.advance(&Target::Guard(record("M-1")), &Move { cause: Cause::Invalidated { by: None }, since: before });
        let with = |freshness, max_lag| judge(freshness, max_lag, &entry, Duration::ZERO);
        assert_eq!(with(Freshness::ANY, Duration::ZERO), Verdict::Refused);
        assert_eq!(with(Freshness::ANY, 4 * SECOND), Verdict::Refused);
        assert_eq!(with(Freshness::ANY, 10 * SECOND), Verdict::Lagging);
        let patient = Freshness { max_stale: 10 * SECOND, ..Freshness::ANY };
        assert_eq!(with(patient, Duration::ZERO), Verdict::Allowed);
        assert_eq!(with(patient, 10 * SECOND), Verdict::Lagging);
        assert_eq!(with(Freshness { max_stale: 4 * SECOND, ..Freshness::ANY }, Duration::ZERO), Verdict::Refused);
        // Who asks for less, or has written, does not get it.
        assert_eq!(with(Freshness { max_age: Some(TTL), ..Freshness::ANY }, 10 * SECOND), Verdict::Refused);
        assert_eq!(with(Freshness { min_fresh: SECOND, ..Freshness::ANY }, 10 * SECOND), Verdict::Refused);
        let token = Some(Position { transaction: 1, sequence: 1 });
        assert_eq!(with(Freshness { token, ..patient }, 10 * SECOND), Verdict::Refused);
        // Expired as well: the collection allows one of them only.
        assert_eq!(judge(Freshness::ANY, 10 * SECOND, &entry, TTL), Verdict::Refused);
    }

    #[test]
    fn what_nobody_can_date_never_lags() {
        let guards = Guards::default();
        let entry = entry(&guards, 10 * SECOND);
        guards.advance(&Target::All, &Move::now(Cause::Unknown));
        let patient = Freshness { max_stale: Duration::MAX, ..Freshness::ANY };
        assert_eq!(judge(patient, Duration::MAX, &entry, Duration::ZERO), Verdict::Refused);
    }
}
