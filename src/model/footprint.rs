//! Footprints: what an answer about many records was made from, so far as its request tells. It serves to say that a change
//! cannot have made another answer of it, and says so only if that is certain.

use std::collections::BTreeSet;

use super::{Change, Collection, Filter, Query, Ranking, Selection, Term, WantedWords};

/// What an answer about many records was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// What every selected record has.
    required: Vec<Term>,
    /// The members that decide which records are selected, and in which order.
    members: BTreeSet<String>,
    /// The words that a selected record has; `None` if it is no search.
    words: Option<WantedWords>,
    /// Whether the answer shows records themselves.
    shows_records: bool,
}

impl Footprint {
    /// Of a page.
    pub fn of_query(collection: &Collection, query: &Query, ranking: Ranking) -> Self {
        let mut footprint = Self { shows_records: true, ..Self::of_selection(collection, &query.selection) };
        let sort = match (query.sort.is_empty(), &query.selection.search) {
            (true, Some(_)) => {
                // Ranks come from the searched members, which are among these already: where they are relative, from those of all
                // records, selected or not.
                if ranking == Ranking::Relative {
                    (footprint.required, footprint.words) = (Vec::new(), None);
                }
                &[]
            }
            (true, None) => collection.sort.as_slice(),
            (false, _) => query.sort.as_slice(),
        };
        footprint.members.extend(sort.iter().map(|key| key.field.clone()));
        footprint
    }

    /// Of a count.
    pub fn of_selection(collection: &Collection, selection: &Selection) -> Self {
        let (filter, indexed) = (selection.filter.as_ref(), collection.term_fields());
        let mut required = filter.map(Filter::required_terms).unwrap_or_default();
        // A change knows no other terms.
        required.retain(|term| indexed.contains(term.field.as_str()));
        let mut members = BTreeSet::new();
        filter.into_iter().for_each(|filter| filter.collect_fields(&mut members));
        if selection.search.is_some() {
            members.extend(collection.search.iter().map(|search| search.field.clone()));
        }
        let words = selection.search.as_ref().map(WantedWords::of);
        Self { required, members, words, shows_records: false }
    }

    /// Whether `change` may have touched the answer; `is_shown` says whether its record is shown in it.
    ///
    /// A record that lacks a required term or a wanted word before and after is selected neither before nor after. An update that
    /// changes none of the members moves its record neither into the selection nor out of it, nor within its order: it shows only where the
    /// record does.
    pub fn is_touched_by(&self, change: &Change, is_shown: impl FnOnce() -> bool) -> bool {
        if self.required.iter().any(|term| change.terms.binary_search(term).is_err()) {
            return false;
        }
        let is_shown = || self.shows_records && is_shown();
        if let (Some(wanted), Some(words)) = (&self.words, &change.words)
            && !wanted.may_be_in(words)
        {
            // It is shown all the same where the index of the database was not yet made again for other declarations.
            return is_shown();
        }
        match &change.members {
            None => true,
            Some(members) => members.iter().any(|member| self.members.contains(member)) || is_shown(),
        }
    }

    /// Of a page that reads these members and requires no term.
    #[cfg(test)]
    pub fn reading<const N: usize>(members: [&str; N]) -> Self {
        Self { required: Vec::new(), members: members.map(str::to_owned).into(), words: None, shows_records: true }
    }
}
