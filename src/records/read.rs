//! The read path: query, key, cache, and on a miss the store.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::oneshot;

use super::prepared::{Prepared, PreparedLists};
use super::query::{self, Shape};
use super::{Answer, Records, body};
use crate::auth::authorize;
use crate::cache::{Cache, CacheKey, Content, Fingerprint, Kind, Lifetime, Lifetimes, Scope};
use crate::catalog::{Catalog, Declared};
use crate::error::{Error, Result};
use crate::model::{Collection, CountMode, Filter, Footprint, Freshness, Guard, Paging, Principal, Query, RecordId, Selection, View};
use crate::store::{Row, Store};

/// A collection with what its reads need, made once.
pub struct Resource {
    declared: Arc<Declared>,
    records: Arc<Scope>,
    lists: Arc<Scope>,
    counts: Arc<Scope>,
    stats: Arc<Scope>,
    prepared: PreparedLists,
}

/// A view with what its reads need, made once.
pub struct ViewResource {
    view: Arc<View>,
    scope: Arc<Scope>,
    collections: Vec<Arc<Collection>>,
    guards: Vec<Guard>,
    key: CacheKey,
}

impl Resource {
    pub(super) fn new(declared: &Arc<Declared>, catalog: &Catalog, cache: &Cache) -> Arc<Self> {
        let collection = &declared.collection;
        let embedded = collection.references.values().filter_map(|name| catalog.get(name));
        let declarations = [declared].into_iter().chain(embedded).map(|declared| &declared.collection as &dyn fmt::Debug);
        let fingerprint = Fingerprint::of(&declarations.collect::<Vec<_>>());
        let (name, times) = (collection.name.as_str(), collection.cache);
        let lists = Lifetimes::uniform(times.list_ttl, times.stale_if_error);
        let records = Lifetimes {
            found: Lifetime { ttl: times.record_ttl, stale_if_error: times.stale_if_error },
            missing: Lifetime { ttl: times.negative_ttl, stale_if_error: times.stale_if_error },
            max_lag: Duration::ZERO,
        };
        Arc::new(Self {
            declared: Arc::clone(declared),
            records: cache.scope(Kind::Record, name, records, fingerprint),
            lists: cache.scope(Kind::List, name, lists, fingerprint),
            counts: cache.scope(Kind::Count, name, lists, fingerprint),
            stats: cache.scope(Kind::Stats, name, lists, fingerprint),
            prepared: PreparedLists::default(),
        })
    }

    /// The declaration.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.declared.collection
    }

    pub(super) fn declared(&self) -> &Arc<Declared> {
        &self.declared
    }

    fn prepare(&self, raw: &str) -> Result<Arc<Prepared>> {
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
        let lifetimes = Lifetimes::uniform(view.ttl, view.stale_if_error);
        let scope = cache.scope(Kind::View, view.name.as_str(), lifetimes, Fingerprint::of(&[view, &collections]));
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

impl Records {
    /// One record; `raw` is the query string (`fields`, `include`).
    pub async fn record(
        &self,
        resource: &Arc<Resource>,
        principal: Principal,
        id: &RecordId,
        raw: &str,
        demand: &Freshness,
    ) -> Result<Answer> {
        let collection = resource.collection();
        authorize(principal, collection.access.read)?;
        let shape = if raw.is_empty() { Shape::WHOLE } else { Shape::parse(collection, raw)? };
        let key = CacheKey::of_record(&resource.records, id.as_str(), &shape.key_text());
        if demand.is_any()
            && let Some(lookup) = self.cache.get(&resource.records, &key)
        {
            return Ok(Answer::new(lookup, key, &self.cache));
        }
        let mut guards = vec![Guard::Record(collection.name.clone(), id.clone())];
        guards.extend(include_guards(collection, &shape.include));
        let (store, owned_collection, id) = (self.store.clone(), Arc::clone(collection), id.clone());
        let load = move || async move {
            let row = store.record_read(&owned_collection, &id, &shape.into()).await?;
            row.map_or_else(|| Ok(body::missing()), |row| body::found(row.data, Vec::new()))
        };
        // Boxed, so that a hit does not carry the state of a load around.
        let lookup = Box::pin(self.cache.get_or_load(&resource.records, &key, &guards, &Freshness::ANY, load)).await?;
        Ok(Answer::new(lookup, key, &self.cache))
    }

    /// One page of a list or search.
    pub async fn list(&self, resource: &Arc<Resource>, principal: Principal, raw: &str, demand: &Freshness) -> Result<Answer> {
        let collection = resource.collection();
        authorize(principal, collection.access.read)?;
        let prepared = resource.prepare(raw)?;
        if demand.is_any()
            && let Some(lookup) = self.cache.get(&resource.lists, &prepared.key)
        {
            return Ok(Answer::new(lookup, prepared.key.clone(), &self.cache));
        }
        let Prepared { query, key, footprint } = &*prepared;
        if matches!(query.paging, Paging::Page { .. })
            && let Some(entry) = self.cache.outdated(key)
        {
            entry.follow(footprint, |page| body::shown(collection, page));
        }
        let mut guards = vec![selection_guard(collection, query.selection.filter.as_ref())];
        guards.extend(include_guards(collection, &query.include));
        let loader = PageLoader { store: self.store.clone(), cache: Arc::clone(&self.cache), resource: Arc::clone(resource) };
        let query = query.clone();
        let load = move || loader.load(query);
        let lookup = Box::pin(self.cache.get_or_load(&resource.lists, key, &guards, &Freshness::ANY, load)).await?;
        Ok(Answer::new(lookup, key.clone(), &self.cache))
    }

    /// Totals and value counts of a collection.
    pub async fn stats(&self, resource: &Arc<Resource>, principal: Principal, raw: &str, demand: &Freshness) -> Result<Answer> {
        let collection = resource.collection();
        authorize(principal, collection.access.read)?;
        let (by, filter) = query::parse_stats(collection, raw)?;
        let key = CacheKey::of_query(&resource.stats, &query::stats_key(&by, filter.as_ref()));
        let guard = selection_guard(collection, filter.as_ref());
        // Until the cache takes it.
        let _ = demand;
        let (store, owned_collection) = (self.store.clone(), Arc::clone(collection));
        let load = move || async move {
            let stats = store.record_stats(&owned_collection, &by, filter.as_ref()).await?;
            body::stats(&stats)
        };
        let lookup = self.cache.get_or_load(&resource.stats, &key, &[guard], &Freshness::ANY, load).await?;
        Ok(Answer::new(lookup, key, &self.cache))
    }

    /// A view.
    pub async fn view(&self, resource: &Arc<ViewResource>, principal: Principal, demand: &Freshness) -> Result<Answer> {
        authorize(principal, resource.view.read)?;
        let _ = demand;
        let (store, owned) = (self.store.clone(), Arc::clone(resource));
        let load = move || async move {
            let parts = owned.view.parts.iter().zip(&owned.collections);
            let stats = parts.map(|(part, collection)| store.record_stats(collection, &part.by, part.filter.as_ref()));
            body::view(&owned.view, &try_join_all(stats).await?)
        };
        let lookup = self.cache.get_or_load(&resource.scope, &resource.key, &resource.guards, &Freshness::ANY, load).await?;
        Ok(Answer::new(lookup, resource.key.clone(), &self.cache))
    }
}

/// Loads a page: its rows, and its total unless an entry has it.
struct PageLoader {
    store: Store,
    cache: Arc<Cache>,
    resource: Arc<Resource>,
}

impl PageLoader {
    async fn load(self, query: Query) -> Result<Content> {
        let (rows, total) = match query.count {
            CountMode::Exact => self.rows_and_total(&query).await.map(|(rows, total)| (rows, Some(total)))?,
            CountMode::None => (self.rows(&query).await?, None),
        };
        body::page(self.resource.collection(), &query, rows, total)
    }

    /// The rows, and a total that costs the database as little as possible: an entry's, else what the rows show by
    /// themselves, else a count. A count begins only when the rows are there and show a next page: most filters select
    /// less than a page, and to count side by side would cost those a count that nobody needs.
    async fn rows_and_total(&self, query: &Query) -> Result<(Vec<Row>, u64)> {
        let (tell, told) = oneshot::channel();
        let mut counting = pin!(self.total(&query.selection, told));
        let mut reading = pin!(self.rows(query));
        // Biased: the guard of the count is captured when it is first polled, which must be before the rows are read, for
        // what they show becomes the count of all pages.
        let rows = tokio::select! {
            biased;
            total = &mut counting => {
                let (total, rows) = (total?, reading.await?);
                let total = total_shown(&query.paging, rows.len()).unwrap_or(total);
                return Ok((rows, total));
            }
            rows = &mut reading => rows?,
        };
        let shown = total_shown(&query.paging, rows.len());
        // Nobody listens if the load of another page is finding out the count already.
        let _ = tell.send(shown);
        let total = match shown {
            Some(total) => total,
            None => counting.await?,
        };
        Ok((rows, total))
    }

    /// The rows of the page, and one more if there is a next one.
    async fn rows(&self, query: &Query) -> Result<Vec<Row>> {
        if query.selection.search.as_ref().is_some_and(crate::model::SearchExpression::matches_nothing) {
            return Ok(Vec::new());
        }
        self.store.record_list(self.resource.collection(), query).await
    }

    /// The count of a selection is an entry of its own, shared by all pages: one load finds it out, which waits for what
    /// the rows of its page have `told`.
    async fn total(&self, selection: &Selection, told: oneshot::Receiver<Option<u64>>) -> Result<u64> {
        let collection = self.resource.collection();
        let key = CacheKey::of_query(&self.resource.counts, &query::selection_key(selection));
        if let Some(entry) = self.cache.outdated(&key) {
            entry.follow(&Footprint::of_selection(collection, selection), |_| None);
        }
        let guard = selection_guard(collection, selection.filter.as_ref());
        let (store, owned_collection, selection) = (self.store.clone(), Arc::clone(collection), selection.clone());
        let load = move || async move {
            let count = match told.await {
                Ok(Some(shown)) => shown,
                // A page that failed has told nothing; others may wait for this count all the same.
                Ok(None) | Err(_) => store.record_count(&owned_collection, &selection).await?,
            };
            body::found(count.to_string(), Vec::new())
        };
        let lookup = self.cache.get_or_load(&self.resource.counts, &key, &[guard], &Freshness::ANY, load).await?;
        let body = &lookup.entry.identity().body;
        std::str::from_utf8(body)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::internal("a cached count is no number"))
    }
}

/// The total that a page shows by itself, because it has rows, or is the first one, and there is no further row.
fn total_shown(paging: &Paging, rows: usize) -> Option<u64> {
    let skipped = match paging {
        Paging::Page { page, limit } => page.saturating_sub(1).saturating_mul(u64::from(*limit)),
        Paging::Cursor { after: None, .. } => 0,
        Paging::Cursor { after: Some(_), .. } => return None,
    };
    let is_end = rows <= paging.limit() as usize && (rows > 0 || skipped == 0);
    is_end.then(|| skipped.saturating_add(rows as u64))
}

/// What the records of a selection depend on: its most selective required term, or the whole collection. Every write
/// moves the guards of all indexed terms of the old and of the new document, so a record cannot enter or leave
/// `field = value` without moving that guard.
fn selection_guard(collection: &Collection, filter: Option<&Filter>) -> Guard {
    let indexed = collection.term_fields();
    let required = filter.map(Filter::required_terms).unwrap_or_default();
    let best = required
        .into_iter()
        .filter(|term| indexed.contains(term.field.as_str()))
        .max_by_key(|term| (collection.distinct_estimate(&term.field), std::cmp::Reverse(term.clone())));
    match best {
        Some(term) => Guard::Term(collection.name.clone(), term),
        None => Guard::Collection(collection.name.clone()),
    }
}

/// Embedded records may change without the record that embeds them.
fn include_guards<'a>(collection: &'a Collection, include: &'a [String]) -> impl Iterator<Item = Guard> + 'a {
    include.iter().filter_map(|field| collection.references.get(field)).cloned().map(Guard::Collection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_that_shows_its_own_end_has_a_total() {
        let page = |page, rows| total_shown(&Paging::Page { page, limit: 10 }, rows);
        assert_eq!(page(1, 0), Some(0));
        assert_eq!(page(1, 10), Some(10));
        assert_eq!(page(1, 11), None, "one row more than the page is its next page");
        assert_eq!(page(3, 4), Some(24));
        assert_eq!(page(3, 0), None, "a page behind the end does not know where the end is");
        assert_eq!(total_shown(&Paging::Cursor { after: None, limit: 10 }, 3), Some(3));
        assert_eq!(total_shown(&Paging::Cursor { after: Some(Vec::new()), limit: 10 }, 3), None);
    }
}
