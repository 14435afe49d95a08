//! `terrace migrate`: what the declarations need in the database, said or done.

use std::path::{Path, PathBuf};

use super::session::Declarations;
use super::{Done, Failure, print};
use crate::store::{Step, Store};
use crate::telemetry::Telemetry;

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plan,
    Apply,
}

pub(super) async fn run(declared: Declarations, mode: Mode) -> Result<Done, Failure> {
    match mode {
        Mode::Plan => {
            let steps = plan(&declared).await?;
            report(&steps, "There is nothing to do.")?;
        }
        Mode::Apply => {
            let store = declared.open_store().await?;
            store.migrate().await?;
            let steps = store.plan(&declared.collections()).await?;
            store.apply(&steps).await?;
            report(&steps, "There was nothing to do.")?;
        }
    }
    Ok(Done::Whole)
}

fn report(steps: &[Step], none: &str) -> Result<(), Failure> {
    if steps.is_empty() {
        return print(none);
    }
    steps.iter().try_for_each(|step| print(&step.to_string()))
}

/// A plan changes nothing, so for a database that does not exist it is made in one that is thrown away.
async fn plan(declared: &Declarations) -> Result<Vec<Step>, Failure> {
    let file = declared.settings.database.url.strip_prefix("sqlite://").map(PathBuf::from);
    match file {
        Some(file) if !file.exists() => {
            print(&format!("create the database {}", file.display()))?;
            let scratch = Scratch::new()?;
            let mut settings = declared.settings.database.clone();
            settings.url = format!("sqlite://{}", scratch.0.join("plan.db").display());
            let store = Store::open(&settings, declared.settings.log.slow_query, &Telemetry::new()?).await?;
            store.migrate().await?;
            Ok(store.plan(&declared.collections()).await?)
        }
        Some(_) | None => Ok(declared.open_store().await?.plan(&declared.collections()).await?),
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
        let path: &Path = &self.0;
        let _ = std::fs::remove_dir_all(path);
    }
}
