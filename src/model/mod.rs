//! Plain values that every room shares: collections, records, queries, changes and guards. They know no database,
//! no cache and no HTTP.

mod access;
mod change;
mod collection;
mod filter;
mod filter_json;
mod footprint;
mod freshness;
mod names;
mod principal;
mod query;
mod quota;
mod record;
mod search;
#[cfg(test)]
mod tests;
mod value;
mod view;
mod warm;
mod words;

pub use access::{Access, AccessRule, FieldAccess};
pub use change::{Change, ChangePage, Guard, LoggedChange, Operation, Position, ServerRun, Snapshot, Term};
pub use collection::{CacheTimes, Collection, Field, IdRule, Index, SearchField, SearchWeight};
pub use filter::{Condition, Filter, Test};
pub use filter_json::Operand;
pub use footprint::Footprint;
pub use freshness::Freshness;
pub use names::{CollectionName, RecordId};
pub use principal::{Caller, Identity, Principal, Role, Scope, Verb};
pub use query::{CountMode, DEFAULT_LIMIT, Direction, MAX_LIMIT, Paging, Query, Selection, SortKey};
pub use quota::{CollectionLimits, Limit, LimitClass, Quota};
pub use record::{Record, ServerFields, timestamp_text};
pub(crate) use search::is_word_part;
pub use search::{Ranking, SearchClause, SearchExpression, SearchTerm};
pub use value::{Number, Scalar, ScalarType};
pub use view::{View, ViewPart};
pub use warm::WarmPlan;
pub use words::{WantedWords, Words};
