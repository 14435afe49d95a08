//! Whether two JSON texts say the same: members in any order, numbers by their value, whatever the spelling.
//!
//! PostgreSQL's `jsonb` orders members, keeps the last of those that share a name, and writes `1e2` as `100`. Numbers are
//! compared as decimals: as doubles, two large integers that differ would be equal.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Whether `left` and `right` are the same value. What is no JSON equals only itself.
pub(super) fn are_equal(left: &str, right: &str) -> bool {
    left == right || are_equal_parsed(left, right).unwrap_or(false)
}

fn are_equal_parsed(left: &str, right: &str) -> Option<bool> {
    let (left, right) = (left.trim(), right.trim());
    let kind = left.chars().next()?;
    Some(match kind {
        '{' => {
            let left: BTreeMap<String, &RawValue> = serde_json::from_str(left).ok()?;
            let right: BTreeMap<String, &RawValue> = serde_json::from_str(right).ok()?;
            left.len() == right.len()
                && left
                    .iter()
                    .zip(&right)
                    .all(|((left_name, left), (right_name, right))| left_name == right_name && are_equal(left.get(), right.get()))
        }
        '[' => {
            let left: Vec<&RawValue> = serde_json::from_str(left).ok()?;
            let right: Vec<&RawValue> = serde_json::from_str(right).ok()?;
            left.len() == right.len() && left.iter().zip(&right).all(|(left, right)| are_equal(left.get(), right.get()))
        }
        '"' => serde_json::from_str::<String>(left).ok()? == serde_json::from_str::<String>(right).ok()?,
        '-' | '0'..='9' => Decimal::parse(left)? == Decimal::parse(right)?,
        _ => left == right,
    })
}

/// A number as `0.digits × 10^exponent`, with neither a first nor a last zero; 0 has no digits and no sign.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_start_matches('0');
        let leading = i64::try_from(all.len() - digits.len()).ok()?;
        let digits = digits.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits, exponent: 0 });
        }
        let point = i64::try_from(whole.len()).ok()?;
        Some(Self { is_negative, digits, exponent: exponent.checked_add(point)?.checked_sub(leading)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_in_another_spelling_is_equal() {
        for (left, right) in [
            (r#"{"a":1,"b":[1e2,-0.0]}"#, r#"{"b": [100, 0], "a": 1.0}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            (r#""\u00e9\/""#, "\"é/\""),
            ("1e300", &format!("1{}", "0".repeat(300))),
            ("12.50e-3", "0.0125"),
            ("9007199254740993", "9007199254740993.0"),
            ("5E+1", "50"),
            ("null", "null "),
            ("broken", "broken"),
        ] {
            assert!(are_equal(left, right) && are_equal(right, left), "{left} and {right}");
        }
    }

    #[test]
    fn another_value_is_not_equal() {
        for (left, right) in [
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.10000000000000001"),
            ("1", "-1"),
            ("100", "10"),
            ("1", "\"1\""),
            ("0", "false"),
            ("null", "false"),
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":1}"#, r#"{"b":1}"#),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            (r#""e\u0301""#, "\"é\""),
            (r#"{"a":1"#, r#"{"a":1}"#),
        ] {
            assert!(!are_equal(left, right) && !are_equal(right, left), "{left} and {right}");
        }
    }
}
