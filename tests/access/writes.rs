//! Writes: whose a record becomes, who may change it, what each may set, and what the answers tell.

use terrace::records::WriteOutcome;

use super::*;

fn note(key: &str) -> Value {
    json!({"key": key, "title": "t"})
}

#[tokio::test]
async fn what_somebody_creates_is_theirs_and_only_administrators_give_it_away() {
    let house = House::new().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    let created = house.create(&ann, "notes", note("a")).await.unwrap();
    assert!(created.record.unwrap().data.contains("\"owner\""), "the answer shows whose it is");
    assert_eq!(house.found(&admin, "notes/a").await["owner"], "ann");
    let owned = |owner: Value| json!({"key": "x", "title": "t", "owner": owner});
    house.create(&ann, "notes", json!({"key": "b", "title": "t", "owner": "ann"})).await.unwrap();
    for owner in [json!("bob"), json!(null), json!(5)] {
        assert_eq!(
            refusal(house.create(&ann, "notes", owned(owner.clone())).await),
            ("forbidden", vec!["/owner".to_owned()]),
            "{owner}"
        );
        let patch = json!({"owner": owner});
        assert_eq!(refusal(house.patch(&ann, "notes", "a", patch).await), ("forbidden", vec!["/owner".to_owned()]));
        assert_eq!(refusal(house.put(&ann, "notes", "a", json!({"title": "t", "owner": owner})).await).0, "forbidden");
    }
    // What is left out stays, also for administrators; theirs is what they create, unless they say whose.
    house.put(&ann, "notes", "a", json!({"title": "u"})).await.unwrap();
    house.put(&admin, "notes", "a", json!({"title": "v"})).await.unwrap();
    assert_eq!(house.found(&ann, "notes/a").await["title"], "v");
    assert_eq!(house.patch(&ann, "notes", "a", json!({"owner": "ann"})).await.unwrap().outcome, WriteOutcome::Unchanged);
    house.create(&admin, "notes", note("c")).await.unwrap();
    house.create(&admin, "notes", json!({"key": "d", "title": "t", "owner": "ann"})).await.unwrap();
    assert_eq!(house.keys(&ann, "notes").await, ["a", "b", "d"]);
    assert_eq!(house.found(&admin, "notes/c").await["owner"], "root");
    house.create(&Caller::OPERATOR, "notes", note("e")).await.unwrap();
    assert_eq!(house.found(&admin, "notes/e").await.get("owner"), None, "the operator owns nothing");
}

#[tokio::test]
async fn what_is_not_ones_to_see_cannot_be_told_from_what_there_is_not() {
    let house = House::new().await;
    let (ann, bob) = (known("ann", Role::Viewer), known("bob", Role::Viewer));
    house.create(&bob, "notes", note("b")).await.unwrap();
    let told = |result: Result<Written, Error>, key: &str| {
        let error = result.unwrap_err();
        (
            error.code(),
            error.detail().replace(&format!("{key:?}"), "KEY"),
            error.current_etag().map(str::to_owned),
            error.violations().len(),
        )
    };
    for precondition in [Precondition::None, Precondition::Exists, Precondition::Matches(vec!["\"x\"".to_owned()])] {
        let mut answers = Vec::new();
        for key in ["b", "none"] {
            answers.push((
                told(house.patch_if(&ann, ("notes", key), json!({"title": 5}), precondition.clone()).await, key),
                told(
                    house
                        .records()
                        .delete(house.resource("notes"), &ann, RecordId::parse(key).unwrap(), precondition.clone(), None)
                        .await
                        .map(|reply| reply.done().unwrap()),
                    key,
                ),
            ));
        }
        assert_eq!(answers[0], answers[1], "{precondition:?}");
        assert!(answers[0].0.2.is_none(), "{precondition:?}");
    }
    for operation in ["update", "patch", "delete"] {
        let mut answers = Vec::new();
        for key in ["b", "none"] {
            let mut operation = json!({"op": operation, "id": key});
            if operation["op"] != "delete" {
                operation["data"] = json!({"title": "t"});
            }
            let error = house.batch(&ann, "notes", json!([operation])).await.unwrap_err();
            answers.push((error.kind(), error.to_string().replace(&format!("{key:?}"), "KEY")));
        }
        assert_eq!(answers[0], answers[1], "{operation}");
    }
    // Ids are one namespace: whoever would create is told that one is taken, and nothing else.
    assert_eq!(refusal(house.create(&ann, "notes", note("b")).await).0, "already_exists");
    assert_eq!(refusal(house.put(&ann, "notes", "b", json!({"title": "mine"})).await).0, "not_found");
    let absent = house.put_if(&ann, ("notes", "b"), json!({"title": "mine"}), Precondition::Absent).await.unwrap_err();
    assert_eq!((absent.code(), absent.current_etag()), ("not_found", None));
    let tagged = house.put_if(&ann, ("notes", "b"), json!({"title": "mine"}), Precondition::Exists).await.unwrap_err();
    assert_eq!((tagged.code(), tagged.current_etag()), ("precondition_failed", None));
    assert_eq!(house.found(&bob, "notes/b").await["version"], 1);
}

#[tokio::test]
async fn what_one_may_read_and_not_write_is_forbidden() {
    let house = House::new().await;
    let (ann, bob, admin) = (known("ann", Role::Editor), known("bob", Role::Viewer), known("root", Role::Admin));
    house.create(&bob, "posts", json!({"key": "p"})).await.unwrap();
    assert_eq!(refusal(house.put(&ann, "posts", "p", json!({"kind": "x"})).await).0, "forbidden");
    assert_eq!(refusal(house.patch(&ann, "posts", "p", json!({})).await).0, "forbidden");
    assert_eq!(refusal(house.delete(&ann, "posts", "p").await).0, "forbidden");
    assert_eq!(refusal(house.create(&ann, "posts", json!({"key": "p"})).await).0, "already_exists");
    assert_eq!(refusal(house.patch(&ann, "posts", "none", json!({})).await).0, "not_found");
    assert_eq!(refusal(house.patch(&Caller::ANONYMOUS, "posts", "p", json!({})).await).0, "unauthenticated");
    let reader = with_scopes("bob", Role::Admin, Some(&["posts:read", "notes:*"]));
    assert_eq!(refusal(house.patch(&reader, "posts", "p", json!({})).await).0, "insufficient_scope");
    assert_eq!(refusal(house.create(&bob, "rooms", json!({"key": "r"})).await).0, "forbidden");
    house.patch(&admin, "posts", "p", json!({"author": "ann"})).await.unwrap();
    assert_eq!(refusal(house.patch(&bob, "posts", "p", json!({"kind": "x"})).await).0, "forbidden");
    house.patch(&ann, "posts", "p", json!({"kind": "y"})).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_held_to_the_owners_as_its_own_operations_leave_them() {
    let house = House::new().await;
    let (ann, bob, admin) = (known("ann", Role::Viewer), known("bob", Role::Viewer), known("root", Role::Admin));
    house.create(&ann, "notes", note("a")).await.unwrap();
    house.create(&bob, "notes", note("b")).await.unwrap();
    // None of these steals or shows: not even all together.
    for operations in [
        json!([{"op": "delete", "id": "a"}, {"op": "create", "id": "a", "data": {"title": "t", "owner": "bob"}}]),
        json!([{"op": "delete", "id": "b"}, {"op": "create", "id": "b", "data": {"title": "t"}}]),
        json!([{"op": "patch", "id": "a", "data": {"title": "u"}}, {"op": "patch", "id": "b", "data": {}}]),
        json!([{"op": "patch", "id": "a", "data": {"owner": "bob"}}, {"op": "patch", "id": "a", "data": {"owner": "ann"}}]),
        json!([{"op": "upsert", "id": "b", "data": {"title": "t"}}]),
    ] {
        assert!(house.batch(&ann, "notes", operations.clone()).await.is_err(), "{operations}");
    }
    assert_eq!(
        (house.found(&ann, "notes/a").await["version"].clone(), house.found(&bob, "notes/b").await["version"].clone()),
        (json!(1), json!(1))
    );
    // Deleted and made anew it is theirs, as all that they create.
    let anew = json!([{"op": "delete", "id": "a"}, {"op": "create", "id": "a", "data": {"title": "t"}}]);
    house.batch(&ann, "notes", anew).await.unwrap();
    assert_eq!(house.found(&ann, "notes/a").await["owner"], "ann");
    // An administrator gives away and takes back; what counts is the end.
    let moved = json!([{"op": "patch", "id": "a", "data": {"owner": "bob"}}, {"op": "patch", "id": "a", "data": {"title": "bob's"}},
        {"op": "patch", "id": "b", "data": {"owner": "ann"}}]);
    house.batch(&admin, "notes", moved).await.unwrap();
    assert_eq!((house.keys(&ann, "notes").await, house.keys(&bob, "notes").await), (vec!["b".to_owned()], vec!["a".to_owned()]));
}

#[tokio::test]
async fn members_that_one_may_not_set_stay_as_they_are() {
    let house = House::new().await;
    let (ann, editor, admin) = (known("ann", Role::Viewer), known("ann", Role::Editor), known("root", Role::Admin));
    house.create(&admin, "notes", json!({"key": "a", "title": "t", "owner": "ann", "salary": 5, "stage": "new"})).await.unwrap();
    // What is seen may be sent back as it is; what is hidden is not even told to be right.
    let locked = |member: &str| ("forbidden", vec![format!("/{member}")]);
    house.put(&ann, "notes", "a", json!({"title": "u", "stage": "new"})).await.unwrap();
    assert_eq!(refusal(house.put(&ann, "notes", "a", json!({"title": "u", "stage": "old"})).await), locked("stage"));
    assert_eq!(refusal(house.put(&ann, "notes", "a", json!({"title": "u", "stage": null})).await), locked("stage"));
    for guess in [json!(5), json!(6), json!(null)] {
        assert_eq!(refusal(house.put(&ann, "notes", "a", json!({"title": "u", "salary": guess})).await), locked("salary"));
        assert_eq!(refusal(house.patch(&ann, "notes", "a", json!({"salary": guess})).await), locked("salary"));
        assert_eq!(
            refusal(house.create(&ann, "notes", json!({"key": "x", "title": "t", "salary": guess})).await),
            locked("salary")
        );
    }
    for stage in [json!("old"), json!(null)] {
        assert_eq!(refusal(house.patch(&ann, "notes", "a", json!({"stage": stage})).await), locked("stage"));
    }
    assert_eq!(house.patch(&ann, "notes", "a", json!({"stage": "new"})).await.unwrap().outcome, WriteOutcome::Unchanged);
    assert_eq!(refusal(house.create(&ann, "notes", json!({"key": "x", "title": "t", "stage": "new"})).await), locked("stage"));
    let error = house.batch(&ann, "notes", json!([{"op": "patch", "id": "a", "data": {"stage": "old"}}])).await.unwrap_err();
    assert_eq!(error.violations()[0].pointer, "/operations/0/data/stage");
    // The replaced document has kept both, and an equal one changes nothing.
    let stored = house.found(&admin, "notes/a").await;
    assert_eq!((&stored["salary"], &stored["stage"], &stored["version"]), (&json!(5), &json!("new"), &json!(2)));
    assert_eq!(house.put(&ann, "notes", "a", json!({"title": "u"})).await.unwrap().outcome, WriteOutcome::Unchanged);
    house.patch(&editor, "notes", "a", json!({"stage": "old"})).await.unwrap();
    house.patch(&admin, "notes", "a", json!({"salary": null})).await.unwrap();
    house.put(&ann, "notes", "a", json!({"title": "w"})).await.unwrap();
    let stored = house.found(&admin, "notes/a").await;
    assert_eq!((stored.get("salary"), &stored["stage"], &stored["title"]), (None, &json!("old"), &json!("w")));
}

#[tokio::test]
async fn answers_to_writes_and_reads_agree_and_their_tags_work() {
    let house = House::new().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    house.create(&admin, "notes", json!({"key": "a", "title": "t", "owner": "ann", "salary": 5})).await.unwrap();
    let tag = async |caller: &Caller| match house.read(caller, "notes/a").await {
        Shown::Found { etag, text, .. } => (etag, text),
        other => panic!("{other:?}"),
    };
    assert_ne!(tag(&ann).await.0, tag(&admin).await.0);
    for patch in [json!({"title": "u"}), json!({"title": "u"}), json!({})] {
        let (etag, _) = tag(&ann).await;
        let written = house.patch_if(&ann, ("notes", "a"), patch.clone(), Precondition::Matches(vec![etag])).await.unwrap();
        let (etag, text) = tag(&ann).await;
        let answered = written.record.unwrap().data.clone();
        assert_eq!((written.etag.unwrap(), &answered), (etag, &text), "{patch}");
        assert!(!answered.contains("salary"), "{answered}");
    }
    // The tag of the whole record is none of ann's, and a mismatch tells hers.
    let stale = Precondition::Matches(vec![tag(&admin).await.0]);
    let error = house.patch_if(&ann, ("notes", "a"), json!({"title": "x"}), stale).await.unwrap_err();
    assert_eq!((error.code(), error.current_etag()), ("precondition_failed", Some(tag(&ann).await.0.as_str())));
    let batch = house
        .batch(&ann, "notes", json!([{"op": "patch", "id": "a", "data": {"title": "v"}, "if_match": tag(&ann).await.0}]))
        .await
        .unwrap();
    assert_eq!(batch[0].etag.as_deref(), Some(tag(&ann).await.0.as_str()));
    assert!(!batch[0].record.as_ref().unwrap().data.contains("salary"));
    let admins = house.patch(&admin, "notes", "a", json!({"title": "w"})).await.unwrap();
    assert_eq!((admins.etag.unwrap(), admins.record.unwrap().data.clone()), tag(&admin).await);
}

#[tokio::test]
async fn a_hidden_member_that_breaks_a_new_rule_is_not_told() {
    let house = House::new().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    house.create(&admin, "notes", json!({"key": "a", "title": "t", "owner": "ann", "salary": 5})).await.unwrap();
    let files = tempfile::TempDir::new().unwrap();
    let mut settings = house.server.settings.clone();
    let stricter = NOTES.replace("salary = { type = \"integer\" }", "salary = { type = \"integer\", minimum = 777 }");
    assert_ne!(stricter, NOTES);
    let collections = COLLECTIONS.map(|(name, text)| if name == "notes" { (name, stricter.as_str()) } else { (name, text) });
    crate::support::declare(&mut settings, files.path(), &collections, &[]);
    let House { server, .. } = house;
    let house = House { app: App::open(settings).await.unwrap(), server };
    for (caller, code, detail) in [(&ann, "hidden_member", "may not see"), (&admin, "minimum", "777")] {
        let error = house.patch(caller, "notes", "a", json!({"title": "u"})).await.unwrap_err();
        assert_eq!((error.code(), error.violations()[0].code.as_ref()), ("validation_failed", code));
        assert!(error.violations()[0].detail.contains(detail), "{error}");
        assert_eq!(
            error.to_string().contains("777") || error.to_string().contains("salary"),
            caller.principal.role() == Some(Role::Admin)
        );
    }
}

#[tokio::test]
async fn a_key_that_may_write_and_not_read_is_shown_nothing() {
    let house = House::new().await;
    let (ann, key) = (known("ann", Role::Viewer), with_scopes("ann", Role::Viewer, Some(&["notes:write"])));
    let created = house.create(&key, "notes", note("a")).await.unwrap();
    assert_eq!((created.outcome, created.record.is_none(), created.etag), (WriteOutcome::Created, true, None));
    for patch in [json!({}), json!({"title": "u"})] {
        let written = house.patch(&key, "notes", "a", patch).await.unwrap();
        assert!(written.record.is_none() && written.etag.is_none());
    }
    let batch = house.batch(&key, "notes", json!([{"op": "patch", "id": "a", "data": {}}])).await.unwrap();
    assert!(batch[0].record.is_none() && batch[0].etag.is_none());
    let stale = Precondition::Matches(vec!["\"x\"".to_owned()]);
    let error = house.patch_if(&key, ("notes", "a"), json!({}), stale.clone()).await.unwrap_err();
    assert_eq!((error.code(), error.current_etag()), ("precondition_failed", None));
    assert!(house.patch_if(&ann, ("notes", "a"), json!({}), stale).await.unwrap_err().current_etag().is_some());
    assert_eq!(house.found(&ann, "notes/a").await["title"], "u");
}

#[tokio::test]
async fn ids_of_others_are_not_tried_in_masses() {
    let house = House::new().await;
    let (ann, bob) = (known("ann", Role::Viewer), known("bob", Role::Viewer));
    for key in ["b1", "b2"] {
        house.create(&bob, "notes", note(key)).await.unwrap();
    }
    // What would be wrong with a free id comes first.
    for (op, wrong) in [("upsert", json!({})), ("create", json!({"title": 5})), ("upsert", json!({"title": "t", "salary": 1}))] {
        let mut answers = Vec::new();
        for key in ["b1", "none"] {
            let error = house.batch(&ann, "notes", json!([{"op": op, "id": key, "data": wrong}])).await.unwrap_err();
            answers.push((error.kind(), error.to_string()));
        }
        assert_eq!(answers[0], answers[1], "{op} {wrong}");
    }
    let upsert = |key: &str, data: Value| json!({"op": "upsert", "id": key, "data": data});
    let error =
        house.batch(&ann, "notes", json!([upsert("b1", json!({"title": "t"})), upsert("x", json!({}))])).await.unwrap_err();
    assert!(
        !error.to_string().contains("b1") && error.violations().iter().all(|violation| violation.pointer.contains("/1")),
        "{error}"
    );
    let all =
        json!([upsert("x", json!({"title": "t"})), upsert("b1", json!({"title": "t"})), upsert("b2", json!({"title": "t"}))]);
    let error = house.batch(&ann, "notes", all).await.unwrap_err();
    assert_eq!(error.violations().len(), 1, "{error}");
    assert_eq!(house.keys(&ann, "notes").await, Vec::<String>::new());
}
