//! Record ids in paths. The raw segment is decoded here, exactly once: decoding twice would let `%252F` through as a
//! slash, and a router that decodes for itself would see `%2F` as one.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Result};
use crate::model::RecordId;

/// What is escaped in a path segment: all but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Reads the id that a path segment spells.
pub(super) fn record_id(segment: &str) -> Result<RecordId> {
    let text = decoded(segment)?;
    RecordId::parse(&text).map_err(invalid)
}

/// The path of a record: `collection_path` and its id, escaped.
pub(super) fn record_path(collection_path: &str, id: &RecordId) -> String {
    format!("{collection_path}/{}", utf8_percent_encode(id.as_str(), SEGMENT))
}

fn decoded(segment: &str) -> Result<Cow<'_, str>> {
    let bytes = segment.as_bytes();
    if !bytes.contains(&b'%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    let well_formed = |(at, _)| bytes.get(at + 1..at + 3).is_some_and(|digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit));
    if !escapes.all(well_formed) {
        return Err(invalid("A % in a path is followed by two hexadecimal digits; % itself is written %25."));
    }
    percent_decode_str(segment).decode_utf8().map_err(|_| invalid("An id is UTF-8 text."))
}

fn invalid(detail: &str) -> Error {
    Error::bad_request("invalid_id", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_exactly_once() {
        for (segment, expected) in [
            ("K8S-CPU", "K8S-CPU"),
            ("%2541", "%41"),
            ("%252F", "%2F"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("%F0%9F%A6%80", "🦀"),
            ("%2e%2E%2e", "..."),
            ("x%5F", "x_"),
        ] {
            assert_eq!(record_id(segment).unwrap().as_str(), expected, "{segment}");
        }
    }

    #[test]
    fn hostile_segments_are_refused_with_a_reason() {
        let long = "x".repeat(1024);
        for segment in
            ["%2F", "..%2f", "%2e%2e", "..", "%00", "a%0Ab", "%ff", "%C0%AF", "%", "%4", "%zz", "100%", "%5Fbatch", "", &long]
        {
            let error = record_id(segment).unwrap_err();
            assert_eq!(error.code(), "invalid_id", "{segment}");
        }
    }

    #[test]
    fn the_path_of_a_record_leads_back_to_its_id() {
        for text in ["a b", "50%", "%41", "🦀", "a?b#c", "x'; DROP TABLE records; --"] {
            let id = RecordId::parse(text).unwrap();
            let path = record_path("/api/v1/metrics", &id);
            let segment = path.strip_prefix("/api/v1/metrics/").unwrap();
            assert!(segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#/".contains(&byte)), "{path}");
            assert_eq!(record_id(segment).unwrap(), id);
        }
    }
}
