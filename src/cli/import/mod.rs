//! `terrace import`: a file in batches through the records service, so that the rules, the change log and the caches
//! of running servers are those of REST. A thread reads ahead while a batch is written; memory holds three batches.

mod batches;
mod lines;
mod progress;
mod table;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use self::batches::{Batch, Batches, ReadFailure};
use self::lines::{Line, Lines};
use self::progress::Progress;
use self::table::Table;
use super::{Done, Failure, Format, ImportArguments, grouped, session};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Violation};
use crate::model::{Caller, Collection};
use crate::records::{BatchError, ImportMode, Records, Resource, WriteOutcome};

/// How much longer than a request body a line may be: a record that was taken as a body of the largest size is exported
/// with the server's fields.
const LINE_MARGIN_BYTES: usize = 64 * 1024;

/// After this many records the database's planner should know of them before its own maintenance comes by.
const ANALYZED_RECORDS: u64 = 5_000;

/// Batches that wait while one is written.
const BATCHES_AHEAD: usize = 1;

pub(super) async fn run(settings: Settings, arguments: &ImportArguments) -> Result<Done, Failure> {
    session::check_collection(&settings, &arguments.collection)?;
    let input = open(&arguments.file)?;
    let body_bytes = usize::try_from(settings.http.max_body_bytes.as_u64()).unwrap_or(usize::MAX);
    let app = session::open(settings).await?;
    let resource = Arc::clone(app.records().resource(&arguments.collection)?);
    let name = arguments.file.display().to_string();
    let progress = Progress::new(&arguments.file);
    let limit = body_bytes.saturating_add(LINE_MARGIN_BYTES);
    let format = Format::choose(arguments.format, &arguments.file);
    let records = records_of(format, progress.watch(input), resource.collection(), limit);
    let batches = Batches::new(records, arguments.batch_size as usize);
    let mode = if arguments.upsert { ImportMode::Upsert } else { ImportMode::Create };
    let mut import = Import { records: app.records(), resource: &resource, mode, name, counts: Counts::default(), progress };
    let result = import.write_all(batches).await;
    import.progress.finish(&import.counts);
    // An import that was stopped has left what it wrote before.
    let analyzed = match import.counts.written() >= ANALYZED_RECORDS {
        true => app.store().analyze(&resource.collection().name).await,
        false => Ok(()),
    };
    result?;
    analyzed?;
    Ok(if import.counts.failed == 0 { Done::Whole } else { Done::Partly })
}

fn open(file: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file).and_then(|opened| match opened.metadata()?.is_dir() {
        true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        false => Ok(opened),
    });
    match opened {
        Ok(opened) => Ok(Box::new(BufReader::with_capacity(64 * 1024, opened))),
        Err(error) => Err(Failure::Message(format!("{} cannot be read: {error}", file.display()))),
    }
}

/// The documents of a file, each with its line.
type Documents = Box<dyn Iterator<Item = Result<Line, ReadFailure>> + Send>;

fn records_of(format: Format, input: Box<dyn BufRead + Send>, collection: &Arc<Collection>, limit: usize) -> Documents {
    match format {
        Format::Ndjson => Box::new(Lines::new(input, limit)),
        Format::Csv => Box::new(Table::new(input, Arc::clone(collection), limit)),
    }
}

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    created: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
}

impl Counts {
    fn written(&self) -> u64 {
        self.created + self.updated
    }

    fn total(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.failed
    }
}

/// An import under way.
struct Import<'a> {
    records: &'a Records,
    resource: &'a Arc<Resource>,
    mode: ImportMode,
    name: String,
    counts: Counts,
    progress: Progress,
}

impl Import<'_> {
    async fn write_all(&mut self, batches: Batches) -> Result<(), Failure> {
        let (sender, mut receiver) = mpsc::channel(BATCHES_AHEAD);
        let reader = tokio::task::spawn_blocking(move || {
            for batch in batches {
                // The writer stopped; what is left is not read.
                if sender.blocking_send(batch).is_err() {
                    return;
                }
            }
        });
        let mut result = Ok(());
        while let Some(batch) = receiver.recv().await {
            result = match batch {
                Ok(batch) => self.write(batch).await,
                Err(failure) => Err(self.unreadable(&failure)),
            };
            if result.is_err() {
                break;
            }
        }
        drop(receiver);
        // A reader that waits for more of a pipe is left behind: the process ends.
        if result.is_ok() {
            reader.await.map_err(|failure| Failure::Message(format!("reading {} failed: {failure}", self.name)))?;
        }
        result
    }

    async fn write(&mut self, batch: Batch) -> Result<(), Failure> {
        let Batch { lines, documents, mut refused, .. } = batch;
        let imported = self.records.import(self.resource, &Caller::OPERATOR, documents, self.mode).await;
        let outcomes = match imported {
            Ok(outcomes) => outcomes,
            Err(failure) => return Err(self.stopped(&lines, &failure)),
        };
        for (index, (outcome, line)) in outcomes.into_iter().zip(&lines).enumerate() {
            match outcome {
                Ok(WriteOutcome::Created) => self.counts.created += 1,
                Ok(WriteOutcome::Updated) => self.counts.updated += 1,
                // An import deletes nothing.
                Ok(WriteOutcome::Unchanged | WriteOutcome::Deleted) => self.counts.unchanged += 1,
                Err(error) => refused.push((*line, reasons(index, &error))),
            }
        }
        refused.sort_by_key(|(line, _)| *line);
        for (line, reasons) in refused {
            self.counts.failed += 1;
            self.progress.suspend(|| {
                for reason in reasons {
                    let _ = writeln!(io::stderr(), "{}:{line}: {reason}", self.name);
                }
            });
        }
        self.progress.advance(&self.counts);
        Ok(())
    }

    /// Nothing of the batch was written; its own bad lines are not told, as they will be when it is imported again.
    fn stopped(&self, lines: &[u64], failure: &BatchError) -> Failure {
        let (first, last) = (lines.first().copied().unwrap_or_default(), lines.last().copied().unwrap_or_default());
        let committed = match self.counts.written() {
            0 => "no record was written before".to_owned(),
            1 => "1 record was written before and stays".to_owned(),
            written => format!("{} records were written before and stay", grouped(written)),
        };
        let rest = format!("nothing of lines {first} to {last} was written; {committed}");
        let line = lines.get(failure.index).filter(|_| failure.error.kind() == ErrorKind::Conflict);
        match line {
            Some(line) => {
                let pointer = format!("/{}", self.resource.collection().id_field());
                let reason = failure.error.detail().trim_end_matches('.');
                Failure::Message(format!("{}:{line}: {pointer}: {reason}: {rest} (--upsert replaces)", self.name))
            }
            None => match Failure::from(failure.error.clone()) {
                Failure::Message(message) => Failure::Message(format!("{}: {rest}", message.trim_end_matches('.'))),
                other => other,
            },
        }
    }

    fn unreadable(&self, failure: &ReadFailure) -> Failure {
        let stays = grouped(self.counts.written());
        match failure.line {
            Some(line) => Failure::Message(format!("{}:{line}: {} ({stays} records were written)", self.name, failure.reason)),
            None => Failure::Message(format!("{}: {} ({stays} records were written)", self.name, failure.reason)),
        }
    }
}

/// Each rule that a document breaks, as `pointer: reason`. The service points into its batch; the line points into the
/// document.
fn reasons(index: usize, error: &Error) -> Vec<String> {
    let prefix = format!("/operations/{index}/data");
    let reason = |violation: &Violation| {
        let pointer = violation.pointer.strip_prefix(&prefix).unwrap_or(&violation.pointer);
        let separator = if pointer.is_empty() { "" } else { ": " };
        format!("{pointer}{separator}{}", violation.detail)
    };
    match error.violations() {
        [] => vec![error.detail().to_owned()],
        violations => violations.iter().map(reason).collect(),
    }
}
