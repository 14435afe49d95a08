//! How often somebody may ask: so many requests in so much time, and whose quota counts.

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

/// Requests that share a quota, set by `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitClass {
    /// What has no other class.
    Api,
    /// Logins.
    Auth,
    /// What is costly to make.
    Export,
    /// What other systems send.
    Webhook,
}

/// Which quota the reads, or the writes, of a collection count against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// That of a class, together with everything else of the class.
    Class(LimitClass),
    /// One of their own.
    Own(Quota),
    /// None.
    Off,
}

/// How often a collection may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionLimits {
    /// By GET and HEAD.
    pub read: Limit,
    /// By everything else.
    pub write: Limit,
}

impl Default for CollectionLimits {
    fn default() -> Self {
        Self { read: Limit::Class(LimitClass::Api), write: Limit::Class(LimitClass::Api) }
    }
}

impl LimitClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Api, Self::Auth, Self::Export, Self::Webhook];

    /// How settings and files spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Auth => "auth",
            Self::Export => "export",
            Self::Webhook => "webhook",
        }
    }
}

impl FromStr for LimitClass {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|class| class.as_str() == text);
        found.ok_or_else(|| {
            Error::bad_request("invalid_class", format!("{text:?} is not a class: api, auth, export and webhook are."))
                .with_allowed(Self::ALL.map(Self::as_str))
        })
    }
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
    fn classes_are_spelled_one_way() {
        for (index, class) in LimitClass::ALL.into_iter().enumerate() {
            assert_eq!(index, class as usize);
            assert_eq!(class.as_str().parse::<LimitClass>().unwrap(), class);
        }
        assert_eq!("API".parse::<LimitClass>().unwrap_err().allowed(), ["api", "auth", "export", "webhook"]);
    }

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
