//! The catalogue: collection and view files, loaded and checked whole, with the compiled rules of their documents. It
//! knows settings and files; it must not know where records are stored.
//!
//! Nothing here stops at the first mistake: [`Catalog::load`] returns all mistakes of all files.

mod access;
mod audit;
mod collection;
mod fields;
mod files;
mod limits;
mod links;
mod path;
mod schema;
mod section;
#[cfg(test)]
mod tests;
mod view;
mod violations;
mod warm;

use std::sync::Arc;

use jsonschema::Validator;
use serde_json::Value;

use self::files::{Presence, TomlFile};
use self::links::Claims;
use self::section::Report;
use self::view::{Collections, Found};
use crate::config::{CollectionsSettings, Mistake};
use crate::error::Violation;
use crate::model::{Collection, CollectionName, View};

/// Whether a list of the collection can be asked for by this query string.
pub type ListCheck = fn(&Collection, &str) -> crate::error::Result<()>;

/// Every declared collection and view. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Catalog {
    collections: Vec<Arc<Declared>>,
    views: Vec<Arc<View>>,
}

/// A collection with the compiled rules of its documents.
#[derive(Debug)]
pub struct Declared {
    /// The collection as declared.
    pub collection: Arc<Collection>,
    validator: Validator,
}

impl Declared {
    /// What `document` breaks of the collection's schema and of what a database can store; at most 100 violations.
    ///
    /// `document` comes without the members that are the server's, which a client may send back as it read them: the
    /// caller removes `version`, `created_at`, `updated_at`, `_include`, `_highlight` and, where ids are generated,
    /// `id`. A schema with `additionalProperties = false` would refuse them.
    pub fn violations(&self, document: &Value) -> Vec<Violation> {
        violations::violations(&self.validator, &self.collection.schema, document)
    }
}

impl Catalog {
    /// Loads and checks the files of `settings`, and by `check` the lists that they name. The error has every mistake of
    /// every file, in the order of the files.
    pub fn load(settings: &CollectionsSettings, check: ListCheck) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let collection_files = files::read(&settings.dir, Presence::Required, &mut mistakes);
        let view_files = files::read(&settings.views_dir, Presence::Optional, &mut mistakes);
        let mut claims = Claims::default();
        let mut known = Known::new(&collection_files);
        let mut collections = Vec::new();
        for file in &collection_files {
            let (declared, found) = load_collection(file, &mut claims, &known.declared, check);
            mistakes.extend(found);
            if let Some((collection, validator)) = declared {
                known.understood.push(Arc::clone(&collection));
                collections.extend(validator.map(|validator| Arc::new(Declared { collection, validator })));
            }
        }
        let mut views = Vec::new();
        for file in &view_files {
            let (view, found) = load_view(file, &mut claims, &known);
            mistakes.extend(found);
            views.extend(view.map(Arc::new));
        }
        if mistakes.is_empty() { Ok(Self { collections, views }) } else { Err(mistakes) }
    }

    /// Every collection, in the order of the files' names.
    pub fn collections(&self) -> &[Arc<Declared>] {
        &self.collections
    }

    /// The collection `name`.
    pub fn get(&self, name: &CollectionName) -> Option<&Arc<Declared>> {
        self.collections.iter().find(|declared| declared.collection.name == *name)
    }

    /// Every view, in the order of the files' names.
    pub fn views(&self) -> &[Arc<View>] {
        &self.views
    }

    /// The fields that refer to records of `name`, each with its collection.
    pub fn referrers(&self, name: &CollectionName) -> Vec<(CollectionName, String)> {
        let mut referrers = Vec::new();
        for declared in &self.collections {
            let references = declared.collection.references.iter().filter(|(_, target)| *target == name);
            referrers.extend(references.map(|(field, _)| (declared.collection.name.clone(), field.clone())));
        }
        referrers
    }
}

type Loaded<T> = (Option<T>, Vec<Mistake>);

type LoadedCollection = Loaded<(Arc<Collection>, Option<Validator>)>;

fn load_collection(file: &TomlFile, claims: &mut Claims, declared: &[String], check: ListCheck) -> LoadedCollection {
    let mut report = Report::new(file.path.clone());
    let table = match &file.table {
        Ok(table) => table,
        Err(mistake) => return (None, vec![mistake.clone()]),
    };
    let read = collection::read(table, check, &mut report);
    if let Some((collection, _)) = &read {
        claims.name(&collection.name, &mut report);
        claims.path(&collection.path, &mut report);
        links::check_references(collection, declared, &mut report);
    }
    (read.map(|(collection, validator)| (Arc::new(collection), validator)), report.into_mistakes())
}

fn load_view(file: &TomlFile, claims: &mut Claims, known: &Known) -> Loaded<View> {
    let mut report = Report::new(file.path.clone());
    let table = match &file.table {
        Ok(table) => table,
        Err(mistake) => return (None, vec![mistake.clone()]),
    };
    let view = view::read(table, known, &mut report);
    if let Some(view) = &view {
        claims.name(&view.name, &mut report);
        claims.path(&view.path, &mut report);
    }
    (view, report.into_mistakes())
}

/// What is known of the collections while views are read.
struct Known {
    declared: Vec<String>,
    understood: Vec<Arc<Collection>>,
}

impl Known {
    fn new(files: &[TomlFile]) -> Self {
        let names = files.iter().filter_map(|file| links::declared_name(&file.path, file.table.as_ref().ok()));
        Self { declared: names.collect(), understood: Vec::new() }
    }
}

impl Collections for Known {
    fn find(&self, name: &str) -> Found<'_> {
        match self.understood.iter().find(|collection| collection.name.as_str() == name) {
            Some(collection) => Found::Understood(collection),
            None if self.declared.iter().any(|declared| declared == name) => Found::Broken,
            None => Found::Unknown(self.declared.join(", ")),
        }
    }
}
