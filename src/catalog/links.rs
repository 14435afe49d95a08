//! What spans files: names and paths that occur twice, and references to collections.

use std::path::Path;

use super::section::Report;
use crate::config::Source;
use crate::model::{Collection, CollectionName};

use super::path::collides;

/// A name or a path, and the file that declared it first.
struct Claim<T> {
    value: T,
    source: Source,
}

/// Names and paths that are taken, in the order of the files.
#[derive(Default)]
pub(super) struct Claims {
    names: Vec<Claim<CollectionName>>,
    paths: Vec<Claim<String>>,
}

impl Claims {
    /// Takes `name`; a mistake if another file has it: an API key's scope would name both.
    pub(super) fn name(&mut self, name: &CollectionName, report: &mut Report) {
        match self.names.iter().find(|claim| claim.value == *name) {
            Some(first) => report.add("name", format!("{} has the name {name} already; names are unique", first.source)),
            None => self.names.push(Claim { value: name.clone(), source: report.source().clone() }),
        }
    }

    /// Takes `path`; a mistake if it is another's, or that of another's records.
    pub(super) fn path(&mut self, path: &str, report: &mut Report) {
        match self.paths.iter().find(|claim| collides(path, &claim.value) || collides(&claim.value, path)) {
            Some(first) => {
                let taken = format!("{} and {}/{{id}} are those of {}", first.value, first.value, first.source);
                report.add("path", format!("{path} collides: {taken}"));
            }
            None => self.paths.push(Claim { value: path.to_owned(), source: report.source().clone() }),
        }
    }
}

/// Every reference must lead to a collection; `declared` has the names of all files, even of those with mistakes.
pub(super) fn check_references(collection: &Collection, declared: &[String], report: &mut Report) {
    for (field, target) in &collection.references {
        if !declared.iter().any(|name| name == target.as_str()) {
            let allowed = declared.join(", ");
            report.add(
                format!("references.{field}"),
                format!("there is no collection {:?}; allowed are {allowed}", target.as_str()),
            );
        }
    }
}

/// The name that a file declares. One that cannot be read, or has no name, is taken to declare that of the file, so
/// that its one mistake makes no others elsewhere.
pub(super) fn declared_name(file: &Path, table: Option<&toml::Table>) -> Option<String> {
    let name = table.and_then(|table| table.get("name")).and_then(toml::Value::as_str);
    name.or_else(|| file.file_stem()?.to_str()).map(str::to_owned)
}
