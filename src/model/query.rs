//! A list request in canonical form: equal requests give equal queries, whatever the order of their parameters.

use super::{Filter, Scalar, SearchExpression};

/// How many records a page has when the request does not say.
pub const DEFAULT_LIMIT: u32 = 50;

/// How many records a page has at most; a request for more gets this many.
pub const MAX_LIMIT: u32 = 100;

/// A parsed, canonical list request. `records::parse` makes it from a query string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Which records.
    pub selection: Selection,
    /// Their order, without the final tie-break by id. Empty with a search means by rank.
    pub sort: Vec<SortKey>,
    /// Which part of them.
    pub paging: Paging,
    /// Whether the answer has a total.
    pub count: CountMode,
    /// Only these members of each record, in this order; `None` for all.
    pub fields: Option<Vec<String>>,
    /// Reference fields whose records are embedded, sorted.
    pub include: Vec<String>,
    /// Whether each record shows where the search matched.
    pub highlight: bool,
}

/// Which records: what a count depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Selection {
    /// Tests over indexed fields.
    pub filter: Option<Filter>,
    /// Full-text search.
    pub search: Option<SearchExpression>,
}

/// One field of an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SortKey {
    /// The field's name.
    pub field: String,
    /// Up or down.
    pub direction: Direction,
}

/// Up or down. Missing values come first going up and last going down, on both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// Which part of the selected records.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Paging {
    /// `LIMIT`/`OFFSET`: pages count from 1.
    Page {
        /// The page, from 1.
        page: u64,
        /// Records on a page, 1 to [`MAX_LIMIT`].
        limit: u32,
    },
    /// Keyset: the records after the last one of the page before.
    Cursor {
        /// The sort values and, last, the id of the last record of the page before; `None` for the first page.
        after: Option<Vec<Option<Scalar>>>,
        /// Records on a page, 1 to [`MAX_LIMIT`].
        limit: u32,
    },
}

impl Paging {
    /// Records on a page.
    pub fn limit(&self) -> u32 {
        match self {
            Self::Page { limit, .. } | Self::Cursor { limit, .. } => *limit,
        }
    }
}

/// Whether the answer has a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountMode {
    /// `total` and `pages` are exact.
    Exact,
    /// They are left out, and nothing is counted.
    None,
}
