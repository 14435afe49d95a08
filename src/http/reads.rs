//! Reads: records, lists, statistics and views. Parse, call, shape. The shape is the hot path of the whole server: bodies
//! are shared, and every header value that can be is made beforehand.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, VARY};
use actix_web::{HttpRequest, HttpResponse};

use super::freshness::{self, Directives};
use super::routes::{CollectionRoutes, Misses, Sharing, ViewRoute};
use super::{cache_status, conditional, identifier, negotiation, problem};
use crate::error::{Error, Result};
use crate::model::{Caller, Freshness};
use crate::records::{Answer, Encoding, Presence, Records, Representation};

/// What every read needs.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    pub(super) records: &'a Records,
    pub(super) request: &'a HttpRequest,
    pub(super) caller: &'a Caller,
    pub(super) directives: Directives,
    pub(super) reach: Reach,
}

/// How far a request may go for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// As far as it takes.
    Everything,
    /// Not beyond the caches: it came over a connection that is one too many.
    Caches,
}

impl Read<'_> {
    /// What the request demands of its answer. Fails if that cannot be JSON.
    fn demand(&self) -> Result<Freshness> {
        negotiation::require_json(self.request.headers())?;
        let mut demand = freshness::demand(self.request.headers(), self.directives)?;
        match self.reach {
            Reach::Everything => {}
            Reach::Caches => demand.only_if_cached = true,
        }
        Ok(demand)
    }
}

/// Answers `GET path`.
pub(super) async fn list_records(read: Read<'_>, routes: &CollectionRoutes) -> Result<HttpResponse> {
    let demand = read.demand()?;
    let answer = read.records.list(&routes.resource, read.caller, read.request.query_string(), &demand).await?;
    shape(read.request, &answer, &routes.sharing).await
}

/// Answers `GET path/{id}`.
pub(super) async fn read_record(read: Read<'_>, routes: &CollectionRoutes, segment: &str) -> Result<HttpResponse> {
    let demand = read.demand()?;
    let (id, raw) = (identifier::record_id(segment)?, read.request.query_string());
    let answer = read.records.record(&routes.resource, read.caller, &id, raw, &demand).await?;
    shape(read.request, &answer, &routes.sharing).await
}

/// Answers `GET path/_stats`.
pub(super) async fn count_records(read: Read<'_>, routes: &CollectionRoutes) -> Result<HttpResponse> {
    let demand = read.demand()?;
    let answer = read.records.stats(&routes.resource, read.caller, read.request.query_string(), &demand).await?;
    shape(read.request, &answer, &routes.sharing).await
}

/// Answers the path of a view.
pub(super) async fn read_view(read: Read<'_>, route: &ViewRoute) -> Result<HttpResponse> {
    let demand = read.demand()?;
    no_parameters(read.request)?;
    let answer = read.records.view(&route.resource, read.caller, &demand).await?;
    shape(read.request, &answer, &route.sharing).await
}

/// Refuses a query string where there are no parameters: one that is ignored would hide a mistake.
pub(super) fn no_parameters(request: &HttpRequest) -> Result<()> {
    match form_urlencoded::parse(request.query_string().as_bytes()).next() {
        Some((name, _)) => {
            Err(Error::parameter(name.as_ref(), format!("{} of this path takes no parameters.", request.method())))
        }
        None => Ok(()),
    }
}

/// Makes the response: 200, 304 or 404. A `HEAD` request gets the same; the server leaves the body out.
async fn shape(request: &HttpRequest, answer: &Answer, sharing: &Sharing) -> Result<HttpResponse> {
    if answer.presence() == Presence::Missing {
        let mut response = problem::response(&Error::not_found("There is no record with this id."));
        match sharing.misses {
            Misses::Told => cache_status::describe(response.headers_mut(), answer),
            Misses::Kept => {}
        }
        return Ok(response);
    }
    let encoding = negotiation::encoding(request.headers(), answer.body_len());
    let representation = match answer.ready(encoding) {
        Some(ready) => ready,
        None => Box::pin(answer.representation(encoding)).await?,
    };
    let mut response = if conditional::is_known_to_client(request.headers(), representation.etag.as_bytes()) {
        HttpResponse::with_body(StatusCode::NOT_MODIFIED, BoxBody::new(()))
    } else {
        full(encoding, representation)
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, representation.etag.clone());
    headers.insert(CACHE_CONTROL, sharing.cache_control.clone());
    headers.insert(VARY, sharing.vary.clone());
    for (name, value) in answer.headers() {
        headers.insert(name.clone(), value.clone());
    }
    cache_status::describe(headers, answer);
    Ok(response)
}

fn full(encoding: Encoding, representation: &Representation) -> HttpResponse {
    let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(representation.body.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if encoding != Encoding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.token()));
    }
    response
}
