//! What the log has been told of a state that lasts: its reason when it begins and when it changes, and then seldom, for the
//! lines of an hour of it would bury all others.

use std::time::{Duration, Instant};

/// How often the log repeats a reason that stays the same.
pub(crate) const REMINDER: Duration = Duration::from_secs(60);

/// What the log has been told of one matter.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Option<(String, Instant)>,
}

impl Told {
    /// A text is told when it is new, and again every [`REMINDER`].
    pub(crate) fn is_due(&mut self, text: &str, now: Instant) -> bool {
        let is_due = self.last.as_ref().is_none_or(|(told, at)| told != text || now.duration_since(*at) >= REMINDER);
        if is_due {
            self.last = Some((text.to_owned(), now));
        }
        is_due
    }

    /// Whether this is what was told last.
    pub(crate) fn has_told(&self, text: &str) -> bool {
        self.last.as_ref().is_some_and(|(told, _)| told == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_when_it_begins_when_it_changes_and_once_a_minute() {
        let (mut told, begin) = (Told::default(), Instant::now());
        let reasons = [(0, "away"), (1, "away"), (59, "away"), (60, "away"), (61, "full"), (62, "full"), (63, "away")];
        let due = reasons.into_iter().filter(|(second, reason)| told.is_due(reason, begin + Duration::from_secs(*second)));
        let seconds: Vec<u64> = due.map(|(second, _)| second).collect();
        assert_eq!(seconds, [0, 60, 61, 63]);
    }
}
