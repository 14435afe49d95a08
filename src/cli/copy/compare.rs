//! The last stage of a copy: every row of the target held against its source. Both sides are walked in the order of
//! their keys, a batch of each in memory, so rows that only one of them has are found as well.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;

use super::{BATCH, Progress, Side, json};
use crate::cli::Failure;
use crate::error::Result;
use crate::model::CollectionName;
use crate::store::{RawChange, RawRecord};

/// How many differences are told one by one.
const TOLD: usize = 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) records: u64,
    pub(super) changes: u64,
    pub(super) differences: u64,
    told: Vec<String>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.told {
            writeln!(formatter, "  {line}")?;
        }
        match usize::try_from(self.differences).unwrap_or(usize::MAX).saturating_sub(self.told.len()) {
            0 => Ok(()),
            more => writeln!(formatter, "  and {more} more"),
        }
    }
}

impl Comparison {
    fn differs(&mut self, line: String) {
        self.differences += 1;
        if self.told.len() < TOLD {
            self.told.push(line);
        }
    }

    /// Compares the records of a collection.
    pub(super) async fn records(
        &mut self,
        from: &Side,
        to: &Side,
        collection: &CollectionName,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let read = async |side: &Side, last: Option<&RawRecord>| {
            side.store.copy_records(collection, last.map_or("", |record| record.id.as_str()), BATCH).await
        };
        let (mut source, mut target) = (Walk::new(from, &read), Walk::new(to, &read));
        while let Some(pair) = pair(&mut source, &mut target, |left, right| left.id.cmp(&right.id)).await? {
            self.records += 1;
            progress.advance(1);
            match pair {
                Pair::Both(source, target) => {
                    if let Some(what) = record_difference(&source, &target) {
                        self.differs(format!("{collection} {:?}: {what} differs", source.id));
                    }
                }
                Pair::Source(record) => self.differs(format!("{collection} {:?}: is missing in --to", record.id)),
                Pair::Target(record) => self.differs(format!("{collection} {:?}: is in --to only", record.id)),
            }
        }
        Ok(())
    }

    /// Compares the change logs. What retention has removed from the source meanwhile is no difference.
    pub(super) async fn changes(&mut self, from: &Side, to: &Side, progress: &Progress) -> Result<(), Failure> {
        let read = async |side: &Side, last: Option<&RawChange>| {
            side.store.copy_changes(last.map_or(0, |change| change.position), BATCH).await
        };
        let (mut source, mut target) = (Walk::new(from, &read), Walk::new(to, &read));
        let mut has_begun = false;
        while let Some(pair) = pair(&mut source, &mut target, |left, right| left.position.cmp(&right.position)).await? {
            self.changes += 1;
            progress.advance(1);
            let name = |change: &RawChange| format!("change {} ({} {:?})", change.position, change.collection, change.id);
            match pair {
                Pair::Both(source, target) => {
                    has_begun = true;
                    if let Some(what) = change_difference(&source, &target) {
                        self.differs(format!("{}: {what} differs", name(&source)));
                    }
                }
                Pair::Source(change) => {
                    has_begun = true;
                    self.differs(format!("{}: is missing in --to", name(&change)));
                }
                Pair::Target(change) if has_begun => self.differs(format!("{}: is in --to only", name(&change))),
                Pair::Target(_) => self.changes -= 1,
            }
        }
        Ok(())
    }
}

/// Rows with the same key, or a row that has no counterpart.
enum Pair<R> {
    Both(R, R),
    Source(R),
    Target(R),
}

/// One side on its way through a table.
struct Walk<'a, R, F> {
    side: &'a Side,
    read: &'a F,
    waiting: VecDeque<R>,
    last: Option<R>,
    has_ended: bool,
}

impl<'a, R: Clone, F: AsyncFn(&Side, Option<&R>) -> Result<Vec<R>>> Walk<'a, R, F> {
    fn new(side: &'a Side, read: &'a F) -> Self {
        Self { side, read, waiting: VecDeque::new(), last: None, has_ended: false }
    }

    /// Reads on if nothing waits.
    async fn fill(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() && !self.has_ended {
            let batch = (self.read)(self.side, self.last.as_ref()).await.map_err(|error| self.side.failure(error))?;
            self.has_ended = batch.is_empty();
            self.last = batch.last().cloned().or_else(|| self.last.take());
            self.waiting = batch.into();
        }
        Ok(())
    }
}

async fn pair<R: Clone, F: AsyncFn(&Side, Option<&R>) -> Result<Vec<R>>>(
    source: &mut Walk<'_, R, F>,
    target: &mut Walk<'_, R, F>,
    order: impl Fn(&R, &R) -> Ordering,
) -> Result<Option<Pair<R>>, Failure> {
    tokio::try_join!(source.fill(), target.fill())?;
    let order = match (source.waiting.front(), target.waiting.front()) {
        (Some(left), Some(right)) => order(left, right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => return Ok(None),
    };
    Ok(match order {
        Ordering::Less => source.waiting.pop_front().map(Pair::Source),
        Ordering::Greater => target.waiting.pop_front().map(Pair::Target),
        Ordering::Equal => {
            source.waiting.pop_front().zip(target.waiting.pop_front()).map(|(left, right)| Pair::Both(left, right))
        }
    })
}

/// The first column that differs.
fn record_difference(source: &RawRecord, target: &RawRecord) -> Option<&'static str> {
    let columns = [
        ("the version", source.version == target.version),
        ("created_at", source.created_at == target.created_at),
        ("updated_at", source.updated_at == target.updated_at),
        ("the document", json::are_equal(&source.data, &target.data)),
    ];
    columns.into_iter().find(|(_, is_equal)| !is_equal).map(|(name, _)| name)
}

fn change_difference(source: &RawChange, target: &RawChange) -> Option<&'static str> {
    let document = |left: &Option<String>, right: &Option<String>| match (left, right) {
        (Some(left), Some(right)) => json::are_equal(left, right),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let columns = [
        ("the record", (&source.collection, &source.id) == (&target.collection, &target.id)),
        ("the operation", source.operation == target.operation),
        ("the version", source.version == target.version),
        ("the actor", source.actor == target.actor),
        ("the origin", source.origin == target.origin),
        ("the time", source.at == target.at),
        ("the document before", document(&source.before, &target.before)),
        ("the document after", document(&source.after, &target.after)),
    ];
    columns.into_iter().find(|(_, is_equal)| !is_equal).map(|(name, _)| name)
}
