//! Signs of life. An instance sends them the way it sends announcements, and listens for its own the way it listens for those
//! of others: while they come back, so does everything else. Silence is suspicion.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::message::{Covered, Message, News};
use super::{Bus, Suspicion};
use crate::model::Snapshot;

/// How often one is sent: a third of the silence that is borne.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often silence is looked for: what a suspicion may come late.
const LOOK: Duration = Duration::from_millis(100);

/// Heartbeats that may be under way at a time.
const MAX_UNDER_WAY: usize = 16;

/// The heartbeats that have been sent and have not come back. The lock is never held across an await.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    sent: VecDeque<(u64, Instant)>,
}

impl Heartbeats {
    /// The number of one that is sent now.
    fn send(&self, now: Instant) -> u64 {
        let mut under_way = self.lock();
        under_way.last += 1;
        let number = under_way.last;
        if under_way.sent.len() == MAX_UNDER_WAY {
            under_way.sent.pop_front();
        }
        under_way.sent.push_back((number, now));
        number
    }

    /// When the one of this number was sent, the first time it comes back.
    fn come_back(&self, number: u64) -> Option<Instant> {
        let mut under_way = self.lock();
        // Those before it were lost, or overtaken.
        while let Some((sent_number, sent)) = under_way.sent.front().copied().filter(|(sent, _)| *sent <= number) {
            under_way.sent.pop_front();
            if sent_number == number {
                return Some(sent);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bus {
    /// Sends heartbeats until it is aborted. Each takes along how far the log has been applied, as `seen` tells; it is asked
    /// before it is checked that nothing is owed, since what is owed is noted as applied.
    pub(in crate::cache) async fn beat(&self, seen: impl Fn() -> Option<Snapshot>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let seen = seen();
            let server = self.debts().clear_on();
            let covered = seen.zip(server).and_then(|(seen, server)| serde_json::to_string(&Covered::new(server, seen)).ok());
            let number = self.heartbeats.send(Instant::now());
            let message = Message { from: self.instance, news: News::Heartbeat(number) };
            let kept = covered.map(|covered| (self.declarations, covered));
            if self.post.beat(message.to_json(), kept).await.is_ok() {
                self.metrics.sent(message.news.kind());
            }
        }
    }

    /// Watches for silence until it is aborted, and tells the metrics how things are.
    pub(in crate::cache) async fn listen_for_silence(&self) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            if self.trust.has_fallen_silent(now) {
                self.suspect(Suspicion::Silence, now);
            }
            self.metrics.up.set(i64::from(self.trust.is_bus_up(now)));
            self.metrics.trusted.set(i64::from(self.trust.holds(now)));
            let is_open = self.server().is_some_and(|server| self.debts().clear_on() == Some(server));
            self.metrics.open.set(i64::from(is_open));
            self.metrics.owed.set(i64::try_from(self.owed()).unwrap_or(i64::MAX));
        }
    }

    /// An own heartbeat has come back.
    pub(in crate::cache) fn heard_own(&self, number: u64) {
        if let Some(sent) = self.heartbeats.come_back(number) {
            self.metrics.heartbeat_seconds.observe(sent.elapsed().as_secs_f64());
            self.trust.heard(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_comes_back_once_and_vouches_from_its_sending() {
        let (heartbeats, begin) = (Heartbeats::default(), Instant::now());
        let at = |number: u64| begin + number as u32 * INTERVAL;
        for number in 1..=20 {
            assert_eq!(heartbeats.send(at(number)), number);
        }
        assert_eq!(heartbeats.come_back(1), None, "forgotten: too many are under way");
        assert_eq!(heartbeats.come_back(7), Some(at(7)));
        assert_eq!(heartbeats.come_back(7), None);
        assert_eq!(heartbeats.come_back(6), None, "overtaken by a newer one");
        assert_eq!(heartbeats.come_back(21), None, "never sent");
    }
}
