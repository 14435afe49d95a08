//! What a request demands of the age of its answer: `Cache-Control` (RFC 9111, 5.2.1) and `Consistency-Token`. A request
//! without these headers, as nearly all are, costs two look-ups.
//!
//! `Pragma` is not read: RFC 9111, 5.4, deprecates it.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName};

use crate::error::{Error, Result};
use crate::model::Freshness;

/// The position of a write, in its answer and in the requests of who has seen that.
pub(super) static CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// Whether clients may say what they take (`cache.honor_request_directives`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directives {
    /// As RFC 9111 has it.
    Honored,
    /// `Cache-Control` of requests is as if it were not there. Tokens count all the same: they are about what is true, not
    /// about what is cached.
    Ignored,
}

/// Reads what `headers` demand. The error is a token that is none.
pub(super) fn demand(headers: &HeaderMap, directives: Directives) -> Result<Freshness> {
    let mut demand = Freshness::ANY;
    if directives == Directives::Honored && headers.contains_key(CACHE_CONTROL) {
        let mut max_stale = None;
        for value in headers.get_all(CACHE_CONTROL) {
            read_directives(value.as_bytes(), &mut demand, &mut max_stale);
        }
        demand.max_stale = max_stale.unwrap_or_default();
    }
    // Several are those of several writes: the answer must show them all, and no one position says that.
    let mut tokens = headers.get_all(&CONSISTENCY_TOKEN);
    if let Some(token) = tokens.next() {
        if tokens.next().is_some() {
            let detail = "Send one Consistency-Token: that of the last write whose effect the answer must show.";
            return Err(Error::bad_request("invalid_consistency_token", detail));
        }
        // What is no text is no token either, and the parser says so.
        demand.token = Some(token.to_str().unwrap_or_default().trim().parse()?);
    }
    Ok(demand)
}

/// Of directives that are given twice the stricter one counts, and the order of lines and directives plays no part.
fn read_directives(value: &[u8], demand: &mut Freshness, max_stale: &mut Option<Duration>) {
    for directive in (Elements { rest: value }) {
        let (name, argument) = match directive.iter().position(|byte| *byte == b'=') {
            Some(at) => (directive.get(..at).unwrap_or_default(), directive.get(at + 1..)),
            None => (directive, None),
        };
        let is = |known: &str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
        if is("no-cache") {
            demand.reload = true;
        } else if is("no-store") {
            demand.no_store = true;
        } else if is("only-if-cached") {
            demand.only_if_cached = true;
        } else if is("max-age") {
            let max_age = delta_seconds(argument).unwrap_or(Duration::ZERO);
            demand.max_age = Some(demand.max_age.map_or(max_age, |other| other.min(max_age)));
        } else if is("min-fresh") {
            demand.min_fresh = demand.min_fresh.max(delta_seconds(argument).unwrap_or(Duration::MAX));
        } else if is("max-stale") {
            let allowed = match argument {
                None => Duration::MAX,
                Some(_) => delta_seconds(argument).unwrap_or(Duration::ZERO),
            };
            *max_stale = Some(max_stale.map_or(allowed, |other| other.min(allowed)));
        }
    }
}

/// RFC 9111, 1.2.2: digits, of which a recipient takes a quoted string too (5.2); what is larger than it can count is the
/// largest that it can. Anything else is `None`: the caller takes what asks for the freshest answer (4.2.1).
fn delta_seconds(argument: Option<&[u8]>) -> Option<Duration> {
    let text = argument?.trim_ascii();
    let digits = text.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(Duration::from_secs(digits.iter().fold(0, number)))
}

/// The elements of a list (RFC 9110, 5.6.1), of which quoted ones may hold commas.
struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (mut is_quoted, mut is_escaped) = (false, false);
            let end = self.rest.iter().position(|byte| {
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' if is_quoted => is_escaped = true,
                    b'"' => is_quoted = !is_quoted,
                    b',' => return !is_quoted,
                    _ => {}
                }
                false
            });
            let (element, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            self.rest = rest.get(1..).unwrap_or_default();
            let element = element.trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::model::Position;

    fn of(lines: &[&str]) -> Freshness {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        demand(&headers, Directives::Honored).unwrap()
    }

    const fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn directives_are_read_whatever_their_case_order_and_company() {
        assert_eq!(of(&[]), Freshness::ANY);
        assert_eq!(of(&["no-cache"]), Freshness { reload: true, ..Freshness::ANY });
        assert_eq!(of(&["No-Store"]), Freshness { no_store: true, ..Freshness::ANY });
        assert_eq!(of(&[" ,only-if-cached, "]), Freshness { only_if_cached: true, ..Freshness::ANY });
        let all = Freshness {
            max_age: Some(seconds(60)),
            min_fresh: seconds(5),
            max_stale: seconds(7),
            only_if_cached: true,
            ..Freshness::ANY
        };
        assert_eq!(of(&["max-age=60, min-fresh=5,max-stale=7,only-if-cached"]), all);
        assert_eq!(of(&["max-stale=7", "ONLY-IF-CACHED,Max-Age = \"60\" , min-fresh=\"5\""]), all);
        assert_eq!(of(&["max-stale"]), Freshness { max_stale: Duration::MAX, ..Freshness::ANY });
    }

    #[test]
    fn what_is_unknown_is_ignored_even_if_it_quotes_a_known_one() {
        for line in ["", ",,,", "immutable", "foo=bar", "x=\"no-cache, max-age=0\"", "x=\"a\\\", no-store\"", "no-cachet", "=5"] {
            assert_eq!(of(&[line]), Freshness::ANY, "{line}");
        }
        assert!(of(&["x=\"a, b\", no-cache"]).reload);
        assert!(of(&["no-cache=\"set-cookie\""]).reload, "a field name there is for responses, and asks for no less here");
    }

    #[test]
    fn a_number_that_is_none_asks_for_the_freshest() {
        for bad in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=\"", "max-age=x", "max-age=\"1\"2", "max-age=+1"]
        {
            assert_eq!(of(&[bad]).max_age, Some(Duration::ZERO), "{bad}");
        }
        assert_eq!(of(&["max-stale=x"]).max_stale, Duration::ZERO);
        assert_eq!(of(&["min-fresh=x"]).min_fresh, Duration::MAX);
    }

    #[test]
    fn a_number_beyond_all_counting_is_the_largest() {
        assert_eq!(of(&["max-age=99999999999999999999999999"]).max_age, Some(seconds(u64::MAX)));
    }

    #[test]
    fn the_stricter_of_two_counts() {
        let twice = of(&["max-age=9, min-fresh=1, max-stale", "max-age=5, min-fresh=3, max-stale=4"]);
        assert_eq!((twice.max_age, twice.min_fresh, twice.max_stale), (Some(seconds(5)), seconds(3), seconds(4)));
        assert_eq!(of(&["max-stale=x", "max-stale=9"]).max_stale, Duration::ZERO);
    }

    #[test]
    fn a_token_counts_whatever_the_directives_do() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.append(CONSISTENCY_TOKEN.clone(), HeaderValue::from_static("12-7"));
        let token = Some(Position { transaction: 12, sequence: 7 });
        assert_eq!(demand(&headers, Directives::Ignored).unwrap(), Freshness { token, ..Freshness::ANY });
        assert_eq!(demand(&headers, Directives::Honored).unwrap(), Freshness { token, reload: true, ..Freshness::ANY });
        headers.append(CONSISTENCY_TOKEN.clone(), HeaderValue::from_static("12-8"));
        assert_eq!(demand(&headers, Directives::Honored).unwrap_err().code(), "invalid_consistency_token");
        for bad in ["", "12", "x-1", "\u{e9}"] {
            headers.insert(CONSISTENCY_TOKEN.clone(), HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(demand(&headers, Directives::Honored).unwrap_err().code(), "invalid_consistency_token", "{bad}");
        }
    }
}
