//! `terrace export`: all records of a collection by id, page by page, so that memory does not grow with them. Pages are
//! read one after the other: a record that is written meanwhile is exported in its old or its new state.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{Done, ExportArguments, Failure, Format, cells, output_failure, session};
use crate::config::Settings;
use crate::error::Error;
use crate::model::{Collection, Record};
use crate::store::Store;

/// Records read at a time.
const PAGE: u32 = 500;

pub(super) async fn run(settings: Settings, arguments: &ExportArguments) -> Result<Done, Failure> {
    session::check_collection(&settings, &arguments.collection)?;
    if let Some(file) = session::missing_database(&settings) {
        return Err(Failure::Message(format!("there is no database {} to export from", file.display())));
    }
    let app = session::open(settings).await?;
    let collection = Arc::clone(app.records().resource(&arguments.collection)?.collection());
    let format = Format::choose(arguments.format, &arguments.file);
    let name = arguments.file.display().to_string();
    let output: Box<dyn Write + Send> = if arguments.file == Path::new("-") {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(&arguments.file).map_err(|error| output_failure(&name, &error))?)
    };
    let exported = write_all(app.store(), &collection, format, output, &name).await?;
    if arguments.file != Path::new("-") {
        let _ = writeln!(io::stderr(), "exported {exported} records of {} to {name}", collection.name);
    }
    Ok(Done::Whole)
}

/// Writes every record; returns how many there were.
pub(super) async fn write_all(
    store: &Store,
    collection: &Arc<Collection>,
    format: Format,
    output: impl Write,
    name: &str,
) -> Result<u64, Failure> {
    let mut sheet = Sheet::new(collection, format, output);
    let mut after = None;
    let mut exported = 0;
    loop {
        let page = store.record_scan(collection, after.as_ref(), PAGE).await?;
        for record in &page {
            sheet.write(record, name)?;
            exported += 1;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.id),
            None => return sheet.finish(name).map(|()| exported),
        }
    }
}

/// The file as it grows.
enum Sheet<'a, W: Write> {
    Lines(BufWriter<W>),
    Table { writer: Box<csv::Writer<W>>, columns: Vec<String>, collection: &'a Collection, begun: bool },
}

impl<'a, W: Write> Sheet<'a, W> {
    fn new(collection: &'a Collection, format: Format, output: W) -> Self {
        match format {
            Format::Ndjson => Self::Lines(BufWriter::new(output)),
            Format::Csv => {
                let writer = Box::new(csv::Writer::from_writer(output));
                Self::Table { writer, columns: cells::columns(collection), collection, begun: false }
            }
        }
    }

    fn write(&mut self, record: &Record, name: &str) -> Result<(), Failure> {
        match self {
            Self::Lines(output) => {
                let written = output.write_all(record.data.as_bytes()).and_then(|()| output.write_all(b"\n"));
                written.map_err(|error| output_failure(name, &error))
            }
            Self::Table { .. } => {
                self.begin(name)?;
                let Self::Table { writer, columns, collection, .. } = self else { return Ok(()) };
                let document: Value = serde_json::from_str(&record.data).map_err(Error::internal)?;
                let row = columns.iter().map(|column| {
                    let value = document.get(column).unwrap_or(&Value::Null);
                    cells::write(collection.fields.get(column).copied(), value)
                });
                writer.write_record(row).map_err(|error| csv_failure(name, error))
            }
        }
    }

    /// Writes the header once.
    fn begin(&mut self, name: &str) -> Result<(), Failure> {
        match self {
            Self::Table { writer, columns, begun, .. } if !*begun => {
                *begun = true;
                writer.write_record(columns).map_err(|error| csv_failure(name, error))
            }
            Self::Table { .. } | Self::Lines(_) => Ok(()),
        }
    }

    fn finish(mut self, name: &str) -> Result<(), Failure> {
        self.begin(name)?;
        let flushed = match &mut self {
            Self::Lines(output) => output.flush(),
            Self::Table { writer, .. } => writer.flush(),
        };
        flushed.map_err(|error| output_failure(name, &error))
    }
}

fn csv_failure(name: &str, error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => output_failure(name, &error),
        other => Failure::Message(format!("{name} cannot be written: {other:?}")),
    }
}
