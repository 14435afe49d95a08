//! The composition root: builds every room, joins them, and runs them. Everything that lives long is made here.

use std::fmt;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::cache::{Cache, Reconciler};
use crate::catalog::Catalog;
use crate::config::{Mistake, Settings};
use crate::error::{Error, Result};
use crate::http::{self, Front, Readiness, Ready};
use crate::jobs::Retention;
use crate::limits::BurstLimit;
use crate::model::{Collection, Principal};
use crate::records::{CatalogedLog, ImportMode, Records, Resource};
use crate::store::{Step, Store};
use crate::telemetry::Telemetry;

/// How many sample records are written at a time.
const SAMPLE_BATCH: usize = 1_000;

/// Why Terrace does not start.
#[derive(Clone, Debug)]
pub enum StartError {
    /// Files or environment variables have mistakes.
    Mistakes(Vec<Mistake>),
    /// Something else, for example the database.
    Failed(Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
                formatter.write_str(&lines.join("\n"))
            }
            Self::Failed(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for StartError {}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Vec<Mistake>> for StartError {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self::Mistakes(mistakes)
    }
}

/// What [`App::migrate`] would do to the database that exists, which stays as it is; `None` if it has no tables.
pub async fn preview(settings: &Settings) -> Result<Option<Vec<String>>, StartError> {
    let catalog = Catalog::load(&settings.collections)?;
    let store = Store::open(&settings.database, settings.log.slow_query, &Telemetry::new()?).await?;
    let Some(migrations) = store.pending_migrations().await? else { return Ok(None) };
    let steps = store.plan(&collections(&catalog)).await?;
    let migrations = migrations.iter().map(|version| format!("apply migration {version}"));
    Ok(Some(migrations.chain(steps.iter().map(Step::to_string)).collect()))
}

fn collections(catalog: &Catalog) -> Vec<Arc<Collection>> {
    catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect()
}

/// An installation: declarations and database, joined but not yet serving.
pub struct App {
    settings: Settings,
    telemetry: Telemetry,
    catalog: Arc<Catalog>,
    store: Store,
    reconciler: Arc<Reconciler>,
    records: Arc<Records>,
}

impl App {
    /// Loads the declarations and opens the database, which is created if it is embedded and not there.
    pub async fn open(settings: Settings) -> Result<Self, StartError> {
        let telemetry = Telemetry::new()?;
        let catalog = Arc::new(Catalog::load(&settings.collections)?);
        let store = Store::open(&settings.database, settings.log.slow_query, &telemetry).await?;
        store.migrate().await?;
        let cache = Cache::new(&settings.cache, &telemetry)?;
        let log = CatalogedLog::new(store.clone(), Arc::clone(&catalog));
        let reconciler = Arc::new(Reconciler::new(Arc::clone(&cache), Box::new(log), store.snapshot().await?));
        let records = Records::new(store.clone(), cache, Arc::clone(&catalog), Arc::clone(&reconciler))?;
        Ok(Self { settings, telemetry, catalog, store, reconciler, records })
    }

    /// The collections and views.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the database lacks, or has too much, for the declared collections.
    pub async fn plan(&self) -> Result<Vec<Step>> {
        self.store.plan(&collections(&self.catalog)).await
    }

    /// Brings the database in line with the declared collections; returns what was done. A database that is made by this
    /// and not by [`App::serve`] gets no samples.
    pub async fn migrate(&self) -> Result<Vec<Step>> {
        let steps = self.bring_in_line().await?;
        self.store.settle().await?;
        Ok(steps)
    }

    async fn bring_in_line(&self) -> Result<Vec<Step>> {
        let steps = self.plan().await?;
        self.store.apply(&steps).await?;
        Ok(steps)
    }

    /// Migrates, loads the samples into a database that is new, and serves.
    pub async fn serve(self) -> Result<Running> {
        self.bring_in_line().await?;
        if self.store.is_new().await? {
            self.load_samples().await?;
            self.store.settle().await?;
        }
        let readiness = Readiness::default();
        let burst = BurstLimit::new(&self.settings.limits)?;
        let front =
            Front::new(&self.settings, Arc::clone(&self.records), self.telemetry.clone(), readiness.clone(), burst.clone())?;
        let listening = http::serve(&self.settings.http, front)?;
        let reconciling = Arc::clone(&self.reconciler).run(self.settings.cache.reconcile_interval);
        let retention = Retention::new(self.store.clone(), self.settings.changes.retention, self.telemetry.meter());
        readiness.set(Ready::Yes);
        Ok(Running {
            addresses: listening.addresses,
            handle: listening.server.handle(),
            server: tokio::spawn(listening.server),
            background: vec![tokio::spawn(reconciling), tokio::spawn(burst.forget_idle_clients()), tokio::spawn(retention.run())],
            readiness,
        })
    }

    /// Records that others refer to come first.
    async fn load_samples(&self) -> Result<()> {
        let mut waiting: Vec<&Arc<Resource>> = self.records.resources().iter().collect();
        while !waiting.is_empty() {
            let names: Vec<_> = waiting.iter().map(|resource| resource.collection().name.clone()).collect();
            let depends = |resource: &&Arc<Resource>| {
                let own = &resource.collection().name;
                resource.collection().references.values().any(|target| target != own && names.contains(target))
            };
            let (later, now): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(depends);
            // Collections that refer to each other in a circle go in as they come.
            let (now, later) = if now.is_empty() { (later, now) } else { (now, later) };
            for resource in now {
                let file = format!("{}.ndjson", resource.collection().name);
                self.load_sample(resource, &self.settings.collections.samples_dir.join(file)).await?;
            }
            waiting = later;
        }
        Ok(())
    }

    /// Sample files are small, so each is read whole. A bad line is told with its number.
    async fn load_sample(&self, resource: &Arc<Resource>, path: &Path) -> Result<()> {
        let bytes = match tokio::fs::read(path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(sample_error(path, 0, error)),
        };
        let parsed = bytes.lines().zip(1..).map(|(line, number)| {
            let line = line.map_err(|error| sample_error(path, number, error))?;
            serde_json::from_str(&line).map_err(|error| sample_error(path, number, error))
        });
        let documents: Vec<Value> = parsed.collect::<Result<_>>()?;
        for (batch, first) in documents.chunks(SAMPLE_BATCH).zip((1..).step_by(SAMPLE_BATCH)) {
            let written = self.records.import(resource, Principal::Operator, batch.to_vec(), ImportMode::Upsert).await;
            let results = written.map_err(|failure| sample_error(path, first + failure.index, failure.error))?;
            for (result, number) in results.into_iter().zip(first..) {
                result.map_err(|error| sample_error(path, number, error))?;
            }
        }
        Ok(())
    }
}

fn sample_error(path: &Path, line: usize, error: impl fmt::Display) -> Error {
    Error::bad_request("bad_sample", format!("{}:{line}: {error}", path.display()))
}

/// A server that answers.
pub struct Running {
    addresses: Vec<SocketAddr>,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    background: Vec<JoinHandle<()>>,
    readiness: Readiness,
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until Ctrl-C or SIGTERM, then lets requests in flight end. A second signal ends it at once.
    pub async fn until_signal(self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        signalled().await;
        // Without the second one a request that never ends would hold up whoever presses Ctrl-C.
        tokio::select! {
            stopped = self.stop() => stopped,
            () = signalled() => Err(Error::unavailable("Requests in flight were cut off.", Duration::ZERO, "a second signal")),
        }
    }

    /// Takes no more connections, lets requests in flight end, and returns when they have.
    pub async fn stop(self) -> Result<()> {
        self.readiness.set(Ready::No);
        self.handle.stop(true).await;
        self.background.iter().for_each(JoinHandle::abort);
        self.server.await.map_err(Error::internal)?.map_err(Error::internal)
    }
}
