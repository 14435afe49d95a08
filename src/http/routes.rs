//! Which resource a path names. Paths are resolved by one or two look-ups in a map: with one table for all
//! collections there is no pattern to try in turn, and the raw path is never decoded before it is split.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::HeaderValue;

use super::observe::{HttpMetrics, RouteMetrics};
use super::quota::{Limits, RouteLimits};
use crate::model::AccessRule;
use crate::records::{Resource, Resources, ViewResource};

/// The sub-resource of a collection that takes several writes at once.
const BATCH: &str = "_batch";
/// The sub-resource of a collection that counts.
const STATS: &str = "_stats";
/// The sub-resource of a collection that says what happened to it.
const CHANGES: &str = "_changes";
/// Where the page of the API description is.
pub(super) const DOCS: &str = "/docs";

/// All paths.
pub(super) struct Routes {
    places: HashMap<Box<str>, Place, foldhash::fast::FixedState>,
    docs: RouteMetrics,
    unmatched: RouteMetrics,
}

enum Place {
    Collection(Box<CollectionRoutes>),
    View(Box<ViewRoute>),
    System(System, Box<RouteMetrics>),
    Admin(Admin, Box<RouteMetrics>),
    Auth(Auth, Box<RouteMetrics>),
}

/// A collection with everything that its answers have in common, made once.
pub(super) struct CollectionRoutes {
    pub(super) resource: Arc<Resource>,
    pub(super) sharing: Sharing,
    pub(super) limits: RouteLimits,
    list: RouteMetrics,
    record: RouteMetrics,
    batch: RouteMetrics,
    stats: RouteMetrics,
    changes: RouteMetrics,
}

/// A view with everything that its answers have in common, made once.
pub(super) struct ViewRoute {
    pub(super) resource: Arc<ViewResource>,
    pub(super) sharing: Sharing,
    metrics: RouteMetrics,
}

/// The resources that are not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Whether everything works.
    Health,
    /// Whether the process answers.
    Live,
    /// Whether requests should be sent here.
    Ready,
    /// Metrics in the Prometheus text format.
    Metrics,
    /// The API description.
    OpenApi,
    /// The way to the page of the API description.
    Docs,
}

impl System {
    const ALL: [(&'static str, Self); 6] = [
        ("/health", Self::Health),
        ("/health/live", Self::Live),
        ("/health/ready", Self::Ready),
        ("/metrics", Self::Metrics),
        ("/openapi.json", Self::OpenApi),
        (DOCS, Self::Docs),
    ];
}

/// What only an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admin {
    /// The state of the caches.
    Cache,
    /// Dropping something from them.
    Invalidate,
    /// Why a request would be answered as it would.
    Explain,
}

impl Admin {
    const ALL: [(&'static str, Self); 3] =
        [("/admin/cache", Self::Cache), ("/admin/cache/invalidate", Self::Invalidate), ("/admin/cache/explain", Self::Explain)];
}

/// Becoming known, and who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// Beginning a session.
    Login,
    /// New tokens for a session.
    Refresh,
    /// Ending a session.
    Logout,
    /// Who is asking.
    Me,
}

impl Auth {
    const ALL: [(&'static str, Self); 4] = [
        ("/api/v1/auth/login", Self::Login),
        ("/api/v1/auth/refresh", Self::Refresh),
        ("/api/v1/auth/logout", Self::Logout),
        ("/api/v1/auth/me", Self::Me),
    ];
}

/// What a path names.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// A collection.
    List(&'a CollectionRoutes),
    /// A record; the segment is still escaped.
    Record(&'a CollectionRoutes, &'a str),
    /// The batches of a collection.
    Batch(&'a CollectionRoutes),
    /// The statistics of a collection.
    Stats(&'a CollectionRoutes),
    /// The change log of a collection.
    Changes(&'a CollectionRoutes),
    /// A view.
    View(&'a ViewRoute),
    /// What is not data.
    System(System),
    /// What only an operator may do.
    Admin(Admin),
    /// Becoming known, and who one is.
    Auth(Auth),
    /// A file of the page of the API description.
    DocsFile(&'a str),
    /// Nothing.
    Unmatched,
}

impl Routes {
    /// The table of everything there is. The catalog has made sure that no two paths are equal.
    pub(super) fn new(resources: &Resources, metrics: &HttpMetrics, limits: &Limits) -> Self {
        // Nobody but the operator adds to it, so the hash needs no seed.
        let mut places: HashMap<Box<str>, Place, _> = HashMap::default();
        for resource in resources.collections() {
            let routes = CollectionRoutes::new(resource, metrics, limits);
            places.insert(resource.collection().path.as_str().into(), Place::Collection(Box::new(routes)));
        }
        for resource in resources.views() {
            let view = resource.view();
            let route = ViewRoute {
                resource: Arc::clone(resource),
                sharing: Sharing::new(Audience::of(view.read == AccessRule::Public), view.stale_if_error, Misses::Told),
                metrics: metrics.route(view.path.as_str()),
            };
            places.insert(view.path.as_str().into(), Place::View(Box::new(route)));
        }
        for (path, system) in System::ALL {
            places.insert(path.into(), Place::System(system, Box::new(metrics.route(path))));
        }
        for (path, admin) in Admin::ALL {
            places.insert(path.into(), Place::Admin(admin, Box::new(metrics.route(path))));
        }
        for (path, auth) in Auth::ALL {
            places.insert(path.into(), Place::Auth(auth, Box::new(metrics.route(path))));
        }
        Self { places, docs: metrics.route(format!("{DOCS}/{{file}}")), unmatched: metrics.route("unmatched") }
    }

    /// What `path` names, still escaped as it came, and where its requests are counted.
    pub(super) fn resolve<'a>(&'a self, path: &'a str) -> (Target<'a>, &'a RouteMetrics) {
        match self.places.get(path) {
            Some(Place::Collection(routes)) => (Target::List(routes), &routes.list),
            Some(Place::View(route)) => (Target::View(route), &route.metrics),
            Some(Place::System(system, metrics)) => (Target::System(*system), metrics),
            Some(Place::Admin(admin, metrics)) => (Target::Admin(*admin), metrics),
            Some(Place::Auth(auth, metrics)) => (Target::Auth(*auth), metrics),
            None => path
                .rsplit_once('/')
                .and_then(|(parent, segment)| self.below(parent, segment))
                .unwrap_or((Target::Unmatched, &self.unmatched)),
        }
    }

    /// A path that names nothing, and where its requests are counted.
    pub(super) fn unmatched(&self) -> (Target<'_>, &RouteMetrics) {
        (Target::Unmatched, &self.unmatched)
    }

    fn below<'a>(&'a self, parent: &str, segment: &'a str) -> Option<(Target<'a>, &'a RouteMetrics)> {
        match (self.places.get(parent)?, segment) {
            (Place::System(System::Docs, _), file) => Some((Target::DocsFile(file), &self.docs)),
            (Place::Collection(routes), BATCH) => Some((Target::Batch(routes), &routes.batch)),
            (Place::Collection(routes), CHANGES) => Some((Target::Changes(routes), &routes.changes)),
            (Place::Collection(routes), STATS) => Some((Target::Stats(routes), &routes.stats)),
            // A trailing slash names nothing, and what begins with an underscore is reserved.
            (Place::Collection(_), reserved) if reserved.is_empty() || reserved.starts_with('_') => None,
            (Place::Collection(routes), id) => Some((Target::Record(routes, id), &routes.record)),
            (Place::View(_) | Place::System(..) | Place::Admin(..) | Place::Auth(..), _) => None,
        }
    }
}

impl CollectionRoutes {
    fn new(resource: &Arc<Resource>, metrics: &HttpMetrics, limits: &Limits) -> Self {
        let collection = resource.collection();
        let path = collection.path.as_str();
        let misses = if collection.access.read == AccessRule::Owner { Misses::Kept } else { Misses::Told };
        Self {
            resource: Arc::clone(resource),
            sharing: Sharing::new(Audience::of(resource.is_same_for_all()), collection.cache.stale_if_error, misses),
            limits: limits.of_collection(&collection.name, &collection.limits),
            list: metrics.route(path),
            record: metrics.route(format!("{path}/{{id}}")),
            batch: metrics.route(format!("{path}/{BATCH}")),
            stats: metrics.route(format!("{path}/{STATS}")),
            changes: metrics.route(format!("{path}/{CHANGES}")),
        }
    }
}

/// Who may keep the answers of a resource, and what they tell of how they came about.
pub(super) struct Sharing {
    pub(super) cache_control: HeaderValue,
    pub(super) vary: HeaderValue,
    pub(super) misses: Misses,
}

/// Whether a 404 says what the caches knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misses {
    /// It does.
    Told,
    /// It does not: "there is no such record for you" is outdated by whoever writes the record, so that a hit that becomes a
    /// miss would tell that somebody has it.
    Kept,
}

#[derive(Clone, Copy)]
enum Audience {
    /// All callers are shown the same.
    All,
    /// What is shown depends on who asks.
    Caller,
}

impl Audience {
    fn of(is_same_for_all: bool) -> Self {
        if is_same_for_all { Self::All } else { Self::Caller }
    }
}

impl Sharing {
    /// `max-age=0` lets clients and proxies keep an answer but makes them ask each time whether it still holds: they are
    /// answered from L1 with a 304 and no body, and never show what has been overwritten. When Terrace itself is away they may
    /// serve what they have for as long as the collection allows. `public` lets proxies serve one caller what another got, even
    /// with credentials (RFC 9111, 3.5).
    fn new(audience: Audience, stale_if_error: Duration, misses: Misses) -> Self {
        let (scope, vary) = match audience {
            Audience::All => ("public", "accept-encoding"),
            Audience::Caller => ("private", "accept-encoding, authorization"),
        };
        let text = format!("{scope}, max-age=0, stale-if-error={}", stale_if_error.as_secs());
        let cache_control = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-cache"));
        Self { cache_control, vary: HeaderValue::from_static(vary), misses }
    }
}

impl Target<'_> {
    /// Whether it matters who is asking. Where it does not, a credential is not looked at: a client may send one that has ended to
    /// where it gets another, and whether the server lives must be told whatever becomes of the database.
    pub(super) fn reads_credentials(&self) -> bool {
        match self {
            Self::List(_) | Self::Record(..) | Self::Batch(_) | Self::Stats(_) | Self::Changes(_) | Self::View(_) => true,
            Self::Admin(_) | Self::Auth(Auth::Me) => true,
            Self::System(_) | Self::DocsFile(_) | Self::Unmatched | Self::Auth(Auth::Login | Auth::Refresh | Auth::Logout) => {
                false
            }
        }
    }

    /// The methods it takes, as `Allow` lists them.
    pub(super) fn methods(&self) -> &'static [Method] {
        match self {
            Self::List(_) => &[Method::GET, Method::HEAD, Method::POST, Method::OPTIONS],
            Self::Record(..) => &[Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS],
            Self::Batch(_) | Self::Admin(Admin::Invalidate) | Self::Auth(Auth::Login | Auth::Refresh | Auth::Logout) => {
                &[Method::POST, Method::OPTIONS]
            }
            Self::Stats(_)
            | Self::Changes(_)
            | Self::View(_)
            | Self::System(_)
            | Self::Admin(Admin::Cache | Admin::Explain)
            | Self::Auth(Auth::Me)
            | Self::DocsFile(_) => &[Method::GET, Method::HEAD, Method::OPTIONS],
            Self::Unmatched => &[],
        }
    }
}
