//! Requests that no honest client sends: whatever they hold, they are understood or refused, and soon.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::sample::select;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::records::cursor;

/// What the parameters of a list are made of, so that random texts come near to what is understood.
const PIECES: [&str; 48] = [
    "page",
    "limit",
    "sort",
    "q",
    "fields",
    "filter",
    "cursor",
    "count",
    "include",
    "prefix",
    "highlight",
    "by",
    "sku",
    "tier",
    "tags",
    "shelf",
    "=",
    "=",
    "=",
    "&",
    "&",
    "&",
    "[",
    "]",
    "[in]",
    "[null]",
    "[all]",
    "[gte]",
    ",",
    "-",
    "*",
    "%",
    "%00",
    "%ff",
    "%5B",
    "+",
    "0",
    "1",
    "-1",
    "99999999999999999999",
    "1e308",
    "true",
    "exact",
    "none",
    "{\"or\":[",
    "{\"tier\":{\"eq\":",
    "]}",
    "\"",
];

/// Whether it is a client's fault.
fn assert_refusal(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::BadRequest), "{error}");
    assert!(!error.detail().is_empty() && error.internal_message().is_none(), "{error}");
}

fn understand(raw: &str) {
    let collection = collection();
    let begun = Instant::now();
    match parse_list(&collection, raw) {
        Ok(query) => drop((list_key(&query), selection_key(&query.selection))),
        Err(error) => assert_refusal(&error),
    }
    if let Err(error) = parse_stats(&collection, raw) {
        assert_refusal(&error);
    }
    if let Err(error) = Shape::parse(&collection, raw) {
        assert_refusal(&error);
    }
    // Far more than any of them takes, and far less than what grows with the square of its length would.
    assert!(begun.elapsed() < Duration::from_secs(2), "{} bytes took {:?}", raw.len(), begun.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_query_string_is_understood_or_refused(pieces in prop::collection::vec(select(&PIECES[..]), 0..40), noise in "\\PC{0,40}") {
        understand(&pieces.concat());
        understand(&format!("{}{noise}", pieces.concat()));
        understand(&noise);
        let escaped: String = noise.bytes().map(|byte| format!("%{byte:02x}")).collect();
        understand(&format!("q={escaped}&filter={escaped}&cursor={escaped}"));
    }

    #[test]
    fn any_cursor_is_understood_or_refused(
        text in "\\PC{0,80}",
        values in prop::collection::vec(select(vec!["null", "1", "-0", "1e999", "\"x\"", "true", "[]", "{}", "\"\\ud800\""]), 0..5),
        order in select(vec!["-tier", "tier", "", "-tier,sku"]),
    ) {
        let collection = collection();
        let forged = URL_SAFE_NO_PAD.encode(format!("[{},[{}]]", json!(order), values.join(",")));
        for text in [&*text, &*URL_SAFE_NO_PAD.encode(&text), &*forged] {
            match cursor::decode(&collection, &collection.sort, text) {
                Ok(read) => prop_assert_eq!(read.len(), collection.sort.len() + 1),
                Err(error) => assert_refusal(&error),
            }
            understand(&format!("cursor={text}"));
        }
    }
}

#[test]
fn the_longest_requests_are_refused_or_understood_as_soon_as_others() {
    let long = 16 * 1024;
    for piece in
        ["a", "%", "%41", "&", "=", "tier=1&", "q=x&", "tags[in]=a,", "-", "sort=tier,", ",", "[", "\"a\" ", "filter[", "é"]
    {
        understand(&piece.repeat(long / piece.len()));
        understand(&format!("q={}", piece.repeat(long / piece.len())));
        understand(&format!("fields={}", piece.repeat(long / piece.len())));
    }
    for (open, close) in
        [("{\"or\":[", "]}"), ("[", "]"), ("{\"not\":", "}"), ("{\"tier\":{\"in\":[", "]}}"), ("{\"tier\":{\"eq\":1},", "")]
    {
        let times = long / (open.len() + close.len());
        understand(&format!("filter={}{}", open.repeat(times), close.repeat(times)));
    }
    let many: Vec<String> = (0..long / 4).map(|number| number.to_string()).collect();
    understand(&format!("filter={{\"tier\":{{\"in\":[{}]}}}}", many.join(",")));
    understand(&format!("tier[in]={}", many.join(",")));
}
