//! A collection as declared: schema, indexes, search fields, cache times, access and references. Checked by
//! `catalog`; everything here may be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Access, CollectionLimits, CollectionName, ScalarType, ServerFields, SortKey, Term, WarmPlan};

/// A declared set of records.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Its name, unique in the installation.
    pub name: CollectionName,
    /// One line for readers of the API description.
    pub description: Option<String>,
    /// The path of its REST resource, beginning with `/`, without a trailing one.
    pub path: String,
    /// Where record ids come from.
    pub id: IdRule,
    /// Every property that is a scalar or an array of scalars, and the server's own fields, by name.
    pub fields: BTreeMap<String, Field>,
    /// The default order, without the final tie-break by id.
    pub sort: Vec<SortKey>,
    /// The declared indexes, and one for each reference that has none.
    pub indexes: Vec<Index>,
    /// The fields of the full-text search with their weights; empty for none.
    pub search: Vec<SearchField>,
    /// How long entries live.
    pub cache: CacheTimes,
    /// What is loaded before anybody asks for it.
    pub warm: WarmPlan,
    /// Who may do what.
    pub access: Access,
    /// How often it may be asked.
    pub limits: CollectionLimits,
    /// Members whose values the change log does not show to anybody.
    pub redact: Vec<String>,
    /// Fields that hold the id of a record of another (or the same) collection.
    pub references: BTreeMap<String, CollectionName>,
    /// The JSON Schema 2020-12 of a document as a client sends it, without the server's fields.
    pub schema: Value,
}

/// Where record ids come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdRule {
    /// A required string property of the document.
    Natural(String),
    /// A UUIDv7 that the server makes, under `id`.
    Generated,
}

/// A field that can be filtered, sorted or counted, if an index covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The type of the value, or of the elements.
    pub scalar: ScalarType,
    /// Whether the field is an array of such values.
    pub array: bool,
}

/// One declared index. On the store it continues with the default order, so that a filtered page is a range of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    /// The indexed fields, most significant first; an array field stands alone.
    pub fields: Vec<String>,
}

/// A field of the full-text search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchField {
    /// A string property.
    pub field: String,
    /// How much a match in it counts.
    pub weight: SearchWeight,
}

/// PostgreSQL's four weights; `ts_rank` values them 1.0, 0.4, 0.2 and 0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SearchWeight {
    /// 1.0
    A,
    /// 0.4
    B,
    /// 0.2
    C,
    /// 0.1
    D,
}

/// How long the entries of a collection live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheTimes {
    /// How long a record is fresh when nothing changes it.
    pub record_ttl: Duration,
    /// How long a list, count or statistic is fresh when nothing changes it.
    pub list_ttl: Duration,
    /// How long "there is no such record" is fresh.
    pub negative_ttl: Duration,
    /// How long after that an entry may be served while the database is down.
    pub stale_if_error: Duration,
    /// For how long after a change lists, searches, counts and statistics from before it may be served while they are
    /// loaded anew.
    pub max_lag: Duration,
}

impl Collection {
    /// The name of the member that holds the id.
    pub fn id_field(&self) -> &str {
        match &self.id {
            IdRule::Natural(field) => field,
            IdRule::Generated => "id",
        }
    }

    /// The fields that an index begins with, the id and the server's fields: what a filter or sort may always use.
    pub fn leading_fields(&self) -> BTreeSet<&str> {
        let leading = self.indexes.iter().filter_map(|index| index.fields.first()).map(String::as_str);
        leading.chain([self.id_field()]).chain(ServerFields::ALL).collect()
    }

    /// Whether every one of `equal_fields` (those with an equality) lets an index be used for `field`.
    pub fn is_filterable(&self, field: &str, equal_fields: &BTreeSet<&str>) -> bool {
        self.leading_fields().contains(field)
            || self.indexes.iter().any(|index| {
                let before = index.fields.iter().take_while(|name| *name != field);
                index.fields.iter().any(|name| name == field)
                    && before.into_iter().all(|name| equal_fields.contains(name.as_str()))
            })
    }

    /// The fields whose values are terms: those of any declared index.
    pub fn term_fields(&self) -> BTreeSet<&str> {
        self.indexes.iter().flat_map(|index| &index.fields).map(String::as_str).collect()
    }

    /// The same as those know it to whom these members are unknown: an index ends before the first of them.
    #[must_use]
    pub fn without(&self, members: &[String]) -> Self {
        let mut known = self.clone();
        let properties = known.schema.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().for_each(|properties| properties.retain(|name, _| !members.contains(name)));
        known.fields.retain(|name, _| !members.contains(name));
        known.references.retain(|name, _| !members.contains(name));
        known.search.retain(|search| !members.contains(&search.field));
        known.access.fields.retain(|name, _| !members.contains(name));
        known.indexes.clear();
        for index in &self.indexes {
            let fields: Vec<String> = index.fields.iter().take_while(|field| !members.contains(field)).cloned().collect();
            let index = Index { fields };
            if !index.fields.is_empty() && !known.indexes.contains(&index) {
                known.indexes.push(index);
            }
        }
        known
    }

    /// About how many distinct values a field has, judged by its schema: only good for comparing fields. An owner comes before
    /// all others: what owners are shown then depends on nothing that happens to the records of others.
    pub fn distinct_estimate(&self, field: &str) -> usize {
        if self.access.owner_field.as_deref() == Some(field) {
            return usize::MAX;
        }
        let choices = self.schema.pointer(&format!("/properties/{field}/enum")).and_then(Value::as_array).map(Vec::len);
        match (choices, self.fields.get(field).map(|field| field.scalar)) {
            (Some(choices), _) => choices,
            (None, Some(ScalarType::Boolean)) => 2,
            (None, Some(ScalarType::Integer)) => 100,
            (None, Some(ScalarType::Number | ScalarType::Text | ScalarType::Timestamp)) => 1_000,
            (None, None) => 0,
        }
    }

    /// Every indexed term of `document`.
    pub fn terms(&self, document: &Map<String, Value>) -> Vec<Term> {
        let mut terms = Vec::new();
        for name in self.term_fields() {
            let (Some(field), Some(value)) = (self.fields.get(name), document.get(name)) else { continue };
            let values = match value {
                Value::Array(elements) if field.array => elements.iter().collect(),
                scalar => vec![scalar],
            };
            let scalars = values.into_iter().filter_map(|value| field.scalar.from_json(value));
            terms.extend(scalars.map(|value| Term { field: name.to_owned(), value }));
        }
        terms.sort();
        terms.dedup();
        terms
    }
}
