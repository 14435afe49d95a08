//! Orders and pages, by number and by cursor, against a model.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

/// What the model sorts by: `None` first.
fn compare(left: &Value, right: &Value, sort: &[SortKey]) -> Ordering {
    let one = |key: &SortKey| {
        let [left, right] = [left, right].map(|document| match &document[&key.field] {
            Value::String(text) => (1, text.clone(), 0.0),
            Value::Number(number) => (1, String::new(), number.as_f64().unwrap()),
            Value::Bool(flag) => (1, String::new(), f64::from(*flag)),
            _ => (0, String::new(), 0.0),
        });
        let ordering = left.partial_cmp(&right).unwrap();
        match key.direction {
            Direction::Ascending => ordering,
            Direction::Descending => ordering.reverse(),
        }
    };
    let tie = || left["key"].as_str().cmp(&right["key"].as_str());
    sort.iter().map(one).find(|ordering| ordering.is_ne()).unwrap_or_else(tie)
}

/// What `records` does with a cursor: reads it back as the types of the order.
fn decoded(cursor: &str, items: &Collection, sort: &[SortKey]) -> Vec<Option<Scalar>> {
    let values: Vec<Value> = serde_json::from_str(cursor).unwrap();
    assert_eq!(values.len(), sort.len() + 1);
    let kinds = sort.iter().map(|key| items.fields[&key.field].scalar).chain([ScalarType::Text]);
    values.iter().zip(kinds).map(|(value, kind)| kind.from_json(value)).collect()
}

async fn walk(fixture: &Fixture, sort: &[SortKey], filter: Option<Filter>, limit: u32) -> Vec<String> {
    let mut walked = Vec::new();
    let mut after = None;
    loop {
        let mut query = query(filter.clone(), sort.to_vec());
        query.paging = Paging::Cursor { after: after.clone(), limit };
        let rows = fixture.store.record_list(&fixture.items, &query).await.unwrap();
        let page = &rows[..rows.len().min(limit as usize)];
        walked.extend(page.iter().map(|row| parsed(row)["key"].as_str().unwrap().to_owned()));
        if rows.len() == page.len() {
            return walked;
        }
        after = page.last().map(|last| decoded(last.cursor.as_deref().unwrap(), &fixture.items, sort));
    }
}

fn documents() -> impl Strategy<Value = Vec<Value>> {
    let category = prop_oneof![Just(json!(null)), Just(json!("a")), Just(json!("B")), Just(json!("é")), Just(json!("🦀"))];
    let tier = prop_oneof![Just(json!(null)), (-2..3i64).prop_map(|tier| json!(tier))];
    let score = prop_oneof![Just(json!(null)), (-1.0..1.0f64).prop_map(|score| json!(score)), Just(json!(0.1)), Just(json!(1))];
    let active = prop_oneof![Just(json!(null)), any::<bool>().prop_map(|active| json!(active))];
    let document = (category, tier, score, active, any::<bool>());
    prop::collection::vec(document, 0..40).prop_map(|rows| {
        let document = |(at, (category, tier, score, active, has_tier)): (usize, (Value, Value, Value, Value, bool))| {
            let mut document =
                json!({"key": format!("k{}", (at * 7) % 40), "category": category, "score": score, "active": active});
            if has_tier {
                document["tier"] = tier;
            }
            document
        };
        rows.into_iter().enumerate().map(document).collect()
    })
}

fn sorts() -> impl Strategy<Value = Vec<SortKey>> {
    let fields = prop::sample::subsequence(vec!["category", "tier", "score", "active", "version", "updated_at"], 1..4);
    (fields.prop_shuffle(), prop::collection::vec(any::<bool>(), 4)).prop_map(|(fields, ups)| {
        fields.into_iter().zip(ups).map(|(field, is_up)| if is_up { up(field) } else { down(field) }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn walking_by_cursor_or_by_page_gives_the_sorted_records(documents in documents(), sort in sorts(), limit in 1..9u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = fresh().await;
            put(&fixture.store, &fixture.items, &documents).await;
            let mut stored: Vec<Value> = Vec::new();
            for row in fixture.store.record_scan(&fixture.items, None, 100).await.unwrap() {
                stored.push(serde_json::from_str(&row.data).unwrap());
            }
            prop_assert_eq!(stored.len(), documents.len());
            stored.sort_by(|left, right| compare(left, right, &sort));
            let expected: Vec<String> = stored.iter().map(|document| document["key"].as_str().unwrap().to_owned()).collect();
            prop_assert_eq!(&walk(&fixture, &sort, None, limit).await, &expected);

            let mut paged = Vec::new();
            for page in 1..=(40 / u64::from(limit) + 1) {
                let mut query = query(None, sort.clone());
                query.paging = Paging::Page { page, limit };
                paged.extend(keys(&fixture.store, &fixture.items, &query).await);
            }
            prop_assert_eq!(&paged, &expected);

            let filter = Filter::test("category", Test::Eq(text("a")));
            let of_a = stored.iter().filter(|document| document["category"] == "a");
            let expected: Vec<&str> = of_a.map(|document| document["key"].as_str().unwrap()).collect();
            prop_assert_eq!(walk(&fixture, &sort, Some(filter), limit).await, expected);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_cursor_of_another_order_is_refused_and_an_absurd_page_is_empty() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    put(&store, &items, &[json!({"key": "a"})]).await;
    let mut query = query(None, vec![up("tier")]);
    for after in [vec![], vec![Some(text("a"))], vec![None, None], vec![None, None, Some(text("a"))]] {
        query.paging = Paging::Cursor { after: Some(after), limit: 10 };
        let error = store.record_list(&items, &query).await.unwrap_err();
        assert_eq!(error.parameter_name(), Some("cursor"));
    }
    for page in [1_000_000_000_000_000_000, u64::MAX] {
        query.paging = Paging::Page { page, limit: 100 };
        assert!(store.record_list(&items, &query).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_default_order_is_the_collections() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    put(&store, &items, &[json!({"key": "a"}), json!({"key": "c"}), json!({"key": "b"})]).await;
    assert_eq!(keys(&store, &items, &query(None, vec![])).await, ["b", "c", "a"]);
}
