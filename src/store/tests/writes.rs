//! Writes: all or nothing, checked, logged, and without lost updates.

use std::collections::BTreeSet;
use std::time::Instant;

use super::*;
use crate::error::{Error, ErrorKind, Violation};
use crate::store::{Among, Told};

fn reference(pointer: &str, group: &str) -> ReferenceCheck {
    ReferenceCheck {
        pointer: pointer.into(),
        collection: CollectionName::parse("groups").unwrap(),
        id: group.into(),
        among: Among::All,
    }
}

fn referrers() -> Vec<Referrer> {
    let groups = CollectionName::parse("groups").unwrap();
    let items = CollectionName::parse("items").unwrap();
    vec![
        Referrer { collection: items, field: "group".into(), told: Told::Exactly },
        Referrer { collection: groups, field: "parent".into(), told: Told::Exactly },
    ]
}

#[tokio::test]
async fn every_change_is_logged_with_before_and_after_in_the_order_of_the_writes() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let created = put(&store, &items, &[json!({"key": "z"}), json!({"key": "a"}), json!({"key": "m"})]).await;
    assert!(created.positions.is_sorted() && created.positions.iter().all(|position| !start.sees(position.transaction)));
    let ids: Vec<&str> = created.records.iter().map(|record| record.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["z", "a", "m"]);
    put(&store, &items, &[json!({"key": "a", "tier": 1})]).await;
    let removed = remove(&store, &items, &["a"], vec![]).await.unwrap();
    assert_eq!((removed.records, removed.positions.len()), (vec![None], 1));
    assert!(removed.positions[0] > created.positions[2]);

    let changes = store.changes_since(&start, created.positions.last().copied(), 10).await.unwrap().changes;
    assert_eq!(changes[1].position, removed.positions[0]);
    assert_eq!(changes.iter().map(|change| change.operation).collect::<Vec<_>>(), [Operation::Update, Operation::Delete]);
    assert_eq!((changes[0].actor.as_str(), changes[0].at.as_str()), ("tester", "2026-01-01T00:00:00.000000Z"));
    assert_eq!(changes[0].before, created.records[1].as_ref().map(|record| record.data.clone()));
    assert_eq!(changes[0].after, changes[1].before);
    assert_eq!(changes[1].after, None);
}

#[tokio::test]
async fn a_write_names_the_transactions_that_changed_its_records_last() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    // SQLite numbers changes, and PostgreSQL transactions.
    let of = |committed: &Committed, at: usize| committed.positions[at].transaction;
    let first = put(&store, &items, &[json!({"key": "a"}), json!({"key": "b"}), json!({"key": "c"})]).await;
    assert!(first.predecessors.is_empty());
    let second = put(&store, &items, &[json!({"key": "b", "tier": 1})]).await;
    assert_eq!(second.predecessors, BTreeSet::from([of(&first, 1)]));
    let third = put(&store, &items, &[json!({"key": "a", "tier": 1}), json!({"key": "b", "tier": 2}), json!({"key": "d"})]).await;
    assert_eq!(third.predecessors, BTreeSet::from([of(&first, 0), of(&second, 0)]));
    // Also of one that is gone, for who makes it anew.
    let gone = remove(&store, &items, &["c"], vec![]).await.unwrap();
    assert_eq!(gone.predecessors, BTreeSet::from([of(&first, 2)]));
    assert_eq!(put(&store, &items, &[json!({"key": "c"})]).await.predecessors, BTreeSet::from([of(&gone, 0)]));
}

#[tokio::test]
async fn a_refusal_or_a_missing_reference_leaves_nothing() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let error = store
        .record_write(&items, author(), vec![], Arc::new(|_| Err(Error::precondition_failed("Changed.", Some("\"1\"".into())))))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.current_etag()), (ErrorKind::PreconditionFailed, Some("\"1\"")));

    let documents = [json!({"key": "a", "tags": ["x"], "name": "word"}), json!({"key": "b"})];
    let checks = vec![reference("/0/group", "gone"), reference("/1/group", "gone")];
    let error = try_put(&store, &items, &documents, checks).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let pointers: Vec<&str> = error.violations().iter().map(|violation| violation.pointer.as_str()).collect();
    assert_eq!(pointers, ["/0/group", "/1/group"]);
    assert_eq!(error.violations()[0].code, "unknown_reference");
    assert!(store.record_scan(&items, None, 10).await.unwrap().is_empty());
    assert_eq!(changes(&store, &start).await, 0);
    assert!(keys(&store, &items, &searching("word")).await.is_empty());
}

#[tokio::test]
async fn a_reference_to_a_present_record_is_taken() {
    let Fixture { store, items, groups, directory: _directory, .. } = fresh().await;
    put(&store, &groups, &[json!({"key": "g"})]).await;
    let checks = vec![reference("/0/group", "g")];
    assert!(try_put(&store, &items, &[json!({"key": "a", "group": "g"})], checks).await.is_ok());
}

#[tokio::test]
async fn a_record_that_others_refer_to_is_not_deleted() {
    let Fixture { store, items, groups, directory: _directory, .. } = fresh().await;
    put(&store, &groups, &[json!({"key": "g"}), json!({"key": "free"}), json!({"key": "child", "parent": "g"})]).await;
    put(&store, &items, &[json!({"key": "a", "group": "g"}), json!({"key": "b", "group": "g"})]).await;
    let error = remove(&store, &groups, &["free", "g"], referrers()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, "referenced"));
    let expected = [
        Violation::new("/1", "referenced", "\"g\" is still referred to by 2 records of items, in group."),
        Violation::new("/1", "referenced", "\"g\" is still referred to by 1 record of groups, in parent."),
    ];
    assert_eq!(error.violations(), expected);
    assert_eq!(store.record_scan(&groups, None, 10).await.unwrap().len(), 3);
    remove(&store, &items, &["a", "b"], vec![]).await.unwrap();
    // What refers to each other can go together.
    remove(&store, &groups, &["g", "child"], referrers()).await.unwrap();
    assert_eq!(store.record_scan(&groups, None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn arrays_follow_updates_and_deletions() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let tagged = |tag: &str| query(Some(Filter::test("tags", Test::Eq(text(tag)))), vec![]);
    put(&store, &items, &[json!({"key": "a", "tags": ["x", "y", "y"]}), json!({"key": "b", "tags": ["x"]})]).await;
    put(&store, &items, &[json!({"key": "a", "tags": ["y", "z"]})]).await;
    assert_eq!(keys(&store, &items, &tagged("x")).await, ["b"]);
    assert_eq!(keys(&store, &items, &tagged("z")).await, ["a"]);
    remove(&store, &items, &["a"], vec![]).await.unwrap();
    // The rowid of a deleted record is used again: what it left behind would show up here.
    put(&store, &items, &[json!({"key": "c"})]).await;
    assert!(keys(&store, &items, &tagged("y")).await.is_empty());
}

#[tokio::test]
async fn a_plan_without_writes_writes_nothing_and_a_contradictory_one_is_refused() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let start = store.snapshot().await.unwrap();
    let nothing = store.record_write(&items, author(), vec![id("a")], Arc::new(|_| Ok(WritePlan::default()))).await.unwrap();
    assert_eq!((nothing.records.len(), nothing.positions.len()), (0, 0));
    let twice = try_put(&store, &items, &[json!({"key": "a"}), json!({"key": "a"})], vec![]).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(changes(&store, &start).await, 0);
}

#[tokio::test]
async fn a_panicking_planner_costs_its_request_and_nothing_else() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    for _ in 0..12 {
        let outcome = store.record_write(&items, author(), vec![], Arc::new(|_| panic!("a planner's bug"))).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal);
    }
    put(&store, &items, &[json!({"key": "a"})]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_of_one_record_lose_no_update() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    put(&store, &items, &[json!({"key": "a", "tier": 0})]).await;
    let start = store.snapshot().await.unwrap();
    let increment: Planner = Arc::new(|existing| {
        let record = &existing[&id("a")];
        let mut document: Value = serde_json::from_str(&record.data).unwrap();
        document["tier"] = json!(document["tier"].as_i64().unwrap() + 1);
        let write = RecordWrite {
            id: id("a"),
            operation: Operation::Update,
            version: record.version + 1,
            data: Some(document.to_string()),
            before: Some(record.data.clone()),
            created_at: "x".into(),
            updated_at: "x".into(),
            pointer: String::new(),
        };
        Ok(WritePlan { writes: vec![write], ..WritePlan::default() })
    });
    let write = |_| {
        let (store, items, increment) = (store.clone(), Arc::clone(&items), Arc::clone(&increment));
        tokio::spawn(async move { store.record_write(&items, author(), vec![id("a")], increment).await.unwrap() })
    };
    let writers: Vec<_> = (0..200).map(write).collect();
    // Reads go on meanwhile.
    assert_eq!(keys(&store, &items, &query(None, vec![])).await, ["a"]);
    // A caller who goes away leaves no connection in a bad state.
    for writer in writers.iter().take(20) {
        writer.abort();
    }
    let mut finished = 0;
    for writer in writers {
        finished += i64::from(writer.await.is_ok());
    }
    let changed = i64::try_from(changes(&store, &start).await).unwrap();
    let record = store.record_scan(&items, None, 1).await.unwrap().remove(0);
    let document: Value = serde_json::from_str(&record.data).unwrap();
    assert!(finished >= 180 && changed >= finished, "{finished} of {changed}");
    assert_eq!((document["tier"].as_i64(), record.version), (Some(changed), changed + 1));
}

#[tokio::test]
async fn a_thousand_records_are_one_quick_transaction() {
    let Fixture { store, items, telemetry, directory: _directory, .. } = fresh().await;
    let document = |at| json!({"key": format!("k{at}"), "name": format!("Name {at}"), "tags": ["x", "y"], "tier": at % 7});
    let documents: Vec<Value> = (0..1_000).map(document).collect();
    let started = Instant::now();
    let committed = put(&store, &items, &documents).await;
    println!("1,000 records: {:?}", started.elapsed());
    assert!(committed.positions.is_sorted());
    assert_eq!((committed.positions.len(), committed.records.len()), (1_000, 1_000));
    let metrics = telemetry.encode().unwrap();
    for expected in [
        "terrace_database_operation_duration_seconds_count{operation=\"record_write\"} 1",
        "terrace_database_connections{state=\"idle\"}",
    ] {
        assert!(metrics.contains(expected), "{metrics}");
    }
}
