//! Changes, the rows of the append-only log, and guards, what a cached entry depends on.

use super::{CollectionName, RecordId, Scalar};

/// How far along the change log something is. SQLite serialises its writers, so positions are in commit order there.
pub type Position = i64;

/// What a change did to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The record did not exist before.
    Create,
    /// The record existed and has a new document.
    Update,
    /// The record is gone.
    Delete,
}

impl Operation {
    /// How the log spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// Reads the log's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete].into_iter().find(|operation| operation.as_str() == text)
    }
}

/// One `field = value` that a document has: each indexed scalar, and each element of an indexed array.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The field's name.
    pub field: String,
    /// The canonical value.
    pub value: Scalar,
}

/// One row of the change log, as the cache needs it: which guards it invalidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the log.
    pub position: Position,
    /// The record's collection.
    pub collection: CollectionName,
    /// The record.
    pub id: RecordId,
    /// What happened.
    pub operation: Operation,
    /// Every indexed term of the old and of the new document, without repetition.
    pub terms: Vec<Term>,
}

impl Change {
    /// The guards that this change moves to a new generation.
    pub fn guards(&self) -> impl Iterator<Item = Guard> + '_ {
        let terms = self.terms.iter().map(|term| Guard::Term(self.collection.clone(), term.clone()));
        [Guard::Record(self.collection.clone(), self.id.clone()), Guard::Collection(self.collection.clone())]
            .into_iter()
            .chain(terms)
    }
}

/// One row of the change log as it is stored: the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// Its place in the log.
    pub position: Position,
    /// The record's collection.
    pub collection: CollectionName,
    /// The record.
    pub id: RecordId,
    /// What happened.
    pub operation: Operation,
    /// Who did it.
    pub actor: String,
    /// When, as [`super::timestamp_text`] spells it.
    pub at: String,
    /// The document before, as JSON text; `None` for a creation.
    pub before: Option<String>,
    /// The document after, as JSON text; `None` for a deletion.
    pub after: Option<String>,
}

/// What a cached entry depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// One record.
    Record(CollectionName, RecordId),
    /// All records that have one `field = value`.
    Term(CollectionName, Term),
    /// All records of a collection.
    Collection(CollectionName),
}
