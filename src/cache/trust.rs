//! Trust: until when what L1 holds may be served. It knows neither the bus nor the log, only what they report.
//!
//! What invalidates L1 from elsewhere comes over the bus, at once, or from the change log, when it is read. Either is
//! evidence that nothing was missed: everything published before a heartbeat of this process came back to it has been
//! applied, and so has everything committed before a round began that read the log to its end. Evidence vouches for a short
//! time, so trust is a lease and ends by itself: also in a process that was paused, before it has looked around.
//! A suspicion ends it at once, until a round that began later has ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// For how long a heartbeat that came back vouches, counted from when it was sent. Heartbeats are sent three times as often.
pub(super) const SILENCE: Duration = Duration::from_millis(1_500);

/// For how long a round over the log vouches at least, counted from when it began.
const LOG_VOUCHES: Duration = Duration::from_secs(2);

/// How long a read waits for trust to come back before it goes past L1.
const PATIENCE: Duration = Duration::from_millis(100);

/// Without a bus there is nothing to suspect: every round is as good as the last one.
const ALWAYS: u64 = u64::MAX;

/// Why L1 may have missed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// The subscription was made, perhaps again: what was published before that is lost.
    Connected,
    /// The subscription ended.
    Disconnected,
    /// An own heartbeat did not come back in time.
    Silence,
    /// Commands go to another server process than before.
    OtherServer,
}

impl Suspicion {
    pub(super) const ALL: [Self; 4] = [Self::Connected, Self::Disconnected, Self::Silence, Self::OtherServer];

    /// How metrics spell it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Silence => "silence",
            Self::OtherServer => "other_server",
        }
    }
}

/// Until when L1 may be served.
#[derive(Debug)]
pub struct Trust {
    epoch: Instant,
    /// Nanoseconds since `epoch`; all that a hit reads.
    until: AtomicU64,
    /// When the newest round began that read the log to its end, in nanoseconds since `epoch`; with and without a bus.
    read: AtomicU64,
    /// `None` without a bus. Never held across an await.
    evidence: Mutex<Option<Evidence>>,
    log: watch::Sender<LogState>,
    alarm: Arc<Notify>,
}

/// What the newest round over the log says to somebody who waits for trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogState {
    /// It ended well, and nothing was suspected since it began.
    Vouches,
    /// Something was suspected, and no round has ended since.
    Awaited,
    /// It failed: waiting for the next one would be in vain.
    Unreadable,
}

#[derive(Debug)]
struct Evidence {
    log_vouches: Duration,
    /// When the newest own heartbeat was sent that came back; `None` since the bus was last found dead.
    heard: Option<Instant>,
    /// When the newest round began that read the log to its end.
    read: Instant,
    /// A suspicion that no round has answered.
    suspected: Option<Instant>,
}

impl Evidence {
    fn until(&self) -> Option<Instant> {
        let log = self.read + self.log_vouches;
        self.suspected.is_none().then(|| self.heard.map_or(log, |heard| log.max(heard + SILENCE)))
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            until: AtomicU64::new(ALWAYS),
            read: AtomicU64::new(0),
            evidence: Mutex::default(),
            log: watch::Sender::new(LogState::Vouches),
            alarm: Arc::default(),
        }
    }
}

impl Trust {
    /// From now on trust needs evidence. The log, which is read every `interval`, was read to its end at `read`.
    pub(super) fn demand_evidence(&self, interval: Duration, read: Instant) {
        let log_vouches = LOG_VOUCHES.max(3 * interval);
        *self.lock() = Some(Evidence { log_vouches, heard: None, read, suspected: None });
        self.note_read(read);
        self.change(|_| {});
    }

    /// Whether L1 may be served at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        // Acquire pairs with the release in `change`: who is trusted again sees the guards that a round has moved.
        let until = self.until.load(Ordering::Acquire);
        until == ALWAYS || now.saturating_duration_since(self.epoch).as_nanos() < u128::from(until)
    }

    /// How long before `now` the newest round began that read the log to its end: what was committed before that has been applied.
    pub fn unread_for(&self, now: Instant) -> Duration {
        let read = Duration::from_nanos(self.read.load(Ordering::Acquire));
        now.saturating_duration_since(self.epoch).saturating_sub(read)
    }

    /// For how long before `now` something may have changed that has moved no guard here: not at all while trust holds.
    pub fn unknown_for(&self, now: Instant) -> Duration {
        if self.holds(now) { Duration::ZERO } else { self.unread_for(now) }
    }

    /// Waits a short time for a round that leaves less than `allowed` unread, unless the log cannot be read; says whether it can.
    pub async fn catch_up(&self, allowed: Duration) -> bool {
        let mut log = self.log.subscribe();
        let is_behind = || self.unread_for(Instant::now()) > allowed;
        if is_behind() && *log.borrow_and_update() != LogState::Unreadable {
            self.alarm.notify_one();
            let round =
                async { while is_behind() && log.changed().await.is_ok() && *log.borrow_and_update() != LogState::Unreadable {} };
            // Whoever does not get a round in time goes on without it.
            let _ = tokio::time::timeout(PATIENCE, round).await;
        }
        *log.borrow() != LogState::Unreadable
    }

    /// Whether the newest round over the log failed.
    pub fn is_log_unreadable(&self) -> bool {
        *self.log.borrow() == LogState::Unreadable
    }

    /// An own heartbeat that was sent at `sent` has come back.
    pub(super) fn heard(&self, sent: Instant) {
        self.change(|evidence| evidence.heard = evidence.heard.max(Some(sent)));
    }

    /// Nothing that L1 holds is trusted until a round that begins later has ended. Wakes who makes the rounds.
    pub(super) fn suspect(&self, suspicion: Suspicion, now: Instant) {
        let is_watched = self.change(|evidence| {
            evidence.suspected = Some(now);
            match suspicion {
                Suspicion::Connected | Suspicion::Disconnected | Suspicion::Silence => evidence.heard = None,
                Suspicion::OtherServer => {}
            }
        });
        if is_watched {
            self.log.send_replace(LogState::Awaited);
            self.alarm.notify_one();
        }
    }

    /// Whether the bus, which was heard, has been silent for too long. It is told once.
    pub(super) fn has_fallen_silent(&self, now: Instant) -> bool {
        let heard = self.lock().as_ref().and_then(|evidence| evidence.heard);
        heard.is_some_and(|heard| now.saturating_duration_since(heard) >= SILENCE)
    }

    /// Whether a heartbeat came back lately.
    pub(super) fn is_bus_up(&self, now: Instant) -> bool {
        let heard = self.lock().as_ref().and_then(|evidence| evidence.heard);
        heard.is_some_and(|heard| now.saturating_duration_since(heard) < SILENCE)
    }

    /// A round that began at `began` has read the log to its end and applied it.
    pub(super) fn reconciled(&self, began: Instant) {
        self.note_read(began);
        let mut is_answered = true;
        self.change(|evidence| {
            evidence.read = evidence.read.max(began);
            // Not one that began at the same instant: its reader may have been first.
            evidence.suspected = evidence.suspected.filter(|suspected| *suspected >= began);
            is_answered = evidence.suspected.is_none();
        });
        self.log.send_replace(if is_answered { LogState::Vouches } else { LogState::Awaited });
    }

    /// A round could not read the log.
    pub(super) fn unreadable(&self) {
        self.log.send_replace(LogState::Unreadable);
    }

    /// What wakes whoever makes the rounds.
    pub(super) fn alarm(&self) -> &Arc<Notify> {
        &self.alarm
    }

    /// Waits a short time for trust to come back, unless the log cannot be read.
    pub(super) async fn wait(&self) {
        let mut log = self.log.subscribe();
        if *log.borrow() == LogState::Vouches {
            // A lease that ended without a suspicion: this process was held up, and so were the rounds.
            self.alarm.notify_one();
        }
        let trusted_or_vain = log.wait_for(|log| match log {
            LogState::Vouches => self.holds(Instant::now()),
            LogState::Awaited => false,
            LogState::Unreadable => true,
        });
        // Whether it came back is seen by who asks next.
        let _ = tokio::time::timeout(PATIENCE, trusted_or_vain).await;
    }

    fn note_read(&self, began: Instant) {
        let since_epoch = began.saturating_duration_since(self.epoch).as_nanos();
        self.read.fetch_max(u64::try_from(since_epoch).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Says whether there is a bus.
    fn change(&self, change: impl FnOnce(&mut Evidence)) -> bool {
        let mut evidence = self.lock();
        let Some(evidence) = &mut *evidence else { return false };
        change(evidence);
        let until = evidence.until().map_or(0, |until| until.saturating_duration_since(self.epoch).as_nanos());
        // Within the lock, so that an older lease never takes the place of a newer one.
        self.until.store(u64::try_from(until).unwrap_or(ALWAYS - 1), Ordering::Release);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Evidence>> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    /// Trust since a moment, and that moment. Times are given in milliseconds after it.
    struct Bench {
        trust: Trust,
        begin: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let trust = Trust::default();
            let begin = trust.epoch + Duration::from_secs(60);
            trust.demand_evidence(INTERVAL, begin);
            Self { trust, begin }
        }

        fn at(&self, ms: u64) -> Instant {
            self.begin + Duration::from_millis(ms)
        }

        fn holds(&self, ms: u64) -> bool {
            self.trust.holds(self.at(ms))
        }
    }

    #[test]
    fn without_a_bus_there_is_nothing_to_suspect() {
        let trust = Trust::default();
        trust.suspect(Suspicion::Silence, Instant::now());
        trust.unreadable();
        assert!(trust.holds(trust.epoch + Duration::from_secs(1 << 40)));
    }

    #[test]
    fn the_log_vouches_for_two_seconds_or_three_intervals() {
        let bench = Bench::new();
        assert!(bench.holds(1_999) && !bench.holds(2_000));
        bench.trust.reconciled(bench.at(500));
        assert!(bench.holds(2_499) && !bench.holds(2_500));
        bench.trust.demand_evidence(Duration::from_secs(1), bench.begin);
        assert!(bench.holds(2_999) && !bench.holds(3_000));
    }

    #[test]
    fn while_the_bus_is_heard_the_database_may_be_away() {
        let bench = Bench::new();
        for sent in (0..60_000).step_by(500) {
            bench.trust.unreadable();
            bench.trust.heard(bench.at(sent));
            assert!(bench.holds(sent + 1_499), "{sent}");
        }
        // It is the time of sending that counts: what came back late vouches for less.
        bench.trust.heard(bench.at(10_000));
        assert!(bench.holds(60_999) && !bench.holds(61_000));
        assert!(bench.trust.has_fallen_silent(bench.at(61_000)) && !bench.trust.is_bus_up(bench.at(61_000)));
    }

    #[test]
    fn what_nobody_knows_began_when_the_log_was_last_read() {
        let bench = Bench::new();
        let unknown = |ms| bench.trust.unknown_for(bench.at(ms)).as_millis();
        assert_eq!((unknown(0), unknown(1_999), unknown(2_000)), (0, 0, 2_000));
        bench.trust.reconciled(bench.at(3_000));
        bench.trust.suspect(Suspicion::Silence, bench.at(3_500));
        bench.trust.unreadable();
        assert_eq!(unknown(3_600), 600);
        bench.trust.heard(bench.at(9_000));
        assert_eq!(unknown(9_000), 6_000, "the bus does not tell what was missed before");
    }

    #[test]
    fn a_suspicion_is_answered_only_by_a_round_that_began_after_it() {
        for suspicion in Suspicion::ALL {
            let bench = Bench::new();
            bench.trust.heard(bench.at(900));
            bench.trust.suspect(suspicion, bench.at(1_000));
            assert!(!bench.holds(1_000), "{suspicion:?}");
            bench.trust.heard(bench.at(1_010));
            bench.trust.reconciled(bench.at(999));
            bench.trust.reconciled(bench.at(1_000));
            assert!(!bench.holds(1_020), "{suspicion:?} was answered by a round that began before it");
            bench.trust.reconciled(bench.at(1_001));
            assert!(bench.holds(1_030), "{suspicion:?}");
        }
    }

    #[test]
    fn a_bus_that_was_lost_vouches_for_nothing_until_it_is_heard_again() {
        let bench = Bench::new();
        bench.trust.heard(bench.at(1_000));
        bench.trust.suspect(Suspicion::Disconnected, bench.at(1_100));
        bench.trust.reconciled(bench.at(1_200));
        assert!(bench.holds(3_199) && !bench.holds(3_200), "the lost bus still vouches");
        assert!(!bench.trust.has_fallen_silent(bench.at(9_000)), "its silence was told already");
        bench.trust.suspect(Suspicion::Connected, bench.at(5_000));
        bench.trust.heard(bench.at(5_001));
        assert!(!bench.holds(5_002));
        bench.trust.reconciled(bench.at(5_003));
        assert!(bench.holds(6_500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_trust_only_while_it_may_come_back() {
        let bench = Bench::new();
        let waited = async || {
            let began = tokio::time::Instant::now();
            bench.trust.wait().await;
            began.elapsed()
        };
        bench.trust.suspect(Suspicion::Connected, Instant::now());
        assert_eq!(waited().await, PATIENCE);
        bench.trust.unreadable();
        assert_eq!(waited().await, Duration::ZERO);
        bench.trust.suspect(Suspicion::Connected, Instant::now());
        let (waited, ()) = tokio::join!(waited(), async {
            tokio::time::sleep(PATIENCE / 10).await;
            bench.trust.reconciled(Instant::now());
        });
        assert!(waited < PATIENCE && bench.trust.holds(Instant::now()), "{waited:?}");
    }

    #[tokio::test]
    async fn a_suspicion_wakes_who_makes_the_rounds() {
        let bench = Bench::new();
        bench.trust.suspect(Suspicion::Silence, bench.at(0));
        bench.trust.alarm().notified().await;
    }
}
