//! An installation with the corpus in it.

use std::path::Path;

use terrace::app::App;
use terrace::config::Settings;
use terrace::model::Caller;
use terrace::records::ImportMode;
use tokio_postgres::NoTls;

use super::corpus;

/// Settings for a database of its own: a schema on the server of `scripts/with-servers` if there is one, else embedded.
pub async fn settings(directory: &Path) -> Settings {
    let mut settings = super::settings(directory);
    if let Ok(server) = std::env::var("TEST_POSTGRES") {
        let schema = format!("bench_{}", std::process::id());
        let (client, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.unwrap();
        settings.database.url = format!("{server}?options=-c%20search_path%3D{schema}");
    }
    settings
}

/// The collection files in `directory`, with `line` instead of what their sections `[cache]` have under its key.
pub fn declare(settings: &mut Settings, directory: &Path, line: &str) {
    let declared = directory.join("collections");
    std::fs::create_dir_all(&declared).unwrap();
    for file in std::fs::read_dir(&settings.collections.dir).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let is_other = |other: &&str| other.split('=').next() != line.split('=').next();
        let text = text.lines().filter(is_other).collect::<Vec<_>>().join("\n");
        std::fs::write(declared.join(file.file_name()), text.replacen("[cache]\n", &format!("[cache]\n{line}\n"), 1)).unwrap();
    }
    settings.collections.dir = declared;
}

/// Fills the metrics with `count` records of the corpus.
pub async fn import(app: &App, seed: u64, count: usize) {
    let resource = app.records().resource("metrics").unwrap();
    let metrics: Vec<_> = corpus::metrics(seed, count).collect();
    for batch in metrics.chunks(1_000) {
        let results = app.records().import(resource, &Caller::OPERATOR, batch.to_vec(), ImportMode::Create).await.unwrap();
        assert!(results.iter().all(Result::is_ok));
    }
    app.store().analyze(&resource.collection().name).await.unwrap();
}
