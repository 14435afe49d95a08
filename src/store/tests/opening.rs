//! Opening: new and old databases, wrong settings, and what is in the way.

use diesel::connection::{Connection as _, SimpleConnection};
use diesel::sqlite::SqliteConnection;
use futures_util::FutureExt as _;

use super::*;
use crate::error::ErrorKind;
use crate::store::connection::Access;
use crate::store::database::Database;

async fn open(settings: &DatabaseSettings) -> Result<Store> {
    Store::open(settings, Duration::from_secs(1), &Telemetry::new().unwrap()).await
}

fn raw(settings: &DatabaseSettings) -> SqliteConnection {
    SqliteConnection::establish(settings.url.strip_prefix("sqlite://").unwrap()).unwrap()
}

/// Runs statements past the store.
fn execute(settings: &DatabaseSettings, statements: &str) {
    match Tested::now() {
        Tested::Sqlite => raw(settings).batch_execute(statements).unwrap(),
        Tested::Postgres => schema::Session::open(&settings.url).unwrap().execute(statements),
    }
}

#[tokio::test]
async fn a_database_is_new_until_it_is_settled() {
    let place = Place::new();
    let store = open(&place.settings).await.unwrap();
    assert!(store.ping().await.is_err(), "there are no tables yet");
    assert_eq!(store.pending_migrations().await.unwrap(), None);
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(store.pending_migrations().await.unwrap(), Some(Vec::new()));
    assert!(store.is_new().await.unwrap());
    // As after a crash between the two.
    let again = open(&place.settings).await.unwrap();
    again.migrate().await.unwrap();
    assert!(again.is_new().await.unwrap());
    again.settle().await.unwrap();
    again.migrate().await.unwrap();
    assert!(!store.is_new().await.unwrap());
}

#[tokio::test]
async fn wrong_urls_and_files_are_refused_with_the_setting() {
    let directory = tempfile::tempdir().unwrap();
    for url in ["", "mysql://user:secret@host/db", "sqlite://", "sqlite://:memory:", "data.db"] {
        let error = open(&DatabaseSettings { url: url.into(), ..DatabaseSettings::default() }).await.unwrap_err();
        assert!(error.detail().contains("database.url") && error.detail().contains("sqlite://"), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
    let file = directory.path().join("text");
    std::fs::write(&file, "not a database, and long enough to be read as one: ".repeat(100)).unwrap();
    for url in [format!("sqlite://{}", file.display()), format!("sqlite://{}", directory.path().display())] {
        let error = open(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.detail().contains("database.url"), "{error}");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let fixture = fresh().await;
    let settings = &fixture.directory.settings;
    execute(settings, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')");
    let error = open(settings).await.unwrap().migrate().await.unwrap_err();
    assert_eq!(error.code(), "newer_database");
    assert!(error.detail().contains("99991231000000"), "{error}");
}

#[tokio::test]
async fn a_write_waits_for_another_process_no_longer_than_the_setting_says() {
    let fixture = fresh_sqlite().await;
    let mut settings = fixture.directory.settings.clone();
    settings.acquire_timeout = Duration::from_millis(50);
    let store = open(&settings).await.unwrap();
    let mut other = raw(&settings);
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let write = || try_put(&store, &fixture.items, &[], vec![]);
    let (first, second) = futures_util::join!(write(), write());
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.detail().contains("database.acquire_timeout"), "{error}");
        assert!(error.retry_after().is_some());
    }
    // Reads do not mind.
    store.ping().await.unwrap();
    other.batch_execute("ROLLBACK").unwrap();
    assert!(write().await.is_ok());
}

#[tokio::test]
async fn waiting_for_a_connection_has_an_end() {
    let fixture = fresh_sqlite().await;
    let mut settings = fixture.directory.settings.clone();
    settings.acquire_timeout = Duration::from_millis(50);
    settings.max_connections = 1;
    let store = open(&settings).await.unwrap();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = Arc::new(std::sync::Mutex::new(receiver));
    // One writer holds a connection until told; reads have the other; a second writer waits for the first.
    let planner: Planner = Arc::new(move |_| {
        receiver.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        Ok(WritePlan::default())
    });
    let (held, items) = (store.clone(), Arc::clone(&fixture.items));
    let holder = tokio::spawn(async move { held.record_write(&items, author(), vec![], planner).await });
    let Database::Sqlite(sqlite) = &store.inner.database else { panic!("settings() is about SQLite") };
    while sqlite.free_write_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let error = try_put(&store, &fixture.items, &[], vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.detail().contains("database.acquire_timeout"), "{error}");
    store.ping().await.unwrap();
    sender.send(()).unwrap();
    holder.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_processes_that_migrate_at_once_both_succeed() {
    let place = Place::new();
    let (one, other) = (open(&place.settings).await.unwrap(), open(&place.settings).await.unwrap());
    let (first, second) = futures_util::join!(one.migrate(), other.migrate());
    first.unwrap();
    second.unwrap();
    let collections = [Arc::new(items()), Arc::new(groups())];
    // Both plan before either has done anything.
    let (plan, same_plan) = (one.plan(&collections).await.unwrap(), other.plan(&collections).await.unwrap());
    one.apply(&plan).await.unwrap();
    other.apply(&same_plan).await.unwrap();
    assert_eq!(other.plan(&collections).await.unwrap(), Vec::new());
}

/// Lets the one connection of `store` take no more than `pages` pages: what a full disk looks like.
async fn limit_pages(store: &Store, pages: u32) {
    let limit = store.run("limit", "", Access::Read, move |connection| {
        async move { Ok(connection.batch(&format!("PRAGMA max_page_count = {pages}")).await?) }.boxed()
    });
    limit.await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let fixture = fresh_sqlite().await;
    let start = fixture.store.snapshot().await.unwrap();
    let big = || [json!({"key": "big", "name": "n".repeat(100_000)})];
    limit_pages(&fixture.store, 1).await;
    for _ in 0..3 {
        let error = try_put(&fixture.store, &fixture.items, &big(), vec![]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.detail().contains("full") && error.detail().contains("database.url"), "{error}");
        assert_eq!(changes(&fixture.store, &start).await, 0);
    }
    limit_pages(&fixture.store, 1_000_000).await;
    put(&fixture.store, &fixture.items, &big()).await;
    assert_eq!(changes(&fixture.store, &start).await, 1);
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_takes_no_more_writes() {
    let fixture = fresh_sqlite().await;
    let path = fixture.directory.settings.url.strip_prefix("sqlite://").unwrap().to_owned();
    let aside = format!("{path}.aside");
    put(&fixture.store, &fixture.items, &[json!({"key": "a"})]).await;
    std::fs::rename(&path, &aside).unwrap();
    for _ in ["removed", "replaced"] {
        let refused = try_put(&fixture.store, &fixture.items, &[json!({"key": "b"})], vec![]).await.unwrap_err();
        let ping = fixture.store.ping().await.unwrap_err();
        for error in [refused, ping] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.detail().contains("database.url") && error.detail().contains("replaced"), "{error}");
        }
        std::fs::write(&path, "").unwrap();
    }
    std::fs::rename(&aside, &path).unwrap();
    put(&fixture.store, &fixture.items, &[json!({"key": "b"})]).await;
    fixture.store.ping().await.unwrap();
}
