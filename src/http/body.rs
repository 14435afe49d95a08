//! Reading request bodies: media type, size, UTF-8 and JSON, each failure with its own code. It knows nothing of what the
//! document means.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::arrival;
use crate::error::{Error, ErrorKind, Result, Violation};

/// The media types of a body that is a document.
pub(super) const JSON: &[&str] = &["application/json"];
/// The media types of a body that is a merge patch (RFC 7396).
pub(super) const MERGE_PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

/// Reads a JSON body of at most `limit` bytes.
pub(super) async fn json(request: &HttpRequest, payload: &mut Payload, limit: usize, media_types: &[&str]) -> Result<Value> {
    require_media_type(request.headers(), media_types)?;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    parse(&collect(payload, limit).await?)
}

/// Reads a JSON body that must be an object.
pub(super) async fn object(request: &HttpRequest, payload: &mut Payload, limit: usize, media_types: &[&str]) -> Result<Value> {
    let value = json(request, payload, limit, media_types).await?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Error::invalid(vec![Violation::new("", "type", format!("A document is an object, not {}.", kind(&value)))]))
    }
}

/// Keeps a request's body until its refusal has been sent. The server then closes the connection after a while; if the
/// body were dropped before, the server would read a chunked one to its end, which may never come.
pub(super) fn holding(refusal: HttpResponse, payload: Payload) -> HttpResponse {
    refusal.map_body(|_, body| BoxBody::new(Holding { body, _payload: payload }))
}

struct Holding {
    body: BoxBody,
    _payload: Payload,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(context)
    }
}

fn require_media_type(headers: &HeaderMap, media_types: &[&str]) -> Result<()> {
    let refuse = |detail: String, allowed: &[&str]| {
        let error = Error::new(ErrorKind::UnsupportedMediaType, "unsupported_media_type", detail);
        Err(error.with_allowed(allowed.iter().copied()))
    };
    // A coded body would have to be decoded within the limit; nobody needs that for what fits into it.
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refuse("A request body is sent without a content coding.".to_owned(), &["identity"]);
    }
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return refuse(format!("The request has no Content-Type; send {}.", media_types.join(" or ")), media_types);
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if media_types.iter().any(|allowed| essence.eq_ignore_ascii_case(allowed.as_bytes())) {
        Ok(())
    } else {
        let got = String::from_utf8_lossy(essence);
        refuse(format!("The body is {got:?}; send {}.", media_types.join(" or ")), media_types)
    }
}

/// Collects what arrives; `Content-Length` may be absent, so what counts is what comes.
async fn collect(payload: &mut Payload, limit: usize) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| arrival::failure(&error))?;
        if first.len() + rest.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        // Most bodies are one chunk, which needs no copy.
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() { Ok(first) } else { Ok([&first[..], &rest[..]].concat().into()) }
}

fn parse(bytes: &[u8]) -> Result<Value> {
    if bytes.trim_ascii().is_empty() {
        return Err(Error::bad_request("malformed_json", "The body is empty."));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Error::bad_request("invalid_utf8", format!("The body is not UTF-8 from byte {} on.", error.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        if message.starts_with("recursion limit exceeded") {
            Error::bad_request("too_deep", "The body nests more than 127 arrays and objects.")
        } else {
            Error::bad_request("malformed_json", format!("The body is not JSON: {message}."))
        }
    })
}

fn too_large(limit: usize) -> Error {
    let detail = format!("A request body has at most {limit} bytes here (http.max_body_bytes); split a large batch.");
    Error::new(ErrorKind::PayloadTooLarge, "payload_too_large", detail)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    async fn read(content_type: &str, body: &[u8]) -> Result<Value> {
        let request = TestRequest::post().insert_header((CONTENT_TYPE, content_type)).set_payload(body.to_vec());
        let (request, mut payload) = request.to_http_parts();
        object(&request, &mut payload, 64, JSON).await
    }

    #[actix_web::test]
    async fn a_json_object_is_read() {
        let value = read("Application/JSON; charset=utf-8", br#"{"b": 1, "a": "\u00e9"}"#).await.unwrap();
        assert_eq!(value.to_string(), r#"{"b":1,"a":"é"}"#);
    }

    #[actix_web::test]
    async fn each_bad_body_has_its_own_code() {
        let deep = "[".repeat(2000);
        for (body, code) in [
            (&b""[..], "malformed_json"),
            (b" \n", "malformed_json"),
            (b"{\"a\":1,}", "malformed_json"),
            (b"{\"a\":1} x", "malformed_json"),
            (b"{\"a\":1e999}", "malformed_json"),
            (b"{\"a\":\"\\ud800\"}", "malformed_json"),
            (b"{\"a\":\"\xff\"}", "invalid_utf8"),
            (b"[1]", "validation_failed"),
            (b"null", "validation_failed"),
            (&[b'x'; 65], "payload_too_large"),
        ] {
            assert_eq!(read("application/json", body).await.unwrap_err().code(), code, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(parse(deep.as_bytes()).unwrap_err().code(), "too_deep");
        let detail = read("application/json", b"{\n  \"a\": x\n}").await.unwrap_err().detail().to_owned();
        assert!(detail.contains("line 2 column 8"), "{detail}");
    }

    #[actix_web::test]
    async fn other_media_types_are_refused() {
        for content_type in ["text/plain", "application/merge-patch+json", "application/jsonx", ""] {
            assert_eq!(read(content_type, b"{}").await.unwrap_err().kind(), ErrorKind::UnsupportedMediaType, "{content_type}");
        }
        let coded = TestRequest::post()
            .insert_header((CONTENT_TYPE, "application/json"))
            .insert_header((CONTENT_ENCODING, "gzip"))
            .set_payload("{}");
        let (request, mut payload) = coded.to_http_parts();
        assert_eq!(json(&request, &mut payload, 64, JSON).await.unwrap_err().kind(), ErrorKind::UnsupportedMediaType);
    }

    #[actix_web::test]
    async fn a_length_that_is_too_large_is_refused_before_the_body_is_read() {
        let (request, _) = TestRequest::post()
            .insert_header((CONTENT_TYPE, "application/json"))
            .insert_header((CONTENT_LENGTH, "65"))
            .to_http_parts();
        let error = json(&request, &mut Payload::None, 64, JSON).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
        assert!(error.detail().contains("64 bytes"));
    }
}
