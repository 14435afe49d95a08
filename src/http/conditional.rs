//! Conditional requests (RFC 9110, 13): `If-None-Match` of reads, `If-Match` and `If-None-Match: *` of writes.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use crate::error::{Error, Result};
use crate::records::{Encoding, Precondition};

/// Whether `If-None-Match` names the entity whose tag (in any coding, with quotes) is `etag`. The comparison is weak, and
/// a tag of another coding counts: the client has that entity, and a 304 says so.
pub(super) fn is_known_to_client(headers: &HeaderMap, etag: &[u8]) -> bool {
    headers.get_all(IF_NONE_MATCH).any(|value| {
        let value = value.as_bytes();
        value == etag || value.trim_ascii() == b"*" || tags(value).any(|tag| entity(tag.opaque) == entity(etag))
    })
}

/// What a write demands of the stored record.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition> {
    match (headers.contains_key(IF_MATCH), headers.contains_key(IF_NONE_MATCH)) {
        (false, false) => Ok(Precondition::None),
        (true, false) => if_match(headers),
        (false, true) if headers.get_all(IF_NONE_MATCH).all(|value| value.as_bytes().trim_ascii() == b"*") => {
            Ok(Precondition::Absent)
        }
        (false, true) => Err(invalid("If-None-Match of a write is \"*\": the record must not exist yet.")),
        (true, true) => Err(invalid("If-Match and If-None-Match contradict each other on a write; send one of them.")),
    }
}

/// Refuses conditions on a request that has no one record to hold them against.
pub(super) fn no_precondition(headers: &HeaderMap) -> Result<()> {
    let has = |name: HeaderName| headers.contains_key(name);
    if has(IF_MATCH) || has(IF_NONE_MATCH) {
        let detail = "If-Match and If-None-Match are for the path of one record; an operation of a batch takes \"if_match\".";
        return Err(invalid(detail));
    }
    Ok(())
}

fn if_match(headers: &HeaderMap) -> Result<Precondition> {
    let mut wanted = Vec::new();
    for value in headers.get_all(IF_MATCH).map(HeaderValue::as_bytes) {
        if value.trim_ascii() == b"*" {
            return Ok(Precondition::Exists);
        }
        let mut rest = Tags { rest: value };
        // If-Match compares strongly (RFC 9110, 13.1.1), so a weak tag matches nothing; `W/` keeps it different.
        wanted.extend(rest.by_ref().map(|tag| {
            let opaque = String::from_utf8_lossy(tag.opaque);
            if tag.weak { format!("W/{opaque}") } else { opaque.into_owned() }
        }));
        if !rest.rest.trim_ascii().is_empty() {
            return Err(invalid("If-Match is \"*\" or a list of entity tags with their quotes, as ETag has them."));
        }
    }
    if wanted.is_empty() { Err(invalid("If-Match is empty.")) } else { Ok(Precondition::Matches(wanted)) }
}

fn invalid(detail: &str) -> Error {
    Error::bad_request("invalid_precondition", detail)
}

struct Tag<'a> {
    weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

/// The entity tags of a list; it ends before the first thing that is none.
struct Tags<'a> {
    rest: &'a [u8],
}

fn tags(value: &[u8]) -> Tags<'_> {
    Tags { rest: value }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        let start = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let rest = self.rest.get(start..)?;
        let (weak, rest) = match rest.strip_prefix(b"W/") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let length = rest.strip_prefix(b"\"")?.iter().position(|byte| *byte == b'"')? + 2;
        let (opaque, after) = rest.split_at_checked(length)?;
        self.rest = after;
        Some(Tag { weak, opaque })
    }
}

/// What the tags of one entity have in common: all but the coding at the end.
fn entity(etag: &[u8]) -> &[u8] {
    let plain = etag.strip_prefix(b"W/").unwrap_or(etag);
    let plain = plain.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(plain);
    let mut codings = Encoding::COMPRESSED.into_iter();
    codings.find_map(|coding| plain.strip_suffix(coding.token().as_bytes())?.strip_suffix(b"-")).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn the_same_entity_in_any_coding_is_known() {
        for known in ["\"a1\"", "W/\"a1\"", "*", "\"x\", \"a1\"", "\"x,y\",W/\"a1-br\"", "\"a1-zstd\"", " \"a1-gzip\" "] {
            assert!(is_known_to_client(&headers(IF_NONE_MATCH, known), b"\"a1\""), "{known}");
            assert!(is_known_to_client(&headers(IF_NONE_MATCH, known), b"\"a1-deflate\""), "{known}");
        }
        for unknown in ["\"a2\"", "a1", "\"a1", "", "\"a1-lzma\"", "\"\"", "garbage, \"a1\""] {
            assert!(!is_known_to_client(&headers(IF_NONE_MATCH, unknown), b"\"a1\""), "{unknown}");
        }
        assert!(!is_known_to_client(&HeaderMap::new(), b"\"a1\""));
    }

    #[test]
    fn preconditions_of_writes_are_read() {
        assert_eq!(precondition(&HeaderMap::new()).unwrap(), Precondition::None);
        assert_eq!(precondition(&headers(IF_MATCH, "*")).unwrap(), Precondition::Exists);
        assert_eq!(precondition(&headers(IF_NONE_MATCH, "*")).unwrap(), Precondition::Absent);
        assert_eq!(
            precondition(&headers(IF_MATCH, "\"a\", W/\"b\"")).unwrap(),
            Precondition::Matches(vec!["\"a\"".to_owned(), "W/\"b\"".to_owned()])
        );
    }

    #[test]
    fn preconditions_that_cannot_be_understood_are_refused_and_never_ignored() {
        for bad in ["a1", "", "\"a\" junk", "\"unterminated", ","] {
            assert!(precondition(&headers(IF_MATCH, bad)).is_err(), "{bad:?}");
        }
        assert!(precondition(&headers(IF_NONE_MATCH, "\"a\"")).is_err());
        let mut both = headers(IF_MATCH, "*");
        both.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        assert!(precondition(&both).is_err());
        assert!(no_precondition(&both).is_err());
        assert!(no_precondition(&HeaderMap::new()).is_ok());
    }
}
