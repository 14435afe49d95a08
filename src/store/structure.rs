//! What the declared collections need besides the base tables, compared with what there is. Steps create and drop
//! only what Terrace made for a declared collection: never records, changes, or anything of a collection that is no
//! longer declared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::connection::{Connection, Task};
use super::dialect::{Dialect, is_safe_name};
use super::failure::Failure;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{Collection, CollectionName, Direction, ServerFields, SortKey};

/// For how long writers may have to wait for a change of a table that does not get its lock, and for how long they then have
/// their peace.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the lock of a [`Work::Snapshot`] is tried.
const ADVISORY_LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// One thing that Terrace makes in the database for a collection. Its name stands for its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    pub name: String,
    pub collection: CollectionName,
    /// Without a verb, for example `index on metrics (category, then -updated_at, id)`.
    pub description: String,
    /// What makes it and fills it from the records, in this order.
    pub creation: Vec<Work>,
    /// SQL that removes it.
    pub removal: String,
}

/// A part of a creation. Each can be done again if a crash came between it and the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Statements that are done together or not at all, and quickly.
    Together(String),
    /// An index on a table that may be large and may be written to meanwhile.
    Index(IndexWork),
    /// A change of every record, in the order of their ids. Each run changes some and returns the `last` id among them; it
    /// stands between what is given here and there, and begins with no id, which is before all others.
    Walk { before: String, after: String },
    /// Statements that see one state of the database and are done together or not at all, however long that takes, while nobody
    /// else has the advisory lock. On PostgreSQL.
    Snapshot { lock: String, statements: String },
}

/// An index on PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexWork {
    pub name: String,
    pub table: String,
    /// What stands behind `CREATE INDEX … name`.
    pub definition: String,
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

impl Step {
    /// Whether it makes indexes and nothing else.
    pub(super) fn is_index(&self) -> bool {
        self.artifact.creation.iter().all(|work| matches!(work, Work::Index(_)))
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
struct CountRow {
    #[diesel(sql_type = BigInt)]
    total: i64,
}

#[derive(QueryableByName)]
struct LastRow {
    #[diesel(sql_type = Nullable<Text>)]
    last: Option<String>,
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
    Ok(compare(connection.dialect(), collections, present)?)
}

/// The same for a database that has no tables yet.
pub(super) fn plan_anew(dialect: &dyn Dialect, collections: &[Arc<Collection>]) -> Result<Vec<Step>> {
    compare(dialect, collections, Vec::new())
}

fn compare(dialect: &dyn Dialect, collections: &[Arc<Collection>], present: Vec<ArtifactRow>) -> Result<Vec<Step>> {
    let mut present: BTreeMap<String, ArtifactRow> = present.into_iter().map(|row| (row.name.clone(), row)).collect();
    let mut steps = Vec::new();
    // A declared index may be the one that the default order needs, too.
    let mut needed = BTreeSet::new();
    for collection in collections {
        for artifact in dialect.artifacts(collection)? {
            if needed.insert(artifact.name.clone()) && present.remove(&artifact.name).is_none() {
                steps.push(Step { change: StepChange::Create, artifact });
            }
        }
    }
    let mut drops = Vec::new();
    for (name, row) in present {
        let Some(declared) = collections.iter().find(|collection| collection.name.as_str() == row.collection) else { continue };
        let (collection, description, removal) = (declared.name.clone(), row.description, row.removal);
        let artifact = Artifact { name, collection, description, creation: Vec::new(), removal };
        drops.push(Step { change: StepChange::Drop, artifact });
    }
    drops.sort_by(|left, right| left.artifact.description.cmp(&right.artifact.description));
    steps.append(&mut drops);
    Ok(steps)
}

/// Does one step. What another process has made since the plan is left as it is: the name stands for the definition.
///
/// On SQLite it runs in a transaction, so a failure leaves nothing half made. On PostgreSQL it must not, because indexes are
/// made concurrently; a failure leaves what the same step, done again, finds and completes. There the connection has no
/// time limits and holds the installation's lock.
impl Task<()> for Step {
    async fn run(&self, connection: &mut Connection<'_>) -> Result<(), Failure> {
        let Artifact { name, collection, description, creation, removal } = &self.artifact;
        match self.change {
            StepChange::Create => {
                let mut present = Statement::new("SELECT name, collection, description, removal FROM artifacts WHERE name = ");
                present.text(name);
                if !connection.load::<ArtifactRow>(present).await?.is_empty() {
                    return Ok(());
                }
                for work in creation {
                    do_work(connection, work).await?;
                }
                let mut record = Statement::new("INSERT INTO artifacts (name, collection, description, removal) VALUES (");
                record
                    .text(name)
                    .sql(", ")
                    .text(collection.as_str())
                    .sql(", ")
                    .text(description)
                    .sql(", ")
                    .text(removal)
                    .sql(")");
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
}

async fn do_work(connection: &mut Connection<'_>, work: &Work) -> Result<(), Failure> {
    match work {
        Work::Together(sql) => make_together(connection, sql).await?,
        Work::Index(index) => make_index(connection, index).await?,
        Work::Walk { before, after } => {
            let mut last = Some(String::new());
            while let Some(id) = last {
                let mut statement = Statement::new(before.clone());
                statement.text(id).sql(after.clone());
                last = connection.load::<LastRow>(statement).await?.pop().and_then(|row| row.last);
            }
        }
        Work::Snapshot { lock, statements } => in_snapshot(connection, lock, statements).await?,
    }
    Ok(())
}

/// The lock comes first: a snapshot that was taken before would not see what its last holder has written. It is tried again and
/// again, for whoever waits for it inside of PostgreSQL has a snapshot, too. A failure leaves a transaction open, and the connection
/// is then given up.
async fn in_snapshot(connection: &mut Connection<'_>, lock: &str, statements: &str) -> Result<(), Failure> {
    while total(connection, format!("SELECT pg_try_advisory_lock({lock})::int::bigint AS total")).await? == 0 {
        tokio::time::sleep(ADVISORY_LOCK_INTERVAL).await;
    }
    connection.batch(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {statements}; COMMIT")).await?;
    Ok(connection.batch(&format!("SELECT pg_advisory_unlock({lock})")).await?)
}

/// Takes little time once it has its locks; but whoever has written in a transaction that is still open keeps it from them,
/// and behind it everybody else who wants to write. So it does not wait for long, steps back and tries again.
async fn make_together(connection: &mut Connection<'_>, sql: &str) -> Result<(), Failure> {
    let Connection::Postgres(_) = connection else { return Ok(connection.batch(sql).await?) };
    let patient = format!("SET LOCAL lock_timeout = {}; {sql}", LOCK_PATIENCE.as_millis());
    loop {
        match connection.batch(&patient).await.map_err(Failure::from) {
            Err(failure) if failure.is_lock_timeout() => {
                tracing::warn!("a transaction that is open in PostgreSQL is in the way of a change of the tables; trying again");
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

/// Concurrently, so that nobody who writes has to wait; and the planner learns at once what the index is good for. An empty
/// table takes no time, and spares the three transactions.
pub(super) async fn make_index(connection: &mut Connection<'_>, index: &IndexWork) -> Result<(), Failure> {
    let IndexWork { name, table, definition } = index;
    // What a failed attempt left behind is kept up to date by every write and used by nobody.
    let invalid = format!("SELECT count(*) AS total FROM pg_index WHERE NOT indisvalid AND indexrelid = to_regclass('{name}')");
    if total(connection, invalid).await? > 0 {
        connection.batch(&format!("DROP INDEX CONCURRENTLY {name}")).await?;
    }
    if total(connection, format!("SELECT count(*) AS total FROM (SELECT FROM {table} LIMIT 1) AS probe")).await? == 0 {
        return make_together(connection, &format!("CREATE INDEX IF NOT EXISTS {name} {definition};")).await;
    }
    connection.batch(&format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} {definition}")).await?;
    Ok(connection.batch(&format!("ANALYZE {table}")).await?)
}

async fn total(connection: &mut Connection<'_>, question: String) -> Result<i64, Failure> {
    let rows: Vec<CountRow> = connection.load(Statement::new(question)).await?;
    Ok(rows.first().map_or(0, |row| row.total))
}

/// A name of at most 63 bytes (PostgreSQL's limit) that no other definition has: 64 bits tell apart the definitions of
/// collections whose names begin with the same 24 characters.
pub(super) fn named(kind: &str, collection: &CollectionName, definition: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{collection}\n{definition}").as_bytes());
    let name = collection.as_str();
    format!("terrace_{kind}_{}_{hash:016x}", name.get(..24).unwrap_or(name))
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

/// The columns of an index for people: its own fields, then what they are followed by.
pub(super) fn describe_index(fields: &[String], keys: &[SortKey]) -> String {
    let text = |key: &SortKey| match key.direction {
        Direction::Ascending => key.field.clone(),
        Direction::Descending => format!("-{}", key.field),
    };
    let (own, rest) = keys.split_at(fields.len().min(keys.len()));
    let own: Vec<String> = own.iter().map(text).collect();
    let rest: Vec<String> = rest.iter().map(text).collect();
    match (own.is_empty(), rest.is_empty()) {
        (true, _) => rest.join(", "),
        (false, true) => own.join(", "),
        (false, false) => format!("{}, then {}", own.join(", "), rest.join(", ")),
    }
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
