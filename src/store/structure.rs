//! What the declared collections need besides the base tables, compared with what there is. Steps create and drop
//! only what Terrace made for a declared collection: never records, changes, or anything of a collection that is no
//! longer declared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;

use super::connection::Connection;
use super::dialect::is_safe_name;
use super::failure::Failure;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{Collection, CollectionName, Direction, ServerFields, SortKey};

/// One thing that Terrace makes in the database for a collection. Its name stands for its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    pub name: String,
    pub collection: CollectionName,
    /// Without a verb, for example `index on metrics (category, then -updated_at, id)`.
    pub description: String,
    /// SQL that makes it and fills it from the records.
    pub creation: String,
    /// SQL that removes it.
    pub removal: String,
}

/// One change of the database that the collection files need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    change: StepChange,
    artifact: Artifact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepChange {
    Create,
    Drop,
}

impl Step {
    /// Whether it removes an index or a search table. Neither holds data of its own.
    pub fn is_drop(&self) -> bool {
        self.change == StepChange::Drop
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.change {
            StepChange::Create => "create",
            StepChange::Drop => "drop",
        };
        write!(formatter, "{verb} {}", self.artifact.description)
    }
}

#[derive(QueryableByName)]
struct ArtifactRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    collection: String,
    #[diesel(sql_type = Text)]
    description: String,
    #[diesel(sql_type = Text)]
    removal: String,
}

/// What has to be done: everything new first, so that a search works until its successor stands.
pub(super) async fn plan(connection: &mut Connection<'_>, collections: &[Arc<Collection>]) -> Result<Vec<Step>, Failure> {
    let query = Statement::new("SELECT name, collection, description, removal FROM artifacts");
    let present: Vec<ArtifactRow> = connection.load(query).await?;
    let mut present: BTreeMap<String, ArtifactRow> = present.into_iter().map(|row| (row.name.clone(), row)).collect();
    let mut steps = Vec::new();
    // A declared index may be the one that the default order needs, too.
    let mut needed = BTreeSet::new();
    for collection in collections {
        for artifact in connection.dialect().artifacts(collection)? {
            if needed.insert(artifact.name.clone()) && present.remove(&artifact.name).is_none() {
                steps.push(Step { change: StepChange::Create, artifact });
            }
        }
    }
    let mut drops = Vec::new();
    for (name, row) in present {
        let Some(declared) = collections.iter().find(|collection| collection.name.as_str() == row.collection) else { continue };
        let (collection, description, removal) = (declared.name.clone(), row.description, row.removal);
        let artifact = Artifact { name, collection, description, creation: String::new(), removal };
        drops.push(Step { change: StepChange::Drop, artifact });
    }
    drops.sort_by(|left, right| left.artifact.description.cmp(&right.artifact.description));
    steps.append(&mut drops);
    Ok(steps)
}

/// Does one step. It runs in a transaction, so a failure leaves nothing half made. What another process has made
/// since the plan is left as it is: the name stands for the definition.
pub(super) async fn apply(connection: &mut Connection<'_>, step: &Step) -> Result<(), Failure> {
    let Artifact { name, collection, description, creation, removal } = &step.artifact;
    match step.change {
        StepChange::Create => {
            let mut present = Statement::new("SELECT name, collection, description, removal FROM artifacts WHERE name = ");
            present.text(name);
            if !connection.load::<ArtifactRow>(present).await?.is_empty() {
                return Ok(());
            }
            connection.batch(creation).await?;
            let mut record = Statement::new("INSERT INTO artifacts (name, collection, description, removal) VALUES (");
            record.text(name).sql(", ").text(collection.as_str()).sql(", ").text(description).sql(", ").text(removal).sql(")");
            connection.execute(record).await?;
        }
        StepChange::Drop => {
            connection.batch(removal).await?;
            let mut forget = Statement::new("DELETE FROM artifacts WHERE name = ");
            forget.text(name);
            connection.execute(forget).await?;
        }
    }
    Ok(())
}

/// A name of at most 63 bytes (PostgreSQL's limit) that no other definition has.
pub(super) fn named(kind: &str, collection: &CollectionName, definition: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(definition.as_bytes()) & 0xffff_ffff;
    format!("terrace_{kind}_{collection}_{hash:08x}")
}

/// The fields of each index of a collection: the default order alone, the server's timestamps (which may always be
/// filtered and sorted by), and every declared index that is not an array.
pub(super) fn needed_indexes(collection: &Collection) -> Vec<Vec<String>> {
    let times = [ServerFields::CREATED_AT, ServerFields::UPDATED_AT];
    let first_of_order = collection.sort.first().map(|key| key.field.as_str());
    let times = times.into_iter().filter(|time| Some(*time) != first_of_order).map(|time| vec![time.to_owned()]);
    let is_array = |field: &String| collection.fields.get(field).is_some_and(|kind| kind.array);
    let declared = collection.indexes.iter().map(|index| index.fields.clone());
    let mut needed: Vec<Vec<String>> = declared.filter(|fields| !fields.iter().any(is_array)).chain(times).collect();
    if !collection.sort.is_empty() {
        needed.push(Vec::new());
    }
    needed
}

/// The columns of an index: its fields, then the default order, then the id, each once.
pub(super) fn index_keys(collection: &Collection, fields: &[String]) -> Vec<SortKey> {
    let ascending = |field: &str| SortKey { field: field.to_owned(), direction: Direction::Ascending };
    let own = fields.iter().map(|field| {
        // Where a field begins the default order, its own index runs the same way.
        let ordered = collection.sort.first().filter(|key| key.field == *field);
        ordered.cloned().unwrap_or_else(|| ascending(field))
    });
    let mut keys: Vec<SortKey> = Vec::new();
    for key in own.chain(collection.sort.iter().cloned()).chain([ascending(collection.id_field())]) {
        if !keys.iter().any(|present| present.field == key.field) {
            keys.push(key);
        }
    }
    keys
}

/// Refuses names that cannot stand in SQL text. `catalog` refuses them first; this is the last line.
pub(super) fn check_names(collection: &Collection) -> Result<()> {
    let searched = collection.search.iter().map(|search| search.field.as_str());
    let indexed = collection.indexes.iter().flat_map(|index| &index.fields).map(String::as_str);
    match searched.chain(indexed).find(|name| !is_safe_name(name)) {
        Some(name) => Err(Error::internal(format!("the field {name:?} of {} cannot stand in SQL", collection.name))),
        None => Ok(()),
    }
}
