//! What commands start from: checked settings, and an application over a database in the state that the declarations
//! need.

use std::path::Path;

use super::Failure;
use crate::app::App;
use crate::config::Settings;

/// Loads the settings; any mistake refuses the command, in the words of `terrace check`.
pub(super) fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    Settings::load(config, environment()).map_err(Failure::Mistakes)
}

/// Opens the database and brings it to the state that the declarations need, as `serve` does.
pub(super) async fn open(settings: Settings) -> Result<App, Failure> {
    let app = App::open(settings).await?;
    app.migrate().await?;
    Ok(app)
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
