//! A door: an address that is listened on. It says which resources answer there, and what browsers are told beside every
//! answer. It knows nothing of what requests ask for.

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    self, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};

use super::routes::{System, Target};
use crate::config::CorsSettings;

/// What Terrace answers is data: shown as a page it runs nothing, loads nothing, and is in nobody's frame.
const DATA_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Addresses hold filters and searches, which are nobody's business where a link leads.
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
/// A browser that has been here over TLS comes back over TLS for a year.
const ALWAYS_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");

/// What pages of other origins may send, besides what they always may.
const TAKEN: [&str; 11] = [
    "authorization",
    "cache-control",
    "consistency-token",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "x-no-compression",
    "x-request-id",
];

/// What pages of other origins may read, besides what they always may.
const SHOWN: [&str; 19] = [
    "age",
    "allow",
    "cache-status",
    "consistency-token",
    "etag",
    "idempotency-replayed",
    "link",
    "location",
    "preference-applied",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "www-authenticate",
    "x-cache",
    "x-page",
    "x-per-page",
    "x-request-id",
    "x-total-count",
    "x-total-pages",
];

/// An address that is listened on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    pub(super) serves: Serves,
    pub(super) transport: Transport,
}

/// Which resources answer behind a door. Health does behind each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// All: there is one door.
    Everything,
    /// Data: there is another door for operators.
    Data,
    /// What operators need.
    Operations,
}

/// How what is said at a door is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Plain,
    Tls,
}

impl Door {
    /// Whether `target` answers here.
    pub(super) fn admits(self, target: &Target<'_>) -> bool {
        match self.serves {
            Serves::Everything => true,
            Serves::Data => !matches!(concern(target), Concern::Operations),
            Serves::Operations => !matches!(concern(target), Concern::Data),
        }
    }

    /// Tells browsers what to keep to. An answer without a body tells them nothing new.
    pub(super) fn protect(self, headers: &mut HeaderMap, target: &Target<'_>, status: StatusCode) {
        headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
        if status == StatusCode::NOT_MODIFIED {
            return;
        }
        // The page of the description has its own policy, and links; data has none.
        if matches!(target, Target::DocsFile(_)) && status.is_success() {
            headers.insert(REFERRER_POLICY, NO_REFERRER);
        } else {
            headers.insert(CONTENT_SECURITY_POLICY, DATA_POLICY);
        }
        if self.transport == Transport::Tls {
            headers.insert(STRICT_TRANSPORT_SECURITY, ALWAYS_TLS);
        }
    }
}

/// Whom a resource is for.
enum Concern {
    Data,
    Operations,
    Both,
}

fn concern(target: &Target<'_>) -> Concern {
    match target {
        Target::List(_)
        | Target::Record(..)
        | Target::Batch(_)
        | Target::Stats(_)
        | Target::Changes(_)
        | Target::View(_)
        | Target::Auth(_) => Concern::Data,
        Target::Admin(_) | Target::DocsFile(_) => Concern::Operations,
        Target::System(System::Metrics | System::OpenApi | System::Docs) => Concern::Operations,
        Target::System(System::Health | System::Live | System::Ready) | Target::Unmatched => Concern::Both,
    }
}

/// What pages of other origins may do, if the settings name any. Credentials are never taken from a browser: what a page sends,
/// it sends itself, in `Authorization`.
pub(super) fn cors(settings: &CorsSettings) -> Option<Cors> {
    if settings.origins.is_empty() {
        return None;
    }
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    let shown = SHOWN.map(HeaderName::from_static);
    let base = Cors::default()
        .allowed_methods(methods)
        .allowed_headers(TAKEN.map(HeaderName::from_static))
        .allowed_header(header::ACCEPT)
        .expose_headers(&shown)
        .max_age(usize::try_from(settings.max_age.as_secs()).unwrap_or(usize::MAX));
    if settings.origins.iter().any(|origin| origin == "*") {
        return Some(base.allow_any_origin().send_wildcard());
    }
    Some(settings.origins.iter().fold(base, |cors, origin| cors.allowed_origin(origin)))
}
