//! Writers who meet: nothing is lost, written twice or left without what it refers to. Who goes first is decided by locks
//! that the tests hold, never by time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use diesel::connection::InstrumentationEvent;
use diesel_async::AsyncConnection as _;
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use super::schema::{Schema, Session};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::store::connection::{Access, Connection};
use crate::store::{Among, Told};

/// The database of `fixture` as another process opens it: with further `options` of a session, and a name by which its
/// sessions are told from those of other tests.
async fn opened(fixture: &Fixture, options: &str, name: &str) -> Store {
    opened_at(&fixture.directory.settings.url, fixture, options, name).await
}

async fn opened_at(url: &str, fixture: &Fixture, options: &str, name: &str) -> Store {
    let (server, path) = url.split_once('?').unwrap();
    let url = format!("{server}?application_name={name}&{path}{options}");
    let settings = DatabaseSettings { url, ..fixture.directory.settings.clone() };
    Store::open(&settings, Duration::from_secs(5), &fixture.telemetry).await.unwrap()
}

/// A session past Terrace that looks at the same schema, and writes as the server does.
fn session(fixture: &Fixture) -> Session {
    let mut session = Session::open(&fixture.directory.settings.url).unwrap();
    session.execute("SET terrace.writer = 'server'");
    session
}

fn name() -> String {
    format!("race_{}", uuid::Uuid::now_v7().simple())
}

/// Waits until as many sessions of this name wait for locks.
pub(super) async fn until_waiting(watcher: &mut Session, name: &str, sessions: usize) {
    let asked = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'");
    let deadline = Instant::now() + Duration::from_secs(20);
    while watcher.query(&asked).unwrap()[0][0] != Some(sessions.to_string()) {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn spawned<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Plans an update of what is there, or else a creation.
fn next(key: &str, existing: &crate::store::Existing) -> WritePlan {
    let before = existing.get(&id(key));
    let version = before.map_or(1, |record| record.version + 1);
    let document = json!({"key": key, "tier": version, "version": version, "created_at": "x", "updated_at": "x"});
    let write = RecordWrite {
        id: id(key),
        operation: if before.is_some() { Operation::Update } else { Operation::Create },
        version,
        data: Some(document.to_string()),
        before: before.map(|record| record.data.clone()),
        created_at: "x".into(),
        updated_at: "x".into(),
        pointer: String::new(),
    };
    WritePlan { writes: vec![write], ..WritePlan::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_another_write_overtook_is_made_again() {
    let fixture = fresh_postgres().await;
    let start = fixture.store.snapshot().await.unwrap();
    let other = std::sync::Mutex::new(Session::open(&fixture.directory.settings.url).unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // It is not there when the first plan is made, and it is when that is carried out.
    let planner: Planner = Arc::new(move |existing| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut other = other.lock().unwrap();
            other.execute(r#"INSERT INTO records (collection, id, data) VALUES ('items', 'a', '{"key": "a"}')"#);
        }
        Ok(next("a", existing))
    });
    let committed = fixture.store.record_write(&fixture.items, author(), vec![id("a")], planner).await.unwrap();
    assert_eq!((committed.records[0].as_ref().unwrap().version, calls.load(Ordering::Relaxed)), (2, 2));
    let logged = fixture.store.changes_since(&start, None, 10).await.unwrap().changes;
    let logged: Vec<(Operation, bool)> = logged.iter().map(|change| (change.operation, change.before.is_some())).collect();
    assert_eq!(logged, [(Operation::Create, false), (Operation::Update, true)]);
}

#[tokio::test]
async fn a_plan_that_is_always_overtaken_ends_with_the_setting() {
    let Fixture { store: first, items, telemetry, directory, .. } = fresh().await;
    put(&first, &items, &[json!({"key": "a"})]).await;
    let settings = DatabaseSettings { acquire_timeout: Duration::from_millis(300), ..directory.settings.clone() };
    let store = Store::open(&settings, Duration::from_secs(5), &telemetry).await.unwrap();
    let start = store.snapshot().await.unwrap();
    // As if it was never there when the plan is made.
    let planner: Planner = Arc::new(|_| Ok(next("a", &crate::store::Existing::new())));
    let error = store.record_write(&items, author(), vec![id("a")], planner).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.detail().contains("database.acquire_timeout") && error.retry_after().is_some(), "{error}");
    assert_eq!(changes(&store, &start).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_a_deadlock_ended_is_written_after_the_other() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a"}), json!({"key": "b"})]).await;
    // Who waits looks for a circle once, after this time, and gives way if it finds one: the batch, with time enough for the other
    // one to come, and never the other one. Only the superuser may set it.
    let administrator = fixture.directory.settings.url.replacen("//terrace@", "//postgres@", 1);
    let (name, mut other, mut watcher) = (name(), Session::open(&administrator).unwrap(), Session::open(&administrator).unwrap());
    other.execute("SET terrace.writer = 'server'; SET deadlock_timeout = '1min'");
    let store = opened_at(&administrator, &fixture, "%20-c%20deadlock_timeout%3D4s", &name).await;
    let increment = |key: &str| format!("UPDATE records SET version = version + 1 WHERE collection = 'items' AND id = '{key}'");
    other.execute("BEGIN");
    other.execute(&increment("b"));
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, items, writer) = (Arc::clone(&calls), Arc::clone(&fixture.items), store.clone());
    let planner: Planner = Arc::new(move |existing| {
        counted.fetch_add(1, Ordering::Relaxed);
        let writes = ["a", "b"].into_iter().flat_map(|key| next(key, existing).writes).collect();
        Ok(WritePlan { writes, ..WritePlan::default() })
    });
    let writing = spawned(async move { writer.record_write(&items, author(), vec![id("a"), id("b")], planner).await });
    until_waiting(&mut watcher, &name, 1).await;
    tokio::task::block_in_place(|| other.execute(&increment("a")));
    other.execute("COMMIT");
    let committed = writing.await.unwrap().unwrap();
    let versions: Vec<i64> = committed.records.iter().map(|record| record.as_ref().unwrap().version).collect();
    assert_eq!((versions, calls.load(Ordering::Relaxed)), (vec![3, 3], 1), "both updates count, in the order of their locks");
}

#[tokio::test]
async fn a_write_that_could_not_be_serialized_is_run_again() {
    let fixture = fresh_postgres().await;
    // A sequence remembers what was rolled back.
    session(&fixture).execute(
        "CREATE SEQUENCE attempts; \
         CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('attempts') = 1 THEN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END IF; \
         RETURN NEW; END $$; \
         CREATE TRIGGER refuse_once BEFORE INSERT ON records_items FOR EACH ROW EXECUTE FUNCTION refuse_once()",
    );
    let start = fixture.store.snapshot().await.unwrap();
    put(&fixture.store, &fixture.items, &[json!({"key": "a"})]).await;
    let attempts = session(&fixture).query("SELECT last_value FROM attempts").unwrap();
    assert_eq!(attempts[0][0].as_deref(), Some("2"));
    assert_eq!(changes(&fixture.store, &start).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reference_is_left_to_what_is_deleted_meanwhile_whoever_is_first() {
    for options in ["", "%20-c%20default_transaction_isolation%3Drepeatable%5C%20read"] {
        for is_creator_first in [true, false] {
            let fixture = fresh_postgres().await;
            put(&fixture.store, &fixture.groups, &[json!({"key": "g"})]).await;
            let (name, mut holder, mut watcher) = (name(), session(&fixture), session(&fixture));
            // Two processes.
            let (one, other) = (opened(&fixture, options, &name).await, opened(&fixture, options, &name).await);
            let (items, groups) = (Arc::clone(&fixture.items), Arc::clone(&fixture.groups));
            let creation = async move {
                let check = ReferenceCheck {
                    pointer: "/group".into(),
                    collection: groups.name.clone(),
                    id: "g".into(),
                    among: Among::All,
                };
                try_put(&one, &items, &[json!({"key": "a", "group": "g"})], vec![check]).await.map(drop)
            };
            let (items, groups) = (fixture.items.name.clone(), Arc::clone(&fixture.groups));
            let deletion = async move {
                remove(&other, &groups, &["g"], vec![Referrer { collection: items, field: "group".into(), told: Told::Exactly }])
                    .await
                    .map(drop)
            };
            // The log is the last thing that is written.
            holder.execute("BEGIN; LOCK TABLE changes IN SHARE ROW EXCLUSIVE MODE");
            let (created, deleted) = if is_creator_first {
                let creating = spawned(creation);
                until_waiting(&mut watcher, &name, 1).await;
                (creating, spawned(deletion))
            } else {
                let deleting = spawned(deletion);
                until_waiting(&mut watcher, &name, 1).await;
                (spawned(creation), deleting)
            };
            until_waiting(&mut watcher, &name, 2).await;
            holder.execute("COMMIT");
            let code = |outcome: Result<()>| outcome.err().map(|error: Error| error.violations()[0].code.to_string());
            let outcomes = (code(created.await.unwrap()), code(deleted.await.unwrap()));
            let expected = match is_creator_first {
                true => (None, Some("referenced".to_owned())),
                false => (Some("unknown_reference".to_owned()), None),
            };
            assert_eq!(outcomes, expected, "{options}");
            let left = fixture.store.record_scan(&fixture.items, None, 10).await.unwrap().len();
            assert_eq!(left, usize::from(is_creator_first));
        }
    }
}

#[tokio::test]
async fn a_batch_takes_one_transaction_and_as_many_round_trips_whatever_its_size() {
    let schema = Schema::create();
    let settings = DatabaseSettings { url: schema.url(), min_connections: 1, max_connections: 1, ..DatabaseSettings::default() };
    let place = Place { settings, _directory: tempfile::tempdir().unwrap(), _schema: Some(schema) };
    let Fixture { store, items, groups, directory: _directory, .. } = fresh_in(place).await;
    put(&store, &groups, &[json!({"key": "g"})]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let counting = store.run("count", "", Access::Read, move |connection| {
        let counted = Arc::clone(&counted);
        async move {
            let Connection::Postgres(connection) = connection else { panic!("another database") };
            connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
                if matches!(event, InstrumentationEvent::StartQuery { .. }) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            Ok(())
        }
        .boxed()
    });
    counting.await.unwrap();
    let cost = async |documents: Vec<Value>| {
        asked.store(0, Ordering::Relaxed);
        let check =
            |at| ReferenceCheck { pointer: format!("/{at}"), collection: groups.name.clone(), id: "g".into(), among: Among::All };
        let checks = (0..documents.len()).map(check).collect();
        let committed = try_put(&store, &items, &documents, checks).await.unwrap();
        let first = committed.positions[0].transaction;
        assert!(committed.positions.iter().all(|position| position.transaction == first));
        asked.load(Ordering::Relaxed)
    };
    let documents = |range: std::ops::Range<usize>| range.map(|at| json!({"key": format!("k{at}"), "group": "g"})).collect();
    cost(documents(0..1)).await;
    // Half are created, half are updated.
    let (few, many) = (cost(documents(0..2)).await, cost(documents(1..1_001)).await);
    assert!(few == many && (6..12).contains(&few), "{few} and {many}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_goes_away_leaves_no_lock_behind() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a"})]).await;
    let (name, mut holder, mut other) = (name(), session(&fixture), session(&fixture));
    let (store, items) = (opened(&fixture, "", &name).await, Arc::clone(&fixture.items));
    let writer = store.clone();
    holder.execute("BEGIN; LOCK TABLE changes IN SHARE ROW EXCLUSIVE MODE");
    let planner: Planner = Arc::new(|existing| Ok(next("a", existing)));
    let writing = spawned(async move { writer.record_write(&items, author(), vec![id("a")], planner).await });
    until_waiting(&mut other, &name, 1).await;
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    holder.execute("COMMIT");
    // Nobody asks the store's pool for a connection meanwhile.
    other.execute("SET lock_timeout = '20s'; UPDATE records SET version = version + 1 WHERE id = 'a'");
    let version = other.query("SELECT version FROM records WHERE id = 'a'").unwrap();
    assert_eq!(version[0][0].as_deref(), Some("2"), "what was not committed did not happen");
    drop(store);
}

#[tokio::test]
async fn a_large_batch_is_planned_without_blocking_the_runtime() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (receiver, calls) = (std::sync::Mutex::new(receiver), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let planner: Planner = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let answered = receiver.lock().unwrap().recv_timeout(Duration::from_secs(10));
        answered.map(|()| WritePlan::default()).map_err(Error::internal)
    });
    // One thread has both, and the planner waits for the other.
    let other = async {
        while calls.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sender.send(()).unwrap();
    };
    let ids = (0..100).map(|at| id(&format!("k{at}"))).collect();
    let (written, ()) = futures_util::join!(store.record_write(&items, author(), ids, planner), other);
    written.unwrap();
}
