//! `[access]` of a collection file: who may do what, whose a record is, and which members not everybody may see or set. What a
//! rule says is held against the other rules and against the schema, so that no other part of the file gives away what it hides.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::Table;

use super::collection::Names;
use super::section::{Report, Section};
use crate::model::{Access, AccessRule, Field, FieldAccess, IdRule, ScalarType, SearchField, ServerFields, SortKey};

const KEYS: [&str; 5] = ["read", "write", "changes", "owner_field", "fields"];

/// Keywords of a schema that say nothing of one member by means of another.
const HARMLESS: [&str; 12] = [
    "$schema",
    "$id",
    "$comment",
    "type",
    "title",
    "description",
    "default",
    "examples",
    "properties",
    "required",
    "additionalProperties",
    "$defs",
];

/// Keywords that count members, whichever they are.
const COUNTS: [&str; 2] = ["minProperties", "maxProperties"];

/// What else of the file could show a member.
pub(super) struct Shown<'a> {
    pub(super) id: &'a IdRule,
    pub(super) search: &'a [SearchField],
    pub(super) sort: &'a [SortKey],
}

/// Reads the table.
pub(super) fn read(section: &Section<'_>, names: &Names<'_>, shown: &Shown<'_>, report: &mut Report) -> Access {
    let empty = Table::new();
    let section = section.section(report, "access").unwrap_or_else(|| Section::root(&empty));
    section.refuse_unknown(report, &KEYS);
    let read = section.access(report, "read", AccessRule::Public);
    // Roles say that viewers read: to let them write takes a line.
    let default = if read == AccessRule::Viewer { AccessRule::Editor } else { read };
    let write = section.access(report, "write", default);
    let changes = section.access(report, "changes", AccessRule::Admin);
    check_rules(&section, (read, write, changes), report);
    let owner_field = read_owner_field(&section, names, shown, report);
    for (key, rule) in [("read", read), ("write", write)] {
        if rule == AccessRule::Owner && section.get("owner_field").is_none() {
            let detail = "\"owner\" needs a line owner_field = \"…\": the text property that holds whose a record is";
            report.add(section.dotted(key), detail);
        }
    }
    let mut access = Access { read, write, changes, owner_field, fields: BTreeMap::new() };
    access.fields = read_fields(&section, names, &access, report);
    for (name, field) in &access.fields {
        check_field(name, *field, &access, (names, shown), report);
    }
    access
}

fn check_rules(section: &Section<'_>, (read, write, changes): (AccessRule, AccessRule, AccessRule), report: &mut Report) {
    let allowed = |least: AccessRule, rules: &[AccessRule]| {
        let rules = rules.iter().filter(|rule| rule.is_as_strict_as(least));
        rules.map(|rule| rule.as_str()).collect::<Vec<_>>().join(", ")
    };
    let [public, viewer, editor, admin] = [AccessRule::Public, AccessRule::Viewer, AccessRule::Editor, AccessRule::Admin];
    if !write.is_as_strict_as(read) {
        let allowed = allowed(read, &[public, viewer, editor, admin, AccessRule::Owner]);
        let detail = format!(
            "{:?} is weaker than read, {:?}, and the answers to writes show records; allowed are {allowed}",
            write.as_str(),
            read.as_str()
        );
        report.add(section.dotted("write"), detail);
    }
    if changes == AccessRule::Owner || !changes.is_as_strict_as(read) {
        let allowed = allowed(read, &[public, viewer, editor, admin]);
        let detail = format!("the change log shows every record, so this is at least as strict as read; allowed are {allowed}");
        report.add(section.dotted("changes"), detail);
    }
}

fn read_owner_field(section: &Section<'_>, names: &Names<'_>, shown: &Shown<'_>, report: &mut Report) -> Option<String> {
    let field = section.text(report, "owner_field")?;
    let key = section.dotted("owner_field");
    let is_id = matches!(shown.id, IdRule::Natural(id) if id == field);
    if is_id || !names.is_property(field) {
        let allowed: Vec<&str> = names.texts().filter(|name| !matches!(shown.id, IdRule::Natural(id) if id == name)).collect();
        report.add(key, format!("{field:?} cannot say whose a record is; allowed are {}", allowed.join(", ")));
        return None;
    }
    match names.find(&key, field, report) {
        Some(Field { scalar: ScalarType::Text, array: false }) => return Some(field.to_owned()),
        Some(_) => report.add(key, format!("{field:?} cannot say whose a record is: only a string, or a string or null, can")),
        None => {}
    }
    None
}

fn read_fields(section: &Section<'_>, names: &Names<'_>, access: &Access, report: &mut Report) -> BTreeMap<String, FieldAccess> {
    let Some(section) = section.section(report, "fields") else { return BTreeMap::new() };
    let mut fields = BTreeMap::new();
    for (name, _) in section.entries() {
        let Some(rules) = section.section(report, name) else { continue };
        rules.refuse_unknown(report, &["read", "write"]);
        if rules.get("read").is_none() && rules.get("write").is_none() {
            report
                .add(section.dotted(name), "this says nothing; write for example { read = \"admin\" } or { write = \"editor\" }");
        }
        if ServerFields::ALL.contains(&name) || !names.is_property(name) {
            let properties = names.properties().collect::<Vec<_>>().join(", ");
            report.add(section.dotted(name), format!("there is no property {name:?}; allowed are {properties}"));
            continue;
        }
        let read = rules.access(report, "read", AccessRule::Public);
        // Whoever writes the records may set it, unless they may not see it.
        let writers = if access.write == AccessRule::Owner { AccessRule::Viewer } else { access.write };
        let default = if read.is_as_strict_as(writers) { read } else { writers };
        let write = rules.access(report, "write", default);
        fields.insert(name.to_owned(), FieldAccess { read, write });
        for (key, rule) in [("read", read), ("write", write)] {
            if rule == AccessRule::Owner {
                report.add(rules.dotted(key), "\"owner\" is for whole records; allowed are public, viewer, editor, admin");
            }
        }
        if !write.is_as_strict_as(read) {
            let detail = format!("{:?} is weaker than read: nobody sets what they may not see", write.as_str());
            report.add(rules.dotted("write"), detail);
        }
    }
    fields
}

/// No other part of the file may show a member to those it is hidden from, or ask it of those who may not set it.
fn check_field(name: &str, field: FieldAccess, access: &Access, (names, shown): (&Names<'_>, &Shown<'_>), report: &mut Report) {
    let key = format!("access.fields.{name}");
    if matches!(shown.id, IdRule::Natural(id) if id == name) {
        report.add(&key, "this is the id, which everybody may see, and set when they create");
        return;
    }
    if access.owner_field.as_deref() == Some(name) {
        report.add(
            &key,
            "this is the owner_field: whoever may read a record may see it, and only administrators give a record away",
        );
        return;
    }
    // Whoever may write the collection may create.
    if !access.write.is_as_strict_as(field.write) && names.requires(name) {
        report.add(&key, "this is in schema.required, and some who may create records may not set it: leave it out there");
    }
    if access.read.is_as_strict_as(field.read) {
        return;
    }
    if shown.search.iter().any(|search| search.field == name) {
        report.add(&key, "this is in [search], so that searches tell what it holds: leave it out there");
    }
    if shown.sort.iter().any(|sort| sort.field == name) {
        report.add(&key, "this is in sort, so that lists tell what it holds: leave it out there");
    }
    let root = names.schema().as_object();
    let joins: Vec<&str> =
        root.into_iter().flatten().map(|(keyword, _)| keyword.as_str()).filter(|keyword| !HARMLESS.contains(keyword)).collect();
    for keyword in joins {
        let mentions = |keyword: &str| names.schema().get(keyword).is_some_and(|value| mentions(value, name));
        // What `$defs` holds counts where something else than a property may refer to it.
        if COUNTS.contains(&keyword) || mentions(keyword) || mentions("$defs") {
            let detail =
                format!("schema.{keyword} is about several members, so that it tells what this one holds: leave it out there");
            report.add(&key, detail);
        }
    }
}

/// Whether the name occurs in a schema, as a key or a text, or what counts all members.
fn mentions(value: &Json, name: &str) -> bool {
    match value {
        Json::String(text) => text == name,
        Json::Array(elements) => elements.iter().any(|element| mentions(element, name)),
        Json::Object(members) => {
            members.iter().any(|(key, value)| key == name || COUNTS.contains(&key.as_str()) || mentions(value, name))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}
