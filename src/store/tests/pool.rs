//! PostgreSQL: every runtime has connections of its own, and takes those of others when there may be no more.

use diesel::prelude::QueryableByName;
use diesel::sql_types::Integer;
use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use super::*;
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

/// The processes of two connections of this runtime. Another thread carries them on, so one read may be answered before the other
/// begins, and then they are content with one.
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
