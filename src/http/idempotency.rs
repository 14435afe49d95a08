//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the key of a write, and what its request is about.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::negotiation::PREFER;
use crate::error::{Error, ErrorKind, Result};
use crate::records::{Idempotent, KeptAnswer, Written};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is the one of an earlier request with the same key.
pub(super) static IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in bytes.
const MAX_LENGTH: usize = 255;

/// The most bytes that are kept of an answer.
const MAX_KEPT: usize = 4 * 1024 * 1024;
/// The most that are kept of an answer to what changed nothing: all results of a batch, without documents. Another one is replayed
/// as 204, with its ETag.
const MAX_KEPT_UNCHANGED: usize = 128 * 1024;

/// What the request asks to be done once; `None` if it has no key.
pub(super) fn requested(
    request: &HttpRequest,
    body: Option<&Value>,
    shape: impl Fn(&[Written]) -> Result<KeptAnswer> + Send + Sync + 'static,
) -> Result<Option<Idempotent>> {
    let Some(key) = key(request.headers())? else { return Ok(None) };
    let shape = move |written: &[Written]| bounded(shape(written)?);
    Ok(Some(Idempotent { key, fingerprint: fingerprint(request, body)?, shape: Arc::new(shape) }))
}

/// The answer as it is kept: small requests must not fill the disk with large ones.
fn bounded(mut answer: KeptAnswer) -> Result<KeptAnswer> {
    if answer.body.len() > MAX_KEPT {
        let detail = "The answer is too large to be kept for an Idempotency-Key, so nothing was written: send fewer operations, or no \
                      Prefer: return=representation.";
        return Err(Error::new(ErrorKind::PayloadTooLarge, "answer_too_large", detail));
    }
    // Nothing was written: the same request could be sent for ever, and no log would tell.
    if answer.position.is_none() && answer.body.len() > MAX_KEPT_UNCHANGED {
        answer.status = StatusCode::NO_CONTENT.as_u16();
        answer.body.clear();
    }
    Ok(answer)
}

/// The key. The draft has it as a quoted string (RFC 9651, 3.3.3); most clients send it bare: both are the same key.
fn key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("A request has one Idempotency-Key."));
    }
    let text = value.to_str().unwrap_or_default().trim();
    let unquoted = match text.strip_prefix('"') {
        Some(rest) => unquoted(rest),
        None => Some(text.to_owned()),
    };
    match unquoted {
        Some(key) if (1..=MAX_LENGTH).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(key)),
        Some(_) | None => {
            Err(invalid("An Idempotency-Key has 1 to 255 visible ASCII characters, for example a UUID, bare or in quotes."))
        }
    }
}

/// What stands before the closing quote, which must be the end.
fn unquoted(rest: &str) -> Option<String> {
    let mut key = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            plain => key.push(plain),
        }
    }
}

fn invalid(detail: &str) -> Error {
    Error::bad_request("invalid_idempotency_key", detail)
}

/// A hash of what makes two requests the same one. Each part has its length before it, so that no two lists of parts are alike.
fn fingerprint(request: &HttpRequest, body: Option<&Value>) -> Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    add(request.method().as_str().as_bytes());
    add(request.uri().path().as_bytes());
    for name in [&IF_MATCH, &IF_NONE_MATCH, &PREFER] {
        let values: Vec<&[u8]> = request.headers().get_all(name).map(|value| value.as_bytes()).collect();
        add(&values.join(&b","[..]));
    }
    let body = body.map(serde_json::to_vec).transpose().map_err(Error::internal)?;
    add(&body.unwrap_or_default());
    Ok(URL_SAFE_NO_PAD.encode(context.finish()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn key_of(values: &[&str]) -> Result<Option<String>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        key(&headers)
    }

    #[test]
    fn a_key_is_read_bare_or_quoted() {
        assert_eq!(key_of(&[]).unwrap(), None);
        for (sent, read) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (" \"8e03\" ", "8e03"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("a\"b", "a\"b"),
        ] {
            assert_eq!(key_of(&[sent]).unwrap().as_deref(), Some(read), "{sent}");
        }
        let (longest, longer) = ("k".repeat(255), "k".repeat(256));
        assert_eq!(key_of(&[&longest]).unwrap(), Some(longest));
        for wrong in ["", "\"", "\"\"", "\"a", "\"a\"b", "\"a\\", "\"a\\n\"", "a b", "é", &longer] {
            assert_eq!(key_of(&[wrong]).unwrap_err().code(), "invalid_idempotency_key", "{wrong}");
        }
        assert_eq!(key_of(&["a", "a"]).unwrap_err().code(), "invalid_idempotency_key");
    }

    proptest! {
        #[test]
        fn any_header_is_a_key_or_refused(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.append(IDEMPOTENCY_KEY.clone(), value);
            match key(&headers) {
                Ok(key) => prop_assert!(key.is_some_and(|key| (1..=255).contains(&key.len()))),
                Err(error) => prop_assert_eq!(error.code(), "invalid_idempotency_key"),
            }
        }
    }

    #[test]
    fn requests_differ_by_method_path_conditions_and_body() {
        let of = |request: TestRequest, body: Value| fingerprint(&request.to_http_request(), Some(&body)).unwrap();
        let post = || TestRequest::post().uri("/api/items");
        assert_eq!(of(post(), json!({"a": 1})), of(post().insert_header(("x-other", "1")), json!({"a": 1})));
        let all = [
            of(post(), json!({"a": 1})),
            of(post(), json!({"a": 2})),
            of(TestRequest::put().uri("/api/items"), json!({"a": 1})),
            of(TestRequest::post().uri("/api/shelves"), json!({"a": 1})),
            of(post().insert_header((IF_MATCH, "\"1\"")), json!({"a": 1})),
            of(post().insert_header((IF_NONE_MATCH, "\"1\"")), json!({"a": 1})),
            of(post().insert_header((PREFER.clone(), "return=representation")), json!({"a": 1})),
        ];
        assert!(all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)), "{all:?}");
    }
}
