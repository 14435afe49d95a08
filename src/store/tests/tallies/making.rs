//! Making tallies of records that are there: beside writers, after a crash, and when a declaration changes.

use super::*;
use crate::store::structure::Work;

/// As a database was before it had tallies: its records are not tallied.
fn without_tallies(session: &mut Session) {
    let removal = session.query("SELECT removal FROM artifacts WHERE name LIKE 'terrace\\_tally\\_items\\_%'").unwrap();
    session.execute(removal[0][0].as_deref().unwrap());
    session.execute(
        "DELETE FROM artifacts WHERE name LIKE 'terrace\\_tally\\_items\\_%'; DELETE FROM tallies WHERE collection = 'items'; \
         DELETE FROM tally_changes WHERE collection = 'items'",
    );
}

/// What makes the tallies of items: what records them, and the statements that count what is there, in one snapshot.
fn making(items: &Collection) -> (String, Vec<String>) {
    let artifact = PostgresDialect.artifacts(items).unwrap().pop().unwrap();
    match &artifact.creation[..] {
        [Work::Together(recording), Work::Snapshot { statements, .. }] => {
            (recording.clone(), statements.split(';').map(str::to_owned).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn some(random: &mut fastrand::Rng, keys: std::ops::Range<u32>) -> Vec<Value> {
    keys.map(|key| document(random, &format!("k{key}"))).collect()
}

#[tokio::test]
async fn tallies_are_made_beside_writers_and_again_after_a_crash() {
    let fixture = fresh_postgres().await;
    let (store, items) = (&fixture.store, &fixture.items);
    let (mut session, mut maker, mut early, mut open) = (beside(&fixture), beside(&fixture), beside(&fixture), beside(&fixture));
    without_tallies(&mut session);
    let mut random = fastrand::Rng::with_seed(11);
    put(store, items, &some(&mut random, 0..60)).await;
    agree(&fixture).await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM tally_changes WHERE collection = 'items'"), 0);

    // Whose snapshot is from before, and who writes nothing yet.
    early.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tallied");
    let (recording, filling) = making(items);
    maker.execute(&format!("SET terrace.writer = 'server'; {recording}"));
    assert_eq!(fields_in(&mut session, "items", "recorded"), FIELDS);
    agree(&fixture).await;

    let change =
        |id: &str| format!(r#"UPDATE records SET data = data || '{{"category": "c3", "tags": ["t9"]}}' WHERE id = '{id}'"#);
    for (round, end) in ["ROLLBACK", "COMMIT"].into_iter().enumerate() {
        put(store, items, &some(&mut random, 50..70)).await;
        open.execute(&format!("BEGIN; {}", change("k1")));
        // Its snapshot is that of its first statement that has one.
        maker.execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}; {}", filling[0], filling[1]));
        // What is committed behind the snapshot: begun before it, behind it, and with a snapshot from before all.
        open.execute("COMMIT");
        put(store, items, &some(&mut random, 65..80)).await;
        remove(store, items, &["k5", "k66"], Vec::new()).await.unwrap();
        put(store, items, &some(&mut random, 5..6)).await;
        if round == 1 {
            early.execute(&format!("{}; DELETE FROM records_items WHERE id = 'k10'; COMMIT", change("k9")));
        }
        maker.execute(&format!("{}; {end}", filling[2..].join(";")));
        let state = if round == 0 { "recorded" } else { "complete" };
        assert_eq!(fields_in(&mut session, "items", state), FIELDS);
        agree(&fixture).await;
    }
    // The step that a crash left undone finds it done.
    let steps = store.plan(&[Arc::clone(items), Arc::clone(&fixture.groups)]).await.unwrap();
    let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["create tallies of items (active, category, group, name, score, tags, tier)"]);
    store.apply(&steps).await.unwrap();
    assert_eq!(fields_in(&mut session, "items", "complete"), FIELDS);
    sum_up(store).await;
    agree(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_while_it_counts_leaves_what_the_next_one_completes() {
    let fixture = fresh_postgres().await;
    let (store, items) = (&fixture.store, &fixture.items);
    let (mut session, mut blocker) = (beside(&fixture), beside(&fixture));
    without_tallies(&mut session);
    let mut random = fastrand::Rng::with_seed(12);
    put(store, items, &some(&mut random, 0..60)).await;
    let steps = store.plan(&[Arc::clone(items)]).await.unwrap();
    let (recording, _) = making(items);
    session.execute(&format!("SET terrace.writer = 'server'; {recording}; SET terrace.writer = ''"));
    // In its middle: what it counts, it cannot write yet.
    blocker.execute("BEGIN; LOCK TABLE tallies IN SHARE MODE");
    let (shared, planned) = (store.clone(), steps.clone());
    let dying = tokio::spawn(async move { shared.apply(&planned).await });
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE '%terrace_tally_items%'";
    while session.query(waiting).unwrap().is_empty() && !dying.is_finished() {
        assert!(std::time::Instant::now() < deadline, "it does not wait");
        tokio::task::yield_now().await;
    }
    dying.await.unwrap().unwrap_err();
    blocker.execute("COMMIT");
    assert!(fields_in(&mut session, "items", "complete").is_empty());
    put(store, items, &some(&mut random, 30..80)).await;
    agree(&fixture).await;
    store.apply(&steps).await.unwrap();
    assert_eq!(fields_in(&mut session, "items", "complete"), FIELDS);
    agree(&fixture).await;
}

#[tokio::test]
async fn a_changed_declaration_keeps_what_is_complete_and_counts_what_is_new() {
    let fixture = fresh_postgres().await;
    let (store, items) = (&fixture.store, &fixture.items);
    let mut session = beside(&fixture);
    let mut random = fastrand::Rng::with_seed(13);
    put(store, items, &some(&mut random, 0..60)).await;
    sum_up(store).await;
    let mut changed = (**items).clone();
    changed.indexes.retain(|index| !matches!(index.fields[0].as_str(), "category" | "score"));
    changed.indexes.push(Index { fields: vec!["sizes".into()] });
    changed.fields.insert("tier".into(), field(ScalarType::Text));
    let changed = Arc::new(changed);
    let both = [Arc::clone(items), Arc::clone(&changed)];
    for (now, before) in [(&both[1], &both[0]), (&both[0], &both[1])] {
        let steps = store.plan(std::slice::from_ref(now)).await.unwrap();
        store.apply(&steps).await.unwrap();
        put(store, now, &some(&mut random, 20..70)).await;
        assert!(store.plan(std::slice::from_ref(now)).await.unwrap().is_empty());
        // Another instance may still have the former declaration.
        for collection in [now, before] {
            for name in ["category", "tier", "score", "tags", "sizes"] {
                let by = owned(&[name]);
                let counted = store.record_stats(collection, &by, Some(&everything())).await.unwrap();
                assert_eq!(store.record_stats(collection, &by, None).await.unwrap(), counted, "{name}");
            }
        }
    }
    assert_eq!(fields_in(&mut session, "items", "complete"), FIELDS);
    agree(&fixture).await;

    // What the triggers belong to is removed: nothing is recorded any more, and nothing read.
    without_tallies(&mut session);
    put(store, items, &some(&mut random, 60..90)).await;
    agree(&fixture).await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM tallied WHERE collection = 'items' AND state = 'complete'"), 0);
}

#[tokio::test]
async fn counting_finds_a_field_with_too_many_values_before_it_writes_them() {
    let fixture = fresh_postgres().await;
    let mut session = beside(&fixture);
    without_tallies(&mut session);
    session.execute(
        "SET terrace.writer = 'server'; ALTER TABLE records_items DISABLE TRIGGER terrace_search; \
         INSERT INTO records_items (collection, id, version, data, created_at, updated_at) \
         SELECT 'items', 'k' || n, 1, jsonb_build_object('key', 'k' || n, 'name', 'n' || n), 'x', 'x' \
         FROM generate_series(1, 10001) AS n",
    );
    let steps = fixture.store.plan(&[Arc::clone(&fixture.items)]).await.unwrap();
    fixture.store.apply(&steps).await.unwrap();
    assert_eq!(fields_in(&mut session, "items", "abandoned"), ["name"]);
    assert_eq!(number(&mut session, "SELECT count(*) FROM tallies WHERE collection = 'items'"), 7);
    agree(&fixture).await;
}

#[tokio::test]
async fn who_says_to_be_the_server_is_refused_where_statements_are_not_tallied() {
    let fixture = fresh_postgres().await;
    let mut session = beside(&fixture);
    session.execute("SET terrace.writer = 'server'");
    for statement in [
        "INSERT INTO records (collection, id, version, data, created_at, updated_at) VALUES ('items', 'a', 1, '{}', '', '')",
        "DELETE FROM records",
        "UPDATE records SET collection = 'groups'",
    ] {
        let refused = session.query(statement).unwrap_err().to_string();
        assert!(refused.contains("writes to the table of a collection"), "{refused}");
    }
}
