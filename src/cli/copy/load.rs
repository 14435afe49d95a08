//! The stages that write: records collection by collection, then the change log, and with it what the source changed
//! since the first record was read. Each goes on after the newest key of the target. While a batch is written, the next
//! one is read; memory holds two.

use std::collections::{BTreeMap, BTreeSet};

use super::{Progress, Side};
use crate::cli::Failure;
use crate::error::{Error, ErrorKind, Result};
use crate::model::CollectionName;
use crate::store::{BatchLimit, RawChange, RawRecord};

/// Copies the records of a collection that come after those of the target.
pub(super) async fn records(
    from: &Side,
    to: &Side,
    collection: &CollectionName,
    batch: BatchLimit,
    progress: &Progress,
) -> Result<u64, Failure> {
    let last = to.store.copy_last_id(collection).await.map_err(|error| to.failure(error))?;
    let read = async |after: &str| from.store.copy_records(collection, after, batch).await.map_err(|error| from.failure(error));
    let mut waiting = read(last.as_deref().unwrap_or_default()).await?;
    let mut copied = 0;
    while let Some(last) = waiting.last().map(|record| record.id.clone()) {
        let size = waiting.len() as u64;
        let (next, ()) = tokio::try_join!(read(&last), write_records(to, waiting))?;
        waiting = next;
        copied += size;
        progress.advance(size);
    }
    Ok(copied)
}

/// Writes a batch; if the database refuses it, its halves, down to the record that it does not take.
async fn write_records(to: &Side, batch: Vec<RawRecord>) -> Result<(), Failure> {
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        match to.store.copy_write_records(&part).await {
            Ok(()) => {}
            Err(error) if part.len() > 1 && is_about_rows(&error) => {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            }
            Err(error) => {
                let name = part.first().map(|record| format!("{} {:?}", record.collection, record.id));
                return Err(refused(to, name, error));
            }
        }
    }
    Ok(())
}

/// Which changes are copied.
pub(super) struct Round<'a> {
    /// What is declared.
    pub(super) collections: &'a [CollectionName],
    pub(super) batch: BatchLimit,
    /// Records that were changed after this number are read again.
    pub(super) since: i64,
    /// The last number.
    pub(super) until: i64,
}

/// Copies the changes that come after those of the target, and brings over the records that they are about.
pub(super) async fn changes(from: &Side, to: &Side, round: &Round<'_>, progress: &Progress) -> Result<u64, Failure> {
    let last = to.store.copy_last_change().await.map_err(|error| to.failure(error))?;
    let read = async |after: i64| {
        let mut page = from.store.copy_changes(after, round.batch).await.map_err(|error| from.failure(error))?;
        page.retain(|change| change.position <= round.until);
        Ok::<_, Failure>(page)
    };
    let mut waiting = read(last).await?;
    let mut copied = 0;
    while let Some(last) = waiting.last().map(|change| change.position) {
        let size = waiting.len() as u64;
        let (next, ()) = tokio::try_join!(read(last), write_changes(from, to, round, waiting))?;
        waiting = next;
        copied += size;
        progress.advance(size);
    }
    Ok(copied)
}

async fn write_changes(from: &Side, to: &Side, round: &Round<'_>, batch: Vec<RawChange>) -> Result<(), Failure> {
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        let touched = touched(&part, round);
        let mut records = Vec::new();
        for (collection, ids) in &touched {
            let found = from.store.copy_records_of(collection, ids.clone()).await;
            records.append(&mut found.map_err(|error| from.failure(error))?);
        }
        match to.store.copy_write_changes(&part, touched, &records).await {
            Ok(()) => {}
            Err(error) if part.len() > 1 && is_about_rows(&error) => {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            }
            Err(error) => {
                let name =
                    part.first().map(|change| format!("change {} ({} {:?})", change.position, change.collection, change.id));
                return Err(refused(to, name, error));
            }
        }
    }
    Ok(())
}

/// The declared records that changes after `since` are about.
fn touched(changes: &[RawChange], round: &Round<'_>) -> Vec<(CollectionName, Vec<String>)> {
    let mut touched: BTreeMap<&CollectionName, BTreeSet<&str>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.position > round.since) {
        if let Some(collection) = round.collections.iter().find(|collection| collection.as_str() == change.collection) {
            touched.entry(collection).or_default().insert(&change.id);
        }
    }
    let owned = |ids: BTreeSet<&str>| ids.into_iter().map(str::to_owned).collect();
    touched.into_iter().map(|(collection, ids)| (collection.clone(), owned(ids))).collect()
}

/// Whether another batch could fare better.
fn is_about_rows(error: &Error) -> bool {
    error.kind() != ErrorKind::Unavailable
}

fn refused(to: &Side, name: Option<String>, error: Error) -> Failure {
    match (name, to.failure(error.clone())) {
        (Some(name), Failure::Message(message)) if is_about_rows(&error) => {
            Failure::Message(format!("{name} cannot be written: {message}; is something else writing there?"))
        }
        (_, failure) => failure,
    }
}
