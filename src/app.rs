//! The composition root: builds every room, joins them, and runs them. Everything that lives long is made here.
//!
//! `opening` waits for the database behind a server that listens already; `running` is that server; `samples` fills a
//! database that is new.

mod opening;
mod running;
mod samples;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::auth::{Accounts, CreatedKey, PrincipalScopes, installation_secret};
use crate::cache::{Bus, BusMetrics, Cache, Reconciler, SecondTier};
use crate::catalog::Catalog;
use crate::config::{Mistake, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Collection, Words};
use crate::overload::Capacity;
use crate::records::{CatalogedLog, Feed, FeedSettings, Records, Resources, check_list};
use crate::redis_client::RedisClient;
use crate::store::{self, Step, Store};
use crate::telemetry::Telemetry;

pub use opening::serve;
pub use running::Running;

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

/// What [`App::migrate`] would do to the database, which stays as it is.
pub async fn preview(settings: &Settings) -> Result<Vec<String>, StartError> {
    let catalog = Catalog::load(&settings.collections, check_list)?;
    let store = Store::open(&settings.database, settings.log.slow_query, &Telemetry::new()?).await?;
    let Some(migrations) = store.pending_migrations().await? else {
        return Ok(std::iter::once("create the tables".to_owned()).chain(preview_anew(settings)?).collect());
    };
    let steps = store.plan(&collections(&catalog)).await?;
    let migrations = migrations.iter().map(|version| format!("apply migration {version}"));
    Ok(migrations.chain(steps.iter().map(Step::to_string)).collect())
}

/// The same for a database that has no tables, or is not there at all. It is not opened: that would make an embedded one.
pub fn preview_anew(settings: &Settings) -> Result<Vec<String>, StartError> {
    let steps = Store::plan_anew(&settings.database, &collections(&Catalog::load(&settings.collections, check_list)?))?;
    Ok(steps.iter().map(Step::to_string).collect())
}

/// Half a copy looks like a whole database, and `terrace copy` could not go on after what somebody wrote into it.
async fn refuse_unfinished_copy(store: &Store) -> Result<()> {
    match store.copy_mark().await? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::Internal,
            "unfinished_copy",
            "The database that database.url names holds a copy that is not whole. Run `terrace copy` again: it goes on where \
             it stopped.",
        )),
    }
}

fn collections(catalog: &Catalog) -> Vec<Arc<Collection>> {
    catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect()
}

/// A fingerprint of what makes the terms and the words of documents, which other instances must agree on to understand an
/// announcement.
fn declarations(catalog: &Catalog) -> u64 {
    let mut all = BTreeMap::new();
    for collection in collections(catalog) {
        let fields = collection.term_fields().into_iter().map(|name| (name.to_owned(), collection.fields.get(name).copied()));
        all.insert(collection.name.clone(), (fields.collect::<BTreeMap<_, _>>(), collection.search.clone()));
    }
    xxhash_rust::xxh3::xxh3_64(format!("{} {all:?}", Words::LAYOUT).as_bytes())
}

/// Everything that needs no database. It is made once, however often opening one is tried.
struct Foundation {
    settings: Settings,
    telemetry: Telemetry,
    catalog: Arc<Catalog>,
    cache: Arc<Cache>,
    /// None if the installation has no second tier.
    redis: Option<(RedisClient, BusMetrics)>,
    resources: Arc<Resources>,
    principals: Arc<PrincipalScopes>,
}

impl Foundation {
    /// Loads the declarations.
    fn lay(settings: Settings) -> Result<Arc<Self>, StartError> {
        let telemetry = Telemetry::new()?;
        let catalog = Arc::new(Catalog::load(&settings.collections, check_list)?);
        let capacity = Capacity::in_flight(settings.http.max_in_flight, telemetry.registry())?;
        let cache = Cache::bounded(&settings.cache, &telemetry, capacity)?;
        let resources = Resources::new(&catalog, &cache, store::ranking(&settings.database))?;
        let principals = PrincipalScopes::new(&cache, &settings.auth, &settings.cache)?;
        let redis = match RedisClient::connect(&settings.redis, &telemetry)? {
            Some(client) => Some((client, BusMetrics::new(&telemetry)?)),
            None => None,
        };
        Ok(Arc::new(Self { settings, telemetry, catalog, cache, redis, resources, principals }))
    }

    async fn open_store(&self) -> Result<Store> {
        Store::open(&self.settings.database, self.settings.log.slow_query, &self.telemetry).await
    }

    fn feed(&self, store: &Store, reconciler: &Reconciler) -> Feed {
        let Settings { cache, changes, .. } = &self.settings;
        let settings = FeedSettings {
            streams: changes.streams,
            streams_per_caller: changes.streams_per_caller,
            heartbeat: changes.heartbeat,
            // As long as requests know whom they knew.
            unchecked: self.principals.tolerance(),
            interval: cache.reconcile_interval,
        };
        Feed::new(store.clone(), reconciler, settings, self.telemetry.meter())
    }

    /// Joins the second tier of the installation that `store` holds, and its bus; also says which installation that is.
    async fn bus(&self, store: &Store) -> Result<Option<(Bus, String)>> {
        let Some((client, metrics)) = &self.redis else { return Ok(None) };
        let installation = store.installation_id().await?;
        // An attempt to open that failed may have joined it already.
        let tier = match self.cache.second_tier() {
            Some(joined) => Arc::clone(joined),
            None => SecondTier::new(client.clone(), &self.settings.redis, &installation, &self.cache),
        };
        self.cache.join(Arc::clone(&tier));
        let bus = Bus::new(&tier, client.clone(), &self.cache, declarations(&self.catalog), metrics.clone());
        Ok(Some((bus, installation)))
    }
}

/// An installation: declarations and database, joined but not yet serving.
pub struct App {
    foundation: Arc<Foundation>,
    store: Store,
    reconciler: Arc<Reconciler>,
    records: Arc<Records>,
    accounts: Arc<Accounts>,
    /// Which one this is among those that share a Redis; none without one.
    installation: Option<String>,
}

impl App {
    /// Loads the declarations and opens the database, which is created if it is embedded and not there. It waits for
    /// nobody: see [`serve`] for that.
    pub async fn open(settings: Settings) -> Result<Self, StartError> {
        let foundation = Foundation::lay(settings)?;
        let store = foundation.open_store().await?;
        Ok(Self::over(foundation, store).await?)
    }

    /// Joins the rooms over an open database, after bringing its base tables to this version's state.
    async fn over(foundation: Arc<Foundation>, store: Store) -> Result<Self> {
        store.migrate().await?;
        refuse_unfinished_copy(&store).await?;
        let Foundation { cache, catalog, resources, .. } = &*foundation;
        let log = CatalogedLog::new(store.clone(), Arc::clone(catalog));
        let mut reconciler = Reconciler::new(Arc::clone(cache), Box::new(log), store.snapshot().await?);
        let mut installation = None;
        if let Some((bus, id)) = foundation.bus(&store).await? {
            (reconciler, installation) = (reconciler.on_bus(bus), Some(id));
        }
        let reconciler = Arc::new(reconciler);
        let feed = foundation.feed(&store, &reconciler);
        let document_bytes = usize::try_from(foundation.settings.http.max_body_bytes.as_u64()).unwrap_or(usize::MAX);
        let (catalog, resources) = (Arc::clone(catalog), Arc::clone(resources));
        let records =
            Records::new(store.clone(), Arc::clone(cache), catalog, Arc::clone(&reconciler), resources, feed, document_bytes);
        let principals = Arc::clone(&foundation.principals);
        let secret = installation_secret(&store).await?;
        let accounts = Accounts::new(
            store.clone(),
            Arc::clone(cache),
            Arc::clone(&reconciler),
            principals,
            &foundation.settings.auth,
            &secret,
        );
        Ok(Self { foundation, store, reconciler, records, accounts, installation })
    }

    /// The collections and views.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// Users, keys and sessions.
    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the database lacks, or has too much, for the declared collections.
    pub async fn plan(&self) -> Result<Vec<Step>> {
        self.store.plan(&collections(&self.foundation.catalog)).await
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

    /// Brings the database in line, and loads the samples into one that is new. Returns the first key, if this has made it.
    async fn prepare(&self) -> Result<Option<CreatedKey>> {
        self.bring_in_line().await?;
        if self.store.is_new().await? {
            self.load_samples().await?;
            self.store.settle().await?;
        }
        // The last step: whoever fails after it has a key that nobody was told.
        self.accounts.first_key().await
    }

    /// Prepares the database, listens, and serves.
    pub async fn serve(self) -> Result<Running> {
        let first_key = self.prepare().await?;
        let mut running = Running::listen(&self.foundation)?;
        running.admit(self, first_key);
        Ok(running)
    }
}
