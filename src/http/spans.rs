//! The span of a request, by tracing-actix-web, and the request's id.

use actix_web::Error;
use actix_web::HttpMessage as _;
use actix_web::HttpRequest;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderName;
use tracing::Span;
use tracing::field::Empty;
use tracing_actix_web::{RootSpanBuilder, TracingLogger};

use crate::telemetry::RequestId;

/// A request's id, on its way in and out.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The layer that opens a span per request.
pub fn layer() -> TracingLogger<RequestSpan> {
    TracingLogger::new()
}

/// Opens a span at `debug`, so that by default a request has none: opening and closing one costs more than a hit. Log
/// lines have their request's id without it.
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return Span::none();
        }
        let request_id = request_id(request.request());
        // The path without the query string, whose values may be private.
        let (method, path) = (request.method(), request.uri().path());
        tracing::debug_span!("request", %method, path, %request_id, status = Empty)
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        if let Ok(response) = outcome {
            span.record("status", response.status().as_u16());
        }
    }
}

/// The id that the client sent, if it is acceptable, else the one that tracing-actix-web has made.
pub(super) fn request_id(request: &HttpRequest) -> RequestId {
    let sent = request.headers().get(&X_REQUEST_ID).and_then(|value| RequestId::accept(value.as_bytes()));
    sent.unwrap_or_else(|| {
        let made = request.extensions().get::<tracing_actix_web::RequestId>().copied();
        RequestId::from_uuid(made.map_or_else(uuid::Uuid::now_v7, Into::into))
    })
}
