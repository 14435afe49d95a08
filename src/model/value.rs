//! Scalar values of filters, terms and statistics, with one canonical form each, so that equal values make equal
//! cache keys and equal guards.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde_json::Value;

/// The type of a field that can be filtered, sorted or counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    /// A JSON string, compared by code point.
    Text,
    /// A JSON integer in the range of `i64`.
    Integer,
    /// A JSON number, compared as IEEE 754 double.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of the server's own timestamps: RFC 3339, UTC, microseconds.
    Timestamp,
}

impl ScalarType {
    /// How messages name the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Timestamp => "an RFC 3339 time such as 2026-01-31T09:30:00Z",
        }
    }

    /// Reads `text` (from a URL) as this type; `None` if it is not one.
    pub fn parse(self, text: &str) -> Option<Scalar> {
        match self {
            Self::Text => Some(Scalar::Text(text.to_owned())),
            Self::Integer => text.parse().ok().map(Scalar::Integer),
            Self::Number => text.parse().ok().and_then(Number::new).map(Scalar::Number),
            Self::Boolean => text.parse().ok().map(Scalar::Boolean),
            Self::Timestamp => {
                chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| Scalar::Text(super::timestamp_text(time.to_utc())))
            }
        }
    }

    /// Reads a JSON value as this type; `None` if it is not one.
    pub fn from_json(self, value: &Value) -> Option<Scalar> {
        match (self, value) {
            (Self::Text, Value::String(text)) => Some(Scalar::Text(text.clone())),
            (Self::Timestamp, Value::String(text)) => self.parse(text),
            (Self::Integer, Value::Number(number)) => number.as_i64().or_else(|| integral(number.as_f64()?)).map(Scalar::Integer),
            (Self::Number, Value::Number(number)) => number.as_f64().and_then(Number::new).map(Scalar::Number),
            (Self::Boolean, Value::Bool(flag)) => Some(Scalar::Boolean(*flag)),
            (Self::Text | Self::Timestamp | Self::Integer | Self::Number | Self::Boolean, _) => None,
        }
    }
}

/// JSON Schema calls 2.0 an integer, so a stored 2.0 is the term 2. That holds for the whole range of `i64`: the database
/// finds a stored 1e18 under 1000000000000000000, so both must be one term.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn integral(number: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    (number.fract() == 0.0 && (-BOUND..BOUND).contains(&number)).then_some(number as i64)
}

/// A scalar value in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scalar {
    /// `false` before `true`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any finite number.
    Number(Number),
    /// A string.
    Text(String),
}

impl Scalar {
    /// The value as JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Boolean(flag) => Value::from(*flag),
            Self::Integer(number) => Value::from(*number),
            Self::Number(number) => Value::from(number.get()),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(flag) => flag.fmt(formatter),
            Self::Integer(number) => number.fmt(formatter),
            Self::Number(number) => number.get().fmt(formatter),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// A finite `f64` with a total order; minus zero is zero.
#[derive(Clone, Copy, Debug)]
pub struct Number(f64);

impl Number {
    /// `None` for infinities and NaN, which JSON does not have.
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Number {}
impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_value_are_equal() {
        assert_eq!(ScalarType::Number.parse("1.50"), ScalarType::Number.from_json(&serde_json::json!(1.5)));
        assert_eq!(ScalarType::Number.parse("-0"), ScalarType::Number.parse("0"));
        for (float, whole) in [(2.0, 2), (-0.0, 0), (1e18, 1_000_000_000_000_000_000), (i64::MIN as f64, i64::MIN)] {
            assert_eq!(ScalarType::Integer.from_json(&serde_json::json!(float)), Some(Scalar::Integer(whole)), "{float}");
        }
        for beyond in [-(i64::MIN as f64), 1e19, 0.5] {
            assert_eq!(ScalarType::Integer.from_json(&serde_json::json!(beyond)), None, "{beyond}");
        }
        assert_eq!(
            ScalarType::Timestamp.parse("2026-01-31T10:30:00+01:00"),
            ScalarType::Timestamp.parse("2026-01-31T09:30:00.000000Z")
        );
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for (kind, text) in [
            (ScalarType::Integer, "2.5"),
            (ScalarType::Integer, "99999999999999999999"),
            (ScalarType::Number, "NaN"),
            (ScalarType::Boolean, "yes"),
            (ScalarType::Timestamp, "yesterday"),
        ] {
            assert_eq!(kind.parse(text), None, "{text}");
        }
    }
}
