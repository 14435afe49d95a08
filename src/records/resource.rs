//! The declared collections and views with what their reads need, made once: scopes of the cache, keys and guards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::prepared::Prepared;
use super::query;
use super::read::selection_guard;
use super::sight::{Lenses, Sight, subject_among};
use crate::auth::authorize_on;
use crate::cache::{Cache, CacheKey, Fingerprint, Kind, Lifetime, Lifetimes, Scope};
use crate::catalog::{Catalog, Declared};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Collection, CollectionName, Footprint, Guard, Principal, Ranking, Verb, View};

/// A collection with what its reads need, made once.
pub struct Resource {
    declared: Arc<Declared>,
    pub(super) records: Arc<Scope>,
    pub(super) lists: Arc<Scope>,
    pub(super) counts: Arc<Scope>,
    pub(super) stats: Arc<Scope>,
    pub(super) lenses: Lenses,
    /// The collections that reference fields lead to.
    pub(super) targets: BTreeMap<String, Arc<Collection>>,
    /// What the ranks of searches follow from.
    pub(super) ranking: Ranking,
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
    pub(super) fn new(declared: &Arc<Declared>, catalog: &Catalog, cache: &Cache, ranking: Ranking) -> Arc<Self> {
        let collection = &declared.collection;
        let target =
            |(field, name): (&String, &CollectionName)| Some((field.clone(), Arc::clone(&catalog.get(name)?.collection)));
        let targets: BTreeMap<_, _> = collection.references.iter().filter_map(target).collect();
        let shapes: Vec<_> = [collection].into_iter().chain(targets.values()).map(|collection| shape(collection)).collect();
        let fingerprint = Fingerprint::of(&shapes.iter().map(|shape| shape as &dyn fmt::Debug).collect::<Vec<_>>());
        drop(shapes);
        let lenses = Lenses::new(collection, &targets);
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
            lenses,
            targets,
            ranking,
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

    /// What `principal` sees; an error if that is nothing.
    pub(super) fn sight<'a>(&'a self, principal: &'a Principal) -> Result<Sight<'a>> {
        Sight::of(self.collection(), &self.lenses, principal)
    }

    /// Whether `principal` may write anything at all here; what of it, and what else a write needs, the write finds out.
    pub fn check_writer(&self, principal: &Principal) -> Result<()> {
        let collection = self.collection();
        authorize_on(principal, collection.access.write, Some(&collection.name), Verb::Write)
    }

    /// What the operator sees: everything.
    pub(super) fn whole(&self) -> Sight<'_> {
        Sight::whole(&self.lenses)
    }

    /// What the list request `raw` means to whoever has this sight, and its key.
    pub(super) fn prepare(&self, sight: Sight<'_>, raw: &str) -> Result<Arc<Prepared>> {
        let prepare = || {
            let mut query = query::parse_list(&sight.lens.collection, raw)?;
            // Behind the parser: what a request may ask for does not depend on whose it is.
            query.selection.filter = sight.narrow(query.selection.filter);
            // The owner is in the filter, so whoever sees all and asks for the owner's records shares the page.
            let seen = Sight { subject: None, ..sight }.key_text(&query.include);
            let key = CacheKey::of_query(&self.lists, &format!("{seen}{}", query::list_key(&query)));
            let footprint = Footprint::of_query(self.collection(), &query, self.ranking);
            Ok(Prepared { query, key, footprint })
        };
        match sight.subject {
            None => sight.lens.prepared.get(raw, prepare),
            // The length tells where the subject ends.
            Some(subject) => sight.lens.prepared_for_owners.get(&format!("{}:{subject}{raw}", subject.len()), prepare),
        }
    }

    /// Checks that `principal` may read what `include` embeds: all records of the collections that the fields lead to.
    pub(super) fn authorize_include(&self, principal: &Principal, include: &[String]) -> Result<()> {
        for field in include {
            let Some(target) = self.targets.get(field) else { continue };
            authorize_on(principal, target.access.read, Some(&target.name), Verb::Read)
                .map_err(|error| error.with_parameter("include"))?;
            if subject_among(target, principal)?.is_some() {
                let detail =
                    format!("{field} leads to records of all owners of {}, so only administrators embed them.", target.name);
                return Err(Error::new(ErrorKind::Forbidden, "forbidden", detail).with_parameter("include"));
            }
        }
        Ok(())
    }

    /// Whether all callers are shown the same, whatever they ask for.
    pub fn is_same_for_all(&self) -> bool {
        [self.collection()].into_iter().chain(self.targets.values()).all(|collection| collection.access.is_same_for_all())
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
    let Collection { name, path, id, fields, sort, indexes, search, references, schema, access, .. } = collection;
    (name, path, id, fields, sort, indexes, search, (references, &access.owner_field), schema)
}
