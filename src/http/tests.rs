//! Headers and paths of strangers: whatever bytes they hold, they are understood, ignored or refused.

use actix_web::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::freshness::{self, CONSISTENCY_TOKEN, Directives};
use super::{conditional, identifier, negotiation};
use crate::error::{Error, ErrorKind};

const PIECES: [&str; 40] = [
    "*",
    "/",
    "*/*",
    "application/",
    "json",
    ";",
    "q=",
    "=",
    ",",
    " ",
    "\t",
    "\"",
    "W/",
    "\\",
    "0",
    "1",
    ".",
    "0.5",
    "1.001",
    "-1",
    "99999999999999999999",
    "gzip",
    "br",
    "zstd",
    "identity",
    "max-age",
    "max-stale",
    "min-fresh",
    "no-cache",
    "no-store",
    "only-if-cached",
    "1-1",
    "1-",
    "-",
    "x",
    "\u{e9}",
    "q=0",
    "q=nan",
    "*;q=0",
    "\"a\"",
];

fn assert_refusal(error: &Error, kind: ErrorKind) {
    assert!(error.kind() == kind && error.internal_message().is_none(), "{error}");
}

/// Everything that reads headers, over headers that all have `value`.
fn read(value: &HeaderValue) {
    let mut headers = HeaderMap::new();
    let consistency = HeaderName::from_static(CONSISTENCY_TOKEN.as_str());
    for name in [ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, IF_NONE_MATCH, consistency] {
        headers.append(name.clone(), value.clone());
        headers.append(name, value.clone());
    }
    negotiation::encoding(&headers, 4_096);
    conditional::is_known_to_client(&headers, b"\"a\"");
    if let Err(error) = negotiation::require_json(&headers) {
        assert_refusal(&error, ErrorKind::NotAcceptable);
    }
    for directives in [Directives::Honored, Directives::Ignored] {
        if let Err(error) = freshness::demand(&headers, directives) {
            assert_refusal(&error, ErrorKind::BadRequest);
        }
    }
    for name in [IF_MATCH, IF_NONE_MATCH] {
        let mut headers = HeaderMap::new();
        headers.append(name, value.clone());
        if let Err(error) = conditional::precondition(&headers) {
            assert_refusal(&error, ErrorKind::BadRequest);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_header_is_understood_ignored_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        pieces in prop::collection::vec(select(&PIECES[..]), 0..30),
    ) {
        for bytes in [&bytes[..], pieces.concat().as_bytes()] {
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                read(&value);
            }
        }
    }

    #[test]
    fn any_segment_of_a_path_is_an_id_or_refused(text in "[^/?#]{0,300}", escapes in prop::collection::vec(any::<u8>(), 0..120)) {
        let escaped: String = escapes.iter().map(|byte| format!("%{byte:02X}")).collect();
        for segment in [text, escaped] {
            match identifier::record_id(&segment) {
                Ok(id) => prop_assert_eq!(&identifier::record_id(identifier::record_path("/x", &id).trim_start_matches("/x/")).unwrap(), &id),
                Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::BadRequest | ErrorKind::NotFound), "{}", error),
            }
        }
    }
}

#[test]
fn the_longest_headers_take_no_longer_than_others() {
    let begun = std::time::Instant::now();
    for piece in PIECES {
        if let Ok(value) = HeaderValue::from_bytes(piece.repeat(64 * 1024 / piece.len()).as_bytes()) {
            read(&value);
        }
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}
