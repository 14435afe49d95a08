//! The resources that are not data: health, metrics, the API description and its page.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, LOCATION};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde_json::{Value, json};

use super::docs::Docs;
use super::readiness::Readiness;
use super::routes::System;
use super::{conditional, openapi};
use crate::error::{Error, Result};
use crate::records::{Records, Resources};
use crate::telemetry::Telemetry;

/// What the system's resources need, made once.
pub(super) struct SystemResources {
    telemetry: Telemetry,
    readiness: Readiness,
    openapi: Bytes,
    openapi_etag: HeaderValue,
    docs: Docs,
}

impl SystemResources {
    pub(super) fn new(resources: &Resources, telemetry: Telemetry, readiness: Readiness) -> Result<Self> {
        let collections: Vec<_> = resources.collections().iter().map(|resource| Arc::clone(resource.collection())).collect();
        let views: Vec<_> = resources.views().iter().map(|resource| Arc::clone(resource.view())).collect();
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

    /// Answers; `records` is `None` until the database is open.
    pub(super) async fn answer(&self, system: System, records: Option<&Records>, request: &HttpRequest) -> Result<HttpResponse> {
        match system {
            System::Health => Ok(self.health(records).await),
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

    async fn ready(&self, records: Option<&Records>) -> HttpResponse {
        let reason = match (self.readiness.obstacle(), records) {
            (None, Some(records)) => records.health().await.database.err().map(|error| no_answer(&error)),
            (obstacle, _) => obstacle,
        };
        match reason {
            None => state(StatusCode::OK, &json!({"status": "ready"})),
            Some(reason) => state(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reason": reason})),
        }
    }

    /// Whether everything works, and the parts that there are.
    async fn health(&self, records: Option<&Records>) -> HttpResponse {
        let health = match records {
            Some(records) => Some(records.health().await),
            None => None,
        };
        let reason = match &health {
            None => self.readiness.obstacle(),
            // Nothing for the log, which whoever reads the change log tells once, and not with every check.
            Some(health) => health.database.as_ref().err().map(no_answer),
        };
        let (code, word, database) = match reason {
            None => (StatusCode::OK, "healthy", json!({"status": "up"})),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", json!({"status": "down", "reason": reason})),
        };
        // Without Redis everything is answered, so it is no reason to send requests elsewhere.
        let redis = self.readiness.second_tier();
        let mut members = json!({"status": word, "database": database, "redis": redis, "version": env!("CARGO_PKG_VERSION")});
        if let (Some(health), Some(members)) = (health, members.as_object_mut()) {
            members.insert("cache".to_owned(), json!(health.cache));
        }
        state(code, &members)
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

fn no_answer(error: &Error) -> String {
    format!("the database does not answer: {}", error.detail())
}

/// The state of the process: true only at the moment it is sent.
pub(super) fn state(status: StatusCode, members: &Value) -> HttpResponse {
    text_response(status, "application/json", members.to_string())
}

fn text_response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
