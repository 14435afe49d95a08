//! One transaction and what follows it: the plan is made and carried out, the changes are announced, and each draft gets its
//! result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::effect::Effect;
use super::once::{self, Idempotent, Reply};
use super::plan::{BatchError, Draft, Findings, Planner, WriteOutcome};
use super::rights::Rights;
use super::{Resource, Written, document};
use crate::cache::Reconciler;
use crate::error::{Error, Result, Violation};
use crate::faults;
use crate::model::{Caller, Change, CollectionName, Operation, Position, Record, RecordId};
use crate::store::{Answering, Author, Committed, Existing, OnceOutcome, Store};

/// One transaction with its announcement.
pub(super) struct Commit {
    pub(super) store: Store,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) resource: Arc<Resource>,
    pub(super) planner: Planner,
    pub(super) caller: Caller,
}

/// What the planner leaves behind when it has run last.
#[derive(Clone, Default)]
struct Planned {
    findings: Findings,
    writes: Vec<(RecordId, Operation)>,
    failures: Vec<BatchError>,
}

impl Commit {
    pub(super) async fn run(self, drafts: Vec<Draft>, once: Option<Idempotent>) -> Result<Reply<Vec<Written>>, Vec<BatchError>> {
        let mut ids: Vec<RecordId> = drafts.iter().map(|draft| draft.id.clone()).collect();
        ids.sort();
        ids.dedup();
        let drafts = Arc::new(drafts);
        let planned = Arc::new(Mutex::new(Planned::default()));
        let rights = self.planner.rights.clone();
        let plan = planning(self.planner, Arc::clone(&drafts), Arc::clone(&planned));
        let collection = self.resource.collection();
        let author = Author { actor: self.caller.principal.actor().to_owned(), origin: self.caller.address };
        let committed = match &once {
            None => self.store.record_write(collection, author, ids, plan).await.map(OnceOutcome::Done),
            Some(idempotent) => match idempotent.once(&self.caller, answering(idempotent, &planned, &rights)) {
                Ok(once) => self.store.record_write_once(collection, author, ids, plan, once).await,
                Err(error) => Err(error),
            },
        };
        let planned = taken(&planned);
        match committed {
            Ok(OnceOutcome::Done(committed)) => {
                faults::point("before_announce").await;
                let changes = changes(&collection.name, &planned, &committed.positions);
                self.reconciler.announce(&changes, &committed.predecessors).await;
                let results = results(planned, committed, &rights);
                results.map(Reply::Done).map_err(|error| vec![BatchError { index: 0, error }])
            }
            Ok(OnceOutcome::Kept(answer)) => {
                // Whoever did it may not have announced it yet, or have died before: it shows here before it is answered here.
                if let Some(position) = answer.position {
                    self.reconciler.show(position, &collection.name).await;
                }
                Ok(Reply::Kept(answer))
            }
            Ok(OnceOutcome::Reused) => {
                let key = once.map(|once| once.key).unwrap_or_default();
                Err(vec![BatchError { index: 0, error: once::reused(&key) }])
            }
            Err(_) if !planned.failures.is_empty() => Err(planned.failures),
            Err(error) => Err(by_draft(&drafts, error)),
        }
    }
}

fn taken(planned: &Mutex<Planned>) -> Planned {
    std::mem::take(&mut *planned.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The answer as the store asks for it, of what was planned last.
fn answering(idempotent: &Idempotent, planned: &Arc<Mutex<Planned>>, rights: &Rights) -> Answering {
    let (shape, planned, rights) = (Arc::clone(&idempotent.shape), Arc::clone(planned), rights.clone());
    Arc::new(move |committed| {
        let planned = planned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        shape(&results(planned, committed.clone(), &rights)?)
    })
}

/// The planner as the store calls it; what it finds out is left in `planned`.
fn planning(planner: Planner, drafts: Arc<Vec<Draft>>, planned: Arc<Mutex<Planned>>) -> crate::store::Planner {
    Arc::new(move |existing: &Existing| {
        let (result, left) = match planner.plan(&drafts, existing) {
            Ok((plan, findings)) => {
                let writes = plan.writes.iter().map(|write| (write.id.clone(), write.operation)).collect();
                (Ok(plan), Planned { findings, writes, failures: Vec::new() })
            }
            Err(failures) => {
                let ended = Error::internal("the plan failed; its failures are told one by one");
                (Err(ended), Planned { failures, ..Planned::default() })
            }
        };
        *planned.lock().unwrap_or_else(PoisonError::into_inner) = left;
        result
    })
}

fn changes(collection: &CollectionName, planned: &Planned, positions: &[Position]) -> Vec<Change> {
    let writes = planned.writes.iter().zip(&planned.findings.effects).zip(positions);
    let change = |(((id, operation), effect), position): ((&(RecordId, Operation), &Effect), &Position)| Change {
        position: *position,
        collection: collection.clone(),
        id: id.clone(),
        operation: *operation,
        terms: effect.terms.clone(),
        members: effect.members.clone(),
        words: effect.words.clone(),
    };
    writes.map(change).collect()
}

/// The result of each draft, in their order, as the caller may see it. Drafts of one record share its final state.
fn results(planned: Planned, committed: Committed, rights: &Rights) -> Result<Vec<Written>> {
    let position = committed.positions.last().copied();
    let stored = planned.writes.into_iter().zip(committed.records).filter_map(|((id, _), record)| Some((id, record?)));
    let shown = |(id, record): (RecordId, Record)| -> Result<_> {
        let shown = rights.shown(record)?.map(|record| (document::quoted_etag(record.data.as_bytes()), Arc::new(record)));
        Ok((id, shown))
    };
    let records = planned.findings.untouched.into_iter().chain(stored).map(shown).collect::<Result<HashMap<_, _>>>()?;
    let result = |(id, outcome): (RecordId, WriteOutcome)| {
        let left = match outcome {
            WriteOutcome::Deleted => None,
            WriteOutcome::Created | WriteOutcome::Updated | WriteOutcome::Unchanged => records.get(&id).cloned().flatten(),
        };
        let (etag, record) = left.unzip();
        Written { outcome, id, record, etag, position }
    };
    Ok(planned.findings.outcomes.into_iter().map(result).collect())
}

/// Gives the store's error to the drafts that its violations point at, or to the first one.
fn by_draft(drafts: &[Draft], error: Error) -> Vec<BatchError> {
    let points_at = |draft: &Draft, violation: &Violation| {
        violation.pointer.strip_prefix(&draft.pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut failures = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let own: Vec<Violation> = error.violations().iter().filter(|violation| points_at(draft, violation)).cloned().collect();
        if !own.is_empty() {
            failures.push(BatchError { index, error: error.clone().with_violations(own) });
        }
    }
    if failures.is_empty() {
        failures.push(BatchError { index: 0, error });
    }
    failures
}
