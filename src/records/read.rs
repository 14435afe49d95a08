//! The read path: query, key, cache, and on a miss the store.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;

use super::prepared::Prepared;
use super::query::{self, Shape};
use super::sight::{Lens, Sight};
use super::{Answer, Forwarded, Records, Resource, ViewResource, body};
use crate::auth::authorize_on;
use crate::cache::{Applied, Basis, Cache, CacheKey, Content, Found, Held, Lookup, Scope};
use crate::error::{Error, Result};
use crate::model::{
    Caller, Collection, CountMode, Filter, Footprint, Freshness, Guard, Paging, Query, RecordId, Selection, Verb,
};
use crate::store::{Row, Store};

impl Records {
    /// One record; `raw` is the query string (`fields`, `include`).
    pub async fn record(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: &RecordId,
        raw: &str,
        demand: &Freshness,
    ) -> Result<Answer> {
        let collection = resource.collection();
        let sight = resource.sight(&caller.principal)?;
        let shape = if raw.is_empty() { Shape::WHOLE } else { Shape::parse(&sight.lens.collection, raw)? };
        resource.authorize_include(&caller.principal, &shape.include)?;
        let key = record_key(resource, sight, id, &shape);
        let found = match self.look(&resource.records, &key, demand) {
            Ok(lookup) => return Ok(Answer::new(lookup, Forwarded::Miss, key, &self.cache)),
            Err(found) => found,
        };
        let guards = record_guards(collection, id, &shape);
        let (store, owned_collection, id) = (self.store.clone(), Arc::clone(collection), id.clone());
        let (lens, shape) = (Arc::clone(sight.lens), shape.among(sight.owner()));
        let load = move || async move {
            let row = store.record_read(&owned_collection, &id, &shape).await?;
            row.map_or_else(|| Ok(body::missing()), |row| body::record(concealed(&lens, row, &shape.include)?))
        };
        let place = Place { scope: &resource.records, key: &key, guards: &guards };
        // Boxed, so that a hit does not carry the state of a load around.
        Box::pin(async { self.answer(place, self.way(demand).await?, found, load).await }).await
    }

    /// One page of a list or search.
    pub async fn list(&self, resource: &Arc<Resource>, caller: &Caller, raw: &str, demand: &Freshness) -> Result<Answer> {
        let collection = resource.collection();
        let sight = resource.sight(&caller.principal)?;
        let prepared = resource.prepare(sight, raw)?;
        resource.authorize_include(&caller.principal, &prepared.query.include)?;
        let found = match self.look(&resource.lists, &prepared.key, demand) {
            Ok(lookup) => return Ok(Answer::new(lookup, Forwarded::Miss, prepared.key.clone(), &self.cache)),
            Err(found) => found,
        };
        let Prepared { query, key, footprint } = &*prepared;
        Box::pin(async {
            let way = self.way(demand).await?;
            let found = found.unwrap_or_else(|| self.cache.find(key));
            if matches!(query.paging, Paging::Page { .. })
                && let Some(entry) = found.outdated()
            {
                entry.follow(footprint, |page| body::shown(collection, page));
            }
            let (store, cache) = (self.store.clone(), Arc::clone(&self.cache));
            let lens = Arc::clone(sight.lens);
            let loader = PageLoader { store, cache, resource: Arc::clone(resource), lens, way: way.of_count() };
            let (guards, query) = (list_guards(collection, query), query.clone());
            let place = Place { scope: &resource.lists, key, guards: &guards };
            self.answer(place, way, Some(found), move || loader.load(query)).await
        })
        .await
    }

    /// Totals and value counts of a collection.
    pub async fn stats(&self, resource: &Arc<Resource>, caller: &Caller, raw: &str, demand: &Freshness) -> Result<Answer> {
        let collection = resource.collection();
        let sight = resource.sight(&caller.principal)?;
        let (by, filter) = query::parse_stats(&sight.lens.collection, raw)?;
        let filter = sight.narrow(filter);
        // Numbers of what is seen: `by` and the filter have all that they depend on.
        let key = CacheKey::of_query(&resource.stats, &query::stats_key(&by, filter.as_ref()));
        let guard = selection_guard(collection, filter.as_ref());
        let (store, owned_collection) = (self.store.clone(), Arc::clone(collection));
        let load = move || async move {
            let stats = store.record_stats(&owned_collection, &by, filter.as_ref()).await?;
            body::stats(&stats)
        };
        let place = Place { scope: &resource.stats, key: &key, guards: &[guard] };
        self.answer(place, self.way(demand).await?, None, load).await
    }

    /// A view.
    pub async fn view(&self, resource: &Arc<ViewResource>, caller: &Caller, demand: &Freshness) -> Result<Answer> {
        let view = resource.view();
        authorize_on(&caller.principal, view.read, Some(&view.name), Verb::Read)?;
        let (store, owned) = (self.store.clone(), Arc::clone(resource));
        let load = move || async move {
            let parts = owned.view().parts.iter().zip(&owned.collections);
            let stats = parts.map(|(part, collection)| store.record_stats(collection, &part.by, part.filter.as_ref()));
            body::view(owned.view(), &try_join_all(stats).await?)
        };
        let place = Place { scope: &resource.scope, key: &resource.key, guards: &resource.guards };
        self.answer(place, self.way(demand).await?, None, load).await
    }

    /// Which way an answer that meets `demand` comes.
    async fn way(&self, demand: &Freshness) -> Result<Way> {
        let Some(token) = demand.token else { return Ok(Way::Caches(*demand)) };
        match self.reconciler.settle(token).await {
            Applied::Yes => Ok(Way::Caches(*demand)),
            Applied::No if demand.only_if_cached => Err(Error::not_cached()),
            Applied::No => Ok(Way::Past),
        }
    }

    /// A plain hit; or else what was found, if it will still do to know that when the [`Way`] is known.
    fn look(&self, scope: &Scope, key: &CacheKey, demand: &Freshness) -> std::result::Result<Lookup, Option<Found>> {
        if demand.is_any() { self.cache.look(scope, key).map_err(Some) } else { Err(None) }
    }

    async fn answer<L, F>(&self, place: Place<'_>, way: Way, found: Option<Found>, load: L) -> Result<Answer>
    where
        L: FnOnce() -> F,
        F: Future<Output = Result<Content>> + Send + 'static,
    {
        let found = found.unwrap_or_else(|| self.cache.find(place.key));
        let forwarded = match self.cache.standing(&found) {
            _ if !self.cache.is_enabled() => Forwarded::Bypass,
            Held::Fresh => Forwarded::Request,
            Held::Stale => Forwarded::Stale,
            Held::Unknown => Forwarded::Miss,
            Held::Nothing => Forwarded::UriMiss,
        };
        let lookup = match &way {
            Way::Caches(demand) => self.cache.take_or_load(found, place.scope, place.key, place.guards, demand, load).await?,
            Way::Past => self.cache.load_past(place.scope, load).await?,
        };
        Ok(Answer::new(lookup, forwarded, place.key.clone(), &self.cache))
    }
}

/// Where an answer is kept, and what it depends on.
struct Place<'a> {
    scope: &'a Arc<Scope>,
    key: &'a CacheKey,
    guards: &'a [Guard],
}

/// Which way an answer comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From the caches, if they have one that meets the demand, and into them otherwise.
    Caches(Freshness),
    /// Past them: this process has not applied the change that the answer must show, so what it has may be older.
    Past,
}

impl Way {
    /// The way of the count that goes into a page which is loaded: the page cannot be newer than that.
    fn of_count(self) -> Self {
        match self {
            Self::Caches(Freshness { reload, max_age, .. }) => Self::Caches(Freshness { reload, max_age, ..Freshness::ANY }),
            Self::Past => Self::Past,
        }
    }
}

/// Loads a page: its rows, and its total unless an entry has it.
struct PageLoader {
    store: Store,
    cache: Arc<Cache>,
    resource: Arc<Resource>,
    lens: Arc<Lens>,
    way: Way,
}

impl PageLoader {
    async fn load(self, query: Query) -> Result<Content> {
        let (rows, total) = match query.count {
            CountMode::Exact => self.rows_and_total(&query).await.map(|(rows, total)| (rows, Some(total)))?,
            CountMode::None => (self.rows(&query).await?, None),
        };
        let (total, basis) = total.map_or((None, Basis::Loaded), |(total, basis)| (Some(total), basis));
        Ok(Content { basis, ..body::page(self.resource.collection(), &query, rows, total)? })
    }

    /// The rows, and a total that costs the database as little as possible: an entry's, else what the rows show by
    /// themselves, else a count. A count begins only when the rows are there and show a next page: most filters select
    /// less than a page, and to count side by side would cost those a count that nobody needs.
    async fn rows_and_total(&self, query: &Query) -> Result<(Vec<Row>, (u64, Basis))> {
        let (tell, told) = oneshot::channel();
        let mut counting = pin!(self.total(&query.selection, told));
        let mut reading = pin!(async {
            let since = Instant::now();
            self.rows(query).await.map(|rows| (rows, since))
        });
        // Biased: nearly always the guard of the count is captured when it is first polled, and so before the rows are read. Then
        // what they show can become the count of all pages.
        let (rows, since) = tokio::select! {
            biased;
            total = &mut counting => {
                let (total, (rows, _)) = (total?, reading.await?);
                let shown = total_shown(&query.paging, rows.len());
                return Ok((rows, shown.map_or(total, |shown| (shown, Basis::Loaded))));
            }
            rows = &mut reading => rows?,
        };
        let shown = total_shown(&query.paging, rows.len());
        // Nobody listens if the load of another page is finding out the count already.
        let _ = tell.send(shown.map(|total| (total, since)));
        let total = match shown {
            Some(total) => (total, Basis::Loaded),
            None => counting.await?,
        };
        Ok((rows, total))
    }

    /// The rows of the page, and one more if there is a next one.
    async fn rows(&self, query: &Query) -> Result<Vec<Row>> {
        if query.selection.search.as_ref().is_some_and(crate::model::SearchExpression::matches_nothing) {
            return Ok(Vec::new());
        }
        let rows = self.store.record_list(self.resource.collection(), query).await?;
        rows.into_iter().map(|row| concealed(&self.lens, row, &query.include)).collect()
    }

    /// The count of a selection is an entry of its own, shared by all pages: one load finds it out, which waits for what
    /// the rows of its page have `told`.
    async fn total(&self, selection: &Selection, told: oneshot::Receiver<Option<(u64, Instant)>>) -> Result<(u64, Basis)> {
        let collection = self.resource.collection();
        let key = CacheKey::of_query(&self.resource.counts, &query::selection_key(selection));
        let found = self.cache.find(&key);
        if let Some(entry) = found.outdated() {
            entry.follow(&Footprint::of_selection(collection, selection), |_| None);
        }
        let guard = selection_guard(collection, selection.filter.as_ref());
        let (store, owned_collection, selection) = (self.store.clone(), Arc::clone(collection), selection.clone());
        let load = move || {
            // The guard has just been captured. It was not when the count was first polled if the cache had to wait for something.
            let captured = Instant::now();
            async move {
                let (count, basis) = match told.await {
                    // The rows were asked for while this was still on its way to the second tier.
                    Ok(Some((shown, since))) if since >= captured => (shown, Basis::ReadSince(since)),
                    // Rows from before the capture show nothing that may be kept. A page that failed has told nothing; others
                    // may wait for this count all the same.
                    Ok(_) | Err(_) => (store.record_count(&owned_collection, &selection).await?, Basis::Loaded),
                };
                Ok(Content { basis, ..body::found(count.to_string(), Vec::new())? })
            }
        };
        let lookup = match self.way {
            Way::Caches(demand) => self.cache.take_or_load(found, &self.resource.counts, &key, &[guard], &demand, load).await?,
            Way::Past => self.cache.load_past(&self.resource.counts, load).await?,
        };
        let count = std::str::from_utf8(&lookup.entry.identity().body).ok().and_then(|text| text.parse().ok());
        let count = count.ok_or_else(|| Error::internal("a cached count is no number"))?;
        Ok((count, Basis::Entry(lookup.entry)))
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

/// A row that embeds `include`, as those see it whose lens it is.
fn concealed(lens: &Lens, row: Row, include: &[String]) -> Result<Row> {
    let shown = match lens.concealed.conceal(&row.data, include)? {
        Cow::Borrowed(_) => None,
        Cow::Owned(kept) => Some(Bytes::from(kept.into_boxed_slice())),
    };
    Ok(Row { data: shown.unwrap_or(row.data), cursor: row.cursor })
}

/// The key of a record in a shape, for all who have this sight of it.
pub(super) fn record_key(resource: &Resource, sight: Sight<'_>, id: &RecordId, shape: &Shape) -> CacheKey {
    let (seen, shape) = (sight.key_text(&shape.include), shape.key_text());
    if seen.is_empty() {
        return CacheKey::of_record(&resource.records, id.as_str(), &shape);
    }
    CacheKey::of_record(&resource.records, id.as_str(), &format!("{seen}{shape}"))
}

/// What the records of a selection depend on: its most selective required term, or the whole collection. Every write
/// moves the guards of all indexed terms of the old and of the new document, so a record cannot enter or leave
/// `field = value` without moving that guard.
pub(super) fn selection_guard(collection: &Collection, filter: Option<&Filter>) -> Guard {
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

/// What one record depends on.
pub(super) fn record_guards(collection: &Collection, id: &RecordId, shape: &Shape) -> Vec<Guard> {
    let own = Guard::Record(collection.name.clone(), id.clone());
    std::iter::once(own).chain(include_guards(collection, &shape.include)).collect()
}

/// What a page depends on.
pub(super) fn list_guards(collection: &Collection, query: &Query) -> Vec<Guard> {
    let own = selection_guard(collection, query.selection.filter.as_ref());
    std::iter::once(own).chain(include_guards(collection, &query.include)).collect()
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
