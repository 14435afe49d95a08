//! How Redis is, for health checks, and what the log is told of it: every change once, and what stays bad once a minute.

use std::time::{Instant, SystemTime};

use crate::error::Error;
use crate::telemetry::{REMINDER, Told};

/// A server that comes and goes is not told of more often than this within one [`REMINDER`].
const MOST_CHANGES: u32 = 10;

/// Whether commands can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisStatus {
    /// They can.
    Up {
        /// The server's version, such as `7.0.15`.
        version: String,
        /// Since when.
        since: SystemTime,
        /// What the server has refused within the last minute, for operators. It names the setting and no secrets.
        complaint: Option<String>,
    },
    /// They cannot, and whoever would goes on without.
    Down {
        /// Why, for operators. It names the setting and no secrets.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

/// Keeps the status and tells the log.
pub(super) struct Teller {
    /// The version of the server, if it is there.
    up: Option<String>,
    since: SystemTime,
    reason: String,
    complaint: Option<(String, Instant)>,
    told: Capped,
    complained: Capped,
    /// The untested version that the log knows of.
    untested: String,
}

impl Teller {
    /// Nobody has tried yet.
    pub fn new() -> Self {
        Self {
            up: None,
            since: SystemTime::now(),
            reason: "The first connection to the server of redis.url is not made yet.".to_owned(),
            complaint: None,
            told: Capped::default(),
            complained: Capped::default(),
            untested: String::new(),
        }
    }

    pub fn status(&self) -> RedisStatus {
        let since = self.since;
        match &self.up {
            None => RedisStatus::Down { reason: self.reason.clone(), since },
            Some(version) => {
                let complaint = self.complaint.as_ref().filter(|(_, at)| at.elapsed() < REMINDER);
                let complaint = complaint.map(|(complaint, _)| complaint.clone());
                RedisStatus::Up { version: version.clone(), since, complaint }
            }
        }
    }

    /// A link was made.
    pub fn up(&mut self, version: &str, is_tested: bool) {
        if self.up.is_none() {
            self.since = SystemTime::now();
        }
        self.up = Some(version.to_owned());
        self.complaint = None;
        if self.told.is_due("", Instant::now()) {
            tracing::info!(version, "Redis is there");
        }
        if !is_tested && self.untested != version {
            version.clone_into(&mut self.untested);
            tracing::info!(version, "this version of Redis is newer than those that Terrace was tested with");
        }
    }

    /// A link was lost, or could not be made.
    pub fn down(&mut self, error: &Error) {
        if self.up.take().is_some() {
            self.since = SystemTime::now();
        }
        error.detail().clone_into(&mut self.reason);
        if self.told.is_due(error.detail(), Instant::now()) {
            tracing::warn!(%error, "Redis is away; reads and writes go on without it until it is back");
        }
    }

    /// The server refused a command.
    pub fn complain(&mut self, error: &Error) {
        let now = Instant::now();
        self.complaint = Some((error.detail().to_owned(), now));
        if self.complained.is_due(error.detail(), now) {
            tracing::warn!(%error, "Redis refused a command; reads and writes go on without it");
        }
    }
}

/// What the log has been told of one matter that may change all the time.
#[derive(Default)]
pub(super) struct Capped {
    told: Told,
    window: Option<Instant>,
    in_window: u32,
}

impl Capped {
    /// As [`Told::is_due`], and at most [`MOST_CHANGES`] times in a [`REMINDER`].
    pub fn is_due(&mut self, text: &str, now: Instant) -> bool {
        if self.window.is_none_or(|at| now.duration_since(at) >= REMINDER) {
            (self.window, self.in_window) = (Some(now), 0);
        }
        let is_due = self.in_window < MOST_CHANGES && self.told.is_due(text, now);
        self.in_window += u32::from(is_due);
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(matter: impl IntoIterator<Item = (u64, &'static str)>) -> Vec<u64> {
        let (mut told, begin) = (Capped::default(), Instant::now());
        let matter = matter.into_iter();
        matter
            .filter(|(second, text)| told.is_due(text, begin + Duration::from_secs(*second)))
            .map(|(second, _)| second)
            .collect()
    }

    #[test]
    fn a_reason_is_told_when_it_begins_when_it_changes_and_once_a_minute() {
        let seconds = told([(0, "away"), (1, "away"), (59, "away"), (60, "away"), (61, "full"), (62, "full"), (63, "away")]);
        assert_eq!(seconds, [0, 60, 61, 63]);
    }

    #[test]
    fn a_server_that_comes_and_goes_does_not_fill_the_log() {
        let seconds = told((0..50).map(|second| (second, if second % 2 == 0 { "away" } else { "" })));
        assert_eq!(seconds, (0..10).collect::<Vec<_>>());
        assert_eq!(told([(0, "away"), (30, ""), (75, "away")]), [0, 30, 75]);
    }

    #[test]
    fn the_status_says_why_and_since_when() {
        let mut teller = Teller::new();
        assert!(matches!(teller.status(), RedisStatus::Down { reason, .. } if reason.contains("redis.url")));
        let error = Error::unavailable("No Redis.", Duration::ZERO, "secret details");
        teller.down(&error);
        let RedisStatus::Down { reason, since } = teller.status() else { panic!("it is down") };
        assert_eq!(reason, "No Redis.");
        teller.up("7.0.15", true);
        teller.complain(&Error::unavailable("It is full.", Duration::ZERO, ""));
        let RedisStatus::Up { version, since: up, complaint } = teller.status() else { panic!("it is up") };
        assert_eq!((version.as_str(), complaint.as_deref()), ("7.0.15", Some("It is full.")));
        assert!(up >= since);
    }
}
