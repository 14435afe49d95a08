//! What commands start from: checked settings, and an application over a database in the state that the declarations
//! need.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::app::App;
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::records::check_list;

/// Loads the settings; any mistake refuses the command, in the words of `terrace check`.
pub(super) fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    Settings::load(config, environment()).map_err(Failure::Mistakes)
}

/// Refuses a collection that is not declared, before a database is made for nothing.
pub(super) fn check_collection(settings: &Settings, name: &str) -> Result<(), Failure> {
    let catalog = Catalog::load(&settings.collections, check_list).map_err(Failure::Mistakes)?;
    let declared: Vec<&str> = catalog.collections().iter().map(|declared| declared.collection.name.as_str()).collect();
    if declared.contains(&name) {
        return Ok(());
    }
    Err(Failure::Message(format!("there is no collection {name:?}; allowed are {}", declared.join(", "))))
}

/// The file of an embedded database that does not exist yet, or is empty. Opening it would make a database of it.
pub(super) fn missing_database(settings: &Settings) -> Option<PathBuf> {
    settings
        .database
        .url
        .strip_prefix("sqlite://")
        .map(PathBuf::from)
        .filter(|file| std::fs::metadata(file).map_or(true, |found| found.len() == 0))
}

/// Opens the database and brings it to the state that the declarations need, as `serve` does.
pub(super) async fn open(settings: Settings) -> Result<App, Failure> {
    let app = App::open(settings).await?;
    app.migrate().await?;
    Ok(app)
}

/// Opens the database for a change of accounts, which is made if it is not there. What else a new one needs is left to `serve`.
pub(super) async fn accounts(settings: Settings) -> Result<App, Failure> {
    Ok(App::open(settings).await?)
}

/// The same for a database that must be there.
pub(super) async fn existing_accounts(settings: Settings) -> Result<App, Failure> {
    match missing_database(&settings) {
        Some(file) => Err(Failure::Message(format!("there is no database {}, and so nobody in it", file.display()))),
        None => accounts(settings).await,
    }
}

/// The environment, with what is not UTF-8 made so: a variable of ours that is not is then refused as a bad value.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// Runs a command that waits for the database or the network.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Failure::Message(format!("the process cannot start threads: {error}")))?;
    let result = runtime.block_on(command);
    // A thread that waits for more of a pipe would hold up the end of the process.
    runtime.shutdown_background();
    result
}
