//! How an answer came about: `X-Cache` for people, `Cache-Status` (RFC 9211) for tools, and `Age`.

use actix_web::http::header::{AGE, CACHE_STATUS, HeaderMap, HeaderName, HeaderValue};

use super::seconds::{AGE_VALUES, HIT_L2_VALUES, HIT_VALUES};
use crate::records::{Answer, Forwarded, Outcome, Tier};

static X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Adds the headers.
pub(super) fn describe(headers: &mut HeaderMap, answer: &Answer) {
    let (word, status) = match answer.outcome() {
        Outcome::Hit => ("HIT", HIT_VALUES.of(answer.fresh_for().as_secs())),
        Outcome::HitL2 => ("HIT", HIT_L2_VALUES.of(answer.fresh_for().as_secs())),
        Outcome::Stale => ("STALE", stale(answer)),
        Outcome::Miss => ("MISS", loaded(answer, "; stored")),
        Outcome::Joined => ("MISS", loaded(answer, "; stored; collapsed")),
        Outcome::Bypass => ("BYPASS", loaded(answer, "")),
    };
    headers.insert(X_CACHE.clone(), HeaderValue::from_static(word));
    headers.insert(CACHE_STATUS, status);
    headers.insert(AGE, AGE_VALUES.of(answer.age().as_secs()));
}

fn loaded(answer: &Answer, rest: &str) -> HeaderValue {
    let why = match answer.forwarded() {
        Forwarded::UriMiss => "uri-miss",
        Forwarded::Miss => "miss",
        Forwarded::Stale => "stale",
        Forwarded::Request => "request",
        Forwarded::Bypass => "bypass",
    };
    HeaderValue::try_from(format!("terrace; fwd={why}{rest}")).unwrap_or(HeaderValue::from_static("terrace; fwd=miss"))
}

/// `ttl` is the freshness that was left, below zero since the entry expired (RFC 9211, 2.5). One that a change outdated
/// before its time is no longer fresh either.
fn stale(answer: &Answer) -> HeaderValue {
    let seconds = answer.expired_for().as_secs().max(1);
    let tier = match answer.tier() {
        Some(Tier::L2) => "l2",
        Some(Tier::L1) | None => "l1",
    };
    let text = format!("terrace; hit; ttl=-{seconds}; detail={tier}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("terrace; hit"))
}
