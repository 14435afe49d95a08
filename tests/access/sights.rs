//! Reads: what there is for whom, who shares entries, and that nothing tells of what one does not see.

use super::*;

/// Two notes of each of ann and bob, with salaries; bob's are older than ann's.
async fn filled() -> House {
    let house = House::new().await;
    let operator = Caller::OPERATOR;
    house.create(&operator, "rooms", json!({"key": "r", "floor": 1, "code": "1234"})).await.unwrap();
    house.create(&operator, "safes", json!({"key": "s"})).await.unwrap();
    for (key, owner, salary) in [("b1", "bob", 10), ("b2", "bob", 20), ("a1", "ann", 30), ("a2", "ann", 40)] {
        let note = json!({"key": key, "title": format!("note {key}"), "owner": owner, "kind": "k", "salary": salary, "stage": "new", "room": "r"});
        house.create(&operator, "notes", note).await.unwrap();
    }
    house
}

#[tokio::test]
async fn owners_see_their_own_and_administrators_all() {
    let house = filled().await;
    let (ann, bob, admin) = (known("ann", Role::Editor), known("bob", Role::Viewer), known("root", Role::Admin));
    for _ in 0..2 {
        assert_eq!(house.keys(&ann, "notes").await, ["a1", "a2"]);
        assert_eq!(house.keys(&bob, "notes?sort=-key").await, ["b2", "b1"]);
        assert_eq!(house.keys(&bob, "notes?q=note&sort=key").await, ["b1", "b2"]);
        assert_eq!(house.keys(&bob, "notes?kind=k&cursor=&limit=1").await, ["b1"]);
        assert_eq!(house.keys(&admin, "notes").await, ["a1", "a2", "b1", "b2"]);
        assert_eq!(house.keys(&Caller::OPERATOR, "notes").await.len(), 4);
        assert_eq!(house.found(&bob, "notes/b1").await["title"], "note b1");
        assert_eq!(house.read(&ann, "notes/b1").await, Shown::Missing);
        assert_eq!(house.read(&ann, "notes/b1?fields=title").await, Shown::Missing);
        assert_eq!(house.read(&ann, "notes/none").await, Shown::Missing);
        // Whoever asks for the records of others finds none.
        assert_eq!(house.found(&ann, "notes?owner=bob").await["pagination"]["total"], 0);
        assert_eq!(
            house.found(&ann, "notes?filter={\"or\":[{\"owner\":\"bob\"},{\"kind\":\"k\"}]}").await["pagination"]["total"],
            2
        );
        assert_eq!(house.found(&ann, "notes").await["pagination"]["total"], 2);
        let stats = house.found(&bob, "notes/_stats?by=owner").await;
        assert_eq!(stats, json!({"total": 2, "by": {"owner": {"distinct": 1, "values": [{"value": "bob", "count": 2}]}}}));
        assert_eq!(house.found(&admin, "notes/_stats").await["total"], 4);
    }
}

#[tokio::test]
async fn who_is_not_known_or_has_no_right_is_told_so_before_anything_else() {
    let house = filled().await;
    let code = async |caller: &Caller, path: &str| match house.read(caller, path).await {
        Shown::Refused { code, .. } => code,
        other => panic!("{path}: {other:?}"),
    };
    let viewer = known("ann", Role::Viewer);
    for path in ["notes", "notes/a1", "notes/none", "notes/_stats", "notes?colour=1", "rooms", "floors", "safes/s"] {
        assert_eq!(code(&Caller::ANONYMOUS, path).await, "unauthenticated", "{path}");
    }
    for path in ["safes/s", "safes/none", "safes?colour=1", "salaries"] {
        assert_eq!(code(&viewer, path).await, "forbidden", "{path}");
    }
    let key = with_scopes("ann", Role::Admin, Some(&["notes:write", "rooms:read"]));
    for path in ["notes", "notes/a1", "posts", "signs", "floors"] {
        assert_eq!(code(&key, path).await, "insufficient_scope", "{path}");
    }
    assert_eq!(house.keys(&key, "rooms").await, ["r"]);
    let every = with_scopes("ann", Role::Viewer, Some(&["*:read"]));
    assert_eq!(house.keys(&every, "notes").await, ["a1", "a2"], "a scope gives no more than the role");
}

#[tokio::test]
async fn what_is_hidden_is_not_there_for_those_it_is_hidden_from() {
    let house = filled().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    for _ in 0..2 {
        let (seen, whole) = (house.read(&ann, "notes/a1").await, house.found(&admin, "notes/a1").await);
        let Shown::Found { text, .. } = &seen else { panic!("{seen:?}") };
        let seen: Value = serde_json::from_str(text).unwrap();
        assert_eq!((&whole["salary"], seen.get("salary")), (&json!(30), None));
        let mut rest = whole.clone();
        rest.as_object_mut().unwrap().shift_remove("salary");
        // In the same order, too.
        assert_eq!(seen.to_string(), rest.to_string());
        for record in house.found(&ann, "notes").await["data"].as_array().unwrap() {
            assert_eq!(record.get("salary"), None);
        }
        assert!(house.found(&admin, "notes").await["data"][0]["salary"].is_i64());
    }
    // It is refused like what there is not, and offered nowhere.
    for template in [
        "notes?X=1",
        "notes?filter[X][gt]=1",
        "notes?filter={\"X\":1}",
        "notes?filter={\"or\":[{\"X\":1},{\"kind\":\"k\"}]}",
        "notes?sort=X",
        "notes?sort=-kind,X",
        "notes?fields=title,X",
        "notes/a1?fields=X",
        "notes/_stats?by=X",
        "notes/_stats?X=1",
        "notes?include=X",
        "notes?kind=k&sort=X",
        "notes?kind=k&X=30",
    ] {
        let [hidden, unknown] =
            [("salary", "salary"), ("celery", "salary")].map(|(name, spelled)| (template.replace('X', name), name, spelled));
        let (Shown::Refused { code, detail, allowed }, Shown::Refused { code: other, detail: same, allowed: offered }) =
            (house.read(&ann, &hidden.0).await, house.read(&ann, &unknown.0).await)
        else {
            panic!("{template} is answered")
        };
        assert_eq!((code, detail, &allowed), (other, same.replace(unknown.1, unknown.2), &offered), "{template}");
        assert!(!allowed.iter().any(|name| name == "salary"), "{template}: {allowed:?}");
        if !template.contains("include") {
            assert!(matches!(house.read(&admin, &hidden.0).await, Shown::Found { .. }), "{template}");
        }
    }
    // An index that begins with it helps nobody else to sort by what follows.
    assert_eq!(house.keys(&ann, "notes?sort=kind").await, ["a1", "a2"]);
}

#[tokio::test]
async fn entries_are_shared_by_those_who_see_the_same_and_by_nobody_else() {
    let house = filled().await;
    let hit = async |caller: &Caller, path: &str| is_hit(&house.answer(caller, path).await.unwrap());
    let (viewer, other, editor) = (known("v", Role::Viewer), known("w", Role::Viewer), known("e", Role::Editor));
    for path in ["rooms/r", "rooms", "rooms?floor=1"] {
        assert!(!hit(&viewer, path).await, "{path}");
        assert!(hit(&other, path).await, "{path}");
        assert!(!hit(&editor, path).await, "{path}: an editor sees the code");
        assert!(hit(&Caller::OPERATOR, path).await && hit(&known("root", Role::Admin), path).await, "{path}");
    }
    // Where nothing is hidden there is one entry for all.
    house.create(&Caller::OPERATOR, "signs", json!({"key": "s", "room": "r"})).await.unwrap();
    assert!(
        !hit(&Caller::ANONYMOUS, "signs/s").await && hit(&Caller::OPERATOR, "signs/s").await && hit(&viewer, "signs/s").await
    );
    // But what is embedded may be another.
    assert!(!hit(&viewer, "signs/s?include=room").await);
    assert!(!hit(&editor, "signs/s?include=room").await && hit(&Caller::OPERATOR, "signs/s?include=room").await);
    // A list of the caller's own is the one that an administrator gets who asks for it, apart from what is hidden.
    let (ann, bob) = (known("ann", Role::Viewer), known("bob", Role::Viewer));
    for path in ["notes/a1", "notes?kind=k", "notes/_stats?by=kind"] {
        assert!(!hit(&ann, path).await && hit(&ann, path).await, "{path}");
        assert!(!hit(&bob, path).await, "{path}");
    }
    assert!(hit(&known("root", Role::Admin), "notes/_stats?by=kind&owner=ann").await);
}

#[tokio::test]
async fn what_is_embedded_needs_its_own_rights_and_hides_its_own_members() {
    let house = filled().await;
    let (viewer, editor, admin) = (known("ann", Role::Viewer), known("e", Role::Editor), known("root", Role::Admin));
    house.create(&admin, "posts", json!({"key": "p", "note": "a1", "room": "r", "remark": "x", "author": "ann"})).await.unwrap();
    let code = async |caller: &Caller, path: &str| match house.read(caller, path).await {
        Shown::Refused { code, .. } => code,
        other => panic!("{path}: {other:?}"),
    };
    for path in ["posts/p?include=room", "posts?include=room", "posts?include=note,room"] {
        assert_eq!(code(&Caller::ANONYMOUS, path).await, "unauthenticated", "{path}");
    }
    let key = with_scopes("ann", Role::Admin, Some(&["posts:read"]));
    assert_eq!(code(&key, "posts?include=room").await, "insufficient_scope");
    // Even of one's own: the page would have to be another for each owner.
    assert_eq!(code(&viewer, "posts/p?include=note").await, "forbidden");
    assert_eq!(code(&viewer, "notes/a1?include=parent").await, "forbidden");
    for path in ["posts/p?include=room", "posts?include=room"] {
        let record = |answer: Value| if path.contains('/') { answer } else { answer["data"][0].clone() };
        for _ in 0..2 {
            let seen = record(house.found(&viewer, path).await);
            assert_eq!(
                (seen["_include"]["room"]["floor"].clone(), seen["_include"]["room"].get("code")),
                (json!(1), None),
                "{path}"
            );
            assert_eq!(seen.get("remark"), None, "{path}");
            let whole = record(house.found(&editor, path).await);
            assert_eq!((&whole["_include"]["room"]["code"], &whole["remark"]), (&json!("1234"), &json!("x")), "{path}");
        }
        let projected = format!("{path}&fields=key");
        assert_eq!(record(house.found(&viewer, &projected).await)["_include"]["room"].get("code"), None);
    }
    let embedded = house.found(&admin, "posts/p?include=note").await;
    assert_eq!(embedded["_include"]["note"]["salary"], 30);
}

#[tokio::test]
async fn nothing_that_happens_to_the_records_of_others_shows_in_the_age_of_ones_own_answers() {
    let house = filled().await;
    let (ann, bob) = (known("ann", Role::Viewer), known("bob", Role::Viewer));
    // Before and after one's own in every order.
    house.create(&Caller::OPERATOR, "notes", json!({"key": "c1", "title": "t", "owner": "aaa"})).await.unwrap();
    let paths = [
        "notes",
        "notes?kind=k",
        "notes?q=note&sort=key",
        "notes?key=b1",
        "notes/_stats?owner=bob",
        "notes/_stats?owner=aaa",
        "notes/_stats?by=kind",
        "notes/_stats?kind=k&by=stage",
        "notes/_stats?filter[stage][eq]=new",
    ];
    for path in paths {
        house.found(&ann, path).await;
    }
    house.patch(&bob, "notes", "b1", json!({"title": "other"})).await.unwrap();
    house.create(&bob, "notes", json!({"key": "b3", "title": "new", "kind": "k"})).await.unwrap();
    house.delete(&bob, "notes", "b2").await.unwrap();
    house.patch(&known("aaa", Role::Viewer), "notes", "c1", json!({"title": "u"})).await.unwrap();
    for path in paths {
        assert!(is_hit(&house.answer(&ann, path).await.unwrap()), "{path}");
    }
    house.patch(&ann, "notes", "a1", json!({"title": "other"})).await.unwrap();
    assert!(!is_hit(&house.answer(&ann, "notes").await.unwrap()), "one's own show");
}

#[tokio::test]
async fn a_record_that_changes_hands_changes_sides_at_once() {
    let house = filled().await;
    let (ann, bob, admin) = (known("ann", Role::Viewer), known("bob", Role::Viewer), known("root", Role::Admin));
    for caller in [&ann, &bob] {
        for path in ["notes/a1", "notes", "notes/_stats", "notes?kind=k&limit=1"] {
            house.read(caller, path).await;
        }
    }
    house.patch(&admin, "notes", "a1", json!({"owner": "bob"})).await.unwrap();
    assert_eq!(house.read(&ann, "notes/a1").await, Shown::Missing);
    assert_eq!(
        (house.keys(&ann, "notes").await, house.found(&ann, "notes/_stats").await["total"].clone()),
        (vec!["a2".to_owned()], json!(1))
    );
    assert_eq!(house.found(&bob, "notes/a1").await["owner"], "bob");
    assert_eq!((house.keys(&bob, "notes").await.len(), house.found(&bob, "notes/_stats").await["total"].clone()), (3, json!(3)));
    assert_eq!(house.found(&bob, "notes?kind=k&limit=1").await["pagination"]["total"], 3);
}

#[tokio::test]
async fn a_page_that_others_writes_cannot_have_changed_is_looked_at_again_and_kept() {
    let house = filled().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    // Both have the guard of ann's records; the note that changes hands leaves the page, whatever else it required.
    for path in ["notes?stage=new", "notes?kind=k&stage=new&limit=1"] {
        house.found(&ann, path).await;
    }
    house.patch(&admin, "notes", "a1", json!({"owner": "bob"})).await.unwrap();
    assert_eq!(house.keys(&ann, "notes?stage=new").await, ["a2"]);
    assert_eq!(house.keys(&ann, "notes?kind=k&stage=new&limit=1").await, ["a2"]);
    // What changes only what is hidden changes the time of update, which is not.
    let before = house.read(&ann, "notes?kind=k").await;
    house.patch(&admin, "notes", "a2", json!({"salary": 99})).await.unwrap();
    assert_ne!(house.read(&ann, "notes?kind=k").await, before);
}
