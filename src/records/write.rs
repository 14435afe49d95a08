//! The write path: check, plan and store in one transaction, announce, answer. What is done in the transaction and after it is in
//! `commit`.

use std::sync::Arc;

use serde_json::Value;

use super::commit::Commit;
use super::document::{self, Members};
use super::growth::Growth;
use super::once::{self, Idempotent, Reply};
use super::plan::{Action, BatchError, Draft, Planner, WriteOutcome, combined};
use super::precondition::Precondition;
use super::rights::{self, Rights};
use super::{Records, Resource};
use crate::cache::BULK;
use crate::error::{Error, ErrorKind, Result, Violation};
use crate::model::{Caller, IdRule, Position, Principal, Ranking, Record, RecordId};
use crate::store::{Referrer, Told};
use crate::telemetry::RequestId;

/// The result of one write.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it did.
    pub outcome: WriteOutcome,
    /// The id of the record.
    pub id: RecordId,
    /// The record as stored, so far as the caller may see it; `None` after a deletion.
    pub record: Option<Arc<Record>>,
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
    pub async fn create(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        document: Value,
        once: Option<Idempotent>,
    ) -> Result<Reply<Written>> {
        let rights = Rights::of(resource, &caller.principal)?;
        let draft = create_draft(resource, document, String::new(), "", Action::Create)?;
        self.write_one(resource, (caller, rights), draft, once).await
    }

    /// Creates or replaces the record `id`.
    pub async fn replace(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: RecordId,
        document: Value,
        precondition: Precondition,
        once: Option<Idempotent>,
    ) -> Result<Reply<Written>> {
        let rights = Rights::of(resource, &caller.principal)?;
        let draft = document_draft(resource, id, document, String::new(), "", Action::Upsert)?;
        self.write_one(resource, (caller, rights), Draft { precondition, ..draft }, once).await
    }

    /// Merges `patch` into the record `id` (RFC 7396).
    pub async fn patch(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: RecordId,
        patch: Value,
        precondition: Precondition,
        once: Option<Idempotent>,
    ) -> Result<Reply<Written>> {
        let rights = Rights::of(resource, &caller.principal)?;
        let action = Action::Patch(Value::Object(document::client_members(patch)?));
        let draft = Draft { pointer: String::new(), data_pointer: "", id, action, precondition };
        self.write_one(resource, (caller, rights), draft, once).await
    }

    /// Deletes the record `id`.
    pub async fn delete(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        id: RecordId,
        precondition: Precondition,
        once: Option<Idempotent>,
    ) -> Result<Reply<Written>> {
        let rights = Rights::of(resource, &caller.principal)?;
        let draft = Draft { pointer: String::new(), data_pointer: "", id, action: Action::Delete, precondition };
        self.write_one(resource, (caller, rights), draft, once).await
    }

    /// Writes documents in one transaction, leaving out those that break rules: their errors stand at their positions.
    /// An id that exists stops [`ImportMode::Create`], and then nothing is written. Where the records that are replaced are large it takes
    /// several transactions.
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
        let mut at_once = drafts.len();
        while !drafts.is_empty() {
            let attempt: Vec<Draft> = drafts.iter().take(at_once).map(|(_, draft)| draft.clone()).collect();
            let count = attempt.len();
            match self.commit(resource, (caller, rights.clone()), attempt, None, Growth::Unbounded).await {
                Ok(Reply::Kept(_)) => return Err(BatchError { index: 0, error: Error::internal("an import has no key") }),
                Ok(Reply::Done(written)) => {
                    for ((index, _), written) in drafts.drain(..count).zip(written) {
                        if let Some(slot) = results.get_mut(index) {
                            *slot = Some(Ok(written.outcome));
                        }
                    }
                }
                // What they replace is too large to be read together. (Where nothing may be replaced it is an id that exists.)
                Err(failures) if count > 1 && mode == ImportMode::Upsert && are_too_large(&failures) => {
                    at_once = count.div_ceil(2)
                }
                Err(failures) => drop_failed(&mut drafts, &mut results, failures)?,
            }
        }
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(Error::internal("a draft has no result")))).collect())
    }

    /// What may refer to records of the collection, each with what the caller may know of it.
    fn referrers(&self, resource: &Resource, principal: &Principal) -> Vec<Referrer> {
        let referrers = self.catalog.referrers(&resource.collection().name).into_iter();
        let known = referrers.map(|(collection, field)| {
            let declared = self.catalog.get(&collection);
            let told = declared.map_or(Told::Vaguely, |declared| rights::told_of(&declared.collection, &field, principal));
            Referrer { collection, field, told }
        });
        known.collect()
    }

    pub(super) async fn write_all(
        &self,
        resource: &Arc<Resource>,
        writer: (&Caller, Rights),
        drafts: Vec<Draft>,
        once: Option<Idempotent>,
    ) -> Result<Reply<Vec<Written>>> {
        let total = drafts.len();
        self.commit(resource, writer, drafts, once, self.growth).await.map_err(|failures| {
            match <[BatchError; 1]>::try_from(failures) {
                // It is about the request, and not about what it asks for.
                Ok([BatchError { error, .. }]) if error.code() == once::REUSED => error,
                Ok(failures) => combined(total, failures.into()),
                Err(failures) => combined(total, failures),
            }
        })
    }

    async fn write_one(
        &self,
        resource: &Arc<Resource>,
        writer: (&Caller, Rights),
        draft: Draft,
        once: Option<Idempotent>,
    ) -> Result<Reply<Written>> {
        let no_result = || Error::internal("a write has neither a result nor an error");
        match self.commit(resource, writer, vec![draft], once, self.growth).await {
            Ok(Reply::Done(written)) => written.into_iter().next().map(Reply::Done).ok_or_else(no_result),
            Ok(Reply::Kept(answer)) => Ok(Reply::Kept(answer)),
            Err(failures) => Err(failures.into_iter().next().map_or_else(no_result, |failure| failure.error)),
        }
    }

    /// Runs the transaction and the announcement in a task of its own: a client that hangs up between the two must not
    /// leave a committed change unannounced.
    async fn commit(
        &self,
        resource: &Arc<Resource>,
        writer: (&Caller, Rights),
        drafts: Vec<Draft>,
        once: Option<Idempotent>,
        growth: Growth,
    ) -> Result<Reply<Vec<Written>>, Vec<BatchError>> {
        let (caller, rights) = writer;
        // Only now: who sends a body slowly holds up nobody but itself.
        let slot = self.cache.capacity().take().map_err(|error| vec![BatchError { index: 0, error }])?;
        let commit = Commit {
            store: self.store.clone(),
            reconciler: Arc::clone(&self.reconciler),
            resource: Arc::clone(resource),
            planner: Planner {
                declared: Arc::clone(resource.declared()),
                referrers: self.referrers(resource, &caller.principal),
                rights,
                growth,
                // No search is found untouched by its words where ranks follow from all records, and nothing is by a bulk write.
                tells_words: resource.ranking == Ranking::Own && drafts.len() <= BULK,
            },
            caller: caller.clone(),
        };
        let task = tokio::spawn(RequestId::carry(async move {
            // Kept until it is done, also if the client has hung up.
            let _slot = slot;
            commit.run(drafts, once).await
        }));
        task.await.unwrap_or_else(|failure| Err(vec![BatchError { index: 0, error: Error::internal(failure) }]))
    }
}

fn are_too_large(failures: &[BatchError]) -> bool {
    failures.iter().any(|failure| failure.error.kind() == ErrorKind::PayloadTooLarge)
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
        (Some(named), _) if named != id => return Err(document::id_mismatch(collection, &id)),
        (None, IdRule::Natural(field)) => drop(members.insert(field.clone(), Value::from(id.as_str()))),
        (Some(_), _) | (None, IdRule::Generated) => {}
    }
    Ok(Draft { pointer, data_pointer, id, action: action(members), precondition: Precondition::None })
}
