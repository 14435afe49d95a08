//! Header values that differ by a number of seconds only. A hit needs two of them, and formatting them cost more than
//! finding the entry, so each is made once and then shared by the process: they are constants, made when first needed.

use std::sync::{LazyLock, OnceLock};

use actix_web::http::header::HeaderValue;

/// Numbers up to this are kept, an hour, since most entries live no longer; others are formatted each time.
const KEPT: usize = 3_600;

/// `Age` (RFC 9111, 5.1).
pub(super) static AGE_VALUES: LazyLock<SecondsValues> = LazyLock::new(|| SecondsValues::new("", ""));

/// `Cache-Status` of a hit, by the freshness that is left.
pub(super) static HIT_VALUES: LazyLock<SecondsValues> = LazyLock::new(|| SecondsValues::new("terrace; hit; ttl=", "; detail=l1"));

/// The same from the second tier.
pub(super) static HIT_L2_VALUES: LazyLock<SecondsValues> =
    LazyLock::new(|| SecondsValues::new("terrace; hit; ttl=", "; detail=l2"));

/// Values made of a number between two texts.
pub(super) struct SecondsValues {
    before: &'static str,
    after: &'static str,
    kept: Vec<OnceLock<HeaderValue>>,
}

impl SecondsValues {
    fn new(before: &'static str, after: &'static str) -> Self {
        Self { before, after, kept: (0..=KEPT).map(|_| OnceLock::new()).collect() }
    }

    /// The value for `seconds`.
    pub(super) fn of(&self, seconds: u64) -> HeaderValue {
        let kept = usize::try_from(seconds).ok().and_then(|position| self.kept.get(position));
        match kept {
            Some(kept) => kept.get_or_init(|| self.make(seconds)).clone(),
            None => self.make(seconds),
        }
    }

    fn make(&self, seconds: u64) -> HeaderValue {
        let text = format!("{}{seconds}{}", self.before, self.after);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_formatted_values_look_alike() {
        for seconds in [0, 1, 277, 3_600, 3_601, u64::MAX] {
            assert_eq!(AGE_VALUES.of(seconds), seconds.to_string().as_str());
            assert_eq!(HIT_VALUES.of(seconds), format!("terrace; hit; ttl={seconds}; detail=l1").as_str());
        }
    }
}
