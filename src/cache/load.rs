//! One flight: the second tier, else the loader, and what becomes of the result.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::second_tier::{Address, Capture, SecondTier, Sought, Wanted};
use super::{Basis, Cache, CacheKey, Content, Dependencies, Entry, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::faults;
use crate::model::Guard;

/// What a flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for whatever is fresh.
    Answer,
    /// A hit is about to expire. What L2 has is of no use if it is as well.
    Refresh,
    /// A change outdated an entry that may be served a little longer.
    CatchUp,
    /// Somebody waits for something newer or longer lived than either tier has.
    Renew,
    /// Somebody waits for what is loaded from now on.
    Reload,
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) entry: Arc<Entry>,
    pub(super) source: Source,
}

/// Where its entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Loader,
    SecondTier,
    /// The second tier, expired, in place of an error.
    StoodIn,
}

/// A flight.
pub(super) struct Load {
    pub(super) cache: Arc<Cache>,
    pub(super) scope: Arc<Scope>,
    pub(super) key: CacheKey,
    /// Captured before it began.
    pub(super) dependencies: Dependencies,
    pub(super) purpose: Purpose,
}

impl Purpose {
    fn wanted(self) -> Wanted {
        match self {
            Self::Answer | Self::CatchUp => Wanted::Fresh,
            Self::Refresh => Wanted::Refreshed,
            Self::Renew | Self::Reload => Wanted::Capture,
        }
    }

    /// Whether an entry will do that has landed since the caller looked.
    pub(super) fn takes_what_landed(self) -> bool {
        match self {
            Self::Answer | Self::CatchUp => true,
            Self::Refresh | Self::Renew | Self::Reload => false,
        }
    }

    /// Whether it certainly ends with a load.
    pub(super) fn always_loads(self) -> bool {
        self.wanted() == Wanted::Capture
    }
}

impl Cache {
    /// Whether `entry` may stand in for `error`. While guards can be relied on it is as new as what cannot be loaded. If not, it may
    /// lack what was committed since the log was last read, and that must not be longer ago than its collection allows.
    pub(super) fn may_stand_in(&self, entry: &Entry, age: Duration, error: &Error) -> bool {
        let unknown = self.trust.unknown_for(Instant::now());
        // A refusal is no outage: while the log can be read, what changed is known in a moment.
        let is_away = error.code() == "unavailable" || self.trust.is_log_unreadable();
        error.kind() == ErrorKind::Unavailable && (is_away || unknown.is_zero()) && entry.is_usable_on_error(age, unknown)
    }
}

impl Load {
    /// Without a second tier. `loading` has not begun: it is polled only after everything was captured. Chained, and not an async
    /// function, which would have room for `loading` twice.
    pub(super) fn run_alone(self, loading: impl Future<Output = Result<Content>>) -> impl Future<Output = Result<Landed>> {
        let started = Instant::now();
        loading.then(move |loaded| async move {
            let entry = self.loaded(started, loaded, None).await?.0;
            Ok(Landed { entry, source: Source::Loader })
        })
    }

    /// The same with one, which is asked for what `guards` protect.
    pub(super) async fn run(
        self,
        tier: Arc<SecondTier>,
        guards: Vec<Guard>,
        loading: impl Future<Output = Result<Content>>,
    ) -> Result<Landed> {
        let address = tier.address(&self.scope, &self.key, &guards);
        let is_trusted = self.cache.is_trusted();
        match tier.seek(&self.scope, &address, &self.dependencies, self.purpose.wanted(), is_trusted).await {
            Sought::Found(entry) => Ok(self.keep(entry, Source::SecondTier)),
            Sought::Nothing { capture, stand_in } => {
                // Boxed, like all that a hit in the second tier has no use for.
                Box::pin(self.load_and_fill(&tier, address, capture, stand_in, loading)).await
            }
        }
    }

    async fn load_and_fill(
        self,
        tier: &Arc<SecondTier>,
        address: Address,
        capture: Option<Capture>,
        stand_in: Option<Entry>,
        loading: impl Future<Output = Result<Content>>,
    ) -> Result<Landed> {
        let started = Instant::now();
        let (entry, basis) = match self.loaded(started, loading.await, Some((&address, capture.as_ref()))).await {
            Ok(loaded) => loaded,
            Err(error) => {
                if let Some(capture) = capture {
                    tier.release(&address, capture);
                }
                return match stand_in {
                    Some(entry) if self.cache.may_stand_in(&entry, entry.age(), &error) => Ok(self.keep(entry, Source::StoodIn)),
                    Some(_) | None => Err(error),
                };
            }
        };
        if let Some(capture) = capture {
            let capture = if faults::is_switched_off("capture") { tier.capture_again(capture, &address).await } else { capture };
            if capture.covers(&address, &basis) {
                tier.fill(&self.scope, address, capture, &entry);
            } else {
                self.scope.metrics().second.fills_dropped.inc();
                tier.release(&address, capture);
            }
        }
        Ok(Landed { entry, source: Source::Loader })
    }

    /// Stores in L1 what the loader, which has `started` then, has loaded. Also says what that was made from.
    async fn loaded(
        &self,
        started: Instant,
        loaded: Result<Content>,
        captured: Option<(&Address, Option<&Capture>)>,
    ) -> Result<(Arc<Entry>, Basis)> {
        let metrics = self.scope.metrics();
        let mut content = loaded.inspect_err(|_| metrics.load_errors.inc())?;
        metrics.load_seconds.observe(started.elapsed().as_secs_f64());
        faults::point("before_fill").await;
        let basis = std::mem::replace(&mut content.basis, Basis::Loaded);
        let dependencies = if faults::is_switched_off("capture") {
            self.dependencies.iter().map(super::Captured::again).collect()
        } else {
            self.dependencies.clone()
        };
        let vouched = captured.and_then(|(address, capture)| capture?.vouched(address, &basis));
        let entry = Arc::new(self.cache.entry(&self.scope, content, dependencies).with_vouched(vouched));
        self.store(&entry);
        Ok((entry, basis))
    }

    /// Keeps in L1 what was found in L2.
    pub(super) fn keep(&self, entry: Entry, source: Source) -> Landed {
        let entry = Arc::new(entry);
        self.store(&entry);
        Landed { entry, source }
    }

    /// An entry that is outdated already would only displace a newer one, unless entries may lag and this one is the newest. If a
    /// guard moves after this check, the stored entry is never served as fresh.
    fn store(&self, entry: &Arc<Entry>) {
        let is_newest = || {
            let stored = self.cache.l1.get(&self.key);
            stored.is_none_or(|stored| !stored.is_valid() && stored.current_until() <= entry.current_until())
        };
        if entry.is_valid() || !self.scope.max_lag().is_zero() && is_newest() {
            self.cache.l1.insert(self.key.clone(), Arc::clone(entry));
        }
    }
}
