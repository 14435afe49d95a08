//! How often somebody may ask: so many requests in so much time.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// The longest period of a quota.
const LONGEST_PERIOD: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// A quota, written `100/15m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many requests.
    pub requests: NonZeroU32,
    /// In how much time: from 1 second to 31 days.
    pub period: Duration,
}

impl fmt::Display for Quota {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.requests, humantime::format_duration(self.period).to_string().replace(' ', ""))
    }
}

impl FromStr for Quota {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (requests, period) = text.split_once('/')?;
            let requests = requests.parse().ok().filter(|_| requests.bytes().all(|byte| byte.is_ascii_digit()))?;
            let period = humantime::parse_duration(period).ok()?;
            let is_allowed = (Duration::from_secs(1)..=LONGEST_PERIOD).contains(&period);
            is_allowed.then_some(Self { requests, period })
        };
        parse().ok_or_else(|| {
            let detail =
                format!("{text:?} is not a quota: write REQUESTS/PERIOD such as \"100/15m\", with a period from 1s to 31days.");
            Error::bad_request("invalid_quota", detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_reads_what_it_writes_and_nothing_else() {
        for text in ["100/15m", "5/1h", "60/1m", "1/1s", "10/1h30m"] {
            assert_eq!(text.parse::<Quota>().unwrap().to_string(), text);
        }
        for wrong in ["", "100", "0/1m", "-1/1m", "+1/1m", "1/0s", "1/500ms", "1/32days", "1.5/1m", "5/hour of day", "5/1h/2"] {
            assert!(wrong.parse::<Quota>().unwrap_err().detail().contains("100/15m"), "{wrong}");
        }
    }
}
