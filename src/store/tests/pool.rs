//! PostgreSQL: every runtime has connections of its own, and takes those of others when there may be no more.

use diesel::prelude::QueryableByName;
use diesel::sql_types::Integer;
use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use tokio::task::JoinHandle;

use super::foreign::psql;
use super::schema::Session;
use super::*;
use crate::store::Shape;
use crate::store::connection::Access;
use crate::store::statement::Statement;

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

/// Whose connections are made by those who need them, and by nobody else.
fn at_most(max_connections: u32) -> Place {
    let mut place = Place::postgres();
    (place.settings.min_connections, place.settings.max_connections) = (0, max_connections);
    place
}

/// The process of the server that carries out the next statement.
async fn backend(store: &Store) -> i32 {
    let read = store.run("backend", "", Access::Read, |connection| {
        async {
            let rows: Vec<Backend> = connection.load(Statement::new("SELECT pg_backend_pid() AS pid")).await?;
            Ok(rows[0].pid)
        }
        .boxed()
    });
    read.await.unwrap()
}

/// The processes of two connections of this runtime. One after the other the reads would be content with one.
async fn both(store: &Store) -> [i32; 2] {
    for _ in 0..100 {
        let (one, other) = tokio::join!(backend(store), backend(store));
        if one != other {
            return [one, other];
        }
    }
    panic!("nobody makes a second connection");
}

/// What a thread with a runtime of its own reads, one after the other, until it `is_done`.
fn backends(store: &Store, is_done: impl Fn(&[i32]) -> bool + Send + 'static) -> JoinHandle<Vec<i32>> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut seen = Vec::new();
            while !is_done(&seen) {
                assert!(seen.len() < 1_500, "{seen:?}");
                seen.push(backend(&store).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            seen
        })
    })
}

/// Nothing but the last of `seen`, often enough.
fn is_settled(seen: &[i32]) -> bool {
    seen.len() >= 20 && seen[seen.len() - 20..].iter().all(|pid| Some(pid) == seen.last())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_runtime_comes_to_use_a_connection_of_its_own() {
    let fixture = fresh_in(at_most(4)).await;
    let first = backend(&fixture.store).await;
    let threads = [(), ()].map(|()| backends(&fixture.store, is_settled));
    let [one, other] = try_join_all(threads).await.unwrap().try_into().unwrap();
    assert!([one[0], other[0]].contains(&first), "neither takes the one that is there: {one:?} {other:?}");
    let own = [first, *one.last().unwrap(), *other.last().unwrap()];
    assert!(own[0] != own[1] && own[1] != own[2] && own[0] != own[2], "{own:?}");
    assert_eq!(backend(&fixture.store).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_may_be_no_more_they_share() {
    let fixture = fresh_in(at_most(1)).await;
    let only = backend(&fixture.store).await;
    let threads = [(), (), ()].map(|()| backends(&fixture.store, |seen| seen.len() == 50));
    for seen in try_join_all(threads).await.unwrap() {
        assert!(seen.iter().all(|pid| *pid == only), "{only}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_runtime_has_ended_is_replaced() {
    let fixture = fresh_in(at_most(2)).await;
    let first = backend(&fixture.store).await;
    let ended = *backends(&fixture.store, is_settled).await.unwrap().last().unwrap();
    assert_ne!(ended, first);
    // There are as many as there may be, and one of them is dead.
    let seen = backends(&fixture.store, is_settled).await.unwrap();
    assert!(!seen.contains(&ended), "{ended}: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_runtime_has_long_not_used_makes_room_for_those_of_another() {
    let fixture = fresh_in(at_most(2)).await;
    let [one, other] = both(&fixture.store).await;
    let seen = backends(&fixture.store, move |seen| is_settled(seen) && !seen.ends_with(&[one]) && !seen.ends_with(&[other]));
    let seen = seen.await.unwrap();
    assert!([one, other].contains(&seen[0]), "nobody waits for one to be made");
}

/// A table of records that others wait for, until this is told otherwise.
struct Locked {
    holder: Session,
    operator: Session,
    table: String,
}

impl Locked {
    fn new(fixture: &Fixture, collection: &Collection) -> Self {
        let ((mut holder, schema), (operator, _)) = (psql(fixture), psql(fixture));
        let table = format!("{schema}.records_{}", collection.name);
        holder.execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
        Self { holder, operator, table }
    }

    fn sessions(&mut self, columns: &str) -> Vec<Vec<Option<String>>> {
        let waiting = format!("SELECT {columns} FROM pg_locks WHERE NOT granted AND relation = '{}'::regclass", self.table);
        self.operator.query(&waiting).unwrap()
    }

    /// Until as many sessions wait for the table; no more came in the meantime.
    async fn wait_for(&mut self, sessions: usize) {
        let mut seen = 0;
        for _ in 0..500 {
            seen = self.sessions("pid").len();
            assert!(seen <= sessions, "{seen} wait");
            if seen == sessions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{seen} wait and not {sessions}");
    }

    fn release(&mut self) {
        self.holder.execute("COMMIT");
    }
}

/// Looks as many records up that are there, at the same time.
fn lookups(store: &Store, collection: &Arc<Collection>, count: usize) -> Vec<JoinHandle<Result<Option<Row>>>> {
    let lookup = |_| {
        let (store, collection) = (store.clone(), Arc::clone(collection));
        tokio::spawn(async move { store.record_read(&collection, &id("a"), &Shape::default()).await })
    };
    (0..count).map(lookup).collect()
}

fn assert_found(read: Result<Option<Row>>) {
    assert!(read.unwrap().is_some());
}

#[tokio::test]
async fn lookups_share_a_connection_until_they_are_many() {
    let fixture = fresh_in(at_most(4)).await;
    let (store, items, groups) = (&fixture.store, &fixture.items, &fixture.groups);
    put(store, items, &[json!({"key": "a"})]).await;
    put(store, groups, &[json!({"key": "a"})]).await;
    let mut locked = Locked::new(&fixture, items);
    let mut reads = lookups(store, items, 32);
    locked.wait_for(1).await;
    reads.extend(lookups(store, items, 1));
    locked.wait_for(2).await;
    reads.extend(lookups(store, items, 31));
    // Those of another collection do not wait behind them, nor for a connection: there are two more.
    for read in lookups(store, groups, 100) {
        assert_found(read.await.unwrap());
    }
    locked.wait_for(2).await;
    locked.release();
    for read in reads {
        assert_found(read.await.unwrap());
    }
}

#[tokio::test]
async fn who_shares_a_connection_that_is_lost_gets_an_answer_over_another() {
    let fixture = fresh_in(at_most(4)).await;
    let (store, items) = (&fixture.store, &fixture.items);
    put(store, items, &[json!({"key": "a"})]).await;
    let mut locked = Locked::new(&fixture, items);
    let reads = lookups(store, items, 20);
    locked.wait_for(1).await;
    let lost = locked.sessions("pg_terminate_backend(pid)");
    assert_eq!(lost, [[Some("t".to_owned())]]);
    locked.release();
    for read in join_all(reads).await {
        assert_found(read.unwrap());
    }
}

#[tokio::test]
async fn behind_others_a_lookup_waits_no_longer_than_for_a_connection_of_its_own() {
    let mut place = at_most(4);
    let patience = Duration::from_millis(500);
    place.settings.acquire_timeout = patience;
    let fixture = fresh_in(place).await;
    let (store, items) = (&fixture.store, &fixture.items);
    put(store, items, &[json!({"key": "a"})]).await;
    let mut locked = Locked::new(&fixture, items);
    let begun = std::time::Instant::now();
    for read in join_all(lookups(store, items, 30)).await {
        assert!(read.unwrap().is_err());
    }
    // One after the other they would give the lock up only after fifteen seconds.
    assert!(begun.elapsed() < 10 * patience, "{:?}", begun.elapsed());
    locked.release();
    assert_found(store.record_read(items, &id("a"), &Shape::default()).await);
}
