//! What an operator asks of the caches: their state, why a request would be answered as it would, and to drop something.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::query::{self, Shape};
use super::read::{list_guards, record_guards, record_key, selection_guard};
use super::{Records, Resource, ViewResource};
use crate::cache::{CacheKey, CoherenceStatus, Explanation, Overview, Pattern, Reach, Target};
use crate::error::{Error, Result, Violation};
use crate::model::{Caller, Collection, Guard, RecordId, Term};
use crate::store::Author;

/// What can be dropped, as a body names it.
const TARGETS: [&str; 5] = ["record", "term", "collection", "records", "all"];

/// The state of the caches of one process, and of its ties to the others.
#[derive(Clone, Debug, Serialize)]
pub struct Administration {
    /// Both tiers.
    pub cache: Overview,
    /// The change log and the bus.
    pub coherence: CoherenceStatus,
}

/// What became of an invalidation by hand.
#[derive(Clone, Debug, Serialize)]
pub struct Invalidated {
    /// What was dropped: `r:` a record, `t:` a term, `b:` a whole collection, `p:` records by a pattern, `*` all.
    pub invalidated: Target,
    /// How far it has come.
    pub reach: Reach,
}

/// A read, to be explained and not to be answered.
pub enum Question<'a> {
    /// One record; the text is the query string, here and below.
    Record(&'a Arc<Resource>, RecordId, &'a str),
    /// A list or search.
    List(&'a Arc<Resource>, &'a str),
    /// Statistics of a collection.
    Stats(&'a Arc<Resource>, &'a str),
    /// A view.
    View(&'a Arc<ViewResource>),
}

impl Records {
    /// The state of the caches.
    pub fn administration(&self) -> Administration {
        let of_collections = self.resources().iter().flat_map(|resource| resource.scopes());
        let of_views = self.declared().views().iter().map(|view| &*view.scope);
        Administration { cache: self.cache.overview(of_collections.chain(of_views)), coherence: self.reconciler.status() }
    }

    /// How a plain request of somebody who sees everything would be answered at this moment, and why.
    pub async fn explain(&self, question: &Question<'_>) -> Result<Explanation> {
        let (scope, key, guards) = match question {
            Question::Record(resource, id, raw) => {
                let shape = Shape::parse(resource.collection(), raw)?;
                let key = record_key(resource, resource.whole(), id, &shape);
                (&resource.records, key, record_guards(resource.collection(), id, &shape))
            }
            Question::List(resource, raw) => {
                let prepared = resource.prepare(resource.whole(), raw)?;
                (&resource.lists, prepared.key.clone(), list_guards(resource.collection(), &prepared.query))
            }
            Question::Stats(resource, raw) => {
                let (by, filter) = query::parse_stats(resource.collection(), raw)?;
                let key = CacheKey::of_query(&resource.stats, &query::stats_key(&by, filter.as_ref()));
                (&resource.stats, key, vec![selection_guard(resource.collection(), filter.as_ref())])
            }
            Question::View(view) => (&view.scope, view.key.clone(), view.guards.clone()),
        };
        Ok(self.cache.explain(scope, &key, &guards).await)
    }

    /// Drops what `body` names, here and on every instance: those that no message reaches find it in the change log. While that
    /// cannot be written it is dropped where it can be all the same, and the answer says so.
    pub async fn invalidate(&self, caller: &Caller, body: &Value) -> Result<Invalidated> {
        let invalidated = self.target(body).map_err(|violation| Error::invalid(vec![violation]))?;
        let author = Author { actor: caller.principal.actor().to_owned(), origin: caller.address };
        let logged = self.store.invalidation_insert(author, &invalidated.to_string()).await;
        let logged = logged.inspect_err(|error| tracing::warn!(%error, "cannot log what is dropped by hand")).ok();
        let reach = self.reconciler.invalidate(&invalidated, logged).await;
        // Without ids and values: they may be somebody's.
        let collection = invalidated.collection().map_or("*", |name| name.as_str());
        tracing::info!(collection, kind = invalidated.kind(), ?reach, "dropped from the caches by hand");
        Ok(Invalidated { invalidated, reach })
    }

    fn target(&self, body: &Value) -> Result<Target, Violation> {
        let allowed = TARGETS.join(", ");
        let members: Vec<_> = body.as_object().into_iter().flatten().collect();
        let [(name, value)] = members.as_slice() else {
            return Err(Violation::new("", "exactly_one", format!("Exactly one of these is dropped at a time: {allowed}.")));
        };
        match name.as_str() {
            "record" => {
                let members = members_of(value, "/record", ["collection", "id"])?;
                let collection = self.collection_at(&members, "/record/collection")?;
                let id = text_at(&members, "id", "/record/id")?;
                let id = RecordId::parse(id).map_err(|detail| Violation::new("/record/id", "invalid_id", detail))?;
                Ok(Target::Guard(Guard::Record(collection.name.clone(), id)))
            }
            "records" => {
                let members = members_of(value, "/records", ["collection", "pattern"])?;
                let collection = self.collection_at(&members, "/records/collection")?;
                let pattern = Pattern::parse(text_at(&members, "pattern", "/records/pattern")?).map_err(|error| {
                    Violation::new(
                        "/records/pattern",
                        "invalid_pattern",
                        format!("{} * is any text, ? one character.", error.detail()),
                    )
                })?;
                Ok(Target::Records(collection.name.clone(), pattern))
            }
            "term" => {
                let members = members_of(value, "/term", ["collection", "field", "value"])?;
                let collection = self.collection_at(&members, "/term/collection")?;
                Ok(Target::Guard(Guard::Term(collection.name.clone(), term(collection, &members)?)))
            }
            "collection" => {
                let members = Map::from_iter([("collection".to_owned(), (*value).clone())]);
                Ok(Target::Collection(self.collection_at(&members, "/collection")?.name.clone()))
            }
            "all" if **value == Value::Bool(true) => Ok(Target::All),
            "all" => Err(Violation::new("/all", "const", "This is true: everything is dropped.")),
            _ => Err(Violation::of_member(name, "unknown", format!("There is no such member; allowed are {allowed}."))),
        }
    }

    fn collection_at(&self, members: &Map<String, Value>, pointer: &str) -> Result<&Arc<Collection>, Violation> {
        let name = text_at(members, "collection", pointer)?;
        let resource = self.resource(name).map_err(|error| {
            Violation::new(pointer, "unknown", format!("{} Allowed are {}.", error.detail(), error.allowed().join(", ")))
        })?;
        Ok(resource.collection())
    }
}

/// The members of the object at `pointer`: all of `names`, and no others.
fn members_of<const N: usize>(value: &Value, pointer: &str, names: [&str; N]) -> Result<Map<String, Value>, Violation> {
    let needed = names.join(", ");
    let Value::Object(members) = value else {
        return Err(Violation::new(pointer, "type", format!("This is an object with {needed}.")));
    };
    if let Some(unknown) = members.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(Violation::new(
            format!("{pointer}/{unknown}"),
            "unknown",
            format!("There is no such member; allowed are {needed}."),
        ));
    }
    match names.into_iter().find(|name| !members.contains_key(*name)) {
        Some(missing) => Err(Violation::new(format!("{pointer}/{missing}"), "required", "This member is required.")),
        None => Ok(members.clone()),
    }
}

fn text_at<'a>(members: &'a Map<String, Value>, name: &str, pointer: &str) -> Result<&'a str, Violation> {
    let text = members.get(name).and_then(Value::as_str);
    text.ok_or_else(|| Violation::new(pointer, "type", "This is a string."))
}

/// A term that lists may depend on: only those of indexed fields.
fn term(collection: &Collection, members: &Map<String, Value>) -> Result<Term, Violation> {
    let name = text_at(members, "field", "/term/field")?;
    let indexed = collection.term_fields();
    let Some(field) = collection.fields.get(name).filter(|_| indexed.contains(name)) else {
        let allowed = indexed.into_iter().collect::<Vec<_>>().join(", ");
        let detail = format!("{name:?} is not an indexed field of {}; allowed are {allowed}.", collection.name);
        return Err(Violation::new("/term/field", "unknown", detail));
    };
    let value = members.get("value").and_then(|value| field.scalar.from_json(value));
    let value =
        value.ok_or_else(|| Violation::new("/term/value", "type", format!("A value of {name} is {}.", field.scalar.name())))?;
    Ok(Term { field: name.to_owned(), value })
}
