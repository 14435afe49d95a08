//! Filters of every kind and type, and statistics.

use super::*;
use crate::error::ErrorKind;
use crate::store::{FieldStats, Stats};

async fn filled() -> Fixture {
    let fixture = fresh().await;
    let documents = [
        json!({"key": "a", "category": "x", "tier": 1, "score": 0.5, "active": true, "tags": ["red", "blue"], "sizes": [1, 2]}),
        json!({"key": "b", "category": "y", "tier": 2, "score": 2, "active": false, "tags": ["red"], "sizes": [2, 2]}),
        json!({"key": "c", "category": null, "tier": 2.0, "score": -1e3, "tags": []}),
        json!({"key": "d", "category": "é'\"; --", "tags": ["a'b", null], "tier": 10}),
    ];
    put(&fixture.store, &fixture.items, &documents).await;
    put(&fixture.store, &fixture.groups, &[json!({"key": "a", "category": "x"})]).await;
    fixture
}

#[tokio::test]
async fn every_test_of_every_type_selects_its_records() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let number = |number| Scalar::Number(Number::new(number).unwrap());
    let cases = [
        ("category", Test::Eq(text("x")), "a"),
        ("category", Test::Eq(text("é'\"; --")), "d"),
        ("category", Test::Ne(text("x")), "bcd"),
        ("category", Test::Gt(text("x")), "bd"),
        ("category", Test::In(vec![text("x"), text("y")]), "ab"),
        ("category", Test::All(vec![text("x"), text("y")]), ""),
        ("category", Test::Null(true), "c"),
        ("category", Test::Null(false), "abd"),
        ("tier", Test::Eq(Scalar::Integer(2)), "bc"),
        ("tier", Test::Gte(Scalar::Integer(2)), "bcd"),
        ("tier", Test::Lt(Scalar::Integer(10)), "abc"),
        ("tier", Test::In(vec![Scalar::Integer(1), Scalar::Integer(10)]), "ad"),
        ("score", Test::Eq(number(2.0)), "b"),
        ("score", Test::Lte(number(0.5)), "ac"),
        ("score", Test::In(vec![number(-1000.0), number(0.5)]), "ac"),
        ("active", Test::Eq(Scalar::Boolean(true)), "a"),
        ("active", Test::Ne(Scalar::Boolean(true)), "bcd"),
        ("active", Test::In(vec![Scalar::Boolean(false), Scalar::Boolean(true)]), "ab"),
        ("active", Test::Null(true), "cd"),
        ("tags", Test::Eq(text("red")), "ab"),
        ("tags", Test::Eq(text("a'b")), "d"),
        ("tags", Test::Ne(text("red")), "cd"),
        ("tags", Test::In(vec![text("a'b"), text("blue")]), "ad"),
        ("tags", Test::All(vec![text("blue"), text("red")]), "a"),
        ("tags", Test::Null(true), ""),
        ("sizes", Test::Eq(Scalar::Integer(2)), "ab"),
        ("sizes", Test::In(vec![Scalar::Integer(1), Scalar::Integer(7)]), "a"),
        ("sizes", Test::Null(true), "cd"),
        ("key", Test::Gte(text("c")), "cd"),
        ("version", Test::Eq(Scalar::Integer(1)), "abcd"),
        ("created_at", Test::Gt(text("2026-01-01T00:00:01.000000Z")), "cd"),
    ];
    for (field, test, expected) in cases {
        let filter = Filter::Test(Condition { field: field.into(), test });
        let selection = Selection { filter: Some(filter.clone()), search: None };
        let found = keys(&store, &items, &query(Some(filter), vec![up("key")])).await.concat();
        assert_eq!(found, expected, "{selection:?}");
        assert_eq!(store.record_count(&items, &selection).await.unwrap(), expected.len() as u64, "{selection:?}");
    }
}

#[tokio::test]
async fn filters_nest_and_may_be_large() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let tier = |tier| Filter::test("tier", Test::Eq(Scalar::Integer(tier)));
    let either = Filter::any(vec![
        Filter::all(vec![tier(2), Filter::test("category", Test::Null(false))]),
        Filter::test("tags", Test::Eq(text("blue"))),
    ]);
    assert_eq!(keys(&store, &items, &query(Some(either), vec![up("key")])).await.concat(), "ab");
    let many = Filter::any((2..5_000).map(tier).collect());
    assert_eq!(keys(&store, &items, &query(Some(many), vec![up("key")])).await.concat(), "bcd");
    assert_eq!(keys(&store, &items, &query(Some(Filter::Any(vec![])), vec![])).await, Vec::<String>::new());
    assert_eq!(keys(&store, &items, &query(Some(Filter::All(vec![])), vec![])).await.len(), 4);
}

#[tokio::test]
async fn an_array_has_no_order_and_an_unknown_field_no_column() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let refused = |field: &str| query(Some(Filter::test(field, Test::Gt(text("x")))), vec![]);
    assert_eq!(store.record_list(&items, &refused("tags")).await.unwrap_err().kind(), ErrorKind::BadRequest);
    assert_eq!(store.record_list(&items, &refused("x' OR '1'='1")).await.unwrap_err().kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn statistics_count_values_elements_and_what_is_missing() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let by = ["tier", "active", "tags", "sizes"].map(str::to_owned);
    let entry = |field: &str, distinct, values: &[(Option<Scalar>, u64)]| FieldStats {
        field: field.into(),
        distinct,
        values: values.to_vec(),
    };
    let integer = |number| Some(Scalar::Integer(number));
    let expected = Stats {
        total: 4,
        fields: vec![
            entry("tier", 3, &[(integer(2), 2), (integer(1), 1), (integer(10), 1)]),
            entry("active", 2, &[(None, 2), (Some(Scalar::Boolean(false)), 1), (Some(Scalar::Boolean(true)), 1)]),
            entry("tags", 3, &[(Some(text("red")), 2), (None, 1), (Some(text("a'b")), 1), (Some(text("blue")), 1)]),
            entry("sizes", 2, &[(None, 2), (integer(2), 2), (integer(1), 1)]),
        ],
    };
    assert_eq!(store.record_stats(&items, &by, None).await.unwrap(), expected);

    let filter = Filter::test("category", Test::Eq(text("x")));
    let stats = store.record_stats(&items, &["category".to_owned()], Some(&filter)).await.unwrap();
    assert_eq!(stats, Stats { total: 1, fields: vec![entry("category", 1, &[(Some(text("x")), 1)])] });
    let nothing = store.record_stats(&items, &by, Some(&Filter::Any(vec![]))).await.unwrap();
    assert_eq!((nothing.total, nothing.fields[0].distinct), (0, 0));
}

#[tokio::test]
async fn statistics_list_a_thousand_values_and_count_them_all() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let documents: Vec<Value> = (0..1_200).map(|at| json!({"key": format!("k{at}"), "tier": at})).collect();
    put(&store, &items, &documents).await;
    let stats = store.record_stats(&items, &["tier".to_owned()], None).await.unwrap();
    assert_eq!((stats.fields[0].distinct, stats.fields[0].values.len()), (1_200, 1_000));
    assert_eq!(stats.fields[0].values[0], (Some(Scalar::Integer(0)), 1));
}
