//! What a write did to a document, as far as cached answers can tell: the terms that it has or had, and what it changed.

use serde_json::Value;

use super::document::Members;
use crate::model::{Collection, ServerFields, Term, Words};

/// Of more fields than that the database may read less of each than [`Words`] do.
const MAX_SEARCHED: usize = 40;

/// See [`crate::model::Change`], which has the same.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) terms: Vec<Term>,
    pub(super) members: Option<Vec<String>>,
    pub(super) words: Option<Words>,
}

impl Effect {
    /// Of a write that found `before` and left `after`.
    pub(super) fn of(collection: &Collection, before: Option<&Members>, after: Option<&Members>) -> Self {
        let mut terms: Vec<Term> =
            [before, after].into_iter().flatten().flat_map(|document| collection.terms(document)).collect();
        terms.sort();
        terms.dedup();
        Self { terms, members: before.zip(after).and_then(|(before, after)| changed_members(before, after)), words: None }
    }

    /// With the words of what is searched, if that has changed.
    pub(super) fn with_words(self, collection: &Collection, before: Option<&Members>, after: Option<&Members>) -> Self {
        let is_searched = |member: &String| collection.search.iter().any(|search| search.field == *member);
        let is_new_or_gone = before.is_none() || after.is_none();
        let is_cut = collection.search.len() > MAX_SEARCHED;
        if is_cut || !is_new_or_gone && !self.members.iter().flatten().any(is_searched) {
            return self;
        }
        let documents = [before, after].into_iter().flatten();
        let searched = documents.flat_map(|document| collection.search.iter().filter_map(|search| document.get(&search.field)));
        let texts = searched.filter(|value| !value.is_null()).map(Value::as_str).collect::<Option<Vec<_>>>();
        Self { words: texts.and_then(Words::of), ..self }
    }
}

/// The names of the members that differ. Every update by Terrace changes the time of update: whoever leaves it (by psql) may have
/// changed what the document does not show.
fn changed_members(before: &Members, after: &Members) -> Option<Vec<String>> {
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, _)| name);
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let mut names: Vec<String> = changed.chain(removed).cloned().collect();
    names.sort();
    names.iter().any(|name| name == ServerFields::UPDATED_AT).then_some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn members(document: Value) -> Members {
        document.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_new_gone_or_other_has_changed() {
        let before = members(json!({"same": [1], "gone": null, "other": 1, "updated_at": "a"}));
        let after = members(json!({"new": null, "other": 1.0, "same": [1], "updated_at": "b"}));
        assert_eq!(changed_members(&before, &after).unwrap(), ["gone", "new", "other", "updated_at"]);
    }

    #[test]
    fn nobody_can_tell_what_changed_if_the_time_of_update_did_not() {
        let before = members(json!({"name": "a", "updated_at": "a"}));
        let after = members(json!({"name": "b", "updated_at": "a"}));
        assert_eq!(changed_members(&before, &after), None);
        assert_eq!(changed_members(&before, &before), None);
    }
}
