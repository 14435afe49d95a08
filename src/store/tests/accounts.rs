//! Users, keys, sessions and signing keys: what is logged of them, and who comes first.

use std::time::Instant;

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;

use super::schema::Session as SqlSession;
use super::*;
use crate::error::ErrorKind;
use crate::store::{KEYS, NewKey, NewSession, NewUser, Rotation, SESSIONS, SigningKey, USERS, UserState};

const NOW: &str = "2026-11-21T12:00:00.000000Z";
const LATER: &str = "2026-11-21T13:00:00.000000Z";

fn user(email: &str) -> NewUser {
    let hash = format!("hash of {email}").into();
    NewUser { id: format!("id-of-{email}"), email: email.to_owned(), password_hash: hash, role: Role::Editor }
}

fn key(prefix: &str, user: Option<&str>) -> NewKey {
    NewKey {
        prefix: prefix.to_owned(),
        name: prefix.to_owned(),
        hash: "h".to_owned(),
        role: Role::Viewer,
        user: user.map(str::to_owned),
        scopes: None,
        quota: None,
        expires_at: None,
    }
}

fn session(id: &str, email: &str) -> NewSession {
    NewSession {
        id: id.to_owned(),
        user: format!("id-of-{email}"),
        family: "f".to_owned(),
        newest: "n".to_owned(),
        expires_at: LATER.to_owned(),
    }
}

fn hash_of(email: &str) -> secrecy::SecretString {
    format!("hash of {email}").into()
}

/// What was logged since, as `collection id what`.
async fn logged(store: &Store, since: &Snapshot) -> Vec<String> {
    let changes = store.changes_since(since, None, 100).await.unwrap().changes;
    let text = |change: LoggedChange| {
        assert!(change.before.is_none());
        let after: Value = serde_json::from_str(&change.after.unwrap()).unwrap();
        format!("{} {} {} by {}", change.collection, change.id, after["event"].as_str().unwrap(), change.actor)
    };
    changes.into_iter().map(text).collect()
}

#[tokio::test]
async fn whatever_outdates_a_principal_is_in_the_log_without_any_secret() {
    let fixture = fresh().await;
    let store = &fixture.store;
    let start = store.snapshot().await.unwrap();
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    for prefix in ["k1", "k2"] {
        store.key_insert(key(prefix, Some("a@x")), &author(), NOW).await.unwrap();
    }
    store.key_insert(key("k3", None), &author(), NOW).await.unwrap();
    store.session_insert(session("s1", "a@x"), hash_of("a@x"), None, NOW).await.unwrap().unwrap();
    let changes = store.user_set_state("a@x", UserState::Disabled, &author(), NOW).await.unwrap().unwrap();
    assert_eq!(changes.len(), 3, "the user, and each of the user's keys");
    assert!(changes.iter().all(|change| change.terms.is_empty() && change.operation == Operation::Update));
    assert!(store.user_set_state("a@x", UserState::Disabled, &author(), NOW).await.unwrap().unwrap().is_empty());
    assert!(store.user_set_state("b@x", UserState::Disabled, &author(), NOW).await.unwrap().is_none());
    store.key_revoke("k3", &author(), NOW).await.unwrap().unwrap();
    assert!(store.key_revoke("k3", &author(), NOW).await.unwrap().unwrap().is_empty());
    assert!(store.key_revoke("k4", &author(), NOW).await.unwrap().is_none());
    let expected = [
        format!("{USERS} id-of-a@x added by tester"),
        format!("{KEYS} k1 created by tester"),
        format!("{KEYS} k2 created by tester"),
        format!("{KEYS} k3 created by tester"),
        format!("{SESSIONS} s1 login by user:id-of-a@x"),
        format!("{USERS} id-of-a@x disabled by tester"),
        format!("{KEYS} k1 its user changed by tester"),
        format!("{KEYS} k2 its user changed by tester"),
        format!("{KEYS} k3 revoked by tester"),
    ];
    assert_eq!(logged(store, &start).await, expected);
    let key = store.key_read("k1").await.unwrap().unwrap();
    assert_eq!(key.holder.unwrap().disabled_at.as_deref(), Some(NOW));
    assert!(store.session_read("s1").await.unwrap().unwrap().ended_at.is_some());
}

#[tokio::test]
async fn an_address_is_taken_once_and_a_key_needs_an_active_user() {
    let fixture = fresh().await;
    let store = &fixture.store;
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    let again = NewUser { id: "other".to_owned(), ..user("a@x") };
    let error = store.user_insert(again, &author(), NOW).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, "email_taken"));
    let error = store.key_insert(key("k", Some("b@x")), &author(), NOW).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    store.user_set_state("a@x", UserState::Disabled, &author(), NOW).await.unwrap();
    let error = store.key_insert(key("k", Some("a@x")), &author(), NOW).await.unwrap_err();
    assert_eq!(error.code(), "user_disabled");
    assert!(store.key_list().await.unwrap().is_empty(), "what was refused is stored");
    assert_eq!(store.user_list().await.unwrap()[0].password_hash.expose_secret(), "hash of a@x");
}

#[tokio::test]
async fn a_session_is_not_begun_by_who_was_disabled_or_has_another_password() {
    let fixture = fresh().await;
    let store = &fixture.store;
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    let begin = async |id: &str, hash: &str| {
        store.session_insert(session(id, "a@x"), hash.to_owned().into(), None, NOW).await.unwrap().is_some()
    };
    assert!(begin("s1", "hash of a@x").await);
    store.user_set_password("a@x", "new".to_owned().into(), &author(), NOW).await.unwrap().unwrap();
    assert!(!begin("s2", "hash of a@x").await && begin("s3", "new").await);
    store.user_set_state("a@x", UserState::Disabled, &author(), NOW).await.unwrap();
    assert!(!begin("s4", "new").await);
    for (id, is_there) in [("s1", true), ("s2", false), ("s3", true), ("s4", false)] {
        let found = store.session_read(id).await.unwrap();
        assert_eq!(found.map(|session| session.ended_at.is_some()), is_there.then_some(true), "{id}");
    }
}

/// Who disables a user and who logs the user in meet at the user's row: what comes second sees what was first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_meets_the_disabling_of_its_user_waits_for_it() {
    let fixture = fresh_postgres().await;
    let store = fixture.store.clone();
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    let mut other = SqlSession::open(&fixture.directory.settings.url).unwrap();
    other.execute("BEGIN; UPDATE users SET disabled_at = 'now' WHERE email = 'a@x'");
    let login = {
        let store = store.clone();
        tokio::spawn(async move { store.session_insert(session("s1", "a@x"), hash_of("a@x"), None, NOW).await })
    };
    let making = {
        let store = store.clone();
        tokio::spawn(async move { store.key_insert(key("k1", Some("a@x")), &author(), NOW).await })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid() AND transactionid = \
                   (SELECT backend_xid FROM pg_stat_activity WHERE pid = pg_backend_pid())";
    let deadline = Instant::now() + Duration::from_secs(20);
    while other.query(waiting).unwrap()[0][0] == Some("0".to_owned()) {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.execute("COMMIT");
    assert!(login.await.unwrap().unwrap().is_none(), "a session was begun");
    assert_eq!(making.await.unwrap().unwrap_err().code(), "user_disabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_at_once_one_makes_the_first_key_and_one_each_signing_key() {
    let fixture = fresh().await;
    let store = &fixture.store;
    let first = join_all((0..8).map(|number| {
        let store = store.clone();
        async move { store.key_insert_first(key(&format!("k{number}"), None), &author(), NOW).await.unwrap().is_some() }
    }));
    assert_eq!(first.await.into_iter().filter(|made| *made).count(), 1);
    assert_eq!(store.key_list().await.unwrap().len(), 1);
    let offered = |number: usize, at: &str| SigningKey {
        kid: format!("{at}{number}"),
        algorithm: "EdDSA".to_owned(),
        private: "p".to_owned().into(),
        created_at: at.to_owned(),
    };
    for (at, after, old) in [(NOW, "2026-11-21T11:00:00Z", "2026-11-21T10:00:00Z"), (LATER, NOW, NOW), ("2027", LATER, LATER)] {
        let renewed = join_all((0..8).map(|number| {
            let store = store.clone();
            async move { store.signing_keys_renew(offered(number, at), after, old).await.unwrap() }
        }));
        for keys in renewed.await {
            assert_eq!(keys[0].created_at, at);
            assert!(
                keys.iter().filter(|key| key.created_at == at).count() == 1
                    && keys.iter().all(|key| key.created_at.as_str() >= old)
            );
        }
    }
}

#[tokio::test]
async fn there_is_no_first_key_where_somebody_is_known() {
    let fixture = fresh().await;
    let store = &fixture.store;
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    assert!(store.key_insert_first(key("k", None), &author(), NOW).await.unwrap().is_none());
    assert!(store.key_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_becomes_what_is_decided_and_only_its_end_is_logged() {
    let fixture = fresh().await;
    let store = &fixture.store;
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    store.session_insert(session("s", "a@x"), hash_of("a@x"), None, NOW).await.unwrap().unwrap();
    let start = store.snapshot().await.unwrap();
    let decide = |rotation: Rotation| -> crate::store::Rotator { Arc::new(move |_| rotation.clone()) };
    let next = decide(Rotation::Next { newest: "n2".to_owned(), step: "x".to_owned() });
    assert!(store.session_rotate("s", None, LATER, next).await.unwrap().is_empty());
    let stored = store.session_read("s").await.unwrap().unwrap();
    assert_eq!((stored.newest.as_str(), stored.previous.as_deref(), stored.step.as_deref()), ("n2", Some("n"), Some("x")));
    assert!(store.session_rotate("s", None, LATER, decide(Rotation::Keep)).await.unwrap().is_empty());
    assert!(store.session_rotate("none", None, LATER, decide(Rotation::End("logout"))).await.unwrap().is_empty());
    assert!(logged(store, &start).await.is_empty());
    assert_eq!(store.session_rotate("s", None, LATER, decide(Rotation::End("logout"))).await.unwrap().len(), 1);
    assert_eq!(logged(store, &start).await, [format!("{SESSIONS} s logout by user:id-of-a@x")]);
    // Sessions that have ended by themselves go with the next login.
    store.session_insert(session("t", "a@x"), hash_of("a@x"), None, "2026-11-22").await.unwrap().unwrap();
    assert!(store.session_read("s").await.unwrap().is_none());
}

#[tokio::test]
async fn what_others_change_is_logged_for_whom_it_is_about() {
    let fixture = fresh_postgres().await;
    let store = &fixture.store;
    store.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    store.key_insert(key("k1", Some("a@x")), &author(), NOW).await.unwrap();
    store.key_insert(key("k2", None), &author(), NOW).await.unwrap();
    store.session_insert(session("s", "a@x"), hash_of("a@x"), None, NOW).await.unwrap().unwrap();
    store.key_used("k2", NOW, NOW).await.unwrap();
    let start = store.snapshot().await.unwrap();
    let mut session = SqlSession::open(&fixture.directory.settings.url).unwrap();
    session.execute("UPDATE api_keys SET revoked_at = 'now' WHERE prefix = 'k2'");
    session.execute("UPDATE users SET role = 'viewer'");
    session.execute("DELETE FROM sessions");
    let changes = store.changes_since(&start, None, 100).await.unwrap().changes;
    let found: Vec<String> =
        changes.iter().map(|change| format!("{} {} {}", change.collection, change.id, change.operation.as_str())).collect();
    let expected = [
        format!("{KEYS} k2 update"),
        format!("{USERS} id-of-a@x update"),
        format!("{KEYS} k1 update"),
        format!("{SESSIONS} s delete"),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn accounts_come_along_as_they_are() {
    let (from, to) = (fresh_sqlite().await, fresh().await);
    let (source, target) = (&from.store, &to.store);
    source.user_insert(user("a@x"), &author(), NOW).await.unwrap();
    source.key_insert(key("k", Some("a@x")), &author(), NOW).await.unwrap();
    source.session_insert(session("s", "a@x"), hash_of("a@x"), None, NOW).await.unwrap().unwrap();
    target.user_insert(user("other@x"), &author(), NOW).await.unwrap();
    let rows = source.copy_accounts().await.unwrap();
    assert_eq!((rows.accounts(), format!("{rows:?}").as_str()), (2, "AccountRows(3)"));
    for _ in 0..2 {
        target.copy_write_accounts(rows.clone()).await.unwrap();
        assert!(target.copy_accounts().await.unwrap() == rows);
    }
    assert_eq!(target.user_list().await.unwrap().len(), 1);
}
