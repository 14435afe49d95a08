//! The checker: whether what clients were answered, and what the change log says, is what the sequential model gives for
//! some order of the requests that contradicts neither the log nor the clock.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use terrace::model::Position;

use super::model::{self, Members, Operation, Outcome, Run, State, States};

/// One request with its answer. Times are on one clock; a request takes effect, if at all, between its two.
#[derive(Clone, Debug)]
pub struct Answered {
    pub request: Request,
    /// Which server was asked.
    pub server: usize,
    pub began: u64,
    pub ended: u64,
    pub answer: Answer,
}

#[derive(Clone, Debug)]
pub enum Request {
    Read(String),
    Write(Operation),
    Batch(Vec<Operation>),
}

#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub etag: String,
    pub token: Option<Position>,
    /// Whether it came from a cache.
    pub is_hit: bool,
}

/// A row of the change log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// `None` on SQLite, where the rows of one transaction stand together.
    pub transaction: Option<u64>,
    pub sequence: i64,
    pub id: String,
    pub operation: String,
    pub version: i64,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// All that is known after a history has ended.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub answered: Vec<Answered>,
    /// In the order of `sequence`.
    pub log: Vec<Logged>,
    /// What a GET of each record answers at last; `None` for 404.
    pub last: BTreeMap<String, Option<Value>>,
    /// For how long a read may miss what another server wrote. What its own server wrote, it never may.
    pub lag: u64,
}

/// One state of a record, and who brought it about.
struct Lived {
    state: Option<State>,
    writer: Option<usize>,
}

type Verdict<T = ()> = Result<T, String>;

macro_rules! demand {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

impl Request {
    pub fn operations(&self) -> &[Operation] {
        match self {
            Self::Read(_) => &[],
            Self::Write(operation) => std::slice::from_ref(operation),
            Self::Batch(operations) => operations,
        }
    }
}

impl History {
    /// Fails with what is wrong.
    pub fn check(&self) -> Verdict {
        let owners = self.owners()?;
        let lives = self.lives(&owners)?;
        for (index, answered) in self.answered.iter().enumerate() {
            let checked = match &answered.request {
                Request::Read(id) => self.check_read(answered, &lives[id]),
                Request::Write(_) | Request::Batch(_) => self.check_write(index, &owners, &lives),
            };
            checked.map_err(|wrong| format!("{wrong}\n  in {answered:?}"))?;
        }
        self.check_order(&owners)?;
        for (id, last) in &self.last {
            let left = lives[id].last().and_then(|lived| lived.state.as_ref());
            let read = last.as_ref().map(own_members);
            demand!(left.map(|state| &state.members) == read.as_ref(), "{id} is {read:?} at last, not {left:?}");
            let version = last.as_ref().map(|record| &record["version"]);
            demand!(left.map(|state| Value::from(state.version)).as_ref() == version, "{id} has version {version:?} at last");
        }
        Ok(())
    }

    /// The request that wrote each row of the log. Every acknowledged change must be there, and nothing else.
    fn owners(&self) -> Verdict<Vec<usize>> {
        let mut tokens = BTreeMap::new();
        for (index, answered) in self.answered.iter().enumerate() {
            if let Some(token) = answered.answer.token {
                let first = tokens.insert(token.sequence, (index, token.transaction));
                demand!(first.is_none(), "two requests were told the position {token}");
            }
        }
        let owner = |row: &Logged| match row.transaction {
            // A token is the last position of its transaction.
            None => tokens.range(row.sequence..).next().map(|(last, (index, _))| (*index, *last)),
            Some(transaction) => {
                let mut own = tokens.iter().filter(|(_, (_, number))| *number == transaction);
                own.next().map(|(last, (index, _))| (*index, *last))
            }
        };
        let mut owners = Vec::new();
        let mut told = BTreeSet::new();
        for row in &self.log {
            let (index, last) = owner(row).ok_or_else(|| format!("nobody was answered for the row {row:?}"))?;
            demand!(row.sequence <= last, "the row is behind the position that its writer was told: {row:?}");
            told.insert(row.sequence);
            owners.push(index);
        }
        demand!(told.len() == self.log.len(), "a position occurs twice");
        let lost = tokens.iter().find(|(sequence, _)| !told.contains(sequence));
        demand!(lost.is_none(), "the log lacks what was acknowledged: {:?}", lost.map(|(_, (index, _))| &self.answered[*index]));
        Ok(owners)
    }

    /// The states of each record in the order of the log, beginning with none. Each change must begin where the one
    /// before it ended.
    fn lives(&self, owners: &[usize]) -> Verdict<BTreeMap<String, Vec<Lived>>> {
        let named = self.answered.iter().flat_map(|answered| match &answered.request {
            Request::Read(id) => vec![id],
            Request::Write(_) | Request::Batch(_) => answered.request.operations().iter().map(|one| &one.id).collect(),
        });
        let unborn = || vec![Lived { state: None, writer: None }];
        let mut lives: BTreeMap<String, Vec<Lived>> = named.chain(self.last.keys()).map(|id| (id.clone(), unborn())).collect();
        let mut documents: BTreeMap<&str, &Value> = BTreeMap::new();
        for (row, owner) in self.log.iter().zip(owners) {
            let before = documents.remove(row.id.as_str());
            demand!(row.before.as_ref() == before, "the change does not begin where the last one ended: {row:?}, not {before:?}");
            let expected = match (&row.before, &row.after) {
                (None, Some(_)) => "create",
                (Some(_), Some(_)) => "update",
                (Some(_), None) => "delete",
                (None, None) => "nothing",
            };
            demand!(row.operation == expected, "this is a {expected}: {row:?}");
            let shown = row.after.as_ref().or(row.before.as_ref()).map(|document| &document["version"]);
            demand!(shown == Some(&Value::from(row.version)), "the version is another one: {row:?}");
            check_times(row)?;
            let state = row.after.as_ref().map(|document| {
                let etag = self.answered[*owner].etag_of(&row.id);
                State { version: row.version, members: own_members(document), etag }
            });
            documents.extend(row.after.as_ref().map(|document| (row.id.as_str(), document)));
            let life = lives.get_mut(&row.id).ok_or_else(|| format!("nobody asked for {row:?}"))?;
            let tag = state.as_ref().and_then(|state| state.etag.as_ref());
            let reused = life.iter().filter_map(|lived| lived.state.as_ref()?.etag.as_ref()).any(|old| Some(old) == tag);
            demand!(!reused, "two states have one entity tag: {row:?}");
            life.push(Lived { state, writer: Some(*owner) });
        }
        Ok(lives)
    }

    /// Whether `life[at]` may have been the state at some time from `began` to `ended`.
    fn overlaps(&self, life: &[Lived], at: usize, answered: &Answered) -> bool {
        let began = life[at].writer.is_none_or(|writer| self.answered[writer].began <= answered.ended);
        let next = life.get(at + 1).and_then(|next| next.writer);
        began && next.is_none_or(|writer| self.answered[writer].ended >= answered.began)
    }

    /// Whether a read may show `life[at]`: nothing that came after it had been answered for so long that the read must
    /// know of it.
    fn may_show(&self, life: &[Lived], at: usize, read: &Answered) -> bool {
        let writers = |lives: &[Lived]| lives.iter().filter_map(|lived| Some(&self.answered[lived.writer?])).collect::<Vec<_>>();
        let must_know = |writer: &&Answered| {
            let lag = if writer.server == read.server { 0 } else { self.lag };
            writer.ended.saturating_add(lag) < read.began
        };
        let began = writers(&life[at..=at]).iter().all(|writer| writer.began <= read.ended);
        began && !writers(&life[at + 1..]).iter().any(must_know)
    }

    fn check_read(&self, answered: &Answered, life: &[Lived]) -> Verdict {
        let answer = &answered.answer;
        let seen = |lived: &Lived| match &lived.state {
            None => answer.status == 404,
            Some(state) => {
                answer.status == 200
                    && own_members(&answer.body) == state.members
                    && answer.body["version"] == state.version
                    && state.etag.as_ref() == Some(&answer.etag)
            }
        };
        let explained = (0..life.len()).any(|at| seen(&life[at]) && self.may_show(life, at, answered));
        demand!(explained, "no state of the record at that time explains what was read");
        Ok(())
    }

    /// The model, given the states before the changes of this request and, for records that it left alone, some states
    /// of that time, must answer the same.
    fn check_write(&self, index: usize, owners: &[usize], lives: &BTreeMap<String, Vec<Lived>>) -> Verdict {
        let answered = &self.answered[index];
        let operations = answered.request.operations();
        let changed = |id: &str| lives[id].iter().position(|lived| lived.writer == Some(index));
        let ids: BTreeSet<&str> = operations.iter().map(|operation| operation.id.as_str()).collect();
        let rows = owners.iter().filter(|owner| **owner == index).count();
        demand!(rows == ids.iter().filter(|id| changed(id).is_some()).count(), "it wrote a record twice, or another one");
        let mut choices: Vec<States> = vec![States::new()];
        for id in &ids {
            let life = &lives[*id];
            let candidates: Vec<usize> = match changed(id) {
                Some(at) => vec![at - 1],
                None => (0..life.len()).filter(|at| self.overlaps(life, *at, answered)).collect(),
            };
            let with = |states: &States, at: usize| {
                let mut states = states.clone();
                states.insert((*id).to_owned(), life[at].state.clone());
                states
            };
            choices = choices.iter().flat_map(|states| candidates.iter().map(move |at| with(states, *at))).collect();
        }
        let mut wrong = "there was no state at that time".to_owned();
        for before in &choices {
            let run = model::run(operations, before);
            match answered
                .agrees(&run, before)
                .and_then(|()| agrees_with_log(&run, before, |id| changed(id).map(|at| &lives[id][at])))
            {
                Ok(()) => return Ok(()),
                Err(reason) => wrong = format!("{reason}; the model gives {run:?} on {before:?}"),
            }
        }
        Err(wrong)
    }

    /// There is one order of all requests that changed something: it keeps the order of each record's changes, and of
    /// any two requests of which one began when the other had been answered.
    fn check_order(&self, owners: &[usize]) -> Verdict {
        let mut after: BTreeMap<usize, BTreeSet<usize>> = owners.iter().map(|owner| (*owner, BTreeSet::new())).collect();
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (row, owner) in self.log.iter().zip(owners) {
            if let Some(previous) = last.insert(&row.id, *owner).filter(|previous| previous != owner) {
                after.entry(*owner).or_default().insert(previous);
            }
        }
        for (index, earlier) in &mut after {
            let is_over = |other: &&usize| self.answered[**other].ended < self.answered[*index].began;
            earlier.extend(owners.iter().filter(is_over));
        }
        while !after.is_empty() {
            let free = after.iter().find(|(_, earlier)| earlier.is_empty()).map(|(index, _)| *index);
            let free = free.ok_or_else(|| {
                format!("no order explains these: {:?}", after.keys().map(|index| &self.answered[*index]).collect::<Vec<_>>())
            })?;
            after.remove(&free);
            after.values_mut().for_each(|earlier| {
                earlier.remove(&free);
            });
        }
        Ok(())
    }
}

impl Answered {
    /// The tag that this request was told for a record that it changed.
    fn etag_of(&self, id: &str) -> Option<String> {
        match &self.request {
            Request::Read(_) | Request::Write(_) => Some(self.answer.etag.clone()),
            Request::Batch(_) => {
                let results = self.answer.body["results"].as_array()?;
                // Of several operations on one record the last one counts.
                results.iter().rev().find(|result| result["id"] == id)?["etag"].as_str().map(str::to_owned)
            }
        }
    }

    fn agrees(&self, run: &Run, before: &States) -> Verdict {
        let answer = &self.answer;
        let changes = matches!(run, Ok((outcomes, _)) if outcomes.iter().any(|outcome| *outcome != Outcome::Unchanged));
        // A record that was made and unmade by one batch leaves no trace, so it may have no position either.
        demand!(changes || answer.token.is_none(), "it was told a position, and changed nothing");
        match (&self.request, run) {
            (Request::Read(_), _) => unreachable!("a read does not run"),
            (Request::Write(operation), Ok((outcomes, after))) => {
                let expected = match outcomes[0] {
                    Outcome::Created => 201,
                    Outcome::Updated | Outcome::Unchanged => 200,
                    Outcome::Deleted => 204,
                };
                demand!(answer.status == expected, "its status should be {expected}");
                demand!(answer.token.is_some() == (outcomes[0] != Outcome::Unchanged), "its position is missing");
                let Some(state) = &after[&operation.id] else { return Ok(()) };
                demand!(own_members(&answer.body) == state.members, "its body is not what was written");
                demand!(answer.body["version"] == state.version, "its version should be {}", state.version);
                demand!(state.etag.as_ref().is_none_or(|tag| *tag == answer.etag), "its entity tag is another state's");
            }
            (Request::Write(operation), Err(refusals)) => {
                demand!(answer.status == refusals[0].1.status(), "its status should be {}", refusals[0].1.status());
                let current = before[&operation.id].as_ref().and_then(|state| state.etag.clone()).unwrap_or_default();
                demand!(answer.status != 412 || answer.etag == current, "the current entity tag is {current}");
            }
            (Request::Batch(operations), Ok((outcomes, _))) => {
                demand!(answer.status == 200, "its status should be 200");
                let results = answer.body["results"].as_array().map(Vec::as_slice).unwrap_or_default();
                let told: Vec<_> = results.iter().map(|result| (result["id"].as_str(), result["status"].as_str())).collect();
                let ids = operations.iter().map(|operation| Some(operation.id.as_str()));
                let expected: Vec<_> = ids.zip(outcomes.iter().map(|outcome| Some(spelt(*outcome)))).collect();
                demand!(told == expected, "its results should be {expected:?}");
            }
            (Request::Batch(_), Err(refusals)) => {
                demand!(answer.status == refusals[0].1.status(), "its status should be {}", refusals[0].1.status());
                let errors = answer.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
                let named: Vec<_> = errors.iter().filter_map(|error| error["pointer"].as_str().map(str::to_owned)).collect();
                let expected: Vec<_> = refusals.iter().map(|(index, _)| format!("/operations/{index}")).collect();
                demand!(named == expected, "its errors should be at {expected:?}");
            }
        }
        Ok(())
    }
}

/// Just the records that the model changes were written, and as it says.
fn agrees_with_log<'a>(run: &Run, before: &States, written: impl Fn(&str) -> Option<&'a Lived>) -> Verdict {
    let same = |one: &Option<State>, other: &Option<State>| match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.version == other.version && one.members == other.members,
        (Some(_), None) | (None, Some(_)) => false,
    };
    for (id, old) in before {
        match (run.as_ref().map(|(_, after)| &after[id]), written(id)) {
            (Ok(new), Some(lived)) => demand!(same(new, &lived.state), "{id} was not written as the model has it"),
            (Ok(new), None) => demand!(same(new, old), "{id} was not written"),
            (Err(_), Some(_)) => return Err(format!("{id} was written by what was refused")),
            (Err(_), None) => {}
        }
    }
    Ok(())
}

fn check_times(row: &Logged) -> Verdict {
    let Some((before, after)) = row.before.as_ref().zip(row.after.as_ref()) else { return Ok(()) };
    let times = |name: &str| (before[name].as_str().unwrap_or_default(), after[name].as_str().unwrap_or_default());
    let (old, new) = times("updated_at");
    demand!(old < new, "its time does not rise: {row:?}");
    // Deleted and created anew by one batch.
    let is_new_life = after["version"] == 1;
    let (old, new) = times("created_at");
    demand!(is_new_life || old == new, "its time of creation changed: {row:?}");
    Ok(())
}

fn spelt(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Updated => "updated",
        Outcome::Unchanged => "unchanged",
        Outcome::Deleted => "deleted",
    }
}

/// A document without what only the server writes.
fn own_members(document: &Value) -> Members {
    let mut members = document.as_object().cloned().unwrap_or_default();
    members.retain(|name, _| !["version", "created_at", "updated_at"].contains(&name.as_str()));
    members
}
