//! Content negotiation (RFC 9110, 12): which coding the client wants, and whether it takes JSON at all. It knows
//! headers only, not what is sent.

use actix_web::http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

use crate::error::{Error, ErrorKind, Result};
use crate::records::Encoding;

/// Bodies below this many bytes are sent as they are: a coding would save less than a packet.
const MIN_CODED_BYTES: usize = 1024;

/// A client that sends this header, with any value, gets bodies as they are.
static X_NO_COMPRESSION: HeaderName = HeaderName::from_static("x-no-compression");

/// What a client prefers (RFC 7240).
pub(super) static PREFER: HeaderName = HeaderName::from_static("prefer");

/// A weight (RFC 9110, 12.4.2) in thousandths.
type Quality = u16;

/// The coding to answer with, for a body of `body_len` bytes: of those with the highest weight the one that the server
/// likes best. When everything is excluded, identity: a client that cannot read it is no worse off than with a 406.
pub(super) fn encoding(headers: &HeaderMap, body_len: usize) -> Encoding {
    if body_len < MIN_CODED_BYTES || headers.contains_key(&X_NO_COMPRESSION) {
        return Encoding::Identity;
    }
    let mut offers = Offers::default();
    for value in headers.get_all(ACCEPT_ENCODING) {
        value.as_bytes().split(|byte| *byte == b',').for_each(|element| offers.read(element));
    }
    offers.best()
}

/// The weights that `Accept-Encoding` gives.
#[derive(Default)]
struct Offers {
    /// In the order of [`Encoding::COMPRESSED`].
    compressed: [Option<Quality>; Encoding::COMPRESSED.len()],
    identity: Option<Quality>,
    any: Option<Quality>,
}

impl Offers {
    fn read(&mut self, element: &[u8]) {
        let (token, quality) = weighted(element);
        let slot = match Encoding::COMPRESSED.iter().position(|encoding| names(token, *encoding)) {
            Some(position) => self.compressed.get_mut(position),
            None if token.eq_ignore_ascii_case(b"identity") => Some(&mut self.identity),
            None if token == b"*" => Some(&mut self.any),
            None => None,
        };
        if let Some(slot) = slot {
            *slot = Some(quality);
        }
    }

    fn best(&self) -> Encoding {
        let mut best = (Encoding::Identity, self.identity.unwrap_or(0).max(1));
        for (encoding, offer) in Encoding::COMPRESSED.into_iter().zip(self.compressed) {
            let quality = offer.or(self.any).unwrap_or(0);
            let beats_identity = best.0 == Encoding::Identity && quality >= best.1;
            if quality > best.1 || beats_identity {
                best = (encoding, quality);
            }
        }
        best.0
    }
}

fn names(token: &[u8], encoding: Encoding) -> bool {
    token.eq_ignore_ascii_case(encoding.token().as_bytes())
        || (encoding == Encoding::Gzip && token.eq_ignore_ascii_case(b"x-gzip"))
}

/// Refuses a request whose `Accept` excludes JSON. The most specific range decides (RFC 9110, 12.5.1).
pub(super) fn require_json(headers: &HeaderMap) -> Result<()> {
    require(headers, "application/json")
}

/// Fails if `Accept` excludes server-sent events.
pub(super) fn require_event_stream(headers: &HeaderMap) -> Result<()> {
    require(headers, "text/event-stream")
}

fn require(headers: &HeaderMap, media_type: &'static str) -> Result<()> {
    let kind = media_type.split_once('/').map_or(media_type, |(kind, _)| kind);
    let mut decided: Option<(u8, Quality)> = None;
    for value in headers.get_all(ACCEPT) {
        for element in value.as_bytes().split(|byte| *byte == b',') {
            let (range, quality) = weighted(element);
            let specificity = match range {
                b"*/*" => 1,
                b"" => continue,
                _ if range.eq_ignore_ascii_case(media_type.as_bytes()) => 3,
                _ if range.strip_suffix(b"/*").is_some_and(|range| range.eq_ignore_ascii_case(kind.as_bytes())) => 2,
                _ => 0,
            };
            // A range that is about something else still means that the client chooses.
            let quality = if specificity == 0 { 0 } else { quality };
            if decided.is_none_or(|(before, best)| specificity > before || (specificity == before && quality > best)) {
                decided = Some((specificity, quality));
            }
        }
    }
    match decided {
        Some((_, 0)) => {
            let detail = format!("This resource is sent as {media_type} only, which the Accept header excludes.");
            Err(Error::new(ErrorKind::NotAcceptable, "not_acceptable", detail).with_allowed([media_type]))
        }
        Some(_) | None => Ok(()),
    }
}

/// Splits `token;q=0.5;other` into token and weight; a weight that is none counts as 0.
fn weighted(element: &[u8]) -> (&[u8], Quality) {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let token = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    (token, weight.map_or(1000, |text| quality(text).unwrap_or(0)))
}

fn quality(text: &[u8]) -> Option<Quality> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let digits = (0..3).map(|place| fraction.get(place).unwrap_or(&b'0'));
    let thousandths = digits
        .into_iter()
        .try_fold(0, |sum: Quality, digit| digit.is_ascii_digit().then(|| sum * 10 + Quality::from(digit - b'0')))?;
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn chosen(accept_encoding: &str) -> Encoding {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(accept_encoding).unwrap());
        encoding(&headers, 4096)
    }

    #[test]
    fn the_highest_weight_wins_and_the_servers_taste_breaks_ties() {
        for (header, expected) in [
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip, deflate, br", Encoding::Brotli),
            ("gzip;q=0.9, br;q=0.8", Encoding::Gzip),
            ("DEFLATE", Encoding::Deflate),
            ("x-gzip", Encoding::Gzip),
            ("*", Encoding::Zstd),
            ("zstd;q=0, *", Encoding::Brotli),
            ("gzip;q=0.001", Encoding::Gzip),
            ("gzip ; q=0.5 , identity ; q=0.4", Encoding::Gzip),
            ("gzip;q=1.000", Encoding::Gzip),
        ] {
            assert_eq!(chosen(header), expected, "{header}");
        }
    }

    #[test]
    fn identity_is_sent_when_asked_for_and_when_nothing_else_is_left() {
        for header in [
            "",
            "identity",
            "identity;q=1, gzip;q=0.5",
            "gzip;q=0",
            "identity;q=0",
            "*;q=0",
            "compress",
            "gzip;q=x",
            "gzip;q=1.5",
            "gzip;q=0.5000",
            ";;;,,,q=1",
        ] {
            assert_eq!(chosen(header), Encoding::Identity, "{header}");
        }
        assert_eq!(encoding(&HeaderMap::new(), 4096), Encoding::Identity);
    }

    #[test]
    fn small_bodies_and_those_who_do_not_want_it_get_no_coding() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(encoding(&headers, 1023), Encoding::Identity);
        assert_eq!(encoding(&headers, 1024), Encoding::Brotli);
        headers.insert(X_NO_COMPRESSION.clone(), HeaderValue::from_static(""));
        assert_eq!(encoding(&headers, 1024), Encoding::Identity);
    }

    #[test]
    fn several_accept_encoding_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0.5"));
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(encoding(&headers, 4096), Encoding::Brotli);
    }

    #[test]
    fn only_an_accept_header_that_excludes_json_is_refused() {
        let verdict = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
            require_json(&headers).is_ok()
        };
        for good in [
            "",
            "*/*",
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/*;q=0.1",
            "text/html, */*;q=0.8",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=0.1, */*;q=0",
        ] {
            assert!(verdict(good), "{good}");
        }
        for bad in ["text/html", "application/json;q=0", "application/json;q=0, */*", "application/xml", "*/*;q=0"] {
            assert!(!verdict(bad), "{bad}");
        }
        assert!(require_json(&HeaderMap::new()).is_ok());
    }
}
