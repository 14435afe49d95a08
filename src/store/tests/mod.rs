//! The store's suite. Every test opens a database of its own through [`fresh`], of the kind that this run is about
//! (`TEST_DATABASE`), or through [`fresh_sqlite`] where it is about what only SQLite does.

mod accounts;
mod audit;
mod copy;
mod explain;
mod filters;
mod foreign;
mod idempotency;
mod installation;
mod log;
mod opening;
mod paging;
mod plans;
mod pool;
mod races;
#[path = "../../../tests/support/schema.rs"]
#[allow(dead_code, reason = "the integration tests use the rest of it")]
mod schema;
mod search;
mod shapes;
mod steps;
mod tallies;
mod words;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use schema::{Schema, Tested};

use super::{Author, Committed, Planner, RecordWrite, ReferenceCheck, Referrer, Row, Store, WritePlan};
use crate::config::DatabaseSettings;
use crate::error::Result;
use crate::model::*;
use crate::telemetry::Telemetry;

/// A store over a new database that has the structure of [`items`] and [`groups`].
struct Fixture {
    store: Store,
    telemetry: Telemetry,
    items: Arc<Collection>,
    groups: Arc<Collection>,
    directory: Place,
}

/// Where a database can be made, which goes with this.
struct Place {
    settings: DatabaseSettings,
    _directory: TempDir,
    _schema: Option<Schema>,
}

impl Place {
    /// Of the kind that this run is about.
    fn new() -> Self {
        match Tested::now() {
            Tested::Sqlite => Self::sqlite(),
            Tested::Postgres => Self::postgres(),
        }
    }

    fn postgres() -> Self {
        let schema = Schema::create();
        // Many tests share the server.
        let few = DatabaseSettings { min_connections: 1, max_connections: 4, ..DatabaseSettings::default() };
        let settings = DatabaseSettings { url: schema.url(), ..few };
        Self { settings, _directory: tempfile::tempdir().unwrap(), _schema: Some(schema) }
    }

    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("new/terrace.db").display());
        Self { settings: DatabaseSettings { url, ..DatabaseSettings::default() }, _directory: directory, _schema: None }
    }
}

async fn fresh() -> Fixture {
    fresh_in(Place::new()).await
}

/// For tests of what is SQLite's own: its file, its locks, its query plans. It is the same in every run.
async fn fresh_sqlite() -> Fixture {
    fresh_in(Place::sqlite()).await
}

/// For tests of what is PostgreSQL's own: its query plans, and those who write to it past Terrace.
async fn fresh_postgres() -> Fixture {
    fresh_in(Place::postgres()).await
}

async fn fresh_in(place: Place) -> Fixture {
    let telemetry = Telemetry::new().unwrap();
    let store = Store::open(&place.settings, Duration::from_secs(5), &telemetry).await.unwrap();
    store.migrate().await.unwrap();
    let (items, groups) = (Arc::new(items()), Arc::new(groups()));
    let steps = store.plan(&[Arc::clone(&items), Arc::clone(&groups)]).await.unwrap();
    store.apply(&steps).await.unwrap();
    Fixture { store, telemetry, items, groups, directory: place }
}

fn field(scalar: ScalarType) -> Field {
    Field { scalar, array: false }
}

fn collection(name: &str, fields: &[(&str, Field)], indexes: &[&[&str]]) -> Collection {
    let own = [
        ("version", field(ScalarType::Integer)),
        ("created_at", field(ScalarType::Timestamp)),
        ("updated_at", field(ScalarType::Timestamp)),
    ];
    Collection {
        name: CollectionName::parse(name).unwrap(),
        description: None,
        path: format!("/api/v1/{name}"),
        id: IdRule::Natural("key".to_owned()),
        fields: fields.iter().chain(&own).map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        sort: vec![down("updated_at")],
        indexes: indexes.iter().map(|fields| Index { fields: fields.iter().map(ToString::to_string).collect() }).collect(),
        search: Vec::new(),
        cache: CacheTimes {
            record_ttl: Duration::ZERO,
            list_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            max_lag: Duration::ZERO,
        },
        warm: crate::model::WarmPlan::default(),
        access: Access::PUBLIC,
        limits: Default::default(),
        redact: Vec::new(),
        references: BTreeMap::new(),
        schema: json!({}),
    }
}

fn items() -> Collection {
    let mut items = collection(
        "items",
        &[
            ("key", field(ScalarType::Text)),
            ("category", field(ScalarType::Text)),
            ("tier", field(ScalarType::Integer)),
            ("score", field(ScalarType::Number)),
            ("active", field(ScalarType::Boolean)),
            ("tags", Field { scalar: ScalarType::Text, array: true }),
            ("sizes", Field { scalar: ScalarType::Integer, array: true }),
            ("group", field(ScalarType::Text)),
            ("name", field(ScalarType::Text)),
            ("note", field(ScalarType::Text)),
        ],
        &[&["category"], &["tier"], &["score"], &["active"], &["tags"], &["group"], &["category", "tier"], &["name"]],
    );
    items.search = vec![
        SearchField { field: "name".into(), weight: SearchWeight::A },
        SearchField { field: "note".into(), weight: SearchWeight::D },
    ];
    items.references.insert("group".into(), CollectionName::parse("groups").unwrap());
    items
}

fn groups() -> Collection {
    collection("groups", &[("key", field(ScalarType::Text)), ("parent", field(ScalarType::Text))], &[&["parent"]])
}

fn down(field: &str) -> SortKey {
    SortKey { field: field.to_owned(), direction: Direction::Descending }
}

fn up(field: &str) -> SortKey {
    SortKey { field: field.to_owned(), direction: Direction::Ascending }
}

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

fn id(text: &str) -> RecordId {
    RecordId::parse(text).unwrap()
}

fn author() -> Author {
    Author { actor: "tester".to_owned(), origin: None }
}

/// Puts documents, each with its `key`, without checks. The nth one is written at second n.
async fn put(store: &Store, collection: &Arc<Collection>, documents: &[Value]) -> Committed {
    try_put(store, collection, documents, Vec::new()).await.unwrap()
}

async fn try_put(
    store: &Store,
    collection: &Arc<Collection>,
    documents: &[Value],
    references: Vec<ReferenceCheck>,
) -> Result<Committed> {
    let ids = documents.iter().map(|document| id(document["key"].as_str().unwrap())).collect();
    let documents = documents.to_vec();
    let planner: Planner = Arc::new(move |existing| {
        let write = |(at, document): (usize, &Value)| {
            let id = id(document["key"].as_str().unwrap());
            let time = format!("2026-01-01T00:{:02}:{:02}.000000Z", at / 60 % 60, at % 60);
            let before = existing.get(&id);
            let mut document = document.clone();
            document["version"] = json!(before.map_or(1, |record| record.version + 1));
            document["created_at"] = json!(time);
            document["updated_at"] = json!(time);
            RecordWrite {
                operation: if before.is_some() { Operation::Update } else { Operation::Create },
                version: document["version"].as_i64().unwrap(),
                data: Some(document.to_string()),
                before: before.map(|record| record.data.clone()),
                created_at: time.clone(),
                updated_at: time,
                pointer: format!("/{at}"),
                id,
            }
        };
        let writes = documents.iter().enumerate().map(write).collect();
        Ok(WritePlan { writes, references: references.clone(), referrers: Vec::new() })
    });
    store.record_write(collection, author(), ids, planner).await
}

async fn remove(store: &Store, collection: &Arc<Collection>, keys: &[&str], referrers: Vec<Referrer>) -> Result<Committed> {
    let ids: Vec<RecordId> = keys.iter().map(|key| id(key)).collect();
    let order = ids.clone();
    let planner: Planner = Arc::new(move |existing| {
        let write = |(at, id): (usize, &RecordId)| RecordWrite {
            id: id.clone(),
            operation: Operation::Delete,
            version: existing[id].version,
            data: None,
            before: Some(existing[id].data.clone()),
            created_at: String::new(),
            updated_at: "2026-02-01T00:00:00.000000Z".into(),
            pointer: format!("/{at}"),
        };
        let writes = order.iter().enumerate().map(write).collect();
        Ok(WritePlan { writes, references: Vec::new(), referrers: referrers.clone() })
    });
    store.record_write(collection, author(), ids, planner).await
}

/// How many changes the log has that `seen` did not see.
async fn changes(store: &Store, seen: &Snapshot) -> usize {
    store.changes_since(seen, None, 10_000).await.unwrap().changes.len()
}

fn query(filter: Option<Filter>, sort: Vec<SortKey>) -> Query {
    Query {
        selection: Selection { filter, search: None },
        sort,
        paging: Paging::Page { page: 1, limit: 100 },
        count: CountMode::None,
        fields: None,
        include: Vec::new(),
        highlight: false,
    }
}

fn searching(words: &str) -> Query {
    let mut query = query(None, Vec::new());
    query.selection.search = Some(SearchExpression::parse(words, false).unwrap());
    query
}

fn parsed(row: &Row) -> Value {
    serde_json::from_slice(&row.data).unwrap()
}

/// The keys of a page, without the record that follows it.
async fn keys(store: &Store, collection: &Arc<Collection>, query: &Query) -> Vec<String> {
    let rows = store.record_list(collection, query).await.unwrap();
    let limit = query.paging.limit() as usize;
    assert!(rows.len() <= limit + 1);
    rows.iter().take(limit).map(|row| parsed(row)["key"].as_str().unwrap().to_owned()).collect()
}
