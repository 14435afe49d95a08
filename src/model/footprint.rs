//! Footprints: what an answer about many records was made from, so far as its request tells. It serves to say that a change
//! cannot have made another answer of it, and says so only if that is certain.

use std::collections::BTreeSet;

use super::{Change, Collection, Filter, Query, Selection, Term};

/// What an answer about many records was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// What every selected record has.
    required: Vec<Term>,
    /// The members that decide which records are selected, in which order, and what is counted of them.
    members: BTreeSet<String>,
    /// Whether the answer shows records themselves.
    shows_records: bool,
}

impl Footprint {
    /// Of a page.
    pub fn of_query(collection: &Collection, query: &Query) -> Self {
        let mut footprint = Self::of_selection(collection, &query.selection);
        let sort = match (query.sort.is_empty(), &query.selection.search) {
            // By rank, which comes from the searched members.
            (true, Some(_)) => &[],
            (true, None) => collection.sort.as_slice(),
            (false, _) => query.sort.as_slice(),
        };
        footprint.members.extend(sort.iter().map(|key| key.field.clone()));
        Self { shows_records: true, ..footprint }
    }

    /// Of a count.
    pub fn of_selection(collection: &Collection, selection: &Selection) -> Self {
        let mut footprint = Self::of_statistics(collection, selection.filter.as_ref(), &[]);
        if selection.search.is_some() {
            footprint.members.extend(collection.search.iter().map(|search| search.field.clone()));
        }
        footprint
    }

    /// Of the statistics of some fields.
    pub fn of_statistics(collection: &Collection, filter: Option<&Filter>, by: &[String]) -> Self {
        let indexed = collection.term_fields();
        let mut required = filter.map(Filter::required_terms).unwrap_or_default();
        // A change knows no other terms.
        required.retain(|term| indexed.contains(term.field.as_str()));
        let mut members: BTreeSet<String> = by.iter().cloned().collect();
        filter.into_iter().for_each(|filter| filter.collect_fields(&mut members));
        Self { required, members, shows_records: false }
    }

    /// Whether `change` may have touched the answer; `is_shown` says whether its record is shown in it.
    ///
    /// A record that lacks a required term before and after is selected neither before nor after. An update that changes none
    /// of the members moves its record neither into the selection nor out of it, nor within its order: it shows only where the
    /// record does.
    pub fn is_touched_by(&self, change: &Change, is_shown: impl FnOnce() -> bool) -> bool {
        if self.required.iter().any(|term| change.terms.binary_search(term).is_err()) {
            return false;
        }
        match &change.members {
            None => true,
            Some(members) => members.iter().any(|member| self.members.contains(member)) || self.shows_records && is_shown(),
        }
    }
}
