//! `terrace migrate`: what the declarations need in the database, said or done.

use super::{Done, Failure, print, session};
use crate::app::{self, App};
use crate::config::Settings;

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plan,
    Apply,
}

pub(super) async fn run(settings: Settings, mode: Mode) -> Result<Done, Failure> {
    match mode {
        Mode::Plan => report(&plan(&settings).await?, "There is nothing to do.")?,
        Mode::Apply => report(&App::open(settings).await?.migrate().await?, "There was nothing to do.")?,
    }
    Ok(Done::Whole)
}

fn report(steps: &[impl ToString], none: &str) -> Result<(), Failure> {
    if steps.is_empty() {
        return print(none);
    }
    steps.iter().try_for_each(|step| print(&step.to_string()))
}

/// A plan makes nothing, not even the file of an embedded database.
async fn plan(settings: &Settings) -> Result<Vec<String>, Failure> {
    match session::missing_database(settings) {
        Some(file) => {
            let create = format!("create database {}", file.display());
            Ok(std::iter::once(create).chain(app::preview_anew(settings)?).collect())
        }
        None => Ok(app::preview(settings).await?),
    }
}
