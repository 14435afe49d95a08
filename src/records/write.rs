//! The write path: check, plan and store in one transaction, announce, answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::document::{self, Members};
use super::effect::Effect;
use super::plan::{Action, BatchError, Draft, Findings, Planner, WriteOutcome, combined, id_mismatch};
use super::precondition::Precondition;
use super::rights::Rights;
use super::{Records, Resource};
use crate::cache::Reconciler;
use crate::error::{Error, ErrorKind, Result, Violation};
use crate::faults;
use crate::model::{Caller, Change, CollectionName, IdRule, Operation, Position, Record, RecordId};
use crate::store::{Committed, Existing, Store};
use crate::telemetry::RequestId;

/// The result of one write.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it did.
    pub outcome: WriteOutcome,
    /// The id of the record.
    pub id: RecordId,
    /// The record as stored, so far as the caller may see it; `None` after a deletion.
    pub record: Option<Record>,
    /// The entity tag of the record, with quotes.
    pub etag: Option<String>,
    /// The position of the last change of the transaction; `None` if nothing changed.
    pub position: Option<Position>,
}

/// What an import does with ids that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportMode {
    /// The first one stops the import.
    Create,
    /// Their records are replaced, or left alone if equal.
    Upsert,
}

impl Records {
    /// Creates a record under the id its document names, or a new one.
    pub async fn create(&self, resource: &Arc<Resource>, caller: &Caller, document: Value) -> Result<Written> {
        let rights = Rights::of(resource, &caller.principal)?;
        let draft = create_draft(resource, document, String::new(), "", Action::Create)?;
        self.write_one(resource, caller, rights, draft).await
    }

    /// Creates or replaces the record `id`.
    pub async fn replace(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: RecordId,
        document: Value,
        precondition: Precondition,
    ) -> Result<Written> {
        let rights = Rights::of(resource, &caller.principal)?;
        let draft = document_draft(resource, id, document, String::new(), "", Action::Upsert)?;
        self.write_one(resource, caller, rights, Draft { precondition, ..draft }).await
    }

    /// Merges `patch` into the record `id` (RFC 7396).
    pub async fn patch(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: RecordId,
        patch: Value,
        precondition: Precondition,
    ) -> Result<Written> {
        let rights = Rights::of(resource, &caller.principal)?;
        let action = Action::Patch(Value::Object(document::client_members(patch)?));
        let draft = Draft { pointer: String::new(), data_pointer: "", id, action, precondition };
        self.write_one(resource, caller, rights, draft).await
    }

    /// Deletes the record `id`.
    pub async fn delete(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: RecordId,
        precondition: Precondition,
    ) -> Result<Written> {
        let rights = Rights::of(resource, &caller.principal)?;
        let draft = Draft { pointer: String::new(), data_pointer: "", id, action: Action::Delete, precondition };
        self.write_one(resource, caller, rights, draft).await
    }

    /// Writes documents in one transaction, leaving out those that break rules: their errors stand at their positions.
    /// An id that exists stops [`ImportMode::Create`], and then nothing is written.
    pub async fn import(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        documents: Vec<Value>,
        mode: ImportMode,
    ) -> Result<Vec<Result<WriteOutcome>>, BatchError> {
        let rights = Rights::of(resource, &caller.principal).map_err(|error| BatchError { index: 0, error })?;
        let action = match mode {
            ImportMode::Create => Action::Create,
            ImportMode::Upsert => Action::Upsert,
        };
        let mut results: Vec<Option<Result<WriteOutcome>>> = Vec::with_capacity(documents.len());
        let mut drafts = Vec::with_capacity(documents.len());
        for (index, document) in documents.into_iter().enumerate() {
            match create_draft(resource, document, format!("/operations/{index}"), "/data", action) {
                Ok(draft) => {
                    drafts.push((index, draft));
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        while !drafts.is_empty() {
            let attempt = drafts.iter().map(|(_, draft)| draft.clone()).collect();
            match self.commit(resource, caller, rights.clone(), attempt).await {
                Ok(written) => {
                    for ((index, _), written) in drafts.drain(..).zip(written) {
                        if let Some(slot) = results.get_mut(index) {
                            *slot = Some(Ok(written.outcome));
                        }
                    }
                }
                Err(failures) => drop_failed(&mut drafts, &mut results, failures)?,
            }
        }
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(Error::internal("a draft has no result")))).collect())
    }

    pub(super) async fn write_all(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        rights: Rights,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Written>> {
        let total = drafts.len();
        self.commit(resource, caller, rights, drafts).await.map_err(|failures| combined(total, failures))
    }

    async fn write_one(&self, resource: &Arc<Resource>, caller: &Caller, rights: Rights, draft: Draft) -> Result<Written> {
        let no_result = || Error::internal("a write has neither a result nor an error");
        match self.commit(resource, caller, rights, vec![draft]).await {
            Ok(written) => written.into_iter().next().ok_or_else(no_result),
            Err(failures) => Err(failures.into_iter().next().map_or_else(no_result, |failure| failure.error)),
        }
    }

    /// Runs the transaction and the announcement in a task of its own: a client that hangs up between the two must not
    /// leave a committed change unannounced.
    async fn commit(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        rights: Rights,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Written>, Vec<BatchError>> {
        let commit = Commit {
            store: self.store.clone(),
            reconciler: Arc::clone(&self.reconciler),
            resource: Arc::clone(resource),
            planner: Planner {
                declared: Arc::clone(resource.declared()),
                referrers: self.catalog.referrers(&resource.collection().name),
                rights: rights.clone(),
            },
            rights,
            actor: caller.principal.actor().to_owned(),
        };
        let task = tokio::spawn(RequestId::carry(commit.run(drafts)));
        task.await.unwrap_or_else(|failure| Err(vec![BatchError { index: 0, error: Error::internal(failure) }]))
    }
}

/// Takes failed drafts out of an import. A duplicate, and what is no draft's fault, ends it.
fn drop_failed(
    drafts: &mut Vec<(usize, Draft)>,
    results: &mut [Option<Result<WriteOutcome>>],
    failures: Vec<BatchError>,
) -> Result<(), BatchError> {
    let mut failed = Vec::new();
    for failure in failures {
        let Some((index, _)) = drafts.get(failure.index) else { return Err(failure) };
        let (index, error) = (*index, failure.error);
        if error.kind() != ErrorKind::Invalid {
            return Err(BatchError { index, error });
        }
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(Err(error));
        }
        failed.push(index);
    }
    drafts.retain(|(index, _)| !failed.contains(index));
    Ok(())
}

/// One transaction with its announcement.
struct Commit {
    store: Store,
    reconciler: Arc<Reconciler>,
    resource: Arc<Resource>,
    planner: Planner,
    rights: Rights,
    actor: String,
}

/// What the planner leaves behind when it has run last.
#[derive(Default)]
struct Planned {
    findings: Findings,
    writes: Vec<(RecordId, Operation)>,
    failures: Vec<BatchError>,
}

impl Commit {
    async fn run(self, drafts: Vec<Draft>) -> Result<Vec<Written>, Vec<BatchError>> {
        let mut ids: Vec<RecordId> = drafts.iter().map(|draft| draft.id.clone()).collect();
        ids.sort();
        ids.dedup();
        let drafts = Arc::new(drafts);
        let planned = Arc::new(Mutex::new(Planned::default()));
        let plan = planning(self.planner, Arc::clone(&drafts), Arc::clone(&planned));
        let collection = self.resource.collection();
        let committed = self.store.record_write(collection, &self.actor, ids, plan).await;
        let planned = std::mem::take(&mut *planned.lock().unwrap_or_else(PoisonError::into_inner));
        match committed {
            Ok(committed) => {
                faults::point("before_announce").await;
                let changes = changes(&collection.name, &planned, &committed.positions);
                self.reconciler.announce(&changes, &committed.predecessors).await;
                results(planned, committed, &self.rights).map_err(|error| vec![BatchError { index: 0, error }])
            }
            Err(_) if !planned.failures.is_empty() => Err(planned.failures),
            Err(error) => Err(by_draft(&drafts, error)),
        }
    }
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
    };
    writes.map(change).collect()
}

/// The result of each draft, in their order, as the caller may see it. Drafts of one record share its final state.
fn results(planned: Planned, committed: Committed, rights: &Rights) -> Result<Vec<Written>> {
    let position = committed.positions.last().copied();
    let stored = planned.writes.into_iter().zip(committed.records).filter_map(|((id, _), record)| Some((id, record?)));
    let mut records: HashMap<RecordId, Record> = planned.findings.untouched.into_iter().chain(stored).collect();
    let mut remaining: HashMap<RecordId, usize> = HashMap::new();
    for (id, _) in &planned.findings.outcomes {
        *remaining.entry(id.clone()).or_default() += 1;
    }
    let result = |(id, outcome): (RecordId, WriteOutcome)| {
        let last = remaining.get_mut(&id).is_none_or(|count| {
            *count -= 1;
            *count == 0
        });
        let record = match outcome {
            WriteOutcome::Deleted => None,
            WriteOutcome::Created | WriteOutcome::Updated | WriteOutcome::Unchanged if last => records.remove(&id),
            WriteOutcome::Created | WriteOutcome::Updated | WriteOutcome::Unchanged => records.get(&id).cloned(),
        };
        let record = record.map(|record| rights.shown(record)).transpose()?;
        let etag = record.as_ref().map(|record| document::quoted_etag(record.data.as_bytes()));
        Ok(Written { outcome, id, record, etag, position })
    };
    planned.findings.outcomes.into_iter().map(result).collect()
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

/// A draft whose id is in its document, or new.
pub(super) fn create_draft(
    resource: &Resource,
    document: Value,
    pointer: String,
    data_pointer: &'static str,
    action: fn(Members) -> Action,
) -> Result<Draft> {
    let collection = resource.collection();
    let mut members = document::client_members(document)?;
    let id = match document::take_id(collection, &mut members)? {
        Some(id) => id,
        None if collection.id == IdRule::Generated => document::generated_id()?,
        None => {
            let field = collection.id_field();
            let detail = format!("{field} is the id of a record of {} and is required.", collection.name);
            return Err(Error::invalid(vec![Violation::new(format!("/{field}"), "required", detail)]));
        }
    };
    Ok(Draft { pointer, data_pointer, id, action: action(members), precondition: Precondition::None })
}

/// A draft for a record whose id is given beside the document, which may repeat it.
pub(super) fn document_draft(
    resource: &Resource,
    id: RecordId,
    document: Value,
    pointer: String,
    data_pointer: &'static str,
    action: fn(Members) -> Action,
) -> Result<Draft> {
    let collection = resource.collection();
    let mut members = document::client_members(document)?;
    match (document::take_id(collection, &mut members)?, &collection.id) {
        (Some(named), _) if named != id => return Err(id_mismatch(collection, &id)),
        (None, IdRule::Natural(field)) => drop(members.insert(field.clone(), Value::from(id.as_str()))),
        (Some(_), _) | (None, IdRule::Generated) => {}
    }
    Ok(Draft { pointer, data_pointer, id, action: action(members), precondition: Precondition::None })
}
