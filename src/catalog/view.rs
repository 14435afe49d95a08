//! One view file. Its parts are checked against the collections they count, so views are read after all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::{Table, Value};

use super::collection::{read_max_lag, read_path};
use super::schema::to_json;
use super::section::{Report, Section, type_name};
use crate::error::Error;
use crate::model::{AccessRule, Collection, Filter, View, ViewPart};

const KEYS: [&str; 8] = ["name", "description", "path", "ttl", "stale_if_error", "max_lag", "read", "parts"];

/// What a view may count.
pub(super) trait Collections {
    /// The collection `name`, if its file was understood.
    fn find(&self, name: &str) -> Found<'_>;
}

/// What is known of a collection.
pub(super) enum Found<'a> {
    /// It can be checked against.
    Understood(&'a Collection),
    /// Its file has mistakes of its own; nothing more is said here.
    Broken,
    /// No file declares it. These are declared.
    Unknown(String),
}

/// Reads a view. `None` when too little of it is understood; `report` has the mistakes.
pub(super) fn read(table: &Table, collections: &dyn Collections, report: &mut Report) -> Option<View> {
    let section = Section::root(table);
    section.refuse_unknown(report, &KEYS);
    let name = section.name(report);
    let description = section.text(report, "description").map(str::to_owned);
    let path = read_path(&section, name.as_ref(), report);
    let ttl = section.duration(report, "ttl", Duration::from_secs(60));
    let stale_if_error = section.duration(report, "stale_if_error", Duration::from_secs(60 * 60));
    let max_lag = read_max_lag(&section, "ttl", ttl, report);
    let read = section.access(report, "read", AccessRule::Public);
    if read == AccessRule::Owner {
        report.add("read", "a view counts the records of all owners; allowed are public, viewer, editor, admin");
    }
    if section.get("parts").is_none() {
        report.add("parts", "this table is missing; each [parts.KEY] counts the records of a collection");
    }
    let parts_section = section.section(report, "parts")?;
    let mut parts = Vec::new();
    for (key, _) in parts_section.entries() {
        if let Some(part) = parts_section.section(report, key) {
            parts.extend(read_part(key, &part, read, collections, report));
        }
    }
    if parts_section.entries().next().is_none() {
        report.add("parts", "a view has at least one part");
    }
    Some(View { name: name?, description, path: path?, ttl, stale_if_error, max_lag, read, parts })
}

fn read_part(
    key: &str,
    part: &Section<'_>,
    read: AccessRule,
    collections: &dyn Collections,
    report: &mut Report,
) -> Option<ViewPart> {
    part.refuse_unknown(report, &["collection", "by", "filter"]);
    let by = read_by(part, report);
    if part.get("collection").is_none() {
        report.add(part.dotted("collection"), "this key is missing; it names the collection whose records are counted");
    }
    let name = part.text(report, "collection")?;
    let collection = match collections.find(name) {
        Found::Understood(collection) => collection,
        Found::Broken => return None,
        Found::Unknown(allowed) => {
            report.add(part.dotted("collection"), format!("there is no collection {name:?}; allowed are {allowed}"));
            return None;
        }
    };
    let countable = collection.leading_fields();
    for field in by.iter().filter(|field| !countable.contains(field.as_str())) {
        let allowed = countable.iter().copied().collect::<Vec<_>>().join(", ");
        report.add(part.dotted("by"), format!("{field:?} has no index in {name}; allowed are {allowed}"));
    }
    let filter = part.get("filter").and_then(|filter| read_filter(filter, &part.dotted("filter"), collection, report));
    check_access(part, read, collection, (&by, filter.as_ref()), report);
    Some(ViewPart { key: key.to_owned(), collection: collection.name.clone(), by, filter })
}

/// Whoever reads the view may see all that its part counts, and by what.
fn check_access(
    part: &Section<'_>,
    read: AccessRule,
    collection: &Collection,
    (by, filter): (&[String], Option<&Filter>),
    report: &mut Report,
) {
    let Collection { name, access, .. } = collection;
    if !read.is_as_strict_as(access.read) {
        let detail = format!(
            "{name} may be read by {:?} only, and this view by {:?}: give the view a stricter read",
            access.read.as_str(),
            read.as_str()
        );
        report.add(part.dotted("collection"), detail);
    }
    let mut tested = BTreeSet::new();
    filter.into_iter().for_each(|filter| filter.collect_fields(&mut tested));
    for (key, fields) in [("by", by.iter().collect::<BTreeSet<_>>()), ("filter", tested.iter().collect())] {
        for field in fields {
            if let Some(rule) = access.fields.get(field).map(|field| field.read).filter(|rule| !read.is_as_strict_as(*rule)) {
                let detail =
                    format!("{field:?} of {name} may be seen by {:?} only: give the view as strict a read", rule.as_str());
                report.add(part.dotted(key), detail);
            }
        }
    }
}

fn read_by(part: &Section<'_>, report: &mut Report) -> Vec<String> {
    let fields = match part.get("by") {
        None => return Vec::new(),
        Some(Value::Array(fields)) => fields.iter().map(|field| field.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>(),
        Some(_) => None,
    };
    fields.unwrap_or_else(|| {
        report.add(part.dotted("by"), "this must be an array of field names");
        Vec::new()
    })
}

fn read_filter(filter: &Value, key: &str, collection: &Collection, report: &mut Report) -> Option<Filter> {
    let Value::Table(_) = filter else {
        report.add(key, format!("this is {}, but must be a table such as {{ tier = {{ lte = 2 }} }}", type_name(filter)));
        return None;
    };
    let before = report.len();
    let json = to_json(filter, key, report);
    if report.len() > before {
        return None;
    }
    let mut refused = |error: &Error| {
        let allowed = error.allowed().join(", ");
        let allowed = if allowed.is_empty() { allowed } else { format!(" Allowed are {allowed}.") };
        report.add(key, format!("{}{allowed}", error.detail()));
    };
    let checked = Filter::from_json(collection, &json).and_then(|filter| filter.check_indexes(collection).map(|()| filter));
    checked.map_err(|error| refused(&error)).ok()
}
