//! A server that listens, from its first answer to its last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use futures_util::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{App, Foundation, StartError};
use crate::auth::CreatedKey;
use crate::error::{Error, Result};
use crate::http::{self, Front, Readiness, Ready, SecondTier};
use crate::jobs::{Retention, Tallying, Warming};
use crate::limits::{BurstLimit, Quotas};
use crate::records::Resources;
use crate::redis_client::{RedisClient, RedisStatus};

/// A task that opens the database, begins to serve, and returns the tasks that go on from there.
pub(super) type Opening = JoinHandle<Result<Admitted, StartError>>;

/// Tasks that run until they are aborted.
pub(super) type Background = Vec<JoinHandle<()>>;

/// What there is once requests are let in.
pub(super) struct Admitted {
    pub background: Background,
    pub first_key: Option<CreatedKey>,
}

/// A server that listens.
pub struct Running {
    addresses: Vec<SocketAddr>,
    operations: Vec<SocketAddr>,
    scheme: &'static str,
    handles: Vec<ServerHandle>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    resources: Arc<Resources>,
    entrance: Entrance,
    background: Background,
    opening: Option<Opening>,
    first_key: Option<CreatedKey>,
}

/// What lets requests in. Clones share it.
#[derive(Clone)]
pub(super) struct Entrance {
    front: Front,
    readiness: Readiness,
    quotas: Quotas,
}

impl Entrance {
    /// Lets requests in, and starts what goes on beside them.
    pub fn admit(&self, app: App) -> Background {
        let Foundation { settings, telemetry, .. } = &*app.foundation;
        if let (Some((client, _)), Some(installation)) = (&app.foundation.redis, &app.installation) {
            self.quotas.join(client.clone(), &settings.redis.prefix, installation);
        }
        let warming = Warming::new(Arc::clone(&app.records), settings.cache.warm_loads_per_second, telemetry.meter());
        let feeds = app.records.feeds();
        self.front.open(app.records, app.accounts);
        let warming = self.warm(warming, settings.cache.warm_before_ready);
        let tallying = Tallying::new(app.store.clone());
        let retention = Retention::new(app.store, settings.changes.retention, telemetry.meter());
        let mut background = app.reconciler.start(settings.cache.reconcile_interval);
        background.extend([tokio::spawn(retention.run()), tokio::spawn(tallying.run())]);
        background.extend([tokio::spawn(warming), tokio::spawn(feeds)]);
        background
    }

    /// Warms the cache, and is ready when that has been done once, or has taken `patience`.
    fn warm(&self, warming: Warming, patience: Duration) -> impl Future<Output = ()> + use<> {
        let readiness = self.readiness.clone();
        readiness.set(if patience.is_zero() || !warming.has_plans() { Ready::Yes } else { Ready::Warming });
        async move {
            let (tell, told) = oneshot::channel();
            let wait = async {
                if tokio::time::timeout(patience, told).await.is_err() && !patience.is_zero() {
                    tracing::warn!("the cache is not warm yet; requests are taken all the same (cache.warm_before_ready)");
                }
                readiness.end_warming();
            };
            tokio::join!(warming.run(tell), wait);
        }
    }

    /// Requests are refused with this reason, which clients may read.
    pub fn refuse(&self, reason: &str) {
        self.readiness.set(Ready::Waiting(reason.to_owned()));
    }
}

impl Running {
    /// Listens. Requests that need the database are refused until somebody is admitted.
    pub(super) fn listen(foundation: &Foundation) -> Result<Self> {
        let settings = &foundation.settings;
        let redis = foundation.redis.as_ref().map(|(client, _)| client.clone());
        let readiness = Readiness::new(move || second_tier(redis.as_ref()));
        let burst = BurstLimit::new(&settings.limits)?;
        let quotas = Quotas::new(&foundation.telemetry)?;
        let resources = Arc::clone(&foundation.resources);
        let front = Front::new(
            settings,
            Arc::clone(&resources),
            foundation.telemetry.clone(),
            readiness.clone(),
            burst.clone(),
            quotas.clone(),
        )?;
        let listening = http::serve(settings, &front, &foundation.telemetry)?;
        for address in &listening.addresses {
            tracing::info!(%address, "listening");
        }
        for address in &listening.operations {
            tracing::info!(operators = %address, "listening");
        }
        let mut background = listening.watches;
        background.extend([tokio::spawn(burst.forget_idle_clients()), tokio::spawn(quotas.clone().keep())]);
        Ok(Self {
            addresses: listening.addresses,
            operations: listening.operations,
            scheme: if listening.is_encrypted { "https" } else { "http" },
            handles: listening.servers.iter().map(Server::handle).collect(),
            servers: listening.servers.into_iter().map(tokio::spawn).collect(),
            resources,
            entrance: Entrance { front, readiness, quotas },
            background,
            opening: None,
            first_key: None,
        })
    }

    /// Serves `app`, which has made `first_key`.
    pub(super) fn admit(&mut self, app: App, first_key: Option<CreatedKey>) {
        self.first_key = first_key;
        self.background.extend(self.entrance.admit(app));
    }

    /// Serves what `opening`, which gets the entrance, will admit.
    pub(super) fn open_with(&mut self, opening: impl FnOnce(Entrance) -> Opening) {
        self.opening = Some(opening(self.entrance.clone()));
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators are served, if they have an address of their own.
    pub fn operations(&self) -> &[SocketAddr] {
        &self.operations
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The collections and views that it serves.
    pub fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// The first key of the installation, if this server has made it; it is given out once.
    pub fn take_first_key(&mut self) -> Option<CreatedKey> {
        self.first_key.take()
    }

    /// Waits until the database is open and requests are served. It may be cancelled and called again. Fails if the
    /// database cannot be opened and waiting would not mend it.
    pub async fn ready(&mut self) -> Result<(), StartError> {
        if let Some(opening) = &mut self.opening {
            let opened = opening.await;
            self.opening = None;
            let Admitted { background, first_key } = opened.map_err(Error::internal)??;
            self.background.extend(background);
            self.first_key = first_key;
        }
        Ok(())
    }

    /// Serves until Ctrl-C or SIGTERM, then lets requests in flight end. A second signal ends it at once. Calls
    /// `greet` with the addresses, and with the first key if it has made it, once it is ready.
    pub async fn until_signal(mut self, greet: impl FnOnce(&[SocketAddr], Option<CreatedKey>)) -> Result<(), StartError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let ready = tokio::select! {
            ready = self.ready() => Some(ready),
            () = signalled() => None,
        };
        match ready {
            Some(Ok(())) => {
                let first_key = self.first_key.take();
                greet(&self.addresses, first_key);
                signalled().await;
            }
            Some(Err(refused)) => {
                // Whether it stops well matters less than why.
                let _ = self.stop().await;
                return Err(refused);
            }
            None => {}
        }
        // Without the second one a request that never ends would hold up whoever presses Ctrl-C.
        tokio::select! {
            stopped = self.stop() => Ok(stopped?),
            () = signalled() => Err(Error::unavailable("Requests in flight were cut off.", Duration::ZERO, "a second signal").into()),
        }
    }

    /// Takes no more connections, lets requests in flight end, and returns when they have.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(opening) = self.opening.take() {
            opening.abort();
            // It may have ended just before.
            if let Ok(Ok(admitted)) = opening.await {
                self.background.extend(admitted.background);
            }
        }
        self.entrance.readiness.set(Ready::Stopping);
        self.entrance.front.close_feeds();
        join_all(self.handles.iter().map(|handle| handle.stop(true))).await;
        self.background.iter().for_each(JoinHandle::abort);
        for server in self.servers {
            server.await.map_err(Error::internal)?.map_err(Error::internal)?;
        }
        Ok(())
    }
}

fn second_tier(redis: Option<&RedisClient>) -> SecondTier {
    match redis.map(RedisClient::status) {
        None => SecondTier::Off,
        Some(RedisStatus::Up { version, complaint, .. }) => SecondTier::Up { version, complaint },
        Some(RedisStatus::Down { reason, .. }) => SecondTier::Down(reason),
    }
}
