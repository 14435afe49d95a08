//! One collection file: every key of it read and checked against its schema. What other files declare is not known
//! here (`links` checks that).

use std::collections::BTreeMap;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::access::Shown;
use super::section::{Report, Section, type_name};
use super::{ListCheck, access, audit, fields, limits, path, schema, warm};
use crate::model::{
    CacheTimes, Collection, CollectionName, Direction, Field, IdRule, Index, ScalarType, SearchField, SearchWeight, ServerFields,
    SortKey, WarmPlan,
};

const KEYS: [&str; 13] = [
    "name",
    "description",
    "path",
    "id",
    "sort",
    "indexes",
    "search",
    "cache",
    "access",
    "audit",
    "limits",
    "references",
    "schema",
];

/// Reads a collection. `None` when too little of it is understood to check the rest; `report` has the mistakes. There
/// is a validator unless the schema has a mistake.
pub(super) fn read(table: &Table, check: ListCheck, report: &mut Report) -> Option<(Collection, Option<Validator>)> {
    let section = Section::root(table);
    section.refuse_unknown(report, &KEYS);
    let name = section.name(report);
    let description = section.text(report, "description").map(str::to_owned);
    let path = read_path(&section, name.as_ref(), report);
    let cache_section = section.section(report, "cache");
    let cache = read_cache(cache_section.as_ref(), report);
    let limits = limits::read(&section, report);
    let (schema, validator) = schema::read(&section, report)?;
    let mut names = Names { fields: fields::of_schema(&schema), schema: &schema };
    let id = read_id(&section, &names, report);
    let search = read_search(&section, &names, report);
    let references = read_references(&section, &names, report);
    names.fields.extend(fields::of_server());
    if id == IdRule::Generated {
        names.fields.insert("id".to_owned(), Field { scalar: ScalarType::Text, array: false });
    }
    let sort = read_sort(&section, &names, report);
    let mut indexes = read_indexes(&section, &names, report);
    let access = access::read(&section, &names, &Shown { id: &id, search: &search, sort: &sort }, report);
    let redact = audit::read(&section, &names, &id, report);
    for field in references.keys().chain(&access.owner_field) {
        if !indexes.iter().any(|index| index.fields.first() == Some(field)) {
            indexes.push(Index { fields: vec![field.clone()] });
        }
    }
    let fields = names.fields;
    let (name, path) = (name?, path?);
    let warm = WarmPlan::default();
    let mut collection = Collection {
        name,
        description,
        path,
        id,
        fields,
        sort,
        indexes,
        search,
        cache,
        warm,
        access,
        limits,
        redact,
        references,
        schema,
    };
    collection.warm = warm::read(cache_section.as_ref(), &collection, check, report);
    Some((collection, validator))
}

/// The path that `[path]` gives or the name implies.
pub(super) fn read_path(section: &Section<'_>, name: Option<&CollectionName>, report: &mut Report) -> Option<String> {
    if section.get("path").is_none() {
        return name.map(|name| format!("/api/v1/{name}"));
    }
    let path = section.text(report, "path")?;
    match path::check(path) {
        Ok(()) => Some(path.to_owned()),
        Err(detail) => {
            report.add("path", detail);
            None
        }
    }
}

fn read_cache(cache: Option<&Section<'_>>, report: &mut Report) -> CacheTimes {
    let default = CacheTimes {
        record_ttl: Duration::from_secs(10 * 60),
        list_ttl: Duration::from_secs(5 * 60),
        negative_ttl: Duration::from_secs(30),
        stale_if_error: Duration::from_secs(60 * 60),
        max_lag: Duration::ZERO,
    };
    let Some(cache) = cache else { return default };
    cache.refuse_unknown(report, &["record_ttl", "list_ttl", "negative_ttl", "stale_if_error", "max_lag", "warm"]);
    let list_ttl = cache.duration(report, "list_ttl", default.list_ttl);
    CacheTimes {
        record_ttl: cache.duration(report, "record_ttl", default.record_ttl),
        list_ttl,
        negative_ttl: cache.duration(report, "negative_ttl", default.negative_ttl),
        stale_if_error: cache.duration(report, "stale_if_error", default.stale_if_error),
        max_lag: read_max_lag(cache, "list_ttl", list_ttl, report),
    }
}

/// The key `max_lag`. What is kept for `ttl` cannot lag behind for longer, so a larger one is misunderstood.
pub(super) fn read_max_lag(section: &Section<'_>, ttl_key: &str, ttl: Duration, report: &mut Report) -> Duration {
    let max_lag = section.duration(report, "max_lag", Duration::ZERO);
    if max_lag > ttl {
        let ttl = humantime::format_duration(ttl);
        let detail =
            format!("this is longer than {ttl_key}, which is {ttl}; allowed are durations from \"0s\" (never lags) to that");
        report.add(section.dotted("max_lag"), detail);
    }
    max_lag
}

fn read_id(section: &Section<'_>, names: &Names<'_>, report: &mut Report) -> IdRule {
    if section.get("id").is_none() {
        if names.is_property("id") {
            let detail =
                "without a line id = \"…\" the server makes the ids, under id; write id = \"id\" or leave the property out";
            report.add("schema.properties.id", detail);
        }
        return IdRule::Generated;
    }
    let Some(field) = section.text(report, "id") else { return IdRule::Generated };
    let text = Field { scalar: ScalarType::Text, array: false };
    if names.find("id", field, report).is_some_and(|found| found != text || fields::is_nullable(names.schema, field)) {
        report.add("id", format!("{field:?} cannot be the id: its type must be \"string\""));
    } else if names.is_property(field) && !names.requires(field) {
        report.add("id", format!("{field:?} cannot be the id: it must be in schema.required"));
    }
    IdRule::Natural(field.to_owned())
}

fn read_search(section: &Section<'_>, names: &Names<'_>, report: &mut Report) -> Vec<SearchField> {
    let Some(search) = section.section(report, "search") else { return Vec::new() };
    let mut found = Vec::new();
    for (field, _) in search.entries() {
        let key = search.dotted(field);
        match names.find(&key, field, report) {
            Some(Field { scalar: ScalarType::Text, array: false }) => {}
            Some(_) => report.add(&key, format!("{field:?} cannot be searched: only strings can")),
            None => {}
        }
        let weight = match search.text(report, field) {
            Some("A") => SearchWeight::A,
            Some("B") => SearchWeight::B,
            Some("C") => SearchWeight::C,
            Some("D") => SearchWeight::D,
            Some(other) => {
                report.add(&key, format!("{other:?} is not a weight; allowed are A (most), B, C and D"));
                continue;
            }
            None => continue,
        };
        found.push(SearchField { field: field.to_owned(), weight });
    }
    found
}

fn read_references(section: &Section<'_>, names: &Names<'_>, report: &mut Report) -> BTreeMap<String, CollectionName> {
    let Some(references) = section.section(report, "references") else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (field, _) in references.entries() {
        let key = references.dotted(field);
        match names.find(&key, field, report) {
            Some(Field { scalar: ScalarType::Text, array: false }) => {}
            Some(_) => report.add(&key, format!("{field:?} cannot be a reference: only a string, or a string or null, can")),
            None => {}
        }
        let Some(target) = references.text(report, field) else { continue };
        match CollectionName::parse(target) {
            Ok(target) => {
                found.insert(field.to_owned(), target);
            }
            Err(error) => report.add(&key, error.detail()),
        }
    }
    found
}

fn read_sort(section: &Section<'_>, names: &Names<'_>, report: &mut Report) -> Vec<SortKey> {
    let text = section.text(report, "sort").unwrap_or("-updated_at");
    let mut keys: Vec<SortKey> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (field, direction) = match part.strip_prefix('-') {
            Some(field) => (field, Direction::Descending),
            None => (part, Direction::Ascending),
        };
        match names.find("sort", field, report) {
            Some(Field { array: true, .. }) => report.add("sort", format!("{field:?} is an array: nothing can be sorted by it")),
            Some(_) if keys.iter().any(|key| key.field == field) => report.add("sort", format!("{field:?} occurs twice")),
            Some(_) => keys.push(SortKey { field: field.to_owned(), direction }),
            None => {}
        }
    }
    keys
}

fn read_indexes(section: &Section<'_>, names: &Names<'_>, report: &mut Report) -> Vec<Index> {
    let allowed = "an index is a field, or an array of fields";
    let entries = match section.get("indexes") {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => {
            report.add("indexes", format!("this is {}, but must be an array; {allowed}", type_name(other)));
            return Vec::new();
        }
    };
    let mut indexes: Vec<Index> = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let key = format!("indexes[{position}]");
        let fields: Option<Vec<String>> = match entry {
            Value::String(field) => Some(vec![field.clone()]),
            Value::Array(fields) => fields.iter().map(|field| field.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let Some(fields) = fields.filter(|fields| !fields.is_empty()) else {
            report.add(key, allowed);
            continue;
        };
        let index = Index { fields };
        check_index(&index, &key, names, report);
        if indexes.contains(&index) {
            report.add(key, format!("the index {} is declared twice", index.fields.join(", ")));
        } else {
            indexes.push(index);
        }
    }
    indexes
}

fn check_index(index: &Index, key: &str, names: &Names<'_>, report: &mut Report) {
    for (position, field) in index.fields.iter().enumerate() {
        let Some(found) = names.find(key, field, report) else { continue };
        if found.array && index.fields.len() > 1 {
            report.add(key, format!("{field:?} is an array: its index stands alone"));
        }
        if index.fields.iter().take(position).any(|before| before == field) {
            report.add(key, format!("{field:?} occurs twice"));
        }
    }
}

/// The fields so far, and the schema they come from.
pub(super) struct Names<'a> {
    fields: BTreeMap<String, Field>,
    schema: &'a Json,
}

impl Names<'_> {
    pub(super) fn is_property(&self, name: &str) -> bool {
        self.schema.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    pub(super) fn schema(&self) -> &Json {
        self.schema
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = &str> {
        self.schema.get("properties").and_then(Json::as_object).into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// The properties that are texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let is_text = |name: &&str| self.fields.get(*name) == Some(&Field { scalar: ScalarType::Text, array: false });
        self.properties().filter(is_text)
    }

    /// Whether a document must have the property.
    pub(super) fn requires(&self, name: &str) -> bool {
        let required = self.schema.get("required").and_then(Json::as_array);
        required.into_iter().flatten().any(|required| required == name)
    }

    /// The field `name`, or a mistake at `key`.
    pub(super) fn find(&self, key: &str, name: &str, report: &mut Report) -> Option<Field> {
        let found = self.fields.get(name).copied();
        if found.is_none() {
            let allowed = self.fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let detail = if ServerFields::ALL.contains(&name) {
                format!("{name:?} is the server's and cannot be used here; allowed are {allowed}")
            } else if self.is_property(name) {
                format!("{name:?} is neither a plain value nor an array of plain values; allowed are {allowed}")
            } else {
                format!("there is no property {name:?}; allowed are {allowed}")
            };
            report.add(key, detail);
        }
        found
    }
}
