//! The generic cell rate algorithm (ITU-T I.371) as a meter: each request adds an interval to a backlog that drains in real
//! time, and is refused where the backlog would grow over the period. A quota of 100 requests in 15 minutes so lets 100
//! pass at once and then one every 9 seconds. It knows no clock: whoever calls says what time it is.
//!
//! The script of `tier` does the same arithmetic on the server's clock.

use std::time::Duration;

use crate::model::Quota;

/// A quota as the algorithm has it. All times are microseconds; fractions count, for an interval may be shorter than one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// What a request adds to the backlog.
    pub interval: f64,
    /// How much backlog there may be.
    pub capacity: f64,
}

/// What one bucket has taken. Empty by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    backlog: f64,
    at: u64,
}

/// Floating point may put a whole number just below itself.
const ROUNDING: f64 = 1e-6;

impl Rate {
    pub fn of(quota: Quota) -> Self {
        let capacity = quota.period.as_secs_f64() * 1e6;
        Self { interval: capacity / f64::from(quota.requests.get()), capacity }
    }

    /// The share of one of `instances`. Each lets at least one request pass at once.
    pub fn share(self, instances: u32) -> Self {
        let interval = self.interval * f64::from(instances.max(1));
        Self { interval, capacity: self.capacity.max(interval) }
    }

    /// How many requests pass at once when there is no backlog.
    pub fn requests(self) -> u32 {
        self.room(0.0)
    }

    /// How many more requests this backlog lets pass.
    pub fn room(self, backlog: f64) -> u32 {
        // Saturates: a cast of what is too large or negative.
        ((self.capacity - backlog) / self.interval + ROUNDING) as u32
    }

    /// The backlog that lets `requests` more pass.
    pub fn backlog(self, requests: f64) -> f64 {
        (self.capacity - requests * self.interval).max(0.0)
    }
}

impl Meter {
    /// One that has this backlog.
    pub fn with(backlog: f64, now: u64) -> Self {
        Self { backlog, at: now }
    }

    /// Takes one request, or says how long it is until one passes.
    pub fn take(&mut self, rate: Rate, now: u64) -> Result<(), Duration> {
        let backlog = self.backlog(now);
        let over = backlog + rate.interval - rate.capacity;
        if over > rate.interval * ROUNDING {
            return Err(Duration::from_micros(over.ceil() as u64));
        }
        (self.backlog, self.at) = (backlog + rate.interval, now);
        Ok(())
    }

    /// What has not drained.
    pub fn backlog(&self, now: u64) -> f64 {
        (self.backlog - now.saturating_sub(self.at) as f64).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::of(text.parse().unwrap())
    }

    #[test]
    fn a_quota_passes_at_once_and_comes_back_evenly() {
        let (rate, mut meter) = (rate("100/15m"), Meter::default());
        assert!((0..100).all(|_| meter.take(rate, 5).is_ok()));
        assert_eq!(meter.take(rate, 5), Err(Duration::from_secs(9)));
        assert_eq!(meter.take(rate, 8_999_905), Err(Duration::from_micros(100)));
        assert_eq!(meter.take(rate, 9_000_005), Ok(()));
        assert!(meter.take(rate, 9_000_005).is_err());
        assert_eq!(rate.room(meter.backlog(9_000_005 + 90_000_000)), 10);
        assert_eq!(rate.requests(), 100);
    }

    #[test]
    fn shares_add_up_to_the_whole_and_are_never_nothing() {
        assert_eq!(rate("90/1m").share(3).requests(), 30);
        assert_eq!(rate("5/1h").share(3).requests(), 1);
        assert_eq!(rate("1/1h").share(10).requests(), 1);
        let (rate, mut meter) = (rate("1/1h").share(10), Meter::default());
        assert_eq!(meter.take(rate, 0), Ok(()));
        assert_eq!(meter.take(rate, 0), Err(Duration::from_secs(36_000)));
    }

    #[test]
    fn every_quota_that_can_be_written_lets_exactly_its_requests_pass() {
        for text in ["1/1s", "60/1m", "61/1m", "7/1h30m", "4294967295/31days", "4294967295/1s", "1000000/15m", "3/31days"] {
            let quota: Quota = text.parse().unwrap();
            assert_eq!(Rate::of(quota).requests(), quota.requests.get(), "{text}");
        }
    }

    proptest! {
        /// In any stretch of time no more pass than the quota and what comes back meanwhile.
        #[test]
        fn no_window_has_more_than_the_quota_and_what_comes_back(
            requests in 1_u32..20, seconds in 1_u64..20, gaps in proptest::collection::vec(0_u64..3_000_000, 1..200),
        ) {
            let rate = rate(&format!("{requests}/{seconds}s"));
            let (mut meter, mut now, mut passed) = (Meter::default(), 0, Vec::new());
            for gap in gaps {
                now += gap;
                if meter.take(rate, now).is_ok() {
                    passed.push(now);
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let most = f64::from(requests) + (end - begin) as f64 / rate.interval + 1e-3;
                    prop_assert!((last - first + 1) as f64 <= most);
                }
            }
        }
    }
}
