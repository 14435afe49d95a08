//! Writes that are done once: who comes second gets the first one's answer, whatever happened in between.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::races::until_waiting;
use super::schema::Session;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::store::{KeptAnswer, Once, OnceOutcome};

const NOW: &str = "2026-06-02T00:00:00.000000Z";
const SINCE: &str = "2026-06-01T00:00:00.000000Z";

fn once(key: &str, fingerprint: &str) -> Once {
    once_of("tester", key, fingerprint)
}

fn once_of(actor: &str, key: &str, fingerprint: &str) -> Once {
    Once {
        actor: actor.to_owned(),
        key: key.to_owned(),
        fingerprint: fingerprint.to_owned(),
        now: NOW.to_owned(),
        since: SINCE.to_owned(),
        answering: Arc::new(|committed| {
            Ok(KeptAnswer {
                status: 201,
                position: committed.positions.last().copied(),
                headers: vec![("location".to_owned(), "/é".to_owned())],
                body: committed.records.iter().flatten().map(|record| record.data.clone()).collect(),
            })
        }),
    }
}

/// Creates a record under this id, and counts how often it was asked to.
fn creating(key: &str, calls: &Arc<AtomicUsize>) -> Planner {
    let (key, calls) = (key.to_owned(), Arc::clone(calls));
    Arc::new(move |existing| {
        calls.fetch_add(1, Ordering::Relaxed);
        if !existing.is_empty() {
            return Err(Error::conflict("already_exists", "It is there."));
        }
        let document = json!({"key": key, "version": 1, "created_at": NOW, "updated_at": NOW});
        let write = RecordWrite {
            id: id(&key),
            operation: Operation::Create,
            version: 1,
            data: Some(document.to_string()),
            before: None,
            created_at: NOW.to_owned(),
            updated_at: NOW.to_owned(),
            pointer: String::new(),
        };
        Ok(WritePlan { writes: vec![write], ..WritePlan::default() })
    })
}

async fn create(store: &Store, items: &Arc<Collection>, key: &str, once: Once, calls: &Arc<AtomicUsize>) -> Result<OnceOutcome> {
    store.record_write_once(items, author(), vec![id(key)], creating(key, calls), once).await
}

fn done(outcome: Result<OnceOutcome>) -> Committed {
    match outcome.unwrap() {
        OnceOutcome::Done(committed) => committed,
        other => panic!("{other:?}"),
    }
}

fn kept(outcome: Result<OnceOutcome>) -> KeptAnswer {
    match outcome.unwrap() {
        OnceOutcome::Kept(answer) => answer,
        other => panic!("{other:?}"),
    }
}

async fn answers(store: &Store) -> usize {
    #[derive(diesel::QueryableByName)]
    struct Total {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        total: i64,
    }
    let counted = store.run("count", "", crate::store::connection::Access::Read, |connection| {
        let statement = crate::store::statement::Statement::new("SELECT count(*) AS total FROM idempotency");
        futures_util::FutureExt::boxed(async move { Ok(connection.load::<Total>(statement).await?) })
    });
    usize::try_from(counted.await.unwrap()[0].total).unwrap()
}

#[tokio::test]
async fn the_second_request_gets_the_answer_of_the_first_and_writes_nothing() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let (start, calls) = (store.snapshot().await.unwrap(), Arc::default());
    let first = done(create(&store, &items, "a", once("k", "f"), &calls).await);
    // Another id: as when the server makes it.
    let answer = kept(create(&store, &items, "b", once("k", "f"), &calls).await);
    let record = first.records[0].as_ref().unwrap();
    let headers = vec![("location".to_owned(), "/é".to_owned())];
    assert_eq!(answer, KeptAnswer { status: 201, position: Some(first.positions[0]), headers, body: record.data.clone() });
    assert_eq!((calls.load(Ordering::Relaxed), changes(&store, &start).await), (1, 1));

    assert_eq!(create(&store, &items, "c", once("k", "other"), &calls).await.unwrap(), OnceOutcome::Reused);
    // Keys are their actor's own.
    done(create(&store, &items, "d", once_of("other", "k", "f"), &calls).await);
    assert_eq!((calls.load(Ordering::Relaxed), changes(&store, &start).await), (2, 2));
}

#[tokio::test]
async fn a_write_that_fails_leaves_its_key_free() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    put(&store, &items, &[json!({"key": "a"})]).await;
    let calls = Arc::default();
    let refused = create(&store, &items, "a", once("k", "f"), &calls).await.unwrap_err();
    assert_eq!((refused.kind(), answers(&store).await), (ErrorKind::Conflict, 0));
    let unanswerable = Once { answering: Arc::new(|_| Err(Error::internal("no answer"))), ..once("k", "f") };
    assert_eq!(create(&store, &items, "b", unanswerable, &calls).await.unwrap_err().kind(), ErrorKind::Internal);
    assert!(store.record_read(&items, &id("b"), &Arc::default()).await.unwrap().is_none());
    done(create(&store, &items, "b", once("k", "another"), &calls).await);
    assert_eq!(answers(&store).await, 1);
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_answered_again_too() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let nothing: Planner = Arc::new(|_| Ok(WritePlan::default()));
    let write = || store.record_write_once(&items, author(), vec![id("a")], Arc::clone(&nothing), once("k", "f"));
    assert_eq!(done(write().await), Committed::default());
    assert_eq!(kept(write().await).position, None);
}

#[tokio::test]
async fn an_answer_is_forgotten_after_its_time_whether_it_was_removed_or_not() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let calls = Arc::default();
    done(create(&store, &items, "a", once("k", "f"), &calls).await);
    let later = || Once {
        since: "2026-06-02T00:00:00.000001Z".to_owned(),
        now: "2026-06-03T00:00:00.000000Z".to_owned(),
        ..once("k", "g")
    };
    done(create(&store, &items, "b", later(), &calls).await);
    assert_eq!(kept(create(&store, &items, "c", later(), &calls).await).status, 201);

    for key in ["x", "y", "z"] {
        done(create(&store, &items, key, once(key, "f"), &calls).await);
    }
    let before = "2026-06-02T12:00:00.000000Z";
    assert_eq!(store.idempotency_prune(before, 2).await.unwrap(), 2);
    assert_eq!(store.idempotency_prune(before, 2).await.unwrap(), 1);
    assert_eq!((store.idempotency_prune(before, 2).await.unwrap(), answers(&store).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_writes_and_all_are_answered_the_same() {
    let Fixture { store, items, telemetry, directory, .. } = fresh().await;
    let other = Store::open(&directory.settings, Duration::from_secs(5), &telemetry).await.unwrap();
    let (start, calls) = (store.snapshot().await.unwrap(), Arc::default());
    let tasks = (0..12).map(|number| {
        let (store, items, calls) =
            (if number % 2 == 0 { &store } else { &other }.clone(), Arc::clone(&items), Arc::clone(&calls));
        tokio::spawn(async move { create(&store, &items, &format!("a{number}"), once("k", "f"), &calls).await.unwrap() })
    });
    let (mut written, mut answered) = (Vec::new(), Vec::new());
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            OnceOutcome::Done(committed) => written.push(committed.positions[0]),
            OnceOutcome::Kept(answer) => answered.push(answer.position.unwrap()),
            OnceOutcome::Reused => panic!("it is the same request"),
        }
    }
    assert_eq!((written.len(), answered.len(), changes(&store, &start).await), (1, 11, 1));
    assert!(answered.iter().all(|position| *position == written[0]));
    assert_eq!(calls.load(Ordering::Relaxed), 1, "whoever waited has planned a write");
}

/// Another process holds the key in a transaction that is open: whoever comes waits for its end, and then reads what it left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_another_process_holds_is_waited_for_and_read_again() {
    let fixture = fresh_postgres().await;
    let (store, items) = (&fixture.store, &fixture.items);
    let (mut other, mut watcher) =
        (Session::open(&fixture.directory.settings.url).unwrap(), Session::open(&fixture.directory.settings.url).unwrap());
    let claim = format!("BEGIN; INSERT INTO idempotency VALUES ('tester', 'k', 'f', 200, '7-8', '[]', 'theirs', '{NOW}')");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO idempotency%'";
    for (end, expected) in [("ROLLBACK", None), ("COMMIT", Some("theirs"))] {
        other.execute(&claim);
        let (store, items, calls) = (store.clone(), Arc::clone(items), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&calls);
        let key = format!("made-{end}");
        let writing = tokio::spawn(async move { create(&store, &items, &key, once("k", "f"), &counted).await });
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while watcher.query(waiting).unwrap()[0][0].as_deref() == Some("0") {
            assert!(std::time::Instant::now() < deadline, "nobody waits");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(calls.load(Ordering::Relaxed), 0, "it was planned before the key was its own");
        other.execute(end);
        match expected {
            None => drop(done(writing.await.unwrap())),
            Some(body) => assert_eq!(kept(writing.await.unwrap()).body, body),
        }
        other.execute("DELETE FROM idempotency");
    }
}

/// Two writers with keys of their own who lock each other out: the one that PostgreSQL ends is run again, with its claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_ends_neither_of_two_keys() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a"}), json!({"key": "b"})]).await;
    let administrator = fixture.directory.settings.url.replacen("//terrace@", "//postgres@", 1);
    let name = format!("once_{}", uuid::Uuid::now_v7().simple());
    let (mut other, mut watcher) = (Session::open(&administrator).unwrap(), Session::open(&administrator).unwrap());
    other.execute("SET terrace.writer = 'server'; SET deadlock_timeout = '1min'");
    let (server, path) = administrator.split_once('?').unwrap();
    let url = format!("{server}?application_name={name}&{path}%20-c%20deadlock_timeout%3D1s");
    let settings = DatabaseSettings { url, ..fixture.directory.settings.clone() };
    let store = Store::open(&settings, Duration::from_secs(5), &fixture.telemetry).await.unwrap();
    let lock = |key: &str| format!("UPDATE records SET version = version + 1 WHERE collection = 'items' AND id = '{key}'");
    other.execute("BEGIN");
    other.execute(&lock("b"));
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, items) = (Arc::clone(&calls), Arc::clone(&fixture.items));
    let planner: Planner = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(WritePlan::default())
    });
    let writing =
        tokio::spawn(
            async move { store.record_write_once(&items, author(), vec![id("a"), id("b")], planner, once("k", "f")).await },
        );
    until_waiting(&mut watcher, &name, 1).await;
    tokio::task::block_in_place(|| other.execute(&lock("a")));
    other.execute("COMMIT");
    done(writing.await.unwrap());
    assert_eq!((calls.load(Ordering::Relaxed), answers(&fixture.store).await), (1, 1));
}

/// Passes everything on, until it sees the COMMIT of a write with a key: that reaches the server, and its answer nobody.
async fn swallowing_proxy(target: String, swallowed: Arc<AtomicUsize>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (mut server, swallowed) = (TcpStream::connect(&target).await.unwrap(), Arc::clone(&swallowed));
            tokio::spawn(async move {
                let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
                let mut has_key = false;
                loop {
                    tokio::select! {
                        read = client.read(&mut up) => {
                            let Ok(length @ 1..) = read else { return };
                            let sent = &up[..length];
                            let has = |text: &[u8]| sent.windows(text.len()).any(|window| window == text);
                            has_key |= has(b"UPDATE idempotency");
                            server.write_all(sent).await.unwrap();
                            if has_key && has(b"COMMIT") && swallowed.fetch_add(1, Ordering::Relaxed) == 0 {
                                let _ = server.read(&mut down).await;
                                return;
                            }
                        }
                        read = server.read(&mut down) => {
                            let Ok(length @ 1..) = read else { return };
                            if client.write_all(&down[..length]).await.is_err() { return; }
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_which_nobody_knows_is_found_by_its_key() {
    let fixture = fresh_postgres().await;
    let start = fixture.store.snapshot().await.unwrap();
    let url = &fixture.directory.settings.url;
    let authority = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    let target = authority.rsplit('@').next().unwrap().to_owned();
    let swallowed = Arc::new(AtomicUsize::new(0));
    let proxy = swallowing_proxy(target.clone(), Arc::clone(&swallowed)).await;
    let settings = DatabaseSettings { url: url.replacen(&target, &proxy.to_string(), 1), ..fixture.directory.settings.clone() };
    let store = Store::open(&settings, Duration::from_secs(5), &fixture.telemetry).await.unwrap();
    let calls = Arc::default();
    let answer = kept(create(&store, &fixture.items, "a", once("k", "f"), &calls).await);
    assert_eq!((answer.status, calls.load(Ordering::Relaxed), changes(&store, &start).await), (201, 1, 1));
    assert_eq!(swallowed.load(Ordering::Relaxed), 1, "the commit was not cut off");
}
