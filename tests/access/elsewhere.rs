//! Several instances and the second tier: who sees what is kept apart there too, and what changes hands does so everywhere.

use reqwest::Method;
use terrace::auth::KeyRequest;

use super::*;
use crate::support::redis;

#[tokio::test]
async fn a_record_that_changes_hands_on_one_instance_does_so_on_all() {
    let files = COLLECTIONS;
    let one = Server::with_files(&files, &[], redis::join);
    let two = one.beside(|_| {});
    let mut keys = Vec::new();
    for (email, role) in [("ann@example.org", Role::Viewer), ("bob@example.org", Role::Viewer)] {
        one.add_user(email, role).await;
        keys.push(one.key(KeyRequest { user: Some(email.to_owned()), ..KeyRequest::new("key", role) }).await);
    }
    let admin = one.key_for(Role::Admin, &[]).await;
    let (ann, bob) = (keys[0].as_str(), keys[1].as_str());
    let mut subjects = Vec::new();
    for key in [ann, bob] {
        subjects.push(one.get_as(key, "/api/v1/auth/me").await.expect(200)["subject"].as_str().unwrap().to_owned());
    }
    let note = json!({"title": "t", "owner": subjects[0], "salary": 7});
    one.send_as(&admin, Method::PUT, "/api/v1/notes/a", Some(&note)).await.expect(201);
    let total = async |server: &Server, key: &str| {
        server.get_as(key, "/api/v1/notes").await.expect(200)["pagination"]["total"].as_u64().unwrap()
    };
    let status = async |server: &Server, key: &str| server.get_as(key, "/api/v1/notes/a").await.status.as_u16();
    // What one has loaded the other takes over, but nobody another's.
    for server in [&one, &two] {
        for _ in 0..2 {
            assert_eq!((status(server, ann).await, status(server, bob).await, status(server, &admin).await), (200, 404, 200));
            assert_eq!((total(server, ann).await, total(server, bob).await, total(server, &admin).await), (1, 0, 1));
            assert!(!server.get_as(ann, "/api/v1/notes/a").await.text.contains("salary"));
            assert!(server.get_as(&admin, "/api/v1/notes/a").await.text.contains("salary"));
            assert!(!server.get_as(ann, "/api/v1/notes").await.text.contains("salary"));
        }
    }
    let given = one.send_as(&admin, Method::PATCH, "/api/v1/notes/a", Some(&json!({"owner": subjects[1]}))).await;
    given.expect(200);
    assert_eq!((status(&one, ann).await, status(&one, bob).await), (404, 200), "at once where it was written");
    two.eventually("the record is bob's elsewhere", async || status(&two, ann).await == 404 && status(&two, bob).await == 200)
        .await;
    two.eventually("and so are the lists", async || total(&two, ann).await == 0 && total(&two, bob).await == 1).await;
    // With the token of the write there is nothing to wait for, and a new instance finds only what holds.
    let three = one.beside(|_| {});
    for server in [&two, &three] {
        let token = [("consistency-token", given.header("consistency-token")), ("authorization", ann)];
        assert_eq!(server.get_with("/api/v1/notes/a", &token).await.status, 404);
        assert_eq!((status(server, ann).await, status(server, bob).await, total(server, ann).await), (404, 200, 0));
    }
}
