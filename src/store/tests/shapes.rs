//! What of a record an answer holds: all, some members, embedded records.

use super::*;
use crate::store::Shape;

async fn filled() -> Fixture {
    let fixture = fresh().await;
    put(&fixture.store, &fixture.groups, &[json!({"key": "g", "parent": "é"})]).await;
    let documents = [
        json!({"key": "a", "group": "g", "nested": {"deep": [1.50, null]}, "none": null, "tags": ["x"]}),
        json!({"key": "b", "group": "gone"}),
        json!({"key": "c"}),
    ];
    put(&fixture.store, &fixture.items, &documents).await;
    fixture
}

fn shape(fields: Option<&[&str]>, include: &[&str]) -> Arc<Shape> {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Arc::new(Shape { fields: fields.map(owned), include: owned(include), owner: None })
}

#[tokio::test]
async fn a_record_is_answered_as_it_is_stored() {
    let Fixture { store, items, groups, directory: _directory, .. } = filled().await;
    let row = store.record_read(&items, &id("c"), &Arc::default()).await.unwrap().unwrap();
    let scanned = store.record_scan(&items, Some(&id("b")), 10).await.unwrap();
    assert_eq!(scanned.len(), 1);
    assert_eq!(row.data, scanned[0].data);
    assert_eq!(scanned[0].version, 1);
    assert!(store.record_read(&items, &id("g"), &Arc::default()).await.unwrap().is_none());
    assert!(store.record_read(&groups, &id("g"), &Arc::default()).await.unwrap().is_some());
}

#[tokio::test]
async fn fields_keep_existing_members_in_their_order_and_always_the_id() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let cases: [(&[&str], &str); 6] = [
        (&["nested", "none", "absent"], r#"{"key":"a","nested":{"deep":[1.5,null]},"none":null}"#),
        (&["version", "key"], r#"{"version":1,"key":"a"}"#),
        (&["tags", "tags"], r#"{"key":"a","tags":["x"]}"#),
        (&[], r#"{"key":"a"}"#),
        (&["x'y", "a\"b", "$", "a.b", "[0]", "0", "é"], r#"{"key":"a"}"#),
        (&["nested.deep"], r#"{"key":"a"}"#),
    ];
    for (fields, expected) in cases {
        let row = store.record_read(&items, &id("a"), &shape(Some(fields), &[])).await.unwrap().unwrap();
        parsed(&row);
        // PostgreSQL puts spaces behind colons and commas.
        assert_eq!(std::str::from_utf8(&row.data).unwrap().replace(": ", ":").replace(", ", ","), expected);
    }
}

#[tokio::test]
async fn included_records_are_embedded_and_null_if_absent() {
    let Fixture { store, items, directory: _directory, .. } = filled().await;
    let read = async |key: &str| {
        let row = store.record_read(&items, &id(key), &shape(Some(&["group"]), &["group"])).await.unwrap().unwrap();
        parsed(&row)
    };
    assert_eq!(read("a").await["_include"]["group"]["parent"], "é");
    assert_eq!(read("b").await, json!({"key": "b", "group": "gone", "_include": {"group": null}}));
    assert_eq!(read("c").await, json!({"key": "c", "_include": {"group": null}}));
    let mut listed = query(None, vec![up("key")]);
    listed.include = vec!["group".into()];
    let rows = store.record_list(&items, &listed).await.unwrap();
    assert_eq!(parsed(&rows[0])["_include"]["group"]["key"], "g");
    assert_eq!(rows[0].cursor, None);
}
