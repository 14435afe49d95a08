//! The commands: arguments in, an exit code out. Each command is a thin user of the rooms below; what a record is, and
//! whether it may be written, is decided there.
//!
//! Exit codes: 0 it is done, 1 it was refused or failed, 2 some lines of an import failed.

mod cells;
mod check;
mod copy;
mod export;
mod import;
mod key;
mod migrate;
mod serve;
mod session;
mod table;
mod user;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app::StartError;
use crate::catalog::Catalog;
use crate::config::{Mistake, Settings};
use crate::error::{Error, ErrorKind};
use crate::http::openapi;
use crate::model::{Collection, Role, View};
use crate::records::check_list;

/// Fast, always-fresh reads of JSON collections over REST.
#[derive(Debug, Parser)]
#[command(name = "terrace", version, arg_required_else_help = true)]
struct Arguments {
    /// A file of settings that goes over config/terrace.toml; the environment (TERRACE_<SECTION>__<KEY>) goes over both
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the declared collections until Ctrl-C or SIGTERM
    Serve,
    /// Report every mistake in settings, collection files and view files
    Check,
    /// Make the tables and indexes that the collection files need; records are never dropped
    Migrate {
        /// Only say what would be done
        #[arg(long)]
        plan: bool,
    },
    /// Write records from a file into a collection
    Import(ImportArguments),
    /// Write all records of a collection to a file
    Export(ExportArguments),
    /// Move a whole installation to another database
    Copy(CopyArguments),
    /// Add, list, disable and enable users, and change their passwords
    #[command(subcommand)]
    User(user::UserCommand),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Print the OpenAPI description of the declared collections
    Openapi,
}

/// Write records from a file into a collection.
///
/// Lines that cannot be read or break a rule are reported and left out. The others are written in batches, each in
/// one transaction. In CSV the header names the fields; an empty cell is an absent field, "" in a cell (two quotation
/// marks) an empty string; the elements of an array are separated by ; or given as JSON.
#[derive(Debug, Args)]
struct ImportArguments {
    /// The collection
    collection: String,
    /// The file, or - for standard input
    file: PathBuf,
    /// ndjson (one JSON object a line) or csv; by default as the file's name ends
    #[arg(long)]
    format: Option<Format>,
    /// Replace records that exist instead of stopping at the first one
    #[arg(long)]
    upsert: bool,
    /// Records in one transaction
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: u32,
}

/// Write all records of a collection to a file, by id.
///
/// NDJSON has whole records. CSV has one column for each property of the schema and each field of the server, and
/// cannot tell a null from an absent field.
#[derive(Debug, Args)]
struct ExportArguments {
    /// The collection
    collection: String,
    /// The file, or - for standard output
    #[arg(default_value = "-")]
    file: PathBuf,
    /// ndjson (one JSON object a line) or csv; by default as the file's name ends
    #[arg(long)]
    format: Option<Format>,
}

/// Move a whole installation to another database.
///
/// Copies all records of the declared collections and the whole change log, with their versions, times and numbers, for
/// example from an embedded database up to PostgreSQL, or back. --to gets the tables and indexes that the collection
/// files need. At the end every record and every change is compared with its source; the first differences are listed,
/// and the exit code is 1.
///
/// Stop what writes to --from first. What is written meanwhile is brought over as far as possible, and if the source does
/// not rest the command says so. When it was interrupted, or said so, run it again: it goes on where it stopped. Until the
/// copy is whole, no other command opens --to.
///
/// Either URL may be left out for the one of the settings (database.url), which the environment can name too
/// (TERRACE_DATABASE__URL): other users of this machine may see the arguments of a command, and so a password in them.
#[derive(Debug, Args)]
struct CopyArguments {
    /// The database to read: sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The database to write, which must be empty or hold an interrupted copy of the same source
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// First remove all records and all changes that --to has, also those of collections that are not declared, without
    /// asking; it says how many there were
    #[arg(long)]
    overwrite: bool,
    /// Rows in one transaction
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

impl Format {
    fn choose(given: Option<Self>, file: &std::path::Path) -> Self {
        let named_csv = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        given.unwrap_or(if named_csv { Self::Csv } else { Self::Ndjson })
    }
}

/// What a command that did something came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// All of it.
    Whole,
    /// Some lines failed.
    Partly,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Failure {
    /// Mistakes in settings or declarations, all of them.
    Mistakes(Vec<Mistake>),
    /// One sentence.
    Message(String),
    /// Whoever read our output has gone, as `head` does; nobody is left to be told.
    OutputClosed,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
                formatter.write_str(&lines.join("\n"))
            }
            Self::Message(message) => write!(formatter, "error: {message}"),
            Self::OutputClosed => Ok(()),
        }
    }
}

/// The operator may read what clients may not.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let allowed = error.allowed().join(", ");
        let mut message = match (error.kind(), error.internal_message()) {
            // Here is no log and no request id to point to.
            (ErrorKind::Internal, Some(internal)) => internal.to_owned(),
            (_, Some(internal)) if !error.detail().contains(internal) => {
                format!("{} ({internal})", error.detail().trim_end_matches('.'))
            }
            (_, Some(_) | None) => error.detail().to_owned(),
        };
        if !allowed.is_empty() {
            message.push_str(&format!(" Allowed are {allowed}."));
        }
        Self::Message(message)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Mistakes(mistakes) => Self::Mistakes(mistakes),
            StartError::Failed(error) => error.into(),
        }
    }
}

/// Runs the command that `arguments` (with the program's name first) name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // clap would exit with 2, which here means that some lines of an import failed.
            let refused = usage.use_stderr();
            match redacted(&usage.to_string()) {
                Some(text) => _ = write!(io::stderr(), "{text}"),
                None => _ = usage.print(),
            }
            return ExitCode::from(u8::from(refused));
        }
    };
    match dispatch(&arguments) {
        Ok(Done::Whole) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Ok(Done::Partly) => ExitCode::from(2),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<Done, Failure> {
    let config = arguments.config.as_deref();
    let settings = || session::settings(config);
    match &arguments.command {
        Command::Serve => session::block_on(serve::run(settings()?)),
        Command::Check => check::run(config),
        Command::Migrate { plan } => {
            let mode = if *plan { migrate::Mode::Plan } else { migrate::Mode::Apply };
            session::block_on(migrate::run(settings()?, mode))
        }
        Command::Import(import) => session::block_on(import::run(settings()?, import)),
        Command::Export(export) => session::block_on(export::run(settings()?, export)),
        Command::Copy(copy) => session::block_on(copy::run(settings()?, copy)),
        Command::User(command) => session::block_on(user::run(settings()?, command)),
        Command::Key(command) => session::block_on(key::run(settings()?, command)),
        Command::Openapi => describe(&settings()?),
    }
}

/// Prints the API description; it needs no database.
fn describe(settings: &Settings) -> Result<Done, Failure> {
    let catalog = Catalog::load(&settings.collections, check_list).map_err(Failure::Mistakes)?;
    let collections: Vec<Arc<Collection>> =
        catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect();
    let views: Vec<Arc<View>> = catalog.views().to_vec();
    let document = openapi::document(&collections, &views);
    print(&serde_json::to_string_pretty(&document).map_err(Error::internal)?)?;
    Ok(Done::Whole)
}

/// Reads an argument that is a role.
fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: Error| error.detail().to_owned())
}

/// Tells the operator something that is not the command's result.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a line of the command's result.
fn print(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| output_failure("standard output", &error))
}

fn output_failure(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Message(format!("{name} cannot be written: {error}")),
    }
}

/// `1 view`, `2 views`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `1345` as `1,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The text with `***` for the password of each URL in it; `None` if there is none. clap repeats arguments that it does not
/// understand.
fn redacted(text: &str) -> Option<String> {
    let mut rest = text;
    let mut shown = String::new();
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|character: char| character.is_whitespace() || character == '\'').unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        shown.push_str(before);
        shown.push_str("://");
        match url.rsplit_once('@') {
            Some((_, host)) => shown.push_str(&format!("***@{host}")),
            None => shown.push_str(url),
        }
        rest = behind;
    }
    shown.push_str(rest);
    (shown != text).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(100_000), "100,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn a_password_is_never_repeated() {
        let shown = redacted("no 'postgres://me:se@cret@host/db' and postgres://you:secret@other/db here");
        assert_eq!(shown.as_deref(), Some("no 'postgres://***@host/db' and postgres://***@other/db here"));
        assert_eq!(redacted("sqlite://data/terrace.db is not expected"), None);
    }
}
