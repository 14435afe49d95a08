//! References tell nothing of what one may not see, and take nothing away that was there.

use super::*;

async fn house() -> House {
    let house = House::new().await;
    let operator = Caller::OPERATOR;
    house.create(&operator, "rooms", json!({"key": "r"})).await.unwrap();
    house.create(&operator, "safes", json!({"key": "s"})).await.unwrap();
    for (key, owner) in [("a", "ann"), ("b", "bob")] {
        house.create(&operator, "notes", json!({"key": key, "title": "t", "owner": owner})).await.unwrap();
    }
    house
}

/// What a refused write says, with the id that it names taken out.
fn told(result: Result<Written, Error>, id: &str) -> (&'static str, String) {
    let error = result.unwrap_err();
    (error.code(), error.to_string().replace(&format!("{id:?}"), "ID"))
}

#[tokio::test]
async fn a_reference_to_what_one_may_not_see_is_one_to_what_there_is_not() {
    let house = house().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    let post = |note: &str| json!({"key": "p", "note": note});
    let [others, none] = ["b", "none"].map(|id| (id, post(id)));
    let refused = told(house.create(&ann, "posts", others.1).await, others.0);
    assert_eq!(refused, told(house.create(&ann, "posts", none.1).await, none.0));
    assert!(refused.1.contains("/note"), "{refused:?}");
    house.create(&ann, "posts", post("a")).await.unwrap();
    assert_eq!(told(house.patch(&ann, "posts", "p", json!({"note": "b"})).await, "b"), refused);
    // In the same collection, and of what the same batch makes.
    let parent = |parent: &str| json!([{"op": "create", "id": "c", "data": {"title": "t"}}, {"op": "create", "id": "d", "data": {"title": "t", "parent": parent}}]);
    assert!(house.batch(&ann, "notes", parent("b")).await.is_err());
    house.batch(&ann, "notes", parent("c")).await.unwrap();
    // Whoever sees all refers to all.
    house.create(&admin, "posts", json!({"key": "q", "note": "b"})).await.unwrap();
}

#[tokio::test]
async fn what_a_role_may_not_read_at_all_it_cannot_find_out_by_references() {
    let house = house().await;
    let anonymous = Caller::ANONYMOUS;
    for (field, id) in [("safe", "s"), ("room", "r")] {
        let sign = |id: &str| json!({"key": "x", field: id});
        let (there, not) =
            (house.create(&anonymous, "signs", sign(id)).await, house.create(&anonymous, "signs", sign("none")).await);
        assert_eq!(told(there, id), told(not, "none"), "{field}");
    }
    let viewer = known("v", Role::Viewer);
    house.create(&viewer, "signs", json!({"key": "x", "room": "r"})).await.unwrap();
    assert!(house.patch(&viewer, "signs", "x", json!({"safe": "s"})).await.is_err());
    // A key's scopes limit what it asks for, not what its records may say.
    let key = with_scopes("v", Role::Viewer, Some(&["signs:write"]));
    house.create(&key, "signs", json!({"key": "y", "room": "r"})).await.unwrap();
}

#[tokio::test]
async fn a_reference_that_others_have_set_stays() {
    let house = house().await;
    let (ann, admin) = (known("ann", Role::Viewer), known("root", Role::Admin));
    house.create(&admin, "posts", json!({"key": "p", "note": "b", "author": "ann"})).await.unwrap();
    house.put(&ann, "posts", "p", json!({"note": "b", "kind": "x"})).await.unwrap();
    house.patch(&ann, "posts", "p", json!({"kind": "y"})).await.unwrap();
    house.patch(&ann, "posts", "p", json!({"note": "a"})).await.unwrap();
    assert!(house.patch(&ann, "posts", "p", json!({"note": "b"})).await.is_err());
    house.create(&Caller::OPERATOR, "signs", json!({"key": "x", "safe": "s"})).await.unwrap();
    house.patch(&Caller::ANONYMOUS, "signs", "x", json!({"text": "t"})).await.unwrap();
}

#[tokio::test]
async fn a_refused_deletion_tells_of_what_one_may_see() {
    let house = house().await;
    let (editor, admin) = (known("e", Role::Editor), known("root", Role::Admin));
    house.patch(&admin, "notes", "b", json!({"room": "r"})).await.unwrap();
    let told = async |caller: &Caller| {
        let error = house.delete(caller, "rooms", "r").await.unwrap_err();
        (error.code(), error.violations().iter().map(|violation| violation.detail.clone()).collect::<Vec<_>>())
    };
    assert_eq!(told(&editor).await, ("referenced", vec!["\"r\" is still referred to.".to_owned()]));
    assert_eq!(told(&admin).await, ("referenced", vec!["\"r\" is still referred to by 1 record of notes, in room.".to_owned()]));
    // What is public is told to all, what is not as one.
    house.create(&admin, "signs", json!({"key": "x", "room": "r"})).await.unwrap();
    house.create(&admin, "posts", json!({"key": "y", "room": "r"})).await.unwrap();
    let (_, details) = told(&editor).await;
    assert_eq!(details.len(), 3, "{details:?}");
    assert!(details.iter().all(|detail| !detail.contains("notes")), "{details:?}");
}
