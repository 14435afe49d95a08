//! The front: one service that every request goes through. It names the request, finds its resource, calls the handler,
//! turns failures into problems, and counts and logs the answer. There are no further layers between a connection and a
//! handler but the span of tracing-actix-web.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse, fn_service};
use actix_web::http::header::{ALLOW, HeaderName, HeaderValue, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt as _;

use super::client::Proxies;
use super::freshness::Directives;
use super::observe::{HttpMetrics, RequestLog};
use super::quota::{Counted, Limits};
use super::readiness::Readiness;
use super::reads::Read;
use super::routes::{Admin, CollectionRoutes, Routes, Target};
use super::system::SystemResources;
use super::writes::WriteContext;
use super::{admin, body, problem, reads, spans, writes};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{BurstLimit, Quotas};
use crate::model::{Caller, Principal};
use crate::records::{Records, Resources};
use crate::telemetry::Telemetry;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything that requests share. Clones are cheap.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

struct Shared {
    resources: Arc<Resources>,
    /// Empty until the database is open. Reading it once per request is one load, which a writer disturbs once ever.
    records: OnceLock<Arc<Records>>,
    readiness: Readiness,
    proxies: Proxies,
    burst: BurstLimit,
    limits: Limits,
    routes: Routes,
    metrics: HttpMetrics,
    log: RequestLog,
    system: SystemResources,
    max_body_bytes: usize,
    directives: Directives,
}

impl Front {
    /// Builds the table of routes, the API description and the metrics. Call it once per server. Until [`Front::open`]
    /// whatever needs the database is refused with what `readiness` says.
    pub fn new(
        settings: &Settings,
        resources: Arc<Resources>,
        telemetry: Telemetry,
        readiness: Readiness,
        burst: BurstLimit,
        quotas: Quotas,
    ) -> Result<Self> {
        let Settings { http, cache, log, .. } = settings;
        let limits = Limits::new(quotas, &settings.limits);
        let directives = if cache.honor_request_directives { Directives::Honored } else { Directives::Ignored };
        let metrics = HttpMetrics::new(telemetry.registry())?;
        Ok(Self(Arc::new(Shared {
            routes: Routes::new(&resources, &metrics, &limits),
            system: SystemResources::new(&resources, telemetry, readiness.clone())?,
            resources,
            records: OnceLock::new(),
            readiness,
            proxies: Proxies::new(&http.trusted_proxies),
            burst,
            limits,
            metrics,
            log: RequestLog { access: log.access, slow_request: log.slow_request },
            max_body_bytes: usize::try_from(http.max_body_bytes.as_u64()).unwrap_or(usize::MAX),
            directives,
        })))
    }

    /// From now on requests are served by `records`, which has the resources that [`Front::new`] got.
    pub fn open(&self, records: Arc<Records>) {
        // A second call changes nothing: requests may be using the first one's.
        let _ = self.0.records.set(records);
    }

    /// Makes the front answer all requests of an actix application. Each worker's requests share one handle, so that
    /// workers do not contend for a reference count.
    pub fn configure(&self, application: &mut web::ServiceConfig) {
        let shared = std::rc::Rc::new(Arc::clone(&self.0));
        application.default_service(fn_service(move |request: ServiceRequest| {
            let shared = std::rc::Rc::clone(&shared);
            async move { Ok::<_, actix_web::Error>(shared.answer(request).await) }
        }));
    }
}

impl Shared {
    async fn answer(&self, request: ServiceRequest) -> ServiceResponse {
        let started = Instant::now();
        let _in_flight = self.metrics.enter();
        let (request, mut payload) = request.into_parts();
        let request_id = spans::request_id(&request);
        let (target, metrics) = self.routes.resolve(request.uri().path());
        let mut response = request_id.clone().scope(self.respond(&request, &mut payload, target)).await;
        let (status, elapsed) = (response.status(), started.elapsed());
        if status.is_client_error() && request.headers().contains_key(TRANSFER_ENCODING) {
            response = body::holding(response, payload);
        }
        let headers = response.headers_mut();
        // An accepted id and a UUID are valid header values.
        if let Ok(value) = request_id.with_text(HeaderValue::from_str) {
            headers.insert(X_REQUEST_ID.clone(), value);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        metrics.record(request.method(), status, elapsed);
        if self.log.concerns(elapsed) {
            let log = async { self.log.write(request.method(), request.uri().path(), metrics.template(), status, elapsed) };
            request_id.scope(log).await;
        }
        ServiceResponse::new(request, response)
    }

    /// Calls the handler. A panic in it is a failure of this one request.
    async fn respond(&self, request: &HttpRequest, payload: &mut Payload, target: Target<'_>) -> HttpResponse {
        let mut counted = None;
        let mut response = match AssertUnwindSafe(self.dispatch(request, payload, target, &mut counted)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => problem::response(&error),
            Err(_) => problem::response(&Error::internal("a handler panicked; its message is on standard error")),
        };
        if let Some(counted) = counted {
            counted.describe(response.headers_mut());
        }
        response
    }

    /// The two reads that are hot. Everything else is boxed: a future is as large as its largest branch, and a hit would
    /// have to carry the state of a batch around.
    async fn dispatch<'a>(
        &'a self,
        request: &HttpRequest,
        payload: &mut Payload,
        target: Target<'a>,
        counted: &mut Option<Counted<'a>>,
    ) -> Result<HttpResponse> {
        let address = self.proxies.client(request);
        self.burst.check(address)?;
        let caller = &Caller { principal: Principal::Anonymous, address };
        if self.records.get().is_some() {
            *counted = self.limits.count(target, request.method(), caller).await?;
        }
        counted.as_ref().map_or(Ok(()), Counted::permit)?;
        match (target, is_read(request)) {
            (Target::Record(routes, segment), true) => reads::read_record(self.read(request, caller)?, routes, segment).await,
            (Target::List(routes), true) => reads::list_records(self.read(request, caller)?, routes).await,
            (target, true) => Box::pin(self.dispatch_read(request, caller, target)).await,
            (target, false) => Box::pin(self.dispatch_other(request, payload, caller, target)).await,
        }
    }

    async fn dispatch_read(&self, request: &HttpRequest, caller: &Caller, target: Target<'_>) -> Result<HttpResponse> {
        match target {
            Target::Record(routes, segment) => reads::read_record(self.read(request, caller)?, routes, segment).await,
            Target::List(routes) => reads::list_records(self.read(request, caller)?, routes).await,
            Target::Stats(routes) => reads::count_records(self.read(request, caller)?, routes).await,
            Target::View(route) => reads::read_view(self.read(request, caller)?, route).await,
            Target::System(system) => self.system.answer(system, self.records.get().map(|records| &**records), request).await,
            Target::DocsFile(file) => self.system.docs_file(file),
            Target::Admin(_) if !admin::is_local(request) => Err(self.unmatched()),
            Target::Admin(Admin::Cache) => admin::describe_cache(self.records()?, request),
            Target::Admin(Admin::Explain) => admin::explain_cache(self.records()?, &self.routes, request).await,
            Target::Batch(_) | Target::Admin(Admin::Invalidate) => Err(method_not_allowed(target, request.method())),
            Target::Unmatched => Err(self.unmatched()),
        }
    }

    async fn dispatch_other(
        &self,
        request: &HttpRequest,
        payload: &mut Payload,
        caller: &Caller,
        target: Target<'_>,
    ) -> Result<HttpResponse> {
        match (target, request.method()) {
            (Target::Unmatched, _) => Err(self.unmatched()),
            (Target::Admin(_), _) if !admin::is_local(request) => Err(self.unmatched()),
            (Target::Admin(Admin::Invalidate), &Method::POST) => admin::invalidate_cache(self.records()?, request, payload).await,
            (Target::List(routes), &Method::POST) => writes::create_record(self.write(routes, request, caller)?, payload).await,
            (Target::Batch(routes), &Method::POST) => writes::write_batch(self.write(routes, request, caller)?, payload).await,
            (Target::Record(routes, segment), &Method::PUT) => {
                writes::replace_record(self.write(routes, request, caller)?, segment, payload).await
            }
            (Target::Record(routes, segment), &Method::PATCH) => {
                writes::patch_record(self.write(routes, request, caller)?, segment, payload).await
            }
            (Target::Record(routes, segment), &Method::DELETE) => {
                writes::delete_record(self.write(routes, request, caller)?, segment).await
            }
            (target, &Method::OPTIONS) => options(target),
            (target, method) => Err(method_not_allowed(target, method)),
        }
    }

    /// The records, once the database is open.
    fn records(&self) -> Result<&Arc<Records>> {
        self.records.get().ok_or_else(|| self.readiness.refusal())
    }

    fn unmatched(&self) -> Error {
        let paths = self.resources.collections().iter().map(|resource| resource.collection().path.as_str());
        let paths = paths.chain(self.resources.views().iter().map(|resource| resource.view().path.as_str()));
        Error::not_found("No resource has this path. `allowed` has those of collections and views; /openapi.json describes all.")
            .with_allowed(paths)
    }

    fn read<'a>(&'a self, request: &'a HttpRequest, caller: &'a Caller) -> Result<Read<'a>> {
        Ok(Read { records: self.records()?, request, caller, directives: self.directives })
    }

    fn write<'a>(
        &'a self,
        routes: &'a CollectionRoutes,
        request: &'a HttpRequest,
        caller: &'a Caller,
    ) -> Result<WriteContext<'a>> {
        Ok(WriteContext { records: self.records()?, routes, request, caller, max_body_bytes: self.max_body_bytes })
    }
}

fn is_read(request: &HttpRequest) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn options(target: Target<'_>) -> Result<HttpResponse> {
    let methods = target.methods().iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut response = HttpResponse::with_body(StatusCode::NO_CONTENT, BoxBody::new(()));
    response.headers_mut().insert(ALLOW, HeaderValue::try_from(methods).map_err(Error::internal)?);
    Ok(response)
}

fn method_not_allowed(target: Target<'_>, method: &Method) -> Error {
    Error::new(ErrorKind::MethodNotAllowed, "method_not_allowed", format!("This resource does not take {method}."))
        .with_allowed(target.methods().iter().map(Method::as_str))
}
