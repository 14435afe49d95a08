//! What a declared collection needs on PostgreSQL: a partition, expression indexes, GIN indexes for its arrays, for its
//! search a trigger that fills the column `search`, with one GIN index, and its tallies (see there). The name of each has a hash of its definition, so
//! that a changed definition is another artifact; only a partition is the same whatever the collection declares, and stays.
//!
//! GIN indexes keep new entries in a list, which every search reads whole and which one write in many has to empty; so it is
//! kept at a quarter of its usual size. Measured with 20,000 records in batches of 1,000, beside no list at all and a list of
//! the usual 4 MB: an import takes 2.6 s (5.5 and 2.2), a write of one record 0.25 ms in the middle and 35 ms at worst (0.5
//! and 5; 0.3 and 4, the large list was never full), a search between writes 3.3 ms at p95 (4.2 and 5.6).

use super::{PostgresDialect, tallies};
use crate::error::Result;
use crate::model::{Collection, CollectionName, ServerFields, SortKey};
use crate::store::column::Column;
use crate::store::dialect::literal;
use crate::store::order::direction_text;
use crate::store::structure::{Artifact, IndexWork, Work, describe_index, index_keys, named, needed_indexes};

/// In KiB.
const PENDING_ENTRIES: &str = "gin_pending_list_limit = 1024";
/// How many records one transaction of a backfill rewrites: about a tenth of a second, for which their writers wait.
const BACKFILL_RECORDS: usize = 1_000;
/// The most characters of a record that can be found by search; see `terrace_words` in the migrations.
const SEARCH_CHARACTERS: usize = 200_000;

/// What the name of a collection's table begins with.
pub(super) const PARTITION_PREFIX: &str = "records_";

/// The table of a collection's records.
pub(super) fn partition(collection: &CollectionName) -> String {
    format!("{PARTITION_PREFIX}{collection}")
}

/// Everything the collection needs.
pub(super) fn artifacts(collection: &Collection) -> Result<Vec<Artifact>> {
    let mut artifacts = vec![table(collection)];
    // There is no other way to the records in the order of their versions.
    for fields in needed_indexes(collection).into_iter().chain([vec![ServerFields::VERSION.to_owned()]]) {
        artifacts.push(index(collection, &fields)?);
    }
    for field in collection.indexes.iter().filter_map(|index| index.fields.first()) {
        if collection.fields.get(field).is_some_and(|kind| kind.array) {
            artifacts.push(array_index(collection, field)?);
        }
    }
    if !collection.search.is_empty() {
        artifacts.push(search_index(collection));
        artifacts.push(search_trigger(collection));
    }
    artifacts.push(tallies::artifact(collection));
    Ok(artifacts)
}

/// Made beside the others and then attached: creating it in its place would lock all collections. It is never dropped. All
/// of it is done or nothing, so a table that is there, because a crash came before it was noted down, is whole.
fn table(collection: &Collection) -> Artifact {
    let (table, literal) = (partition(&collection.name), literal(&collection.name));
    Artifact {
        creation: vec![Work::Together(format!(
            "DO $block$ BEGIN IF to_regclass('{table}') IS NULL THEN \
             CREATE TABLE {table} (LIKE records INCLUDING ALL);\
             CREATE TRIGGER terrace_refuse_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION terrace_refuse_truncate();\
             ALTER TABLE records ATTACH PARTITION {table} FOR VALUES IN ({literal});\
             END IF; END $block$;"
        ))],
        removal: "SELECT".to_owned(),
        description: format!("table of {}", collection.name),
        name: table,
        collection: collection.name.clone(),
    }
}

fn index(collection: &Collection, fields: &[String]) -> Result<Artifact> {
    let keys = index_keys(collection, fields);
    let column = |SortKey { field, direction }: &SortKey| {
        let column = Column::in_index(&PostgresDialect, collection, field)?;
        Ok(format!("{}{}", column.value, direction_text(*direction, column.nullable)))
    };
    let columns = keys.iter().map(column).collect::<Result<Vec<_>>>()?.join(", ");
    Ok(made_by_index(collection, "index", &format!("({columns})"), &describe_index(fields, &keys)))
}

fn array_index(collection: &Collection, field: &str) -> Result<Artifact> {
    let json = Column::in_index(&PostgresDialect, collection, field)?.json;
    let definition = format!("USING gin ({json} jsonb_path_ops) WITH ({PENDING_ENTRIES})");
    Ok(made_by_index(collection, "terms", &definition, &format!("elements of {field}")))
}

fn search_index(collection: &Collection) -> Artifact {
    made_by_index(collection, "search", &format!("USING gin (search) WITH ({PENDING_ENTRIES})"), "search")
}

fn made_by_index(collection: &Collection, kind: &str, definition: &str, columns: &str) -> Artifact {
    let name = named(kind, &collection.name, definition);
    let table = partition(&collection.name);
    let definition = format!("ON {table} {definition}");
    Artifact {
        creation: vec![Work::Index(IndexWork { name: name.clone(), table, definition })],
        removal: format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"),
        description: format!("index on {} ({columns})", collection.name),
        name,
        collection: collection.name.clone(),
    }
}

/// The trigger has one name whatever it does, so a new definition takes the place of the old one in one moment; what then
/// drops the old one's function finds no trigger of it any more.
fn search_trigger(collection: &Collection) -> Artifact {
    let (table, literal) = (partition(&collection.name), literal(&collection.name));
    let each = SEARCH_CHARACTERS / collection.search.len().max(1);
    let vectors = |row: &str| {
        let vectors = collection.search.iter().map(|search| {
            let vector = format!("terrace_vector({row}.data ->> '{}', {each})", search.field);
            format!("setweight({vector}, '{:?}')", search.weight)
        });
        // A word of its own between two fields, which is then taken out: no phrase reaches from one into the next.
        format!("ts_delete({}, '.')", vectors.collect::<Vec<_>>().join(" || '''.'':1'::tsvector || "))
    };
    let (new, present) = (vectors("new"), vectors("record"));
    let name = named("find", &collection.name, &new);
    let fields: Vec<&str> = collection.search.iter().map(|search| search.field.as_str()).collect();
    Artifact {
        creation: vec![
            Work::Together(format!(
                "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $function$ \
                 BEGIN new.search := {new}; RETURN new; END $function$;\
                 CREATE OR REPLACE TRIGGER terrace_search BEFORE INSERT OR UPDATE OF data ON {table} FOR EACH ROW \
                 EXECUTE FUNCTION {name}();"
            )),
            // Nobody's version changes: what is found is not part of a record.
            Work::Walk {
                // The collection is named for the order of the primary key: each part would read the whole table without it.
                before: format!(
                    "WITH batch AS (SELECT record.id, {present} AS search FROM {table} AS record \
                     WHERE record.collection = {literal} AND record.id > "
                ),
                after: format!(
                    " ORDER BY record.id LIMIT {BACKFILL_RECORDS} FOR NO KEY UPDATE), filled AS (UPDATE {table} AS record \
                     SET search = batch.search FROM batch WHERE record.collection = {literal} AND record.id = batch.id \
                     AND record.search IS DISTINCT FROM batch.search) SELECT max(batch.id) AS last FROM batch"
                ),
            },
        ],
        removal: format!("DROP FUNCTION IF EXISTS {name}() CASCADE"),
        description: format!("search on {} ({})", collection.name, fields.join(", ")),
        name,
        collection: collection.name.clone(),
    }
}
