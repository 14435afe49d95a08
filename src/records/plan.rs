//! Planning a write inside its transaction: from the stored records and the requested operations to the rows that
//! change. Plans are pure: the store may ask for one again when it must retry a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::document::{self, Members};
use super::effect::Effect;
use super::growth::Growth;
use super::precondition::Precondition;
use super::rights::{Rights, Standing};
use super::storable;
use crate::catalog::Declared;
use crate::error::{Error, ErrorKind, Result, Violation};
use crate::model::{IdRule, Operation, Record, RecordId};
use crate::store::{Among, Existing, RecordWrite, ReferenceCheck, Referrer, WritePlan};

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The record is new.
    Created,
    /// The record has a new document.
    Updated,
    /// The document was equal to the stored one; nothing was written.
    Unchanged,
    /// The record is gone.
    Deleted,
}

/// One requested operation.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Where it stands in the request body: `""`, or `/operations/3`.
    pub(super) pointer: String,
    /// Where its document stands below that: `""`, or `/data`.
    pub(super) data_pointer: &'static str,
    pub(super) id: RecordId,
    pub(super) action: Action,
    pub(super) precondition: Precondition,
}

/// What a draft does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Fails if the record exists.
    Create(Members),
    /// Fails unless it exists.
    Update(Members),
    /// Creates or replaces.
    Upsert(Members),
    /// RFC 7396; fails unless the record exists.
    Patch(Value),
    /// Fails unless the record exists.
    Delete,
}

/// The failure of one draft.
#[derive(Clone, Debug)]
pub struct BatchError {
    /// The position of the draft.
    pub index: usize,
    /// What is wrong with it.
    pub error: Error,
}

/// What a plan found out beside the rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// What each draft does, in their order.
    pub(super) outcomes: Vec<(RecordId, WriteOutcome)>,
    /// What each write does to its document, in their order.
    pub(super) effects: Vec<Effect>,
    /// The records that stay as they are.
    pub(super) untouched: Vec<(RecordId, Record)>,
}

/// Plans drafts over one collection.
pub(super) struct Planner {
    pub(super) declared: Arc<Declared>,
    pub(super) referrers: Vec<Referrer>,
    /// Those of the caller.
    pub(super) rights: Rights,
    pub(super) growth: Growth,
    pub(super) tells_words: bool,
}

/// A record as the drafts before have left it.
struct State {
    original: Option<Stored>,
    /// What the next version continues: the original, until a draft deletes the record.
    base: Option<Stored>,
    current: Option<Stored>,
    pointer: String,
}

#[derive(Clone)]
struct Stored {
    text: String,
    version: i64,
    members: Members,
}

impl Planner {
    /// Plans all drafts, or returns every failure.
    pub(super) fn plan(&self, drafts: &[Draft], existing: &Existing) -> Result<(WritePlan, Findings), Vec<BatchError>> {
        let mut states: HashMap<&RecordId, State> = HashMap::new();
        let mut order: Vec<&RecordId> = Vec::new();
        let mut failures = Vec::new();
        let mut findings = Findings::default();
        for (index, draft) in drafts.iter().enumerate() {
            let step = (|| {
                if !states.contains_key(&draft.id) {
                    states.insert(&draft.id, State::load(existing, draft)?);
                    order.push(&draft.id);
                }
                let Some(state) = states.get_mut(&draft.id) else {
                    return Err(Error::internal("a state that was just set is gone"));
                };
                state.pointer.clone_from(&draft.pointer);
                self.apply(draft, state)
            })();
            match step {
                Ok(outcome) => findings.outcomes.push((draft.id.clone(), outcome)),
                Err(error) => failures.push(BatchError { index, error }),
            }
        }
        if !failures.is_empty() {
            return Err(self.told(drafts, failures));
        }
        let mut plan = WritePlan { writes: Vec::new(), references: Vec::new(), referrers: Vec::new() };
        for id in order {
            if let Some(state) = states.remove(id) {
                self.finish(id, state, &mut plan, &mut findings);
            }
        }
        Ok((plan, findings))
    }

    /// Where others have records that the caller does not see, ids that are taken are told only if nothing else is wrong, and one at a
    /// time: a batch, which then writes nothing, must not be a way to try a thousand ids.
    fn told(&self, drafts: &[Draft], failures: Vec<BatchError>) -> Vec<BatchError> {
        if !self.rights.is_limited() {
            return failures;
        }
        let is_taken = |failure: &BatchError| match drafts.get(failure.index).map(|draft| &draft.action) {
            Some(Action::Create(_)) => failure.error.kind() == ErrorKind::Conflict,
            Some(Action::Upsert(_)) => failure.error.kind() == ErrorKind::NotFound,
            Some(Action::Update(_) | Action::Patch(_) | Action::Delete) | None => false,
        };
        let (mut taken, others): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_taken);
        taken.truncate(1);
        if others.is_empty() { taken } else { others }
    }

    fn apply(&self, draft: &Draft, state: &mut State) -> Result<WriteOutcome> {
        let missing =
            || Error::not_found(format!("There is no record {:?} in {}.", draft.id.as_str(), self.declared.collection.name));
        let exists = || Error::conflict("already_exists", format!("There is a record {:?} already.", draft.id.as_str()));
        let standing = state.current.as_ref().map(|current| self.rights.standing(&current.members));
        if let (
            Some(Standing::Blind),
            Action::Create(members) | Action::Upsert(members),
            Precondition::None | Precondition::Absent,
        ) = (standing, &draft.action, &draft.precondition)
        {
            // First all that would be wrong if the id were free: only who would create is told that it is not.
            let members = self.rights.completed(members.clone(), None).map_err(|error| relocate(error, draft))?;
            self.validate(draft, &members)?;
        }
        self.check_standing(draft, standing, exists, missing)?;
        self.check_precondition(&draft.precondition, state.current.as_ref())?;
        let members = match (&draft.action, &state.current) {
            (Action::Create(_), Some(_)) => return Err(exists()),
            (Action::Update(_) | Action::Patch(_) | Action::Delete, None) => return Err(missing()),
            (Action::Delete, Some(_)) => {
                state.base = None;
                state.current = None;
                return Ok(WriteOutcome::Deleted);
            }
            (Action::Create(members) | Action::Update(members) | Action::Upsert(members), current) => {
                let stored = current.as_ref().map(|current| &current.members);
                self.rights.completed(members.clone(), stored).map_err(|error| relocate(error, draft))?
            }
            (Action::Patch(patch), Some(current)) => self.patched(draft, current, patch)?,
        };
        self.validate(draft, &members)?;
        if let Some(current) = &state.current
            && self.own_members(current)? == members
        {
            return Ok(WriteOutcome::Unchanged);
        }
        let outcome = if state.current.is_some() { WriteOutcome::Updated } else { WriteOutcome::Created };
        state.current = Some(match &state.base {
            // Back where it began: the drafts before have changed nothing.
            Some(base) if self.own_members(base)? == members => base.clone(),
            Some(_) | None => self.next(draft, state, &members)?,
        });
        Ok(outcome)
    }

    /// What a caller may not see is not there for it, except that its id is taken; what it may only see, it may not write.
    fn check_standing(
        &self,
        draft: &Draft,
        standing: Option<Standing>,
        exists: impl Fn() -> Error,
        missing: impl Fn() -> Error,
    ) -> Result<()> {
        match (standing, &draft.action, &draft.precondition) {
            (None | Some(Standing::Writes), ..) => Ok(()),
            // As without a record.
            (Some(Standing::Blind), _, Precondition::Exists | Precondition::Matches(_)) => {
                self.check_precondition(&draft.precondition, None)
            }
            (Some(Standing::Blind | Standing::Reads), Action::Create(_), _) => Err(exists()),
            (Some(Standing::Blind), Action::Update(_) | Action::Upsert(_) | Action::Patch(_) | Action::Delete, _) => {
                Err(missing())
            }
            (Some(Standing::Reads), Action::Update(_) | Action::Upsert(_) | Action::Patch(_) | Action::Delete, _) => {
                Err(Error::new(
                    ErrorKind::Forbidden,
                    "forbidden",
                    "This record is somebody else's: you may read it, and not write it.",
                ))
            }
        }
    }

    fn check_precondition(&self, precondition: &Precondition, current: Option<&Stored>) -> Result<()> {
        match precondition {
            Precondition::None => Ok(()),
            Precondition::Exists | Precondition::Absent | Precondition::Matches(_) => {
                let tag = current.map(|stored| self.rights.etag(&stored.text)).transpose()?;
                precondition.check(tag).map_err(|error| self.rights.failure(error))
            }
        }
    }

    /// The document that follows `state`'s: one version on, unless the record begins anew.
    fn next(&self, draft: &Draft, state: &State, members: &Members) -> Result<Stored> {
        // Several drafts on one record are one write, so one version.
        let base = state.base.as_ref();
        let version = base.map_or(1, |stored| stored.version + 1);
        let member = |stored: &Stored, name: &str| stored.members.get(name).and_then(Value::as_str).map(str::to_owned);
        let updated_at =
            document::update_time(state.original.as_ref().and_then(|stored| member(stored, "updated_at")).as_deref());
        let created_at = base.and_then(|stored| member(stored, "created_at")).unwrap_or_else(|| updated_at.clone());
        let composed = document::compose(&self.declared.collection, &draft.id, members, version, &created_at, &updated_at);
        let text = serde_json::to_string(&composed).map_err(Error::internal)?;
        let before = base.map(|stored| &stored.members);
        self.growth.check(&self.declared.collection, before, &composed, &text).map_err(|error| relocate(error, draft))?;
        Ok(Stored { text, version, members: composed })
    }

    fn patched(&self, draft: &Draft, current: &Stored, patch: &Value) -> Result<Members> {
        let own = self.own_members(current)?;
        let mut patched = Value::Object(own.clone());
        document::merge_patch(&mut patched, patch.clone());
        let mut members = document::client_members(patched).map_err(|error| relocate(error, draft))?;
        if let Value::Object(patch) = patch {
            self.rights.check_patch(patch, &members, &own).map_err(|error| relocate(error, draft))?;
        }
        let named = document::take_id(&self.declared.collection, &mut members).map_err(|error| relocate(error, draft))?;
        match named {
            Some(id) if id != draft.id => Err(relocate(document::id_mismatch(&self.declared.collection, &draft.id), draft)),
            Some(_) | None => Ok(members),
        }
    }

    fn validate(&self, draft: &Draft, members: &Members) -> Result<()> {
        let mut violations = self.declared.violations(&Value::Object(members.clone()));
        if violations.is_empty() {
            violations = document::integers_out_of_range(&self.declared.collection, members);
            violations.extend(storable::violations(&self.declared.collection, &draft.id, members));
        }
        if violations.is_empty() {
            return Ok(());
        }
        Err(relocate(Error::invalid(self.rights.told(violations)), draft))
    }

    /// A stored document without what the server added.
    fn own_members(&self, stored: &Stored) -> Result<Members> {
        let mut members = document::client_members(Value::Object(stored.members.clone()))?;
        if self.declared.collection.id == IdRule::Generated {
            members.shift_remove("id");
        }
        Ok(members)
    }

    fn finish(&self, id: &RecordId, state: State, plan: &mut WritePlan, findings: &mut Findings) {
        let operation = match (&state.original, &state.current) {
            (None, None) => return,
            (Some(original), Some(current)) if original.text == current.text => {
                let record = Record { id: id.clone(), version: original.version, data: original.text.clone() };
                let own = findings.outcomes.iter_mut().filter(|(named, _)| named == id);
                own.for_each(|(_, outcome)| *outcome = WriteOutcome::Unchanged);
                return findings.untouched.push((id.clone(), record));
            }
            (None, Some(_)) => Operation::Create,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
        };
        let collection = &self.declared.collection;
        let [before, after] = [&state.original, &state.current].map(|stored| stored.as_ref().map(|stored| &stored.members));
        let effect = Effect::of(collection, before, after);
        findings.effects.push(if self.tells_words { effect.with_words(collection, before, after) } else { effect });
        let shown = state.current.as_ref().or(state.original.as_ref());
        let time =
            |name: &str| shown.and_then(|stored| stored.members.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned();
        let updated_at =
            if operation == Operation::Delete { document::update_time(Some(&time("updated_at"))) } else { time("updated_at") };
        if let Some(current) = &state.current {
            plan.references.extend(self.reference_checks(&current.members, before, &state.pointer));
        }
        if operation == Operation::Delete && plan.referrers.is_empty() {
            plan.referrers.extend(self.referrers.iter().cloned());
        }
        plan.writes.push(RecordWrite {
            id: id.clone(),
            operation,
            version: shown.map_or(1, |stored| stored.version),
            data: state.current.as_ref().map(|stored| stored.text.clone()),
            before: state.original.as_ref().map(|stored| stored.text.clone()),
            created_at: time("created_at"),
            updated_at,
            pointer: state.pointer,
        });
    }

    /// A reference to what the caller may not see is one to what there is not, or it would tell. One that was there before, by
    /// whomever, may stay.
    fn reference_checks<'a>(
        &'a self,
        members: &'a Members,
        before: Option<&'a Members>,
        pointer: &'a str,
    ) -> impl Iterator<Item = ReferenceCheck> + 'a {
        let below = if pointer.is_empty() { "" } else { "/data" };
        self.declared.collection.references.iter().filter_map(move |(field, target)| {
            let value = members.get(field)?;
            let is_new = before.and_then(|before| before.get(field)) != Some(value);
            let among = if is_new { self.rights.referable(field) } else { Among::All };
            let id = value.as_str()?.to_owned();
            Some(ReferenceCheck { pointer: format!("{pointer}{below}/{field}"), collection: target.clone(), id, among })
        })
    }
}

impl State {
    fn load(existing: &Existing, draft: &Draft) -> Result<Self> {
        let original = match existing.get(&draft.id) {
            Some(record) => {
                let members = document::stored_members(&record.data)?;
                Some(Stored { text: record.data.clone(), version: record.version, members })
            }
            None => None,
        };
        Ok(Self { base: original.clone(), current: original.clone(), original, pointer: draft.pointer.clone() })
    }
}

/// One error for all failures of a batch, each named by its position. It has the kind of the first one.
pub(super) fn combined(total: usize, failures: Vec<BatchError>) -> Error {
    let named = failures.iter().flat_map(|BatchError { index, error }| match error.violations() {
        [] => vec![Violation::new(format!("/operations/{index}"), error.code(), error.detail())],
        violations => violations.to_vec(),
    });
    let violations = named.collect();
    let kind = failures.first().map_or(ErrorKind::Internal, |failure| failure.error.kind());
    let detail = format!("{} of {total} operations cannot be done, so none was.", failures.len());
    match failures.into_iter().next() {
        // What is no operation's fault stays what it is.
        Some(BatchError { error, .. })
            if matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::PayloadTooLarge) =>
        {
            error
        }
        Some(_) | None => Error::new(kind, "batch_failed", detail).with_violations(violations),
    }
}

/// Moves the pointers of a document's violations to where the document stands in the request.
fn relocate(error: Error, draft: &Draft) -> Error {
    let violations = error.violations().iter().map(|violation| {
        Violation::new(
            format!("{}{}{}", draft.pointer, draft.data_pointer, violation.pointer),
            violation.code.clone(),
            violation.detail.clone(),
        )
    });
    let violations = violations.collect();
    error.with_violations(violations)
}
