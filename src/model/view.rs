//! A view: a named set of statistics over several collections, served under one path and cached as one entry.

use std::time::Duration;

use super::{AccessRule, CollectionName, Filter};

/// A declared view.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name, unique among views.
    pub name: CollectionName,
    /// One line for readers of the API description.
    pub description: Option<String>,
    /// Its path, beginning with `/`.
    pub path: String,
    /// How long it is fresh when nothing changes it.
    pub ttl: Duration,
    /// How long after that it may be served while the database is down.
    pub stale_if_error: Duration,
    /// For how long after a change it may be served as it was before, while it is made anew.
    pub max_lag: Duration,
    /// Who may read it.
    pub read: AccessRule,
    /// Its statistics, in the order of the file.
    pub parts: Vec<ViewPart>,
}

/// One statistic of a view: what `GET path/_stats?by=…` answers for one collection.
#[derive(Clone, Debug)]
pub struct ViewPart {
    /// The member of the answer.
    pub key: String,
    /// The collection that is counted.
    pub collection: CollectionName,
    /// The fields whose distinct values are counted.
    pub by: Vec<String>,
    /// Which records count; `None` for all.
    pub filter: Option<Filter>,
}
