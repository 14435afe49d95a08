//! What collections need is made while others write, by several processes at once, and after a crash in the middle.

use super::races::until_waiting;
use super::schema::Session;
use super::*;
use crate::store::dialect::Dialect as _;
use crate::store::postgres::PostgresDialect;
use crate::store::structure::Work;

fn session(fixture: &Fixture) -> Session {
    Session::open(&fixture.directory.settings.url).unwrap()
}

/// The collection with one more index, what makes that, and its name.
fn with_index(items: &Collection) -> (Arc<Collection>, String, String) {
    let mut changed = items.clone();
    changed.indexes.push(Index { fields: vec!["note".into()] });
    let before: Vec<String> = PostgresDialect.artifacts(items).unwrap().into_iter().map(|artifact| artifact.name).collect();
    let mut new = PostgresDialect.artifacts(&changed).unwrap();
    new.retain(|artifact| !before.contains(&artifact.name));
    let [Work::Index(index)] = new[0].creation.as_slice() else { panic!("{new:?}") };
    let creation = format!("CREATE INDEX CONCURRENTLY {} {}", index.name, index.definition);
    (Arc::new(changed), index.name.clone(), creation)
}

fn is_valid(session: &mut Session, index: &str) -> Option<String> {
    let asked = format!("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{index}')");
    session.query(&asked).unwrap().pop().and_then(|mut row| row.pop().flatten())
}

async fn apply(store: &Store, collections: &[Arc<Collection>]) {
    let steps = store.plan(collections).await.unwrap();
    assert!(!steps.is_empty());
    store.apply(&steps).await.unwrap();
    assert_eq!(store.plan(collections).await.unwrap(), Vec::new());
}

/// A store whose sessions are told from others by the schema's name.
async fn named(fixture: &Fixture) -> (Store, String) {
    let (server, path) = fixture.directory.settings.url.split_once('?').unwrap();
    let name = path.rsplit_once("%3D").unwrap().1.to_owned();
    let url = format!("{server}?application_name={name}&{path}");
    let settings = DatabaseSettings { url, ..fixture.directory.settings.clone() };
    (Store::open(&settings, Duration::from_secs(5), &fixture.telemetry).await.unwrap(), name)
}

#[tokio::test]
async fn steps_whose_process_died_before_it_noted_them_down_are_done_again() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a", "name": "alpha"}), json!({"key": "b", "name": "beta"})]).await;
    // And in the middle of filling the search.
    session(&fixture)
        .execute("SET terrace.writer = 'server'; DELETE FROM artifacts; UPDATE records SET search = NULL WHERE id = 'b'");
    apply(&fixture.store, &[Arc::clone(&fixture.items), Arc::clone(&fixture.groups)]).await;
    assert_eq!(keys(&fixture.store, &fixture.items, &searching("beta")).await, ["b"]);
    let error = session(&fixture).query("TRUNCATE records_items").unwrap_err();
    assert!(error.to_string().contains("not truncated"), "{error}");
}

#[tokio::test]
async fn an_index_that_a_killed_process_left_invalid_is_made_anew() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a", "note": "x"})]).await;
    let (changed, index, creation) = with_index(&fixture.items);
    let (mut open, mut killed) = (session(&fixture), session(&fixture));
    open.execute("BEGIN; UPDATE records SET search = NULL WHERE id = 'a'");
    killed.execute("SET statement_timeout = '100ms'");
    assert!(killed.query(&creation).unwrap_err().to_string().contains("statement timeout"));
    open.execute("ROLLBACK");
    assert_eq!(is_valid(&mut open, &index).as_deref(), Some("f"), "this test is about an invalid index");
    apply(&fixture.store, &[changed, Arc::clone(&fixture.groups)]).await;
    assert_eq!(is_valid(&mut open, &index).as_deref(), Some("t"));
}

#[tokio::test]
async fn writers_go_on_while_an_index_and_a_search_wait_for_an_open_transaction() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a", "note": "gamma"}), json!({"key": "open"})]).await;
    let (with_index, index, _) = with_index(&fixture.items);
    let mut with_search = (*with_index).clone();
    with_search.search.remove(0);
    let (mut open, mut watcher) = (session(&fixture), session(&fixture));
    for (at, changed) in [with_index, Arc::new(with_search)].into_iter().enumerate() {
        let (store, name) = named(&fixture).await;
        open.execute("BEGIN; UPDATE records SET search = NULL WHERE id = 'open'");
        let collections = [Arc::clone(&changed), Arc::clone(&fixture.groups)];
        let applying = tokio::spawn(async move { apply(&store, &collections).await });
        until_waiting(&mut watcher, &name, 1).await;
        // As long as the transaction is open.
        for write in 0..3 {
            put(&fixture.store, &fixture.items, &[json!({"key": format!("new{at}{write}"), "note": "gamma"})]).await;
        }
        assert!(!applying.is_finished());
        open.execute("COMMIT");
        applying.await.unwrap();
        assert_eq!(keys(&fixture.store, &changed, &searching("gamma")).await.len(), 1 + 3 * (at + 1));
    }
    assert_eq!(is_valid(&mut watcher, &index).as_deref(), Some("t"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_that_start_at_once_make_everything_once() {
    let place = Place::new();
    let starts = (0..3).map(|_| {
        let settings = place.settings.clone();
        tokio::spawn(async move {
            let store = Store::open(&settings, Duration::from_secs(5), &Telemetry::new().unwrap()).await.unwrap();
            store.migrate().await.unwrap();
            let collections = [Arc::new(items()), Arc::new(groups())];
            let steps = store.plan(&collections).await.unwrap();
            store.apply(&steps).await.unwrap();
            assert_eq!(store.plan(&collections).await.unwrap(), Vec::new());
            store
        })
    });
    let starts: Vec<_> = starts.collect();
    for (at, start) in starts.into_iter().enumerate() {
        let store = start.await.unwrap();
        put(&store, &Arc::new(items()), &[json!({"key": format!("k{at}"), "name": "alpha", "tags": ["x"]})]).await;
        assert_eq!(keys(&store, &Arc::new(items()), &searching("alpha")).await.len(), at + 1);
    }
}

#[derive(diesel::QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
    line: String,
}

/// A part of the whole is a range of the primary key: otherwise each would cost as much as all.
#[tokio::test]
async fn records_are_filled_in_the_order_of_their_key_and_read_once() {
    use futures_util::FutureExt as _;

    use crate::store::connection::Access;
    use crate::store::statement::Statement;

    let fixture = fresh_postgres().await;
    session(&fixture).execute(
        "SET terrace.writer = 'server'; INSERT INTO records_items (collection, id, version, data, created_at, updated_at)
         SELECT 'items', 'k' || n, 1, '{}', 'x', 'x' FROM generate_series(1, 20000) AS n",
    );
    fixture.store.analyze(&fixture.items.name).await.unwrap();
    let artifacts = PostgresDialect.artifacts(&fixture.items).unwrap();
    let walks = artifacts.iter().flat_map(|artifact| &artifact.creation).filter_map(|work| match work {
        Work::Walk { before, after } => Some((before.clone(), after.clone())),
        Work::Together(_) | Work::Index(_) | Work::Snapshot { .. } => None,
    });
    for (before, after) in walks {
        let explained = fixture.store.run("explain", "", Access::Write, move |connection| {
            let mut statement = Statement::new(format!("EXPLAIN (ANALYZE, TIMING OFF) {before}"));
            statement.text("k5").sql(after.clone());
            async move { Ok(connection.load::<PlanRow>(statement).await?) }.boxed()
        });
        let plan = explained.await.unwrap().into_iter().map(|row| row.line).collect::<Vec<_>>().join("\n");
        let rows = plan.split("actual rows=").skip(1).map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
        assert!(rows.max().unwrap() <= 1_000 && !plan.contains("Sort"), "{plan}");
    }
}

#[tokio::test]
async fn the_planner_learns_what_is_in_a_collection() {
    let fixture = fresh_postgres().await;
    let documents: Vec<Value> = (0..500).map(|at| json!({"key": format!("k{at}"), "category": "x"})).collect();
    put(&fixture.store, &fixture.items, &documents).await;
    fixture.store.analyze(&fixture.items.name).await.unwrap();
    let counted = session(&fixture).query("SELECT reltuples FROM pg_class WHERE oid = 'records_items'::regclass").unwrap();
    assert_eq!(counted[0][0].as_deref(), Some("500"));
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused() {
    let administrator = schema::required("TEST_POSTGRES").replacen("//terrace@", "//postgres@", 1);
    let name = format!("latin_{}", uuid::Uuid::now_v7().simple());
    let mut session = Session::open(&administrator).unwrap();
    session.execute(&format!("CREATE DATABASE {name} OWNER terrace ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"));
    let url = format!("{}/{name}", schema::required("TEST_POSTGRES").rsplit_once('/').unwrap().0);
    let settings = DatabaseSettings { url, ..DatabaseSettings::default() };
    let store = Store::open(&settings, Duration::from_secs(5), &Telemetry::new().unwrap()).await.unwrap();
    let refused = store.migrate().await;
    drop(store);
    session.execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
    let error = refused.unwrap_err();
    assert!(error.detail().contains("database.url") && error.detail().contains("UTF8"), "{error}");
}

#[tokio::test]
async fn a_schema_that_does_not_exist_is_said_to() {
    let fixture = fresh_postgres().await;
    let url = fixture.directory.settings.url.replace("%3Dt_", "%3Dnowhere_");
    let settings = DatabaseSettings { url, ..fixture.directory.settings.clone() };
    let store = Store::open(&settings, Duration::from_secs(5), &fixture.telemetry).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(error.detail().contains("search_path") && error.detail().contains("database.url"), "{error}");
}
