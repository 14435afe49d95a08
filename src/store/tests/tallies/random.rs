//! Random histories: the server and others write by all their routes, and what is tallied is held against what is there.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const KEYS: u32 = 40;

fn some_key(random: &mut fastrand::Rng) -> String {
    format!("k{}", random.u32(0..KEYS))
}

/// Documents of different keys.
fn some_documents(random: &mut fastrand::Rng, most: usize) -> Vec<Value> {
    let keys: std::collections::BTreeSet<String> = (0..random.usize(1..=most)).map(|_| some_key(random)).collect();
    keys.iter().map(|key| document(random, key)).collect()
}

/// A write of the server's.
async fn server_write(fixture: &Fixture, random: &mut fastrand::Rng) {
    let (store, items) = (&fixture.store, &fixture.items);
    match random.u8(0..10) {
        0..5 => _ = put(store, items, &some_documents(random, 1)).await,
        5..7 => _ = put(store, items, &some_documents(random, 30)).await,
        7 => {
            // Refused in the end, when everything was written.
            let missing = ReferenceCheck {
                pointer: String::new(),
                collection: fixture.groups.name.clone(),
                id: "missing".to_owned(),
                among: Default::default(),
            };
            try_put(store, items, &some_documents(random, 30), vec![missing]).await.unwrap_err();
        }
        _ => {
            let present = store.record_scan(items, None, random.u32(1..30)).await.unwrap();
            let keys: Vec<&str> = present.iter().map(|record| record.id.as_str()).collect();
            // Somebody else may be faster.
            if !keys.is_empty() {
                _ = remove(store, items, &keys, Vec::new()).await;
            }
        }
    }
}

/// A write of somebody else's, by way of the parent or to the partition, in the end taken back or not.
fn foreign_write(session: &mut Session, schema: &str, random: &mut fastrand::Rng) {
    let (parent, partition) = (format!("{schema}.records"), format!("{schema}.records_items"));
    let table = if random.bool() { &parent } else { &partition };
    let key = some_key(random);
    let literal = document(random, &key).to_string().replace('\'', "''");
    let few = format!("collection = 'items' AND hashtext(id) % 5 = {}", random.u8(0..5));
    let statement = match random.u8(0..9) {
        0..3 => format!(
            "INSERT INTO {table} (collection, id, data) VALUES ('items', '{key}', '{literal}') \
             ON CONFLICT (collection, id) DO UPDATE SET data = excluded.data"
        ),
        3 => format!("UPDATE {table} SET data = '{literal}' WHERE {few}"),
        4 => format!("UPDATE {table} SET data = data || '{{\"note\": \"same\"}}' WHERE {few}"),
        5 => format!("DELETE FROM {table} WHERE {few}"),
        6 => format!("UPDATE {table} SET id = id || 'x' WHERE {few} AND length(id) < 9"),
        7 => format!(
            "UPDATE {parent} SET collection = 'groups' WHERE {few} AND id NOT IN (SELECT id FROM {schema}.records_groups)"
        ),
        _ => format!(
            "UPDATE {parent} SET collection = 'items' WHERE collection = 'groups' \
             AND id NOT IN (SELECT id FROM {schema}.records_items)"
        ),
    };
    let end = if random.u8(0..4) == 0 { "ROLLBACK" } else { "COMMIT" };
    let savepoint = if random.u8(0..4) == 0 {
        format!("SAVEPOINT part; DELETE FROM {table} WHERE collection = 'items'; ROLLBACK TO part;")
    } else {
        String::new()
    };
    // Two who write the same id at once.
    if session.query(&format!("BEGIN; {savepoint} {statement}; {end}")).is_err() {
        session.execute("ROLLBACK");
    }
}

#[tokio::test]
async fn what_anybody_writes_in_turn_is_tallied() {
    let fixture = fresh_postgres().await;
    let (mut others, schema) = psql(&fixture);
    let mut session = beside(&fixture);
    assert_eq!(fields_in(&mut session, "items", "complete"), FIELDS);
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        for step in 0..60 {
            match random.u8(0..8) {
                0..4 => server_write(&fixture, &mut random).await,
                4..7 => foreign_write(&mut others, &schema, &mut random),
                _ => _ = fixture.store.tally("", random.u32(1..50)).await.unwrap(),
            }
            if step % 4 == 0 {
                agree(&fixture).await;
            }
        }
        sum_up(&fixture.store).await;
        agree(&fixture).await;
        assert_eq!(number(&mut session, "SELECT count(*) FROM tally_changes"), 0);
        let twice = "SELECT count(*) FROM (SELECT FROM tallies GROUP BY collection, field, value HAVING count(*) > 1) AS twice";
        assert_eq!(number(&mut session, twice), 0);
        assert_eq!(number(&mut session, "SELECT count(*) FROM tallies WHERE records <= 0"), 0);
    }
    assert_eq!(fields_in(&mut session, "items", "complete"), FIELDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_snapshot_among_writers_and_sums_agrees_with_its_records() {
    let fixture = Arc::new(fresh_postgres().await);
    put(&fixture.store, &fixture.items, &some_documents(&mut fastrand::Rng::with_seed(1), 30)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let (shared, over) = (Arc::clone(&fixture), Arc::clone(&is_over));
    let server = tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(7);
        while !over.load(Ordering::Relaxed) {
            // Without references, of which a locked one would be waited for.
            put(&shared.store, &shared.items, &some_documents(&mut random, 20)).await;
        }
    });
    let (shared, over) = (Arc::clone(&fixture), Arc::clone(&is_over));
    let summing = tokio::spawn(async move {
        let mut sums = 0;
        while !over.load(Ordering::Relaxed) {
            sums += shared.store.tally("", 7).await.unwrap().map_or(0, |tallied| tallied.changes);
        }
        sums
    });
    let (mut others, schema) = psql(&fixture);
    let over = Arc::clone(&is_over);
    let foreign = std::thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(8);
        while !over.load(Ordering::Relaxed) {
            foreign_write(&mut others, &schema, &mut random);
        }
    });
    let (mut session, items) = (beside(&fixture), Arc::clone(&fixture.items));
    let reading = tokio::task::spawn_blocking(move || {
        for _ in 0..60 {
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ");
            agree_in(&mut session, &items);
            session.execute("COMMIT");
        }
    });
    let read = reading.await;
    is_over.store(true, Ordering::Relaxed);
    server.await.unwrap();
    assert!(summing.await.unwrap() > 0);
    foreign.join().unwrap();
    read.unwrap();
    agree(&fixture).await;
}
