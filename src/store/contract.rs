//! What goes into the store and comes out of it, besides the `model`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::model::{CollectionName, Operation, Position, Record, RecordId, Scalar};

/// Which parts of a record a read answers with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Only these members, in this order, and the id; `None` for all.
    pub fields: Option<Vec<String>>,
    /// Reference fields whose records are embedded under `_include`.
    pub include: Vec<String>,
    /// There is no record unless it is theirs.
    pub owner: Option<Owner>,
}

/// Whose records count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The text field that says whose a record is.
    pub field: String,
    /// What it holds in theirs.
    pub subject: String,
}

/// Which records of a collection count.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Among {
    /// All.
    #[default]
    All,
    /// Theirs.
    Of(Owner),
    /// None.
    Nothing,
}

/// One record as it goes into a body. Rows of one page may share the memory of their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// JSON text in UTF-8: the database's own, with `_include` and `_highlight` spliced in.
    pub data: Bytes,
    /// In cursor mode, a JSON array of the record's sort values and, last, its id.
    pub cursor: Option<String>,
}

/// How often each value occurs.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// How many records were counted.
    pub total: u64,
    /// One entry for each field asked for, in the same order.
    pub fields: Vec<FieldStats>,
}

/// The values of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldStats {
    /// The field's name.
    pub field: String,
    /// How many different values there are, not counting "missing".
    pub distinct: u64,
    /// Values and the number of records that have them, most frequent first, then by value; `None` for records that
    /// lack the field (or, for an array, have no element). At most 1,000.
    pub values: Vec<(Option<Scalar>, u64)>,
}

/// Who writes, and from where, for the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name in the log.
    pub actor: String,
    /// The address; `None` if not over a network.
    pub origin: Option<IpAddr>,
}

/// The stored records that a write is about, by id.
pub type Existing = HashMap<RecordId, Record>;

/// Decides what to write, given what is stored. It is called inside of the transaction, so what it sees cannot change
/// before its plan is carried out; it may be called again if the transaction has to be repeated.
pub type Planner = Arc<dyn Fn(&Existing) -> Result<WritePlan> + Send + Sync>;

/// What to write, and what must hold afterwards.
#[derive(Clone, Debug, Default)]
pub struct WritePlan {
    /// The writes, at most one for each id.
    pub writes: Vec<RecordWrite>,
    /// Records that must exist.
    pub references: Vec<ReferenceCheck>,
    /// Fields that must not hold a deleted id.
    pub referrers: Vec<Referrer>,
}

/// One record's new state.
#[derive(Clone, Debug)]
pub struct RecordWrite {
    /// The record.
    pub id: RecordId,
    /// What happens to it.
    pub operation: Operation,
    /// Its version afterwards; for a deletion, the one that was deleted.
    pub version: i64,
    /// The document afterwards; `None` for a deletion.
    pub data: Option<String>,
    /// The document before, for the change log.
    pub before: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When this write happens.
    pub updated_at: String,
    /// Where in the request this write stands, for violations.
    pub pointer: String,
}

/// A record that must exist after the writes.
#[derive(Clone, Debug)]
pub struct ReferenceCheck {
    /// Where in the request the reference stands.
    pub pointer: String,
    /// The collection referred to.
    pub collection: CollectionName,
    /// The record referred to.
    pub id: String,
    /// It only counts if it is one of these.
    pub among: Among,
}

/// A field that holds ids of the written collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The collection that refers.
    pub collection: CollectionName,
    /// The field that holds the id.
    pub field: String,
    /// What a refusal says of it.
    pub told: Told,
}

/// What a refused deletion says of what still refers to the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Where, and how often.
    Exactly,
    /// Only that something does: the caller may not see what.
    Vaguely,
}

/// What a write left behind, in the order of its plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The records with their text as stored; `None` for deletions.
    pub records: Vec<Option<Record>>,
    /// The positions of their changes, ascending.
    pub positions: Vec<Position>,
    /// The transactions that changed these records last before, as far as the log remembers. This one has read what they wrote: who
    /// shows what it wrote must show theirs.
    pub predecessors: BTreeSet<u64>,
}
