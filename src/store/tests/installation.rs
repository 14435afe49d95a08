//! The id of an installation: one for all who ask, and for each database its own.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn several_that_start_at_once_agree_on_one_id() {
    let Fixture { store, directory, .. } = fresh().await;
    let mut asking = Vec::new();
    for _ in 0..8 {
        // As so many processes: each with connections of its own.
        let telemetry = Telemetry::new().unwrap();
        let other = Store::open(&directory.settings, Duration::from_secs(5), &telemetry).await.unwrap();
        asking.push(tokio::spawn(async move { other.installation_id().await.unwrap() }));
    }
    let mut ids = BTreeSet::from([store.installation_id().await.unwrap()]);
    for asked in asking {
        ids.insert(asked.await.unwrap());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(uuid::Uuid::parse_str(ids.first().unwrap()).unwrap().get_version_num(), 7);
    store.settle().await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.installation_id().await.unwrap(), *ids.first().unwrap());
}

#[tokio::test]
async fn no_two_databases_have_one_id() {
    let (one, other) = (fresh().await, fresh().await);
    assert_ne!(one.store.installation_id().await.unwrap(), other.store.installation_id().await.unwrap());
}

#[tokio::test]
async fn a_database_that_was_copied_into_gets_a_new_id() {
    let Fixture { store, directory: _directory, .. } = fresh().await;
    let before = store.installation_id().await.unwrap();
    store.copy_end(0).await.unwrap();
    assert_ne!(store.installation_id().await.unwrap(), before);
}
