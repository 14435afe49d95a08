//! Raw rows: batches end where they are large, and whole rows go in as they came out.

use super::*;
use crate::store::{BatchLimit, RawChange, RawRecord};

const ALL: BatchLimit = BatchLimit { rows: 100, size_bytes: 1_000_000 };

#[tokio::test]
async fn a_batch_ends_where_it_is_large_but_has_a_row_at_least() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let long = "x".repeat(1000);
    let documents: Vec<Value> = (0..6).map(|number| json!({"key": format!("k{number}"), "note": long})).collect();
    put(&store, &items, &documents).await;
    for (limit, expected) in [
        (ALL, 6),
        (BatchLimit { rows: 4, ..ALL }, 4),
        // The third row begins before the limit and ends behind it.
        (BatchLimit { size_bytes: 2500, ..ALL }, 3),
        (BatchLimit { size_bytes: 1, ..ALL }, 1),
    ] {
        let records: Vec<RawRecord> = store.copy_records(&items.name, "", limit).await.unwrap();
        let keys: Vec<String> = (0..expected).map(|number| format!("k{number}")).collect();
        assert_eq!(records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), keys, "{limit:?}");
        let changes: Vec<RawChange> = store.copy_changes(0, limit).await.unwrap();
        assert_eq!(changes.len(), expected, "{limit:?}");
    }
    let rest = store.copy_records(&items.name, "k3", ALL).await.unwrap();
    assert_eq!(rest.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["k4", "k5"]);
}

#[tokio::test]
async fn whole_rows_go_in_as_they_came_out() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    put(&store, &items, &[json!({"key": "a", "score": 1.5, "note": "\u{1f980} \" \\"}), json!({"key": "b"})]).await;
    put(&store, &items, &[json!({"key": "a", "tier": 1})]).await;
    let (records, changes) = (store.copy_records(&items.name, "", ALL).await.unwrap(), store.copy_changes(0, ALL).await.unwrap());
    let Fixture { store: other, items, directory: _other, .. } = fresh().await;
    other.copy_write_records(&records).await.unwrap();
    assert!(other.copy_write_records(&records[..1]).await.is_err(), "a row that is there is not written over");
    // The change after the first two is about `a`, which has gone meanwhile; `b` is as it was.
    let touched = vec![(items.name.clone(), vec!["a".to_owned(), "b".to_owned()])];
    other.copy_write_changes(&changes, touched, &records[1..]).await.unwrap();
    assert_eq!(other.copy_records(&items.name, "", ALL).await.unwrap(), records[1..]);
    assert_eq!(other.copy_changes(0, ALL).await.unwrap(), changes);
    assert_eq!(other.copy_last_change().await.unwrap(), changes[2].position);
    other.copy_end(500).await.unwrap();
    assert_eq!(other.copy_counter().await.unwrap(), 500);
    put(&other, &items, &[json!({"key": "c"})]).await;
    assert_eq!(other.copy_last_change().await.unwrap(), 501);
}
