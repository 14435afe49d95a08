//! The connections to Redis that cache, bus and limits share. It knows no keys and no values.
//!
//! A [`Link`] is one connection together with the server process that it leads to. It ends with the first command that
//! fails for the connection's or the whole server's reasons or takes longer than `redis.timeout`; a task makes a new one
//! for as long as it takes. Without a link the tier is away, and whoever asks goes on at once without it: that is the
//! circuit breaker. A [`Subscription`] has a connection of its own, which is made again in the same way.
//!
//! `address` gets to the server, `link` and `subscription` talk to it, `failure` tells what goes wrong, `status` keeps
//! how it is.

mod address;
mod failure;
mod link;
mod metrics;
mod status;
mod subscription;

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};
use tokio::sync::watch;

use crate::config::RedisSettings;
use crate::error::{Error, Result};
use crate::telemetry::Telemetry;

pub use link::Link;
pub use status::RedisStatus;
pub use subscription::{BusEvent, Subscription};

use address::Address;
use metrics::Metrics;
use status::Teller;

/// Between two attempts, before jitter adds up to as much again; for ever.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// How often the server is asked whether it is still the one it was.
const VERIFY_EVERY: Duration = Duration::from_millis(500);

/// The way to the Redis of an installation. Clones share it; with the last one its connection and its task end.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

/// What is needed to connect.
struct Target {
    address: Address,
    timeout: Duration,
    /// The name of a key that nobody has.
    probe: String,
}

struct Shared {
    target: Arc<Target>,
    metrics: Arc<Metrics>,
    state: RwLock<State>,
    links: watch::Sender<u64>,
}

/// The lock around it is never held across an await; every use of the second tier takes it to read.
struct State {
    link: Option<Link>,
    teller: Teller,
}

impl RedisClient {
    /// Begins to connect; `None` without a URL. It does not wait for the server. Call it in a Tokio runtime. Fails with a
    /// message that names `redis.url` or `redis.ca_file` if they have mistakes.
    pub fn connect(settings: &RedisSettings, telemetry: &Telemetry) -> Result<Option<Self>> {
        let Some(target) = Self::target(settings)? else { return Ok(None) };
        let metrics = Arc::new(Metrics::new(telemetry.registry())?);
        let state = RwLock::new(State { link: None, teller: Teller::new() });
        let shared = Arc::new(Shared { target: Arc::new(target), metrics, state, links: watch::Sender::new(0) });
        tokio::spawn(keep_linked(Arc::clone(&shared.target), Arc::downgrade(&shared), shared.links.subscribe()));
        Ok(Some(Self(shared)))
    }

    /// Fails as [`Self::connect`] would, and connects to nothing.
    pub fn check(settings: &RedisSettings) -> Result<()> {
        Self::target(settings).map(drop)
    }

    fn target(settings: &RedisSettings) -> Result<Option<Target>> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let (address, probe) = (Address::of(settings)?, format!("{}:probe", settings.prefix));
        Ok(Some(Target { address, timeout: settings.timeout, probe }))
    }

    /// The connection, if there is one.
    pub fn link(&self) -> Option<Link> {
        self.0.read(|state| state.link.clone())
    }

    /// Whether there is a connection and, if not, why.
    pub fn status(&self) -> RedisStatus {
        self.0.read(|state| state.teller.status())
    }

    /// Changes whenever a link is made or lost.
    pub fn watch_links(&self) -> watch::Receiver<u64> {
        self.0.links.subscribe()
    }

    /// Subscribes to `channel`, on a connection of its own. Call it in a Tokio runtime.
    pub fn subscribe(&self, channel: String) -> Subscription {
        Subscription::begin(&self.0, channel)
    }
}

impl Shared {
    /// The first link, or the next one.
    fn gain(&self, link: Link) {
        self.change(|state| {
            state.teller.up(&link.peer().version, link.peer().is_tested);
            state.link = Some(link.clone());
        });
        self.metrics.up.set(1);
        self.metrics.links.inc();
        self.links.send_modify(|changes| *changes += 1);
        // If it ended before it was known here, nobody else will say so.
        if link.has_ended() {
            self.lose(link.number(), &failure::ended());
        }
    }

    /// The link of this number is of no more use. Others may have said so before.
    fn lose(&self, number: u64, error: &Error) {
        let lost = self.change(|state| {
            let lost = state.link.take_if(|link| link.number() == number)?;
            state.teller.down(error);
            Some(lost)
        });
        if let Some(lost) = lost {
            lost.cut();
            self.metrics.up.set(0);
            self.links.send_modify(|changes| *changes += 1);
        }
    }

    fn complain(&self, error: &Error) {
        self.change(|state| state.teller.complain(error));
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes a link whenever there is none, until the client is dropped.
async fn keep_linked(target: Arc<Target>, shared: Weak<Shared>, mut links: watch::Receiver<u64>) {
    for number in 1.. {
        let tell = |error: &Error| {
            if let Some(shared) = shared.upgrade() {
                shared.change(|state| state.teller.down(error));
            }
        };
        let link = tokio::select! {
            link = patiently(|| Link::make(&target, number, shared.clone()), tell) => link,
            () = dropped(links.clone()) => return,
        };
        let begun = Instant::now();
        match shared.upgrade() {
            Some(shared) => shared.gain(link),
            None => return,
        }
        links.mark_unchanged();
        while let Some(link) = shared.upgrade().and_then(|shared| shared.read(|state| state.link.clone())) {
            match tokio::time::timeout(VERIFY_EVERY, links.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => link.verify().await,
            }
        }
        pause_after(begun).await;
    }
}

/// A server that ends each connection at once must not be asked for new ones all the time.
async fn pause_after(begun: Instant) {
    tokio::time::sleep(LONGEST_DELAY.saturating_sub(begun.elapsed())).await;
}

/// When the client is gone.
async fn dropped(mut links: watch::Receiver<u64>) {
    while links.changed().await.is_ok() {}
}

/// Tries until it succeeds.
async fn patiently<T, F: Future<Output = Result<T>>>(attempt: impl FnMut() -> F, tell: impl FnMut(&Error)) -> T {
    let delays =
        ExponentialBuilder::default().with_min_delay(FIRST_DELAY).with_max_delay(LONGEST_DELAY).without_max_times().with_jitter();
    let (mut attempt, mut tell) = (attempt, tell);
    loop {
        // It ends only well: the delays are without end.
        if let Ok(made) = (&mut attempt).retry(delays).notify(|error: &Error, _| tell(error)).await {
            return made;
        }
    }
}
