//! Changes as instances tell them to each other, beside the guards that they move: whoever hears of one can find an answer untouched
//! by it, as its writer can.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::Place;
use crate::cache::target::{BULK, Target, collection_of};
use crate::model::{Change, Guard, Operation, Words};

/// The words of one message take at most so many bytes. What is left out touches every search.
const MAX_WORD_BYTES: usize = 16 * 1024;

/// A [`Change`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ToldText", into = "ToldText")]
pub(in crate::cache) struct Told(Arc<Change>);

/// How it is spelled.
#[derive(Serialize, Deserialize)]
struct ToldText {
    place: Place,
    operation: String,
    record: Target,
    terms: Vec<Target>,
    members: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    words: Option<String>,
}

impl Told {
    /// What is told of `changes`, which have moved `targets`: nothing of collections that are given up as a whole, nor of a backlog.
    pub fn of(changes: &[Arc<Change>], targets: &[Target]) -> Vec<Self> {
        if changes.len() > BULK {
            return Vec::new();
        }
        let mut room = MAX_WORD_BYTES;
        let tell = |change: &Arc<Change>| {
            let bytes = change.words.as_ref().map_or(0, |words| words.as_str().len());
            if bytes <= room {
                room -= bytes;
                return Self(Arc::clone(change));
            }
            Self(Arc::new(Change { words: None, ..Change::clone(change) }))
        };
        let named: BTreeSet<_> = guards(targets).into_iter().map(collection_of).collect();
        changes.iter().filter(|change| named.contains(&change.collection)).map(tell).collect()
    }

    /// The changes, if they have moved all guards that are among `targets`, and no others.
    pub fn all(told: &[Self], targets: &[Target]) -> Option<Vec<Arc<Change>>> {
        let changes: Vec<Arc<Change>> = told.iter().map(|Self(change)| Arc::clone(change)).collect();
        let moved = Target::of_changes(&changes);
        (guards(&moved) == guards(targets)).then_some(changes)
    }
}

fn guards<'a>(targets: &'a [Target]) -> BTreeSet<&'a Guard> {
    let guard = |target: &'a Target| match target {
        Target::Guard(guard) => Some(guard),
        Target::Collection(_) | Target::Records(..) | Target::All => None,
    };
    targets.iter().filter_map(guard).collect()
}

impl From<Told> for ToldText {
    fn from(Told(change): Told) -> Self {
        let term = |term| Target::Guard(Guard::Term(change.collection.clone(), term));
        Self {
            place: change.position.into(),
            operation: change.operation.as_str().to_owned(),
            record: Target::Guard(Guard::Record(change.collection.clone(), change.id.clone())),
            terms: change.terms.iter().cloned().map(term).collect(),
            members: change.members.clone(),
            words: change.words.as_ref().map(|words| words.as_str().to_owned()),
        }
    }
}

impl TryFrom<ToldText> for Told {
    type Error = &'static str;

    fn try_from(text: ToldText) -> Result<Self, Self::Error> {
        let Target::Guard(Guard::Record(collection, id)) = text.record else { return Err("a change is one of a record") };
        let term = |target| match target {
            Target::Guard(Guard::Term(of, term)) if of == collection => Ok(term),
            _ => Err("a record has terms of its collection"),
        };
        let mut terms = text.terms.into_iter().map(term).collect::<Result<Vec<_>, _>>()?;
        terms.sort();
        Ok(Self(Arc::new(Change {
            position: text.place.into(),
            operation: Operation::parse(&text.operation).ok_or("an operation is one of three")?,
            terms,
            members: text.members,
            words: text.words.as_deref().map(Words::from_text),
            collection,
            id,
        })))
    }
}
