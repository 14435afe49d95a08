//! What commands start from: settings and declarations, then an open database with the records service over it.

use std::path::Path;
use std::sync::Arc;

use super::Failure;
use crate::cache::{Cache, Reconciler};
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::model::Collection;
use crate::records::{CatalogedLog, Records};
use crate::store::Store;
use crate::telemetry::Telemetry;

/// Checked settings and declarations.
pub(super) struct Declarations {
    pub(super) settings: Settings,
    pub(super) catalog: Arc<Catalog>,
}

impl Declarations {
    /// Loads both; any mistake refuses the command, in the words of `terrace check`.
    pub(super) fn load(config: Option<&Path>) -> Result<Self, Failure> {
        let settings = Settings::load(config, environment()).map_err(Failure::Mistakes)?;
        let catalog = Catalog::load(&settings.collections).map_err(Failure::Mistakes)?;
        Ok(Self { settings, catalog: Arc::new(catalog) })
    }

    pub(super) fn collections(&self) -> Vec<Arc<Collection>> {
        self.catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect()
    }

    /// Opens the database as it is.
    pub(super) async fn open_store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.settings.database, self.settings.log.slow_query, &Telemetry::new()?).await?)
    }
}

/// An open, migrated database and the records service over it.
pub(super) struct Session {
    pub(super) store: Store,
    pub(super) records: Arc<Records>,
}

impl Session {
    /// Opens the database and brings it to the state that the declarations need, as `serve` does.
    pub(super) async fn open(declared: &Declarations) -> Result<Self, Failure> {
        let telemetry = Telemetry::new()?;
        let store = Store::open(&declared.settings.database, declared.settings.log.slow_query, &telemetry).await?;
        store.migrate().await?;
        store.apply(&store.plan(&declared.collections()).await?).await?;
        let cache = Cache::new(&declared.settings.cache, &telemetry)?;
        let log = CatalogedLog::new(store.clone(), Arc::clone(&declared.catalog));
        let reconciler = Arc::new(Reconciler::new(Arc::clone(&cache), Box::new(log), store.last_position().await?));
        let records = Records::new(store.clone(), cache, Arc::clone(&declared.catalog), reconciler)?;
        Ok(Self { store, records })
    }
}

/// The environment, with what is not UTF-8 made so: a variable of ours that is not is then refused as a bad value.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// Runs a command that waits for the database.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Failure::Message(format!("the process cannot start threads: {error}")))?;
    runtime.block_on(command)
}
