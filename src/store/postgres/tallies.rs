//! Tallies: how many records have which value in each indexed field, so that statistics and totals of a whole collection
//! need not read it. Here is which fields are tallied and how their values are spelled; `triggers` has what keeps the tallies
//! and `reading` what is asked of them. The tables, and why they are as they are, are in the migration `tallies`; what
//! sums them up is `store::tally`.
//!
//! Not tallied are the id and the server's own fields, of which every record has another value. Whatever else turns out to
//! have more than [`MOST_VALUES`] is abandoned.

mod reading;
mod triggers;

use super::PostgresDatabase;
use crate::model::{Collection, CollectionName, Field, ScalarType, ServerFields};
use crate::store::dialect::{is_safe_name, literal};

pub(in crate::store) use reading::Tallies;
pub(super) use triggers::artifact;

/// A field with more values than this is not tallied: they would be as long to read as the records.
pub(in crate::store) const MOST_VALUES: u32 = 10_000;

impl PostgresDatabase {
    /// Whether requests have all connections. What can be done later as well then does not ask for one.
    pub fn is_busy(&self) -> bool {
        self.pool.is_exhausted()
    }
}

/// The field of a row that is about all records.
const ALL: TalliedField<'static> = TalliedField { name: "", kind: Kind::All };

/// What is counted of a field. Equal kinds of one field have equal tallies: other values would be another kind, for tallies that
/// are complete stay so when the triggers are made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Text,
    Number,
    Boolean,
    /// Each different element once.
    Array,
}

impl Kind {
    fn of(field: Field) -> Option<Self> {
        match field {
            Field { array: true, .. } => Some(Self::Array),
            Field { scalar: ScalarType::Text, .. } => Some(Self::Text),
            Field { scalar: ScalarType::Integer | ScalarType::Number, .. } => Some(Self::Number),
            Field { scalar: ScalarType::Boolean, .. } => Some(Self::Boolean),
            Field { scalar: ScalarType::Timestamp, .. } => None,
        }
    }

    /// As it stands in `tallied`.
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Text => "text",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Array => "array",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TalliedField<'c> {
    name: &'c str,
    kind: Kind,
}

impl<'c> TalliedField<'c> {
    fn of(collection: &'c Collection, name: &'c str) -> Option<Self> {
        let is_own = name == collection.id_field() || ServerFields::ALL.contains(&name);
        let kind = collection.fields.get(name).filter(|_| !is_own && is_safe_name(name)).and_then(|field| Kind::of(*field))?;
        collection.term_fields().contains(name).then_some(Self { name, kind })
    }

    /// What a document has in a field that is not an array, as that is grouped by; SQL's null if it has nothing.
    fn value(self, document: &str) -> String {
        let Self { name, kind } = self;
        let typed =
            |kind: &str| format!("(CASE jsonb_typeof({document} -> '{name}') WHEN '{kind}' THEN {document} -> '{name}' END)");
        match kind {
            Kind::All | Kind::Array => "CAST(NULL AS jsonb)".to_owned(),
            Kind::Text => format!("(({document} ->> '{name}') COLLATE \"C\")"),
            Kind::Number => typed("number"),
            Kind::Boolean => typed("boolean"),
        }
    }

    /// The name and the kind, as they stand in a list of rows.
    fn row(self) -> String {
        format!("('{}', '{}')", self.name, self.kind.name())
    }
}

/// All records, and every tallied field.
fn tallied_fields(collection: &Collection) -> Vec<TalliedField<'_>> {
    let fields = collection.term_fields().into_iter().filter_map(|name| TalliedField::of(collection, name));
    std::iter::once(ALL).chain(fields).collect()
}

/// The key of the lock that whoever sums up or makes tallies of a collection holds.
pub(in crate::store) fn lock(collection: &CollectionName) -> String {
    format!("hashtextextended('terrace tallies ' || current_schema() || ' ' || {}, 0)", literal(collection))
}
