//! The sequential model: what a request does if nothing else happens meanwhile. It says the same as the planner of
//! writes, in its own words and without texts, times and schemas.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub type Members = Map<String, Value>;

/// A record that exists.
#[derive(Clone, Debug)]
pub struct State {
    pub version: i64,
    /// What clients wrote, the id included.
    pub members: Members,
    /// Its entity tag; not known of what a batch leaves to its own later operations.
    pub etag: Option<String>,
}

/// All records that a request is about; `None` is one that does not exist.
pub type States = BTreeMap<String, Option<State>>;

#[derive(Clone, Debug)]
pub enum Verb {
    Create(Members),
    /// Replaces what must exist. Only batches have it.
    Update(Members),
    /// PUT: creates or replaces.
    Upsert(Members),
    Patch(Members),
    Delete,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub id: String,
    pub verb: Verb,
    /// A tag with quotes, or `*`.
    pub if_match: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Updated,
    Unchanged,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Missing,
    Exists,
    Precondition,
}

impl Refusal {
    pub fn status(self) -> u16 {
        match self {
            Self::Missing => 404,
            Self::Exists => 409,
            Self::Precondition => 412,
        }
    }
}

/// What a request came to: all of it, or the refusals of those operations that stopped it.
pub type Run = Result<(Vec<Outcome>, States), Vec<(usize, Refusal)>>;

/// One record on its way through a request.
struct Track {
    original: Option<State>,
    /// What the next version continues: the original, until it is deleted.
    base: Option<State>,
    current: Option<State>,
}

/// Runs the operations of one request, one after the other.
pub fn run(operations: &[Operation], before: &States) -> Run {
    let track = |state: &Option<State>| Track { original: state.clone(), base: state.clone(), current: state.clone() };
    let mut tracks: BTreeMap<&str, Track> = before.iter().map(|(id, state)| (id.as_str(), track(state))).collect();
    let mut outcomes = Vec::new();
    let mut refusals = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let track = tracks.get_mut(operation.id.as_str()).expect("the state of each record that is named");
        match step(operation, track) {
            Ok(outcome) => outcomes.push(outcome),
            Err(refusal) => refusals.push((index, refusal)),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    for (id, track) in &tracks {
        if track.is_back() {
            let own = operations.iter().zip(&mut outcomes).filter(|(operation, _)| operation.id == *id);
            own.for_each(|(_, outcome)| *outcome = Outcome::Unchanged);
        }
    }
    Ok((outcomes, tracks.into_iter().map(|(id, track)| (id.to_owned(), track.current)).collect()))
}

fn step(operation: &Operation, track: &mut Track) -> Result<Outcome, Refusal> {
    match (operation.if_match.as_deref(), &track.current) {
        (Some(_), None) => return Err(Refusal::Precondition),
        (Some(tag), Some(state)) if tag != "*" && state.etag.as_deref() != Some(tag) => return Err(Refusal::Precondition),
        (Some(_), Some(_)) | (None, _) => {}
    }
    let members = match (&operation.verb, &track.current) {
        (Verb::Create(_), Some(_)) => return Err(Refusal::Exists),
        (Verb::Update(_) | Verb::Patch(_) | Verb::Delete, None) => return Err(Refusal::Missing),
        (Verb::Delete, Some(_)) => {
            track.base = None;
            track.current = None;
            return Ok(Outcome::Deleted);
        }
        (Verb::Create(members) | Verb::Update(members) | Verb::Upsert(members), _) => members.clone(),
        (Verb::Patch(patch), Some(state)) => {
            let mut members = state.members.clone();
            merge(&mut members, patch);
            members
        }
    };
    if track.current.as_ref().is_some_and(|state| state.members == members) {
        return Ok(Outcome::Unchanged);
    }
    let outcome = if track.current.is_some() { Outcome::Updated } else { Outcome::Created };
    track.current = match &track.base {
        Some(base) if base.members == members => Some(base.clone()),
        // Several operations on one record are one version.
        base => Some(State { version: base.as_ref().map_or(1, |base| base.version + 1), members, etag: None }),
    };
    Ok(outcome)
}

impl Track {
    /// It exists as it did before.
    fn is_back(&self) -> bool {
        let unchanged = |original: &State, current: &State| original.members == current.members && self.base.is_some();
        self.original.as_ref().zip(self.current.as_ref()).is_some_and(|(original, current)| unchanged(original, current))
    }
}

/// RFC 7396, for objects.
fn merge(members: &mut Members, patch: &Members) {
    for (name, change) in patch {
        match change {
            Value::Null => {
                members.remove(name);
            }
            Value::Object(changes) => {
                let member = members.entry(name.clone()).or_insert_with(|| Value::Object(Members::new()));
                if !member.is_object() {
                    *member = Value::Object(Members::new());
                }
                if let Value::Object(inner) = member {
                    merge(inner, changes);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                members.insert(name.clone(), change.clone());
            }
        }
    }
}
