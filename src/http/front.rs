//! The front: one service that every request goes through. It names the request, finds its resource, calls the handler,
//! turns failures into problems, and counts and logs the answer. There are no further layers between a connection and a
//! handler but the span of tracing-actix-web.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse, fn_service};
use actix_web::http::header::{ALLOW, AUTHORIZATION, HeaderValue, TRANSFER_ENCODING};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt as _;

use super::arrival::Arrivals;
use super::client::Proxies;
use super::door::{self, Door, Serves, Transport};
use super::freshness::Directives;
use super::incoming::Incoming;
use super::observe::{HttpMetrics, RequestLog};
use super::quota::{Counted, Limits};
use super::readiness::Readiness;
use super::reads::Read;
use super::routes::{Admin, Auth, CollectionRoutes, Routes, System, Target};
use super::system::SystemResources;
use super::writes::WriteContext;
use super::{admin, auth, body, changes, problem, reads, spans, writes};
use crate::auth::{Accounts, administer, authorize_on};
use crate::config::{CorsSettings, OperationsSettings, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{BurstLimit, Quotas};
use crate::model::{AccessRule, Caller, Principal, Verb};
use crate::records::{Records, Resources};
use crate::telemetry::Telemetry;

/// The longest path with its query; twice what RFC 9110 (4.1) asks every server to take.
const MAX_ADDRESS_BYTES: usize = 16 * 1024;

/// Everything that requests share. Clones are cheap.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

struct Shared {
    resources: Arc<Resources>,
    /// Empty until the database is open. Reading it once per request is one load, which a writer disturbs once ever.
    records: OnceLock<Arc<Records>>,
    accounts: OnceLock<Arc<Accounts>>,
    readiness: Readiness,
    proxies: Proxies,
    burst: BurstLimit,
    limits: Limits,
    routes: Routes,
    metrics: HttpMetrics,
    log: RequestLog,
    system: SystemResources,
    max_body_bytes: usize,
    arrivals: Arrivals,
    cors: CorsSettings,
    operations: OperationsSettings,
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
        let Settings { http, cors, operations, cache, log, .. } = settings;
        let limits = Limits::new(quotas, &settings.limits);
        let directives = if cache.honor_request_directives { Directives::Honored } else { Directives::Ignored };
        let metrics = HttpMetrics::new(telemetry.registry())?;
        let max_body_bytes = usize::try_from(http.max_body_bytes.as_u64()).unwrap_or(usize::MAX);
        Ok(Self(Arc::new(Shared {
            routes: Routes::new(&resources, &metrics, &limits),
            system: SystemResources::new(&resources, telemetry, readiness.clone())?,
            resources,
            records: OnceLock::new(),
            accounts: OnceLock::new(),
            readiness,
            proxies: Proxies::new(&http.trusted_proxies),
            burst,
            limits,
            metrics,
            log: RequestLog { access: log.access, slow_request: log.slow_request },
            max_body_bytes,
            arrivals: Arrivals::new(http.body_timeout, max_body_bytes),
            cors: cors.clone(),
            operations: operations.clone(),
            directives,
        })))
    }

    /// From now on requests are served by `records`, which has the resources that [`Front::new`] got, to those whom `accounts`
    /// knows.
    pub fn open(&self, records: Arc<Records>, accounts: Arc<Accounts>) {
        // A second call changes nothing: requests may be using the first one's.
        let _ = self.0.accounts.set(accounts);
        let _ = self.0.records.set(records);
    }

    /// Ends what would not end by itself, so that the server can stop.
    pub fn close_feeds(&self) {
        if let Some(records) = self.0.records.get() {
            records.close_feeds();
        }
    }

    /// Makes the front answer all requests of an actix application. Each worker's requests share one handle, so that
    /// workers do not contend for a reference count.
    pub fn configure(&self, application: &mut web::ServiceConfig) {
        self.configure_behind(Door { serves: Serves::Everything, transport: Transport::Plain }, application);
    }

    /// The same, for those that come through `door`.
    pub(super) fn configure_behind(&self, door: Door, application: &mut web::ServiceConfig) {
        let shared = std::rc::Rc::new(Arc::clone(&self.0));
        let service = fn_service(move |request: ServiceRequest| {
            let shared = std::rc::Rc::clone(&shared);
            async move { Ok::<_, actix_web::Error>(shared.answer(door, request).await) }
        });
        match door::cors(&self.0.cors) {
            Some(cors) if door.serves != Serves::Operations => {
                application.service(web::scope("").wrap(cors).default_service(service));
            }
            Some(_) | None => {
                application.default_service(service);
            }
        }
    }
}

impl Shared {
    async fn answer(&self, door: Door, request: ServiceRequest) -> ServiceResponse {
        let started = Instant::now();
        let _in_flight = self.metrics.enter();
        let (request, mut payload) = request.into_parts();
        let request_id = spans::request_id(&request);
        let (target, metrics) = self.routes.resolve(request.uri().path());
        let (target, metrics) = if door.admits(&target) { (target, metrics) } else { self.routes.unmatched() };
        let incoming = Incoming::new(&request);
        // Pinned where it is made, as below: who takes a future by value has room for it twice, and copies it.
        let mut response = {
            let responding = pin!(self.respond(incoming, &mut payload, target));
            request_id.clone().scope(responding).await
        };
        let (status, elapsed) = (response.status(), started.elapsed());
        if status.is_client_error() && request.headers().contains_key(TRANSFER_ENCODING) {
            response = body::holding(response, payload);
        }
        if let Some(connection) = incoming.connection {
            response = connection.end(response, started + elapsed);
        }
        let headers = response.headers_mut();
        // An accepted id and a UUID are valid header values.
        if let Ok(value) = request_id.with_text(HeaderValue::from_str) {
            headers.insert(spans::X_REQUEST_ID.clone(), value);
        }
        door.protect(headers, &target, status);
        metrics.record(request.method(), status, elapsed);
        if self.log.concerns(elapsed) {
            let log = async { self.log.write(request.method(), request.uri().path(), metrics.template(), status, elapsed) };
            request_id.scope(log).await;
        }
        ServiceResponse::new(request, response)
    }

    /// Calls the handler. A panic in it is a failure of this one request.
    async fn respond(&self, incoming: Incoming<'_>, payload: &mut Payload, target: Target<'_>) -> HttpResponse {
        let mut counted = None;
        let answered = {
            let answer = pin!(async {
                incoming.begin()?;
                check_address(incoming.request)?;
                self.dispatch(incoming, payload, target, &mut counted).await
            });
            AssertUnwindSafe(answer).catch_unwind().await
        };
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => problem::response(&incoming.explain(error)),
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
        incoming: Incoming<'_>,
        payload: &mut Payload,
        target: Target<'a>,
        counted: &mut Option<Counted<'a>>,
    ) -> Result<HttpResponse> {
        let request = incoming.request;
        let address = self.proxies.client(request);
        self.burst.check(address)?;
        let principal = match self.recognize(request, &target) {
            Ok(Some(principal)) => Ok(principal),
            Ok(None) => Box::pin(self.look_up(incoming)).await,
            Err(error) => Err(error),
        };
        let (principal, refusal) = match principal {
            Ok(principal) => (principal, None),
            // Guessing credentials counts as well, against the address.
            Err(error) if error.kind() == ErrorKind::Unauthenticated => (Principal::Anonymous, Some(error)),
            Err(error) => return Err(error),
        };
        let caller = &Caller { principal, address };
        if self.records.get().is_some() {
            *counted = self.limits.count(target, request.method(), caller).await?;
            counted.as_ref().map_or(Ok(()), Counted::permit)?;
        }
        if let Some(error) = refusal {
            return Err(error);
        }
        match (target, is_read(request)) {
            (Target::Record(routes, segment), true) => reads::read_record(self.read(incoming, caller)?, routes, segment).await,
            (Target::List(routes), true) => reads::list_records(self.read(incoming, caller)?, routes).await,
            (target, true) => Box::pin(self.dispatch_read(incoming, caller, target)).await,
            (target, false) => Box::pin(self.dispatch_other(incoming, payload, caller, target)).await,
        }
    }

    /// Who is asking, if that can be said at once; `None` if it has to be looked up. A credential that does not hold is refused
    /// wherever one would be read, also where none is needed: who sends it believes to be known.
    fn recognize(&self, request: &HttpRequest, target: &Target<'_>) -> Result<Option<Principal>> {
        let mut fields = request.headers().get_all(AUTHORIZATION);
        match (fields.next(), fields.next()) {
            (None, _) => Ok(Some(Principal::Anonymous)),
            // Its answer is the same for all, and no quota counts it: a key that somebody made up must not cost a look-up.
            _ if *request.method() == Method::OPTIONS => Ok(Some(Principal::Anonymous)),
            _ if !target.reads_credentials() && self.rule(target) == AccessRule::Public => Ok(Some(Principal::Anonymous)),
            (Some(field), None) => self.accounts()?.recognize(field.as_bytes()),
            (Some(_), Some(_)) => Err(Error::bad_request("invalid_authorization", "Send Authorization once.")),
        }
    }

    async fn look_up(&self, incoming: Incoming<'_>) -> Result<Principal> {
        let field = incoming.request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        if let Some(connection) = incoming.surplus() {
            return self.accounts()?.recognize_due(field)?.ok_or_else(|| connection.refusal());
        }
        self.accounts()?.look_up(field).await
    }

    async fn dispatch_read(&self, incoming: Incoming<'_>, caller: &Caller, target: Target<'_>) -> Result<HttpResponse> {
        let request = incoming.request;
        match target {
            Target::Record(routes, segment) => reads::read_record(self.read(incoming, caller)?, routes, segment).await,
            Target::List(routes) => reads::list_records(self.read(incoming, caller)?, routes).await,
            Target::Stats(routes) => reads::count_records(self.read(incoming, caller)?, routes).await,
            Target::Changes(routes) => {
                incoming.permit()?;
                let recheck = changes::recheck(self.accounts()?, request, caller);
                changes::list_changes(self.read(incoming, caller)?, routes, recheck).await
            }
            Target::View(route) => reads::read_view(self.read(incoming, caller)?, route).await,
            Target::System(system) => {
                authorize_on(&caller.principal, self.rule(&target), None, Verb::Read)?;
                self.system.answer(system, self.records.get().map(|records| &**records), request).await
            }
            Target::DocsFile(file) => {
                authorize_on(&caller.principal, self.rule(&target), None, Verb::Read)?;
                self.system.docs_file(file)
            }
            Target::Admin(Admin::Cache) => {
                administer(&caller.principal, Verb::Read)?;
                admin::describe_cache(self.records()?, request)
            }
            Target::Admin(Admin::Explain) => {
                administer(&caller.principal, Verb::Read)?;
                admin::explain_cache(self.records()?, &self.routes, request).await
            }
            Target::Auth(Auth::Me) => auth::describe_caller(&caller.principal, request),
            Target::Batch(_) | Target::Admin(Admin::Invalidate) | Target::Auth(Auth::Login | Auth::Refresh | Auth::Logout) => {
                Err(method_not_allowed(target, request.method()))
            }
            Target::Unmatched => Err(self.unmatched()),
        }
    }

    async fn dispatch_other(
        &self,
        incoming: Incoming<'_>,
        payload: &mut Payload,
        caller: &Caller,
        target: Target<'_>,
    ) -> Result<HttpResponse> {
        incoming.permit()?;
        let request = incoming.request;
        *payload = self.arrivals.limited(payload.take());
        match (target, request.method()) {
            (Target::Unmatched, _) => Err(self.unmatched()),
            (Target::Admin(Admin::Invalidate), &Method::POST) => {
                administer(&caller.principal, Verb::Write)?;
                admin::invalidate_cache(self.records()?, caller, request, payload).await
            }
            (Target::Auth(Auth::Login), &Method::POST) => auth::log_in(self.accounts()?, caller, request, payload).await,
            (Target::Auth(Auth::Refresh), &Method::POST) => auth::refresh(self.accounts()?, caller, request, payload).await,
            (Target::Auth(Auth::Logout), &Method::POST) => auth::log_out(self.accounts()?, caller, request, payload).await,
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

    /// Who may read what the settings restrict. Everything else is for whom its handler says.
    fn rule(&self, target: &Target<'_>) -> AccessRule {
        match target {
            Target::System(System::Metrics) => self.operations.metrics.rule(),
            Target::System(System::OpenApi | System::Docs) | Target::DocsFile(_) => self.operations.docs.rule(),
            Target::System(System::Health | System::Live | System::Ready) | Target::Unmatched => AccessRule::Public,
            Target::List(_) | Target::Record(..) | Target::Batch(_) | Target::Stats(_) | Target::Changes(_) | Target::View(_) => {
                AccessRule::Public
            }
            Target::Admin(_) | Target::Auth(_) => AccessRule::Public,
        }
    }

    /// The records, once the database is open.
    fn records(&self) -> Result<&Arc<Records>> {
        self.records.get().ok_or_else(|| self.readiness.refusal())
    }

    /// The accounts, once the database is open.
    fn accounts(&self) -> Result<&Arc<Accounts>> {
        self.accounts.get().ok_or_else(|| self.readiness.refusal())
    }

    fn unmatched(&self) -> Error {
        let paths = self.resources.collections().iter().map(|resource| resource.collection().path.as_str());
        let paths = paths.chain(self.resources.views().iter().map(|resource| resource.view().path.as_str()));
        Error::not_found("No resource has this path. `allowed` has those of collections and views; /openapi.json describes all.")
            .with_allowed(paths)
    }

    fn read<'a>(&'a self, incoming: Incoming<'a>, caller: &'a Caller) -> Result<Read<'a>> {
        let (request, reach) = (incoming.request, incoming.reach());
        Ok(Read { records: self.records()?, request, caller, directives: self.directives, reach })
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

/// Refuses an address that no client needs. The system that reads heads takes up to 64 KiB, and each part of it is read again.
fn check_address(request: &HttpRequest) -> Result<()> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) <= MAX_ADDRESS_BYTES {
        return Ok(());
    }
    let detail = format!("A path and its query have at most {MAX_ADDRESS_BYTES} bytes here.");
    Err(Error::new(ErrorKind::UriTooLong, "uri_too_long", detail))
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
