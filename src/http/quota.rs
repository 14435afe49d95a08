//! Which quota a request counts against, and how answers say how their caller stands with it: the fields `RateLimit-Policy`
//! and `RateLimit` of the IETF's draft (draft-ietf-httpapi-ratelimit-headers), only where there is a quota.
//!
//! Everything counts but `OPTIONS`, health, metrics, the API description and its page, and what has no resource.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::routes::{Auth, Target};
use crate::config::LimitsSettings;
use crate::error::Result;
use crate::limits::{Check, Policy, Quotas, Standing};
use crate::model::{Caller, CollectionLimits, CollectionName, Limit, LimitClass, Principal, Quota, Verb};

static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The quotas of the classes, and those who count.
pub(super) struct Limits {
    quotas: Quotas,
    /// In the order of [`LimitClass::ALL`].
    classes: [Option<Limited>; LimitClass::ALL.len()],
    /// Those that keys have of their own. There are as many as an operator has thought of.
    own: RwLock<HashMap<Quota, Arc<Limited>>>,
}

/// A quota with what its answers have in common, made once.
pub(super) struct Limited {
    policy: Policy,
    described: HeaderValue,
    /// What [`RATE_LIMIT`] begins with.
    named: Box<str>,
}

/// The quotas of a collection.
pub(super) struct RouteLimits {
    read: RouteLimit,
    write: RouteLimit,
}

enum RouteLimit {
    Class(LimitClass),
    Own(Limited),
    Off,
}

/// A request that was counted.
pub(super) struct Counted<'a> {
    limited: Applied<'a>,
    standing: Standing,
}

/// A quota that applies. Those of classes and collections are lent: workers would contend for a reference count.
enum Applied<'a> {
    Lent(&'a Limited),
    Own(Arc<Limited>),
}

impl Limits {
    pub(super) fn new(quotas: Quotas, settings: &LimitsSettings) -> Self {
        let classes = LimitClass::ALL.map(|class| {
            let quota = settings.quota(class)?;
            Some(Limited::new(quotas.policy(class.as_str(), quota)))
        });
        Self { quotas, classes, own: RwLock::default() }
    }

    /// The quotas of a collection. Its own are named after it.
    pub(super) fn of_collection(&self, name: &CollectionName, limits: &CollectionLimits) -> RouteLimits {
        let of = |limit, verb| match limit {
            Limit::Class(class) => RouteLimit::Class(class),
            Limit::Own(quota) => RouteLimit::Own(Limited::new(self.quotas.policy(format!("{name}:{verb}"), quota))),
            Limit::Off => RouteLimit::Off,
        };
        RouteLimits { read: of(limits.read, "read"), write: of(limits.write, "write") }
    }

    /// Counts a request; `None` if it counts against nothing. It waits only if the shared quota has to be asked.
    pub(super) async fn count<'a>(&'a self, target: Target<'a>, method: &Method, caller: &Caller) -> Result<Option<Counted<'a>>> {
        let Some(limited) = self.of(target, method, caller) else { return Ok(None) };
        let standing = match self.quotas.check(&limited.get().policy, caller) {
            Check::Known(standing) => standing,
            asking @ Check::Asking(_) => Box::pin(asking.known()).await?,
        };
        Ok(Some(Counted { limited, standing }))
    }

    fn of<'a>(&'a self, target: Target<'a>, method: &Method, caller: &Caller) -> Option<Applied<'a>> {
        let verb = match *method {
            Method::OPTIONS => return None,
            Method::GET | Method::HEAD => Verb::Read,
            _ => Verb::Write,
        };
        let class = match target {
            Target::List(routes)
            | Target::Record(routes, _)
            | Target::Batch(routes)
            | Target::Stats(routes)
            | Target::Changes(routes) => match routes.limits.of(verb) {
                RouteLimit::Class(class) => *class,
                RouteLimit::Own(limited) => return Some(Applied::Lent(limited)),
                RouteLimit::Off => return None,
            },
            // Only who sends a password tries one.
            Target::Auth(Auth::Login) if verb == Verb::Write => LimitClass::Auth,
            Target::View(_) | Target::Admin(_) | Target::Auth(_) => LimitClass::Api,
            Target::System(_) | Target::DocsFile(_) | Target::Unmatched => return None,
        };
        match own_quota(caller) {
            Some(quota) if class == LimitClass::Api => Some(Applied::Own(self.own(quota))),
            Some(_) | None => self.classes.get(class as usize)?.as_ref().map(Applied::Lent),
        }
    }
}

impl Limits {
    fn own(&self, quota: Quota) -> Arc<Limited> {
        let known = self.own.read().unwrap_or_else(PoisonError::into_inner).get(&quota).cloned();
        known.unwrap_or_else(|| {
            let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(own.entry(quota).or_insert_with(|| Arc::new(Limited::new(self.quotas.policy("key", quota)))))
        })
    }
}

impl Applied<'_> {
    fn get(&self) -> &Limited {
        match self {
            Self::Lent(limited) => limited,
            Self::Own(limited) => limited,
        }
    }
}

impl RouteLimits {
    fn of(&self, verb: Verb) -> &RouteLimit {
        match verb {
            Verb::Read => &self.read,
            Verb::Write => &self.write,
        }
    }
}

impl Limited {
    fn new(policy: Policy) -> Self {
        let Quota { requests, period } = policy.quota();
        let text = format!("\"{}\";q={requests};w={}", policy.name(), period.as_millis().div_ceil(1000));
        // Names are those of classes and collections.
        let described = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"quota\""));
        let named = format!("\"{}\";r=", policy.name()).into();
        Self { policy, described, named }
    }
}

impl Counted<'_> {
    /// Fails if the request may not pass.
    pub(super) fn permit(&self) -> Result<()> {
        self.standing.permit(&self.limited.get().policy)
    }

    /// Says in an answer how its caller stands.
    pub(super) fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY.clone(), self.limited.get().described.clone());
        let whole_in = u64::try_from(self.standing.whole_in.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        // As long as any name makes it, and mostly short. `write!` would be a third of what a quota costs.
        let mut text: SmallVec<[u8; 96]> = SmallVec::new();
        let (mut left, mut seconds) = (itoa::Buffer::new(), itoa::Buffer::new());
        for part in [&*self.limited.get().named, left.format(self.standing.left), ";t=", seconds.format(whole_in)] {
            text.extend_from_slice(part.as_bytes());
        }
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(RATE_LIMIT.clone(), value);
        }
    }
}

fn own_quota(caller: &Caller) -> Option<Quota> {
    match &caller.principal {
        Principal::Known(identity) => identity.quota,
        Principal::Anonymous | Principal::Operator => None,
    }
}
