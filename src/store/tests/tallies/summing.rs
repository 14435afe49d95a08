//! Summing up: what readers see beside it, who does it, and what happens to a field with too many values.

use super::*;
use crate::store::postgres::MOST_VALUES;
use crate::store::tally::sum_statement;

#[tokio::test]
async fn a_reader_has_the_same_answers_before_during_and_after() {
    let fixture = fresh_postgres().await;
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..3 {
        let documents: Vec<Value> = (0..20).map(|at| document(&mut random, &format!("k{}", at + 10 * round))).collect();
        put(&fixture.store, &fixture.items, &documents).await;
    }
    let (mut summing, mut early) = (beside(&fixture), beside(&fixture));
    early.execute("BEGIN ISOLATION LEVEL REPEATABLE READ");
    agree_in(&mut early, &fixture.items);
    for end in ["ROLLBACK", "COMMIT"] {
        summing.execute("BEGIN");
        let summed = rows(&mut summing, &sum_statement("items", 40));
        assert_eq!(summed[0][0].as_deref(), Some("40"));
        agree_in(&mut summing, &fixture.items);
        agree(&fixture).await;
        summing.execute(end);
        agree(&fixture).await;
    }
    sum_up(&fixture.store).await;
    agree_in(&mut early, &fixture.items);
    early.execute("COMMIT");
    agree(&fixture).await;
}

#[tokio::test]
async fn one_at_a_time_sums_up_a_collection() {
    let fixture = fresh_postgres().await;
    put(&fixture.store, &fixture.items, &[json!({"key": "a", "category": "c1"})]).await;
    let mut other = beside(&fixture);
    other.execute("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('terrace tallies ' || current_schema() || ' items', 0))");
    let step = fixture.store.tally("", 100).await.unwrap().unwrap();
    assert_eq!((step.collection.as_str(), step.changes), ("items", 0));
    other.execute("COMMIT");
    assert_eq!(fixture.store.tally("", 100).await.unwrap().unwrap().changes, 8);
    assert_eq!(fixture.store.tally("", 100).await.unwrap(), None);
}

#[tokio::test]
async fn a_field_with_too_many_values_is_abandoned_and_what_late_writers_record_of_it_is_swept() {
    let fixture = fresh_postgres().await;
    let (store, items) = (&fixture.store, &fixture.items);
    let mut session = beside(&fixture);
    session.execute("ALTER TABLE records_items DISABLE TRIGGER terrace_search");
    let fill = |from: u32, to: u32| {
        format!(
            "SET terrace.writer = 'server'; INSERT INTO records_items (collection, id, version, data, created_at, updated_at) \
             SELECT 'items', 'k' || n, 1, jsonb_build_object('key', 'k' || n, 'name', 'n' || n, 'category', 'c' || n % 3), 'x', 'x' \
             FROM generate_series({from}, {to}) AS n; SET terrace.writer = ''"
        )
    };
    // One statement, and then one for each record.
    session.execute(&fill(1, MOST_VALUES));
    sum_up(store).await;
    assert_eq!(fields_in(&mut session, "items", "complete"), FIELDS);
    // Of so many values the same ones are told.
    agree(&fixture).await;
    let mut late = beside(&fixture);
    late.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tallied");

    put(store, items, &[json!({"key": "more", "name": "more", "category": "c1"})]).await;
    sum_up(store).await;
    let others: Vec<&str> = FIELDS.into_iter().filter(|name| *name != "name").collect();
    assert_eq!(fields_in(&mut session, "items", "complete"), others);
    assert_eq!(fields_in(&mut session, "items", "abandoned"), ["name"]);
    let left =
        "SELECT (SELECT count(*) FROM tallies WHERE field = 'name') + (SELECT count(*) FROM tally_changes WHERE field = 'name')";
    assert_eq!(number(&mut session, left), 0);

    // From now on nobody records it who can know.
    put(store, items, &[json!({"key": "k1", "name": "another", "category": "c2"})]).await;
    session.execute(&fill(20_001, 20_050));
    session.execute(r#"UPDATE records SET data = data || '{"name": "third", "category": "c1"}' WHERE id = 'k2'"#);
    assert_eq!(number(&mut session, left), 0);
    late.execute(r#"UPDATE records SET data = data || '{"name": "late", "category": "c1"}' WHERE id = 'k3'; COMMIT"#);
    assert_eq!(number(&mut session, left), 2);
    sum_up(store).await;
    assert_eq!(number(&mut session, left), 0);
    for by in [&["category"][..], &["name"], &["tier", "name"]] {
        let by = owned(by);
        let counted = store.record_stats(items, &by, Some(&everything())).await.unwrap();
        assert_eq!(store.record_stats(items, &by, None).await.unwrap(), counted);
    }
    for term in [equal("name", text("late")), equal("category", text("c1"))] {
        let counted = store.record_count(items, &selecting(Some(Filter::All(vec![term.clone()])))).await.unwrap();
        assert_eq!(store.record_count(items, &selecting(Some(term))).await.unwrap(), counted);
    }
}
