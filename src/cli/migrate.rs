//! `terrace migrate`: what the declarations need in the database, said or done.

use std::path::PathBuf;

use super::{Done, Failure, print, session};
use crate::app::{self, App};
use crate::config::Settings;
use crate::store::Step;

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plan,
    Apply,
}

pub(super) async fn run(settings: Settings, mode: Mode) -> Result<Done, Failure> {
    match mode {
        Mode::Plan => report(&plan(settings).await?, "There is nothing to do.")?,
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

/// A plan writes nothing, so for a database that does not exist it is made in one that is thrown away.
async fn plan(mut settings: Settings) -> Result<Vec<String>, Failure> {
    let url = settings.database.url.clone();
    if session::missing_database(&settings).is_none()
        && let Some(steps) = app::preview(&settings).await?
    {
        return Ok(steps);
    }
    let scratch = Scratch::new()?;
    settings.database.url = format!("sqlite://{}", scratch.0.join("plan.db").display());
    let steps = App::open(settings).await?.plan().await?;
    let create = format!("create database {}", url.trim_start_matches("sqlite://"));
    Ok(std::iter::once(create).chain(steps.iter().map(Step::to_string)).collect())
}

/// A directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("terrace-plan-{}", uuid::Uuid::now_v7()));
        let made = std::fs::create_dir(&path);
        made.map_err(|error| Failure::Message(format!("{} cannot be made: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
