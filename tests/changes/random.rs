//! Whatever commits when, and however often a client is cut off and comes back elsewhere: each change is told once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::events::Events;
use super::public_with;
use crate::support::Server;
use crate::support::database::Database;
use crate::support::fixture::{ITEMS, item};
use crate::support::schema::{Session, Tested};

const LIVE: &str = "/api/items/_changes?live";
const WRITERS: usize = 4;
const WRITES: usize = 40;
/// On PostgreSQL: transactions past Terrace, open beside each other, that end in another order than they began.
const FOREIGN: usize = 25;

/// Reads until the change of the record END, which comes last, and is cut off at random.
async fn follow(servers: Arc<Vec<Server>>, place: String) -> Vec<String> {
    let (mut told, mut last) = (Vec::new(), place);
    loop {
        let server = &servers[fastrand::usize(..servers.len())];
        let mut feed = Events::open(server, LIVE, Some(&last)).await;
        let cut = fastrand::usize(1..30);
        for _ in 0..cut {
            let change = feed.change().await;
            told.push(change["position"].as_str().unwrap().to_owned());
            if change["id"] == "END" {
                // Whatever comes now comes twice.
                feed.beat().await;
                feed.beat().await;
                return told;
            }
        }
        last = feed.last.clone().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_cut_off_at_random_have_each_change_once() {
    let first = public_with(|settings| {
        settings.changes.heartbeat = Duration::from_millis(200);
        settings.cache.reconcile_interval = Duration::from_millis(20);
    });
    let servers = Arc::new(vec![first.beside(|_| {}), first.beside(|_| {}), first]);
    let place = Events::open(&servers[0], LIVE, None).await.last.clone().unwrap();
    let clients: Vec<_> = (0..3).map(|_| tokio::spawn(follow(Arc::clone(&servers), place.clone()))).collect();
    let writers = (0..WRITERS).map(|writer| {
        let servers = Arc::clone(&servers);
        tokio::spawn(async move {
            for number in 0..WRITES {
                let server = &servers[fastrand::usize(..servers.len())];
                match fastrand::usize(..4) {
                    0 => server.create_items((0..5).map(|part| item(&format!("W{writer}-{number}-{part}"), "a"))).await,
                    1 => drop(
                        server.put(&format!("{ITEMS}/S{writer}"), &json!({"name": "s", "category": "b", "tier": number})).await,
                    ),
                    _ => drop(server.create_item(item(&format!("W{writer}-{number}"), "a")).await),
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let url = servers[0].settings.database.url.clone();
    let foreign = (Tested::now() == Tested::Postgres).then(|| tokio::task::spawn_blocking(move || write_past_terrace(&url)));
    for writer in writers {
        writer.await.unwrap();
    }
    if let Some(foreign) = foreign {
        foreign.await.unwrap();
    }
    servers[1].create_item(item("END", "a")).await;
    let logged = Database::of(&servers[0]).texts(match Tested::now() {
        Tested::Sqlite => "SELECT position || '-' || position AS value FROM changes WHERE collection = 'items' ORDER BY position",
        Tested::Postgres => {
            "SELECT transaction || '-' || position AS value FROM changes WHERE collection = 'items' ORDER BY position"
        }
    });
    for client in clients {
        let told = client.await.unwrap();
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        told.iter().for_each(|position| *count.entry(position).or_default() += 1);
        let lost: Vec<_> = logged.iter().filter(|position| !count.contains_key(position.as_str())).collect();
        let twice: Vec<_> = count.iter().filter(|(_, times)| **times > 1).collect();
        assert!(lost.is_empty() && twice.is_empty() && told.len() == logged.len(), "lost {lost:?}, twice {twice:?}");
    }
}

fn write_past_terrace(url: &str) {
    let mut open: Vec<Session> = Vec::new();
    for number in 0..FOREIGN {
        let mut session = Session::open(url).unwrap();
        session.execute("BEGIN");
        for part in 0..3 {
            session.execute(&format!(
                r#"INSERT INTO records (collection, id, data) VALUES ('items', 'F{number}-{part}', '{{"sku": "F{number}-{part}"}}')"#
            ));
        }
        open.push(session);
        while open.len() > 4 {
            open.swap_remove(fastrand::usize(..open.len())).execute("COMMIT");
        }
    }
    while !open.is_empty() {
        open.swap_remove(fastrand::usize(..open.len())).execute("COMMIT");
    }
}
