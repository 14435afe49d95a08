//! `terrace copy`: a whole installation from one database to another, past the write path, so that versions, times and
//! the change log arrive as they are.
//!
//! The target has a mark as long as its copy is not whole. Whoever opens it meanwhile is refused, and the same command
//! run again goes on after the newest rows of the target. What the source changes during the copy is brought over from
//! its log; what it changes after that is noticed. At the end every row is held against its source, so a copy that this
//! command calls whole is equal.

mod compare;
mod json;
mod load;
mod progress;

use std::sync::Arc;
use std::time::Instant;

use self::compare::Comparison;
use self::progress::Progress;
use super::{CopyArguments, Done, Failure, grouped, say, session};
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::error::Error;
use crate::model::{Collection, CollectionName};
use crate::records::check_list;
use crate::store::{BatchLimit, Contents, CopyMark, Store};
use crate::telemetry::Telemetry;

/// What is read at a time, and written in one transaction.
const BATCH: BatchLimit = BatchLimit { rows: 1000, size_bytes: 8 * 1024 * 1024 };

/// How often what was logged meanwhile is brought over before the source counts as one that does not rest.
const ROUNDS: usize = 3;

/// Rows removed in one transaction.
const REMOVED_AT_ONCE: u32 = 5000;

/// One of the two databases.
struct Side {
    /// How the operator named it.
    flag: &'static str,
    store: Store,
}

pub(super) async fn run(settings: Settings, arguments: &CopyArguments) -> Result<Done, Failure> {
    let started = Instant::now();
    let catalog = Catalog::load(&settings.collections, check_list).map_err(Failure::Mistakes)?;
    let collections: Vec<Arc<Collection>> =
        catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect();
    let (from, source) = open_source(&settings, arguments.from.as_deref(), &collections).await?;
    let to = Side::open(&settings, "--to", arguments.to.as_deref()).await?;
    let copy =
        Copy { batch: BatchLimit { rows: arguments.batch_size, ..BATCH }, from, to, collections, progress: Progress::new() };
    let mark = copy.prepare(arguments.overwrite).await?;
    let copied = copy.load(&source, mark.since).await?;
    let loaded = started.elapsed();
    let comparison = copy.check(&copied).await?;
    drop(copy);
    say(&format!(
        "copied {} records and {} changes in {:.1} s; all {} records and {} changes are equal to their source (checked in {:.1} s)",
        grouped(copied.records),
        grouped(copied.changes),
        loaded.as_secs_f64(),
        grouped(comparison.records),
        grouped(comparison.changes),
        started.elapsed().saturating_sub(loaded).as_secs_f64(),
    ));
    Ok(Done::Whole)
}

fn total(contents: &Contents) -> u64 {
    contents.records.iter().map(|(_, records)| records).sum()
}

fn described(contents: &Contents) -> String {
    format!("{} records and {} changes", grouped(total(contents)), grouped(contents.changes))
}

impl Side {
    /// Opens the database that the operator named, or else the one of the settings.
    async fn open(settings: &Settings, flag: &'static str, url: Option<&str>) -> Result<Self, Failure> {
        let mut database = settings.database.clone();
        if let Some(url) = url {
            url.clone_into(&mut database.url);
        }
        let store = Store::open(&database, settings.log.slow_query, &Telemetry::new()?).await;
        Ok(Self { flag, store: store.map_err(|error| named(flag, error))? })
    }

    /// The failure in words that name this side. Errors of the store name the setting, and never a URL.
    fn failure(&self, error: Error) -> Failure {
        named(self.flag, error)
    }

    async fn contents(&self) -> Result<Contents, Failure> {
        self.store.copy_contents().await.map_err(|error| self.failure(error))
    }

    async fn counter(&self) -> Result<i64, Failure> {
        self.store.copy_counter().await.map_err(|error| self.failure(error))
    }

    async fn identity(&self) -> Result<String, Failure> {
        self.store.copy_identity().await.map_err(|error| self.failure(error))
    }
}

fn named(flag: &str, error: Error) -> Failure {
    match Failure::from(error) {
        Failure::Message(message) => {
            let message = message.replace("database.url", flag).trim_end_matches('.').to_owned();
            Failure::Message(if message.contains(flag) { message } else { format!("{flag}: {message}") })
        }
        other => other,
    }
}

/// The source must be there, of this version, and hold nothing that has no place in the target: a collection that is not
/// declared has no table on PostgreSQL, and nobody could read it.
async fn open_source(
    settings: &Settings,
    url: Option<&str>,
    collections: &[Arc<Collection>],
) -> Result<(Side, Contents), Failure> {
    let mut named = settings.clone();
    if let Some(url) = url {
        url.clone_into(&mut named.database.url);
    }
    if let Some(file) = session::missing_database(&named) {
        return Err(Failure::Message(format!("there is no database {} to copy from (--from)", file.display())));
    }
    let from = Side::open(settings, "--from", url).await?;
    match from.store.pending_migrations().await.map_err(|error| from.failure(error))? {
        None => return Err(Failure::Message("--from has no tables of Terrace".to_owned())),
        Some(pending) if !pending.is_empty() => {
            let detail = "--from was made by an older Terrace; run `terrace migrate` on it first";
            return Err(Failure::Message(format!("{detail} (it lacks the migrations {})", pending.join(", "))));
        }
        Some(_) => {}
    }
    if from.store.copy_mark().await.map_err(|error| from.failure(error))?.is_some() {
        return Err(Failure::Message("--from is itself a copy that is not whole; end that copy first".to_owned()));
    }
    let contents = from.contents().await?;
    let is_declared = |name: &str| collections.iter().any(|collection| collection.name.as_str() == name);
    let undeclared = contents.records.iter().filter(|(name, _)| !is_declared(name));
    let undeclared: Vec<String> = undeclared.map(|(name, records)| format!("{name} ({})", grouped(*records))).collect();
    if undeclared.is_empty() {
        return Ok((from, contents));
    }
    Err(Failure::Message(format!(
        "--from has records of collections that are not declared, so they have no place in --to: {}; declare them or delete \
         their records",
        undeclared.join(", ")
    )))
}

/// What was written.
#[derive(Default)]
struct Copied {
    records: u64,
    changes: u64,
    /// The source's counter after which nothing had been logged when the last round ended.
    counter: i64,
}

/// A copy under way.
struct Copy {
    from: Side,
    to: Side,
    collections: Vec<Arc<Collection>>,
    batch: BatchLimit,
    progress: Progress,
}

impl Copy {
    /// Makes sure that the target may be written to, gives it its tables and sets the mark, or finds the one that stands.
    async fn prepare(&self, overwrite: bool) -> Result<CopyMark, Failure> {
        let (from, to) = (&self.from, &self.to);
        let failed = |error| to.failure(error);
        let source = from.identity().await?;
        if source == to.identity().await? {
            return Err(Failure::Message("--from and --to are the same database".to_owned()));
        }
        let pending = to.store.pending_migrations().await.map_err(failed)?;
        let contents = if pending.is_some() { to.contents().await? } else { Contents::default() };
        let is_empty = contents == Contents::default();
        let since = from.counter().await?;
        if pending.as_ref().is_some_and(|pending| !pending.is_empty()) && !is_empty && !overwrite {
            return Err(not_empty(&contents));
        }
        to.store.migrate().await.map_err(failed)?;
        let mark = to.store.copy_mark().await.map_err(failed)?;
        match mark {
            // A counter that went back is no longer that of the database which was copied.
            Some(mark) if !overwrite && !is_empty && mark.source == source && mark.since <= since => {
                say(&format!("going on with an interrupted copy: {} are there", described(&contents)));
                return Ok(mark);
            }
            Some(_) if !overwrite && !is_empty => {
                let refused = "--to holds an interrupted copy of another database";
                return Err(Failure::Message(format!("{refused}: {} (--overwrite removes them)", described(&contents))));
            }
            None if !overwrite && !is_empty => return Err(not_empty(&contents)),
            Some(_) | None => {}
        }
        if !is_empty {
            self.empty(&contents).await?;
        }
        let mark = CopyMark { source, since };
        to.store.copy_begin(&mark).await.map_err(failed)?;
        // Whatever comes of the copy, samples have no place in it.
        to.store.settle().await.map_err(failed)?;
        Ok(mark)
    }

    /// Removes what the target holds. Its mark meanwhile fits no source, so that nothing goes on with what is left.
    async fn empty(&self, contents: &Contents) -> Result<(), Failure> {
        let to = &self.to;
        let failed = |error| to.failure(error);
        to.store.copy_begin(&CopyMark { source: String::new(), since: 0 }).await.map_err(failed)?;
        self.progress.stage("emptying the target", total(contents) + contents.changes, 0);
        let (mut records, mut changes) = (0, 0);
        for (collection, _) in &contents.records {
            loop {
                let removed = to.store.copy_remove_records(collection, REMOVED_AT_ONCE).await.map_err(failed)?;
                records += removed;
                self.progress.advance(removed);
                if removed == 0 {
                    break;
                }
            }
        }
        loop {
            let removed = to.store.copy_remove_changes(REMOVED_AT_ONCE).await.map_err(failed)?;
            changes += removed;
            self.progress.advance(removed);
            if removed == 0 {
                break;
            }
        }
        say(&format!("removed {} records and {} changes from --to", grouped(records), grouped(changes)));
        Ok(())
    }

    /// Writes what is missing. Indexes are made after the rows: that takes less time, and they come out smaller.
    async fn load(&self, source: &Contents, since: i64) -> Result<Copied, Failure> {
        let (from, to, progress) = (&self.from, &self.to, &self.progress);
        let failed = |error| to.failure(error);
        let mut copied = Copied::default();
        let names: Vec<CollectionName> = self.collections.iter().map(|collection| collection.name.clone()).collect();
        to.store.copy_structure(&self.collections).await.map_err(failed)?;
        let there = to.contents().await?;
        progress.stage("copying records", total(source), total(&there));
        for name in &names {
            copied.records += load::records(from, to, name, self.batch, progress).await?;
        }
        progress.stage("copying changes", source.changes, there.changes);
        for _ in 0..ROUNDS {
            copied.counter = from.counter().await?;
            let round = load::Round { collections: &names, batch: self.batch, since, until: copied.counter };
            copied.changes += load::changes(from, to, &round, progress).await?;
            if from.counter().await? == copied.counter {
                break;
            }
        }
        progress.stage("making indexes", 0, 0);
        let steps = to.store.plan(&self.collections).await.map_err(failed)?;
        to.store.apply(&steps).await.map_err(failed)?;
        for name in &names {
            to.store.analyze(name).await.map_err(failed)?;
        }
        Ok(copied)
    }

    /// Compares everything, and takes the mark away if nothing differs and the source has rested.
    async fn check(&self, copied: &Copied) -> Result<Comparison, Failure> {
        let (from, to, progress) = (&self.from, &self.to, &self.progress);
        let mut comparison = Comparison::default();
        if from.counter().await? != copied.counter {
            return Err(changed());
        }
        let source = from.contents().await?;
        progress.stage("comparing", total(&source) + source.changes, 0);
        for collection in &self.collections {
            comparison.records(from, to, &collection.name, progress).await?;
        }
        comparison.changes(from, to, progress).await?;
        if from.counter().await? != copied.counter {
            return Err(changed());
        }
        match comparison.differences {
            0 => {
                self.accounts().await?;
                to.store.copy_end(copied.counter).await.map_err(|error| to.failure(error))?;
                Ok(comparison)
            }
            count => Err(Failure::Message(format!(
                "--to is not equal to --from; {} rows differ:\n{comparison}--to cannot be served like this; --overwrite copies anew",
                grouped(count)
            ))),
        }
    }
}

impl Copy {
    /// Users, keys, sessions and signing keys, in one transaction and after everything else: they are few. They are read again, since
    /// the last use of a key is noted without a change in the log.
    async fn accounts(&self) -> Result<(), Failure> {
        let (from, to) = (&self.from, &self.to);
        let source = from.store.copy_accounts().await.map_err(|error| from.failure(error))?;
        to.store.copy_write_accounts(source.clone()).await.map_err(|error| to.failure(error))?;
        if to.store.copy_accounts().await.map_err(|error| to.failure(error))? != source {
            return Err(Failure::Message(
                "--to does not have the users and API keys of --from; run the same command again".to_owned(),
            ));
        }
        match source.accounts() {
            0 => {}
            1 => say("one user or API key came along"),
            count => say(&format!("{count} users and API keys came along")),
        }
        Ok(())
    }
}

fn not_empty(contents: &Contents) -> Failure {
    Failure::Message(format!("--to is not empty: it has {} (--overwrite removes them)", described(contents)))
}

fn changed() -> Failure {
    let said = "--from was written to while it was copied, so --to is not equal to it";
    Failure::Message(format!("{said}; stop what writes to --from and run the same command again: it brings over the rest"))
}
