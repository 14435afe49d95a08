//! The sample records of a database that is new.

use std::fmt;
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::App;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Caller;
use crate::records::{ImportMode, Resource};

/// How many sample records are written at a time.
const SAMPLE_BATCH: usize = 1_000;

impl App {
    /// Records that others refer to come first.
    pub(super) async fn load_samples(&self) -> Result<()> {
        let mut waiting: Vec<&Arc<Resource>> = self.records.resources().iter().collect();
        while !waiting.is_empty() {
            let names: Vec<_> = waiting.iter().map(|resource| resource.collection().name.clone()).collect();
            let depends = |resource: &&Arc<Resource>| {
                let own = &resource.collection().name;
                resource.collection().references.values().any(|target| target != own && names.contains(target))
            };
            let (later, now): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(depends);
            // Collections that refer to each other in a circle go in as they come.
            let (now, later) = if now.is_empty() { (later, now) } else { (now, later) };
            for resource in now {
                let file = format!("{}.ndjson", resource.collection().name);
                self.load_sample(resource, &self.foundation.settings.collections.samples_dir.join(file)).await?;
            }
            waiting = later;
        }
        Ok(())
    }

    /// Sample files are small, so each is read whole. A bad line is told with its number.
    async fn load_sample(&self, resource: &Arc<Resource>, path: &Path) -> Result<()> {
        let bytes = match tokio::fs::read(path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(sample_error(path, 0, error)),
        };
        let parsed = bytes.lines().zip(1..).map(|(line, number)| {
            let line = line.map_err(|error| sample_error(path, number, error))?;
            serde_json::from_str(&line).map_err(|error| sample_error(path, number, error))
        });
        let documents: Vec<Value> = parsed.collect::<Result<_>>()?;
        for (batch, first) in documents.chunks(SAMPLE_BATCH).zip((1..).step_by(SAMPLE_BATCH)) {
            let written = self.records.import(resource, &Caller::OPERATOR, batch.to_vec(), ImportMode::Upsert).await;
            let results = written.map_err(|failure| refused(path, first + failure.index, failure.error))?;
            for (result, number) in results.into_iter().zip(first..) {
                result.map_err(|error| refused(path, number, error))?;
            }
        }
        Ok(())
    }
}

fn sample_error(path: &Path, line: usize, error: impl fmt::Display) -> Error {
    Error::bad_request("bad_sample", format!("{}:{line}: {error}", path.display()))
}

/// A database that went away is no fault of the file: the error stays one that waiting mends.
fn refused(path: &Path, line: usize, error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable { error } else { sample_error(path, line, error) }
}
