//! The declared collections and views with what their reads need, made once: scopes of the cache, keys and guards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::prepared::{Prepared, PreparedLists};
use super::query;
use super::read::selection_guard;
use crate::cache::{Cache, CacheKey, Fingerprint, Kind, Lifetime, Lifetimes, Scope};
use crate::catalog::{Catalog, Declared};
use crate::error::{Error, Result};
use crate::model::{Collection, Footprint, Guard, View};

/// A collection with what its reads need, made once.
pub struct Resource {
    declared: Arc<Declared>,
    pub(super) records: Arc<Scope>,
    pub(super) lists: Arc<Scope>,
    pub(super) counts: Arc<Scope>,
    pub(super) stats: Arc<Scope>,
    prepared: PreparedLists,
}

/// A view with what its reads need, made once.
pub struct ViewResource {
    view: Arc<View>,
    pub(super) scope: Arc<Scope>,
    pub(super) collections: Vec<Arc<Collection>>,
    pub(super) guards: Vec<Guard>,
    pub(super) key: CacheKey,
}

impl Resource {
    pub(super) fn new(declared: &Arc<Declared>, catalog: &Catalog, cache: &Cache) -> Arc<Self> {
        let collection = &declared.collection;
        let embedded = collection.references.values().filter_map(|name| catalog.get(name)).map(|declared| &declared.collection);
        let shapes: Vec<_> = [collection].into_iter().chain(embedded).map(|collection| shape(collection)).collect();
        let fingerprint = Fingerprint::of(&shapes.iter().map(|shape| shape as &dyn fmt::Debug).collect::<Vec<_>>());
        let (name, times) = (collection.name.as_str(), collection.cache);
        // A page is built from its count: one that lagged behind would stay in a page that is fresh.
        let counts = Lifetimes::uniform(times.list_ttl, times.stale_if_error);
        let lists = counts.with_max_lag(times.max_lag);
        let records = Lifetimes {
            found: Lifetime { ttl: times.record_ttl, stale_if_error: times.stale_if_error },
            missing: Lifetime { ttl: times.negative_ttl, stale_if_error: times.stale_if_error },
            max_lag: Duration::ZERO,
        };
        Arc::new(Self {
            declared: Arc::clone(declared),
            records: cache.scope(Kind::Record, name, records, fingerprint),
            lists: cache.scope(Kind::List, name, lists, fingerprint),
            counts: cache.scope(Kind::Count, name, counts, fingerprint),
            stats: cache.scope(Kind::Stats, name, lists, fingerprint),
            prepared: PreparedLists::default(),
        })
    }

    /// All scopes of the collection.
    pub(super) fn scopes(&self) -> [&Scope; 4] {
        [&self.records, &self.lists, &self.counts, &self.stats]
    }

    /// The declaration.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.declared.collection
    }

    pub(super) fn declared(&self) -> &Arc<Declared> {
        &self.declared
    }

    /// What the list request `raw` means, and its key.
    pub(super) fn prepare(&self, raw: &str) -> Result<Arc<Prepared>> {
        self.prepared.get(raw, || {
            let query = query::parse_list(self.collection(), raw)?;
            let key = CacheKey::of_query(&self.lists, &query::list_key(&query));
            let footprint = Footprint::of_query(self.collection(), &query);
            Ok(Prepared { query, key, footprint })
        })
    }
}

impl ViewResource {
    pub(super) fn new(view: &Arc<View>, catalog: &Catalog, cache: &Cache) -> Result<Arc<Self>> {
        let declared =
            |part: &crate::model::ViewPart| catalog.get(&part.collection).map(|declared| Arc::clone(&declared.collection));
        let collections: Option<Vec<_>> = view.parts.iter().map(declared).collect();
        let collections = collections.ok_or_else(|| Error::internal("a checked view names an unknown collection"))?;
        let lifetimes = Lifetimes::uniform(view.ttl, view.stale_if_error).with_max_lag(view.max_lag);
        let fingerprint = {
            let shapes: Vec<_> = collections.iter().map(|collection| shape(collection)).collect();
            Fingerprint::of(&[&view.parts, &shapes])
        };
        let scope = cache.scope(Kind::View, view.name.as_str(), lifetimes, fingerprint);
        let guards =
            view.parts.iter().zip(&collections).map(|(part, collection)| selection_guard(collection, part.filter.as_ref()));
        Ok(Arc::new(Self {
            view: Arc::clone(view),
            guards: guards.collect(),
            key: CacheKey::of_query(&scope, ""),
            scope,
            collections,
        }))
    }

    /// The declaration.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }
}

/// All of a collection that its bodies and guards follow from: what may differ between two instances without making the
/// entries of one unfit for the other is left out.
fn shape(collection: &Collection) -> impl fmt::Debug {
    let Collection { name, path, id, fields, sort, indexes, search, references, schema, .. } = collection;
    (name, path, id, fields, sort, indexes, search, references, schema)
}
