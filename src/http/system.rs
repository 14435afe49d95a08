//! The resources that are not data: health, metrics, the API description and its page.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, LOCATION};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde_json::{Value, json};

use super::docs::Docs;
use super::routes::System;
use super::{conditional, openapi};
use crate::error::{Error, Result};
use crate::records::Records;
use crate::telemetry::Telemetry;

/// Whether requests should be sent to this process. It begins as not ready; the application says when it is, and when it
/// is about to stop. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on requests are welcome, or no longer.
    pub fn set(&self, state: Ready) {
        self.0.store(state == Ready::Yes, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A state of [`Readiness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Everything is started.
    Yes,
    /// Starting or stopping.
    No,
}

/// What the system's resources need, made once.
pub(super) struct SystemResources {
    telemetry: Telemetry,
    readiness: Readiness,
    openapi: Bytes,
    openapi_etag: HeaderValue,
    docs: Docs,
}

impl SystemResources {
    pub(super) fn new(records: &Records, telemetry: Telemetry, readiness: Readiness) -> Result<Self> {
        let collections: Vec<_> = records.resources().iter().map(|resource| Arc::clone(resource.collection())).collect();
        let views: Vec<_> = records.views().iter().map(|resource| Arc::clone(resource.view())).collect();
        let openapi = openapi::document(&collections, &views).to_string();
        let etag = format!("\"{:032x}\"", xxhash_rust::xxh3::xxh3_128(openapi.as_bytes()));
        Ok(Self {
            telemetry,
            readiness,
            openapi: openapi.into(),
            openapi_etag: HeaderValue::try_from(etag).map_err(Error::internal)?,
            docs: Docs::new(),
        })
    }

    pub(super) async fn answer(&self, system: System, records: &Records, request: &HttpRequest) -> Result<HttpResponse> {
        match system {
            System::Health => Ok(health(records).await),
            System::Live => Ok(state(StatusCode::OK, &json!({"status": "alive"}))),
            System::Ready => Ok(self.ready(records).await),
            System::Metrics => {
                let text = self.telemetry.encode()?;
                Ok(text_response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            System::OpenApi => Ok(self.openapi(request)),
            System::Docs => {
                let mut response = HttpResponse::with_body(StatusCode::TEMPORARY_REDIRECT, BoxBody::new(()));
                // Relative, so that it also holds behind a proxy that adds a prefix.
                response.headers_mut().insert(LOCATION, HeaderValue::from_static("docs/"));
                Ok(response)
            }
        }
    }

    /// A file of the page of the API description.
    pub(super) fn docs_file(&self, name: &str) -> Result<HttpResponse> {
        self.docs.file(name)
    }

    async fn ready(&self, records: &Records) -> HttpResponse {
        let started = self.readiness.is_ready();
        let database = started && records.health().await.database.is_ok();
        if database {
            state(StatusCode::OK, &json!({"status": "ready"}))
        } else {
            let reason = if started { "the database does not answer" } else { "starting or stopping" };
            state(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reason": reason}))
        }
    }

    fn openapi(&self, request: &HttpRequest) -> HttpResponse {
        let known = conditional::is_known_to_client(request.headers(), self.openapi_etag.as_bytes());
        let mut response = if known {
            HttpResponse::with_body(StatusCode::NOT_MODIFIED, BoxBody::new(()))
        } else {
            text_response(StatusCode::OK, "application/json", self.openapi.clone())
        };
        response.headers_mut().insert(ETAG, self.openapi_etag.clone());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

async fn health(records: &Records) -> HttpResponse {
    let health = records.health().await;
    if let Err(error) = &health.database {
        tracing::warn!(%error, "the database does not answer");
    }
    let healthy = health.database.is_ok();
    let (code, word) = if healthy { (StatusCode::OK, "healthy") } else { (StatusCode::SERVICE_UNAVAILABLE, "unhealthy") };
    let database = json!({"status": if healthy { "up" } else { "down" }});
    let members = json!({"status": word, "database": database, "cache": health.cache, "version": env!("CARGO_PKG_VERSION")});
    state(code, &members)
}

/// The state of the process: true only at the moment it is sent.
fn state(status: StatusCode, members: &Value) -> HttpResponse {
    text_response(status, "application/json", members.to_string())
}

fn text_response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
