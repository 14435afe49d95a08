//! `terrace migrate`: what the declarations need in the database, said or done.

use std::path::PathBuf;

use super::{Done, Failure, print, session};
use crate::app::App;
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

fn report(steps: &[Step], none: &str) -> Result<(), Failure> {
    if steps.is_empty() {
        return print(none);
    }
    steps.iter().try_for_each(|step| print(&step.to_string()))
}

/// A plan creates nothing, so for a database that does not exist it is made in one that is thrown away.
async fn plan(mut settings: Settings) -> Result<Vec<Step>, Failure> {
    match session::missing_database(&settings) {
        Some(file) => {
            let scratch = Scratch::new()?;
            settings.database.url = format!("sqlite://{}", scratch.0.join("plan.db").display());
            let steps = App::open(settings).await?.plan().await?;
            print(&format!("create database {}", file.display()))?;
            Ok(steps)
        }
        None => Ok(App::open(settings).await?.plan().await?),
    }
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
