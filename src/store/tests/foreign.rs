//! Writers that go past Terrace, and values that are not what an index expects.

use super::schema::Session;
use super::*;

/// A session as psql opens it: not ours, and with another search path.
pub(super) fn psql(fixture: &Fixture) -> (Session, String) {
    let url = &fixture.directory.settings.url;
    let (server, options) = url.split_once('?').unwrap();
    let schema = options.rsplit_once("%3D").unwrap().1.to_owned();
    (Session::open(server).unwrap(), schema)
}

async fn logged(store: &Store) -> Vec<LoggedChange> {
    let mut changes =
        store.changes_since(&store.snapshot().await.unwrap().without_last(u64::MAX), None, 100).await.unwrap().changes;
    changes.sort_by_key(|change| change.position.sequence);
    changes
}

#[tokio::test]
async fn what_others_write_is_made_whole_found_and_logged() {
    let fixture = fresh_postgres().await;
    let (mut session, schema) = psql(&fixture);
    session.execute(&format!(
        r#"INSERT INTO {schema}.records (collection, id, data) VALUES ('items', 'a', '{{"key": "a", "name": "running", "tier": 1}}');
           INSERT INTO {schema}.records_items (collection, id, data) VALUES ('items', 'b', '{{"key": "b", "version": 77}}')"#
    ));
    session.execute(&format!(r#"UPDATE {schema}.records SET data = data || '{{"tier": 2}}' WHERE id = 'a'"#));
    session.execute(&format!(r#"UPDATE {schema}.records SET id = 'c', data = data || '{{"key": "c"}}' WHERE id = 'b'"#));
    session.execute(&format!("DELETE FROM {schema}.records_items WHERE id = 'c'"));
    let (store, items) = (&fixture.store, &fixture.items);
    assert_eq!(keys(store, items, &searching("run")).await, ["a"]);

    let changes = logged(store).await;
    let found: Vec<(&str, Operation)> = changes.iter().map(|change| (change.id.as_str(), change.operation)).collect();
    let (create, update, delete) = (Operation::Create, Operation::Update, Operation::Delete);
    assert_eq!(found, [("a", create), ("b", create), ("a", update), ("b", delete), ("c", create), ("c", delete)]);
    assert!(changes.iter().all(|change| change.actor == "postgres:terrace"), "{changes:?}");
    let document = |text: &Option<String>| serde_json::from_str::<Value>(text.as_deref().unwrap()).unwrap();
    let (before, after) = (document(&changes[2].before), document(&changes[2].after));
    assert_eq!(
        (&before["tier"], &before["version"], &after["tier"], &after["version"]),
        (&json!(1), &json!(1), &json!(2), &json!(2))
    );
    assert_eq!(before["created_at"], after["created_at"]);
    assert!(before["updated_at"].as_str() < after["updated_at"].as_str());
    assert_eq!(after["updated_at"], changes[2].at);
    assert_eq!(document(&changes[1].after)["version"], 1);
    let record = store.record_scan(items, None, 10).await.unwrap().remove(0);
    assert_eq!((record.version, serde_json::from_str::<Value>(&record.data).unwrap()), (2, after));

    // Our own go on where they left off, and are logged once.
    put(store, items, &[json!({"key": "a", "tier": 3})]).await;
    let changes = logged(store).await;
    assert_eq!((changes.len(), changes[6].actor.as_str(), changes[6].operation), (7, "tester", update));
}

#[tokio::test]
async fn what_could_not_be_served_or_logged_is_refused() {
    let fixture = fresh_postgres().await;
    let (mut session, schema) = psql(&fixture);
    put(&fixture.store, &fixture.items, &[json!({"key": "a"})]).await;
    let long = "x".repeat(256);
    for (statement, reason) in [
        (format!("TRUNCATE {schema}.records"), "not truncated"),
        (format!("TRUNCATE {schema}.records_items"), "not truncated"),
        (format!("INSERT INTO {schema}.records (collection, id, data) VALUES ('unknown', 'a', '{{}}')"), "no partition"),
        (format!("INSERT INTO {schema}.records (collection, id, data) VALUES ('items', 'b', '[]')"), "JSON object"),
        (format!("INSERT INTO {schema}.records (collection, id, data) VALUES ('items', 'a/b', '{{}}')"), "records.id"),
        (format!("INSERT INTO {schema}.records (collection, id, data) VALUES ('items', '_b', '{{}}')"), "records.id"),
        (format!("INSERT INTO {schema}.records (collection, id, data) VALUES ('items', '{long}', '{{}}')"), "records.id"),
    ] {
        let error = session.query(&statement).unwrap_err().to_string();
        assert!(error.contains(reason), "{statement}: {error}");
    }
    assert_eq!(fixture.store.record_scan(&fixture.items, None, 10).await.unwrap().len(), 1);
    assert_eq!(logged(&fixture.store).await.len(), 1);
}

#[tokio::test]
async fn values_of_another_type_in_an_indexed_field_fail_no_statement() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    let wrong = [json!("1"), json!(true), json!([1]), json!({"x": 1}), json!(1.5), json!(1e300)];
    let mut documents: Vec<Value> =
        vec![json!({"key": "right", "tier": 1, "score": 2.5, "active": true, "tags": ["x"], "name": "x"})];
    for (at, value) in wrong.iter().enumerate() {
        documents.push(
            json!({"key": format!("wrong{at}"), "tier": value, "score": value, "active": value, "tags": value, "name": value}),
        );
    }
    put(&store, &items, &documents).await;
    let number = Scalar::Number(Number::new(2.5).unwrap());
    for (field, scalar) in
        [("score", number), ("active", Scalar::Boolean(true)), ("tags", text("x")), ("tier", Scalar::Integer(1))]
    {
        let selected = keys(&store, &items, &query(Some(Filter::test(field, Test::Eq(scalar))), vec![])).await;
        assert!(selected.contains(&"right".to_owned()), "{field}: {selected:?}");
        if field != "tags" {
            assert_eq!(keys(&store, &items, &query(None, vec![up(field)])).await.len(), 7, "{field}");
        }
        assert_eq!(store.record_stats(&items, &[field.to_owned()], None).await.unwrap().total, 7, "{field}");
    }
}

#[tokio::test]
async fn texts_as_long_as_they_may_be_are_indexed_and_longer_ones_searched() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    // Random, for PostgreSQL compresses what it can; two bytes each.
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = |characters: usize| (0..characters).map(|_| random.char('\u{a1}'..'\u{7ff}')).collect::<String>();
    let name = noise(1_150);
    put(&store, &items, &[json!({"key": "k".repeat(200), "name": name, "category": "c"})]).await;
    assert_eq!(keys(&store, &items, &query(Some(Filter::test("name", Test::Eq(text(&name)))), vec![])).await.len(), 1);

    let words: String = (0..120_000).map(|at| format!("word{at} ")).collect();
    let one = "x".repeat(300_000);
    put(&store, &items, &[json!({"key": "words", "note": words}), json!({"key": "one", "note": one})]).await;
    assert_eq!(keys(&store, &items, &searching("word7")).await, ["words"]);
    assert_eq!(store.record_scan(&items, None, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_text_with_the_character_zero_is_refused_where_it_is_asked_for() {
    let Fixture { store, items, directory: _directory, .. } = fresh().await;
    for test in [Test::Eq(text("a\0")), Test::In(vec![text("a"), text("\0")]), Test::Gt(text("\0"))] {
        let error = store.record_list(&items, &query(Some(Filter::test("category", test)), vec![])).await.unwrap_err();
        assert_eq!(error.parameter_name(), Some("category"));
    }
    let mut walked = query(None, vec![up("name")]);
    walked.paging = Paging::Cursor { after: Some(vec![Some(text("\0")), Some(text("a"))]), limit: 10 };
    assert_eq!(store.record_list(&items, &walked).await.unwrap_err().parameter_name(), Some("cursor"));
}
