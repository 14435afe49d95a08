//! What of a collection is loaded before anybody asks for it.

use std::time::Duration;

/// What is loaded into the cache at the start and, perhaps, again from time to time. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmPlan {
    /// So many records, those that were updated last.
    pub records: u32,
    /// Lists, by the query strings that clients send. They were checked against the collection.
    pub lists: Vec<String>,
    /// How often; `None` for only at the start.
    pub every: Option<Duration>,
}

impl WarmPlan {
    /// Whether there is nothing to load.
    pub fn is_empty(&self) -> bool {
        self.records == 0 && self.lists.is_empty()
    }
}
