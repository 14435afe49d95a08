//! `[audit]` of a collection file: which members the change log does not show, to nobody.

use toml::Value;

use super::collection::Names;
use super::section::{Report, Section, type_name};
use crate::model::IdRule;

/// The names under `redact`, sorted. Only a declared property can be meant: a misspelt one would show what was to be hidden.
pub(super) fn read(section: &Section<'_>, names: &Names<'_>, id: &IdRule, report: &mut Report) -> Vec<String> {
    let Some(section) = section.section(report, "audit") else { return Vec::new() };
    section.refuse_unknown(report, &["redact"]);
    let key = section.dotted("redact");
    let entries = match section.get("redact") {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => {
            report.add(key, format!("this is {}, but must be an array of properties", type_name(other)));
            return Vec::new();
        }
    };
    let mut redact = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let key = format!("{key}[{position}]");
        match entry.as_str() {
            Some(name) if *id == IdRule::Natural(name.to_owned()) => {
                report.add(key, format!("{name:?} is the id, which each change is shown with"));
            }
            Some(name) if names.is_property(name) => redact.push(name.to_owned()),
            Some(name) => {
                let declared = names.properties().collect::<Vec<_>>().join(", ");
                report.add(key, format!("{name:?} is no property of the schema; declared are {declared}"));
            }
            None => report.add(key, format!("this is {}, but must be the name of a property", type_name(entry))),
        }
    }
    redact.sort();
    redact.dedup();
    redact
}
