//! Reads: records, lists, statistics and views. Parse, call, shape. The shape is the hot path of the whole server: bodies
//! are shared, and every header value that can be is made beforehand.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, VARY,
};
use actix_web::{HttpRequest, HttpResponse};

use super::freshness::{self, Directives};
use super::routes::{CollectionRoutes, ViewRoute};
use super::seconds::{AGE_VALUES, HIT_VALUES};
use super::{conditional, identifier, negotiation, problem};
use crate::error::{Error, Result};
use crate::model::{Freshness, Principal};
use crate::records::{Answer, Encoding, Outcome, Presence, Records, Representation};

static X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// What every read needs.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    pub(super) records: &'a Records,
    pub(super) request: &'a HttpRequest,
    pub(super) directives: Directives,
}

impl Read<'_> {
    /// What the request demands of its answer. Fails if that cannot be JSON.
    fn demand(&self) -> Result<Freshness> {
        negotiation::require_json(self.request.headers())?;
        freshness::demand(self.request.headers(), self.directives)
    }
}

/// Answers `GET path`.
pub(super) async fn list_records(read: Read<'_>, routes: &CollectionRoutes) -> Result<HttpResponse> {
    let demand = read.demand()?;
    let answer = read.records.list(&routes.resource, Principal::Anonymous, read.request.query_string(), &demand).await?;
    shape(read.request, &answer, &routes.cache_control).await
}

/// Answers `GET path/{id}`.
pub(super) async fn read_record(read: Read<'_>, routes: &CollectionRoutes, segment: &str) -> Result<HttpResponse> {
    let demand = read.demand()?;
    let (id, raw) = (identifier::record_id(segment)?, read.request.query_string());
    let answer = read.records.record(&routes.resource, Principal::Anonymous, &id, raw, &demand).await?;
    shape(read.request, &answer, &routes.cache_control).await
}

/// Answers `GET path/_stats`.
pub(super) async fn count_records(read: Read<'_>, routes: &CollectionRoutes) -> Result<HttpResponse> {
    let demand = read.demand()?;
    let answer = read.records.stats(&routes.resource, Principal::Anonymous, read.request.query_string(), &demand).await?;
    shape(read.request, &answer, &routes.cache_control).await
}

/// Answers the path of a view.
pub(super) async fn read_view(read: Read<'_>, route: &ViewRoute) -> Result<HttpResponse> {
    let demand = read.demand()?;
    no_parameters(read.request)?;
    let answer = read.records.view(&route.resource, Principal::Anonymous, &demand).await?;
    shape(read.request, &answer, &route.cache_control).await
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
async fn shape(request: &HttpRequest, answer: &Answer, cache_control: &HeaderValue) -> Result<HttpResponse> {
    if answer.presence() == Presence::Missing {
        let mut response = problem::response(&Error::not_found("There is no record with this id."));
        describe_cache(response.headers_mut(), answer);
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
    headers.insert(CACHE_CONTROL, cache_control.clone());
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    for (name, value) in answer.headers() {
        headers.insert(name.clone(), value.clone());
    }
    describe_cache(headers, answer);
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

/// Says how the answer came about: `X-Cache` for people, `Cache-Status` (RFC 9211) for tools.
fn describe_cache(headers: &mut HeaderMap, answer: &Answer) {
    let (word, status) = match answer.outcome() {
        Outcome::Hit => ("HIT", HIT_VALUES.of(answer.fresh_for().as_secs())),
        Outcome::HitL2 => ("HIT", HIT_VALUES.of(answer.fresh_for().as_secs())),
        Outcome::Stale => ("STALE", stale_status(answer)),
        Outcome::Miss => ("MISS", HeaderValue::from_static("terrace; fwd=miss; stored")),
        Outcome::Joined => ("MISS", HeaderValue::from_static("terrace; fwd=miss; collapsed; stored")),
        Outcome::Bypass => ("BYPASS", HeaderValue::from_static("terrace; fwd=bypass")),
    };
    headers.insert(X_CACHE.clone(), HeaderValue::from_static(word));
    headers.insert(CACHE_STATUS, status);
    headers.insert(AGE, AGE_VALUES.of(answer.age().as_secs()));
}

/// `ttl` is the freshness that was left, below zero since the entry expired (RFC 9211, 2.5).
fn stale_status(answer: &Answer) -> HeaderValue {
    let seconds = answer.expired_for().as_secs().max(1);
    let text = format!("terrace; hit; ttl=-{seconds}; detail=l1");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("terrace; hit"))
}
