//! Errors as clients see them: RFC 9457 `application/problem+json`. The only place that knows which failure has which
//! status, and the one place where failures of the server are logged.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Violation};
use crate::telemetry::RequestId;

/// What a client learns of a failure of the server.
const INTERNAL_DETAIL: &str = "The server failed; its log has the reason under this request id.";

/// The longest `Retry-After`, in seconds: the longest period of a quota.
const LONGEST_WAIT: u128 = 31 * 24 * 60 * 60;

/// The members of a problem. `code`, `request_id` and what follows are extensions (RFC 9457, 3.2).
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Violation]>::is_empty")]
    errors: &'a [Violation],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    current_etag: Option<&'a str>,
}

/// The answer to a request that failed with `error`. Call it once per failure, while the request is served: it logs what
/// the client is not told.
pub(super) fn response(error: &Error) -> HttpResponse {
    log(error);
    let (status, title) = status_and_title(error.kind());
    let request_id = RequestId::current().map(|id| id.to_string());
    let internal = error.kind() == ErrorKind::Internal;
    let code = if internal { "internal" } else { error.code() };
    let problem = Problem {
        kind: format!("urn:terrace:problem:{code}"),
        title,
        status: status.as_u16(),
        detail: if internal { INTERNAL_DETAIL } else { error.detail() },
        code,
        request_id: request_id.as_deref(),
        errors: error.violations(),
        parameter: error.parameter_name(),
        allowed: error.allowed(),
        current_etag: error.current_etag(),
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = HttpResponse::with_body(status, BoxBody::new(body));
    add_headers(&mut response, error);
    response
}

fn add_headers(response: &mut HttpResponse, error: &Error) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // Without it a proxy may keep a 404 for as long as it likes (RFC 9110, 15.1), and hide a record that is created next.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if error.kind() == ErrorKind::MethodNotAllowed
        && let Ok(methods) = HeaderValue::try_from(error.allowed().join(", "))
    {
        headers.insert(ALLOW, methods);
    }
    if error.kind() == ErrorKind::Unauthenticated {
        // Who sent nothing is told no error (RFC 6750, 3.1).
        let challenge = match error.code() {
            "invalid_token" => "Bearer realm=\"terrace\", error=\"invalid_token\"",
            _ => "Bearer realm=\"terrace\"",
        };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(Ok(etag)) = error.current_etag().map(HeaderValue::from_str) {
        headers.insert(ETAG, etag);
    }
    if let Some(wait) = error.retry_after() {
        // Rounded up: a client that comes back early would only be refused again.
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000).clamp(1, LONGEST_WAIT) as u64));
    }
}

fn log(error: &Error) {
    match error.kind() {
        ErrorKind::Internal => tracing::error!(%error, "a request failed"),
        // Without an internal message its cause is told elsewhere, once and not with every request.
        ErrorKind::Unavailable if error.internal_message().is_some() => tracing::warn!(%error, "a request was refused"),
        ErrorKind::Unavailable => tracing::debug!(%error, "a request was refused"),
        ErrorKind::BadRequest
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::MethodNotAllowed
        | ErrorKind::NotAcceptable
        | ErrorKind::Conflict
        | ErrorKind::PreconditionFailed
        | ErrorKind::PayloadTooLarge
        | ErrorKind::UriTooLong
        | ErrorKind::RequestTimeout
        | ErrorKind::UnsupportedMediaType
        | ErrorKind::Invalid
        | ErrorKind::TooManyRequests
        | ErrorKind::Gone
        | ErrorKind::NotCached => {
            if let Some(reason) = error.internal_message() {
                tracing::debug!(code = error.code(), reason, "a request was refused");
            }
        }
    }
}

fn status_and_title(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::BadRequest => (StatusCode::BAD_REQUEST, "The request cannot be understood"),
        ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "The caller is not known"),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "The caller may not do this"),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "There is no such resource"),
        ErrorKind::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "The resource does not take this method"),
        ErrorKind::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "Nothing the client accepts can be sent"),
        ErrorKind::Conflict => (StatusCode::CONFLICT, "The request contradicts what is stored"),
        ErrorKind::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "The record is in another state"),
        ErrorKind::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
        ErrorKind::UriTooLong => (StatusCode::URI_TOO_LONG, "The address is too long"),
        ErrorKind::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive"),
        ErrorKind::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body's media type is not taken"),
        ErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "The document is not valid"),
        ErrorKind::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "The service is not available at the moment"),
        ErrorKind::Gone => (StatusCode::GONE, "What is asked for is there no more"),
        ErrorKind::NotCached => (StatusCode::GATEWAY_TIMEOUT, "Nothing suitable is cached"),
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "The server failed"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::body::MessageBody as _;
    use serde_json::{Value, json};

    use super::*;

    fn shape(error: &Error) -> (HttpResponse, Value) {
        let mut response = response(error);
        let body = std::mem::replace(&mut response, HttpResponse::new(StatusCode::OK)).map_body(|head, body| {
            response.headers_mut().clone_from(head.headers());
            *response.status_mut() = head.status;
            body
        });
        let bytes = body.into_body().try_into_bytes().unwrap();
        (response, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_validation_failure_says_where_and_why() {
        let error = Error::invalid(vec![Violation::new("/name", "type", "This is a string.")]);
        let id = RequestId::accept(b"abc").unwrap();
        let (response, body) = id.scope(async { shape(&error) }).await;
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        assert_eq!(response.headers().get(CACHE_CONTROL).unwrap(), "no-store");
        assert_eq!(
            body,
            json!({
                "type": "urn:terrace:problem:validation_failed",
                "title": "The document is not valid",
                "status": 422,
                "detail": "The document breaks rules of its collection.",
                "code": "validation_failed",
                "request_id": "abc",
                "errors": [{"pointer": "/name", "code": "type", "detail": "This is a string."}],
            })
        );
    }

    #[test]
    fn a_failure_of_the_server_tells_nothing() {
        let error = Error::new(ErrorKind::Internal, "secret_code", "secret detail").with_internal("secret reason");
        let (response, body) = shape(&error);
        assert_eq!(response.status(), 500);
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    #[test]
    fn kinds_carry_the_headers_that_http_wants() {
        let error = Error::new(ErrorKind::MethodNotAllowed, "method_not_allowed", "No.").with_allowed(["GET", "HEAD"]);
        let (response, body) = shape(&error);
        assert_eq!((response.status().as_u16(), response.headers().get(ALLOW).unwrap().to_str().unwrap()), (405, "GET, HEAD"));
        assert_eq!(body["allowed"], json!(["GET", "HEAD"]));

        let (response, body) = shape(&Error::precondition_failed("Changed.", Some("\"x\"".to_owned())));
        assert_eq!((response.status().as_u16(), response.headers().get(ETAG).unwrap().to_str().unwrap()), (412, "\"x\""));
        assert_eq!(body["current_etag"], "\"x\"");

        let (response, _) = shape(&Error::unavailable("Later.", Duration::from_millis(1200), "pool"));
        assert_eq!((response.status().as_u16(), response.headers().get(RETRY_AFTER).unwrap().to_str().unwrap()), (503, "2"));

        let (_, body) = shape(&Error::parameter("sort", "Unknown field."));
        assert_eq!(body["parameter"], "sort");
    }
}
