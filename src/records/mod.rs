//! Records: the read path, the write path and the parsing of queries. It joins cache, store and catalog; it knows no
//! HTTP, and no SQL.
//!
//! A read: parse the query, build its key, ask the cache; on a miss the loader asks the store and builds the body.
//! A write: check, plan and store in one transaction, then announce the changes, then answer.

mod administration;
mod answer;
mod audit;
mod batch;
mod body;
mod commit;
mod cursor;
mod document;
mod effect;
mod feed;
mod growth;
mod log;
mod once;
mod plan;
mod precondition;
mod prepared;
mod pulse;
mod query;
mod read;
mod resource;
mod rights;
mod sight;
mod spelling;
mod storable;
mod warm;
mod write;

use std::sync::Arc;

pub use administration::{Administration, Invalidated, Question};
pub use answer::{Answer, Forwarded};
pub use audit::ChangesRequest;
pub use batch::MAX_OPERATIONS;
pub use feed::{Feed, FeedEnd, FeedItem, FeedItems, FeedSettings, Recheck};
pub use log::CatalogedLog;
pub use once::{IDEMPOTENCY_RETENTION, Idempotent, Reply, Shaping};
pub use plan::{BatchError, WriteOutcome};
pub use precondition::Precondition;
pub use query::{canonical_query, check_list};
pub use resource::{Resource, ViewResource};
pub use warm::Warmed;
pub use write::{ImportMode, Written};

use crate::cache::{Cache, Reconciler};
pub use crate::cache::{Encoding, Occupancy, Outcome, Presence, Representation, Tier};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::model::Ranking;
pub use crate::store::KeptAnswer;
use crate::store::Store;
use growth::Growth;

/// The service behind all collections and views.
pub struct Records {
    store: Store,
    cache: Arc<Cache>,
    catalog: Arc<Catalog>,
    reconciler: Arc<Reconciler>,
    resources: Arc<Resources>,
    pulse: pulse::Pulse,
    feed: Feed,
    growth: Growth,
}

/// The declared collections and views, each with what its reads need. They need no database, so a server that waits for
/// its own already knows them.
pub struct Resources {
    collections: Vec<Arc<Resource>>,
    views: Vec<Arc<ViewResource>>,
}

impl Resources {
    /// What `catalog` declares, with entries in `cache`, for a database that ranks as `ranking` says.
    pub fn new(catalog: &Catalog, cache: &Cache, ranking: Ranking) -> Result<Arc<Self>> {
        let collections = catalog.collections().iter().map(|declared| Resource::new(declared, catalog, cache, ranking)).collect();
        let views = catalog.views().iter().map(|view| ViewResource::new(view, catalog, cache)).collect::<Result<_>>()?;
        Ok(Arc::new(Self { collections, views }))
    }

    /// The declared collections.
    pub fn collections(&self) -> &[Arc<Resource>] {
        &self.collections
    }

    /// The declared views.
    pub fn views(&self) -> &[Arc<ViewResource>] {
        &self.views
    }
}

/// Whether the servers behind the records answer.
#[derive(Clone, Debug)]
pub struct Health {
    /// The database.
    pub database: Result<()>,
    /// The cache in the process.
    pub cache: Occupancy,
}

impl Records {
    /// Joins the rooms. `reconciler` announces the changes of this process's writes, none of which makes a record larger than
    /// `document_bytes`.
    pub fn new(
        store: Store,
        cache: Arc<Cache>,
        catalog: Arc<Catalog>,
        reconciler: Arc<Reconciler>,
        resources: Arc<Resources>,
        feed: Feed,
        document_bytes: usize,
    ) -> Arc<Self> {
        let (pulse, growth) = (pulse::Pulse::default(), Growth::UpTo(document_bytes));
        Arc::new(Self { store, cache, catalog, reconciler, resources, pulse, feed, growth })
    }

    /// The declared collections and views.
    pub fn declared(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// The declared collections.
    pub fn resources(&self) -> &[Arc<Resource>] {
        self.resources.collections()
    }

    /// The collection of this name; the error names those that exist.
    pub fn resource(&self, name: &str) -> Result<&Arc<Resource>> {
        self.resources().iter().find(|resource| resource.collection().name.as_str() == name).ok_or_else(|| {
            Error::not_found(format!("There is no collection {name:?}."))
                .with_allowed(self.resources().iter().map(|resource| resource.collection().name.as_str()))
        })
    }

    /// Asks the database for a sign of life, and the cache for its size.
    pub async fn health(&self) -> Health {
        Health { database: self.pulse.ask(async || self.store.ping().await).await, cache: self.cache.occupancy() }
    }
}
