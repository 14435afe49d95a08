//! What a caller sees of a collection. Who sees the same shares entries; nobody shares them with others, because whatever an
//! answer depends on beside its request is part of its key:
//!
//! - Members hidden from a role. To its callers the collection is one without them ([`Lens::collection`]), so that a request that
//!   names one is refused like any that names what there is not; and [`Concealed`] takes them out of documents. Roles that are
//!   shown the same share a lens, and whoever is shown everything has the keys that a collection without such rules has.
//! - Records of others, where `read = "owner"`. Lists, counts and statistics get the filter `owner_field = subject`, as if the caller
//!   had asked for it; a record is read by id and owner. So the database leaves them out, and nothing is left to be taken out here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::prepared::PreparedLists;
use crate::auth::authorize_on;
use crate::error::{Error, Result};
use crate::model::{AccessRule, Collection, Filter, Principal, Role, Scalar, Term, Test, Verb};
use crate::store::Owner;

/// The member under which a record holds those that it refers to.
const INCLUDED: &str = "_include";

/// What one caller sees.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) lens: &'a Arc<Lens>,
    /// Whose records it sees; `None` for all.
    pub(super) subject: Option<&'a str>,
}

/// What callers of one role see, whosever the records are. Made once.
pub(super) struct Lens {
    /// The collection as they know it.
    pub(super) collection: Arc<Collection>,
    pub(super) concealed: Concealed,
    /// What keys of answers that embed nothing have for it.
    hidden_alone: String,
    /// The lists that they have asked for.
    pub(super) prepared: PreparedLists,
    /// The lists that they have asked for who see only their own.
    pub(super) prepared_for_owners: PreparedLists,
}

/// The lenses of a collection, by role. Roles that see the same have the same.
pub(super) struct Lenses {
    nobody: Arc<Lens>,
    viewer: Arc<Lens>,
    editor: Arc<Lens>,
    admin: Arc<Lens>,
}

/// Which members are taken out of documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Concealed {
    /// Of the record itself.
    own: Vec<String>,
    /// Of the records that it refers to, by the field that does. Fields without any are left out.
    embedded: BTreeMap<String, Vec<String>>,
}

impl<'a> Sight<'a> {
    /// What `principal` sees of `collection`; an error if that is nothing.
    pub(super) fn of(collection: &Collection, lenses: &'a Lenses, principal: &'a Principal) -> Result<Self> {
        authorize_on(principal, collection.access.read, Some(&collection.name), Verb::Read)?;
        let lens = lenses.of(principal.role());
        Ok(Self { lens, subject: subject_among(collection, principal)? })
    }

    /// As the operator sees: everything.
    pub(super) fn whole(lenses: &'a Lenses) -> Self {
        Self { lens: lenses.of(Some(Role::Admin)), subject: None }
    }

    /// What tells entries for this sight from those for others, in front of what tells requests apart; `""` if everything is
    /// seen. `include` is what the request embeds. A JSON string for the owner and an object for what is hidden, so that neither can be
    /// taken for the other, nor for the array that a request may be.
    pub(super) fn key_text(&self, include: &[String]) -> Cow<'a, str> {
        let hidden = match include {
            [] => Cow::Borrowed(self.lens.hidden_alone.as_str()),
            include => Cow::Owned(self.lens.concealed.hidden_text(include).unwrap_or_default()),
        };
        match self.subject {
            None => hidden,
            Some(subject) => Cow::Owned(format!("{}{hidden}", Value::from(subject))),
        }
    }

    /// Whose records count, as the store asks for them.
    pub(super) fn owner(&self) -> Option<Owner> {
        let field = self.lens.collection.access.owner_field.as_ref()?;
        self.subject.map(|subject| Owner { field: field.clone(), subject: subject.to_owned() })
    }

    /// `filter`, and that a record is seen.
    pub(super) fn narrow(&self, filter: Option<Filter>) -> Option<Filter> {
        let Some(Owner { field, subject }) = self.owner() else { return filter };
        let subject = Scalar::Text(subject);
        let is_anothers = |term: &Term| term.field == field && term.value != subject;
        // Without the other's term: the empty answer must not depend on what happens to the records of the other.
        let asks_for_anothers = |filter: &Filter| filter.required_terms().iter().any(is_anothers);
        let filter = filter.map(|filter| if asks_for_anothers(&filter) { Filter::any(Vec::new()) } else { filter });
        let own = Filter::test(field, Test::Eq(subject));
        Some(Filter::all(filter.into_iter().chain([own]).collect()))
    }
}

/// The subject whose records are all that `principal` sees; `None` if it sees those of all. An error rather than a sight of
/// everything, if somebody owns nothing and is no administrator.
pub(super) fn subject_among<'a>(collection: &Collection, principal: &'a Principal) -> Result<Option<&'a str>> {
    let access = &collection.access;
    match access.read {
        AccessRule::Public | AccessRule::Viewer | AccessRule::Editor | AccessRule::Admin => Ok(None),
        AccessRule::Owner if principal.role() == Some(Role::Admin) => Ok(None),
        AccessRule::Owner if access.owner_field.is_none() => Err(Error::internal("a collection for owners has no owner_field")),
        AccessRule::Owner => match principal.subject() {
            Some(subject) => Ok(Some(subject)),
            None => Err(Error::internal("somebody who is nobody's subject passed a rule for owners")),
        },
    }
}

impl Lenses {
    /// Of `collection`, whose reference fields lead to `targets`.
    pub(super) fn new(collection: &Arc<Collection>, targets: &BTreeMap<String, Arc<Collection>>) -> Self {
        let admin = Lens::new(collection, Concealed::default());
        let mut known = vec![admin];
        let mut of = |role: Option<Role>| {
            let concealed = Concealed::from(role, collection, targets);
            if let Some(same) = known.iter().find(|lens| lens.concealed == concealed) {
                return Arc::clone(same);
            }
            let lens = Lens::new(collection, concealed);
            known.push(Arc::clone(&lens));
            lens
        };
        Self { nobody: of(None), viewer: of(Some(Role::Viewer)), editor: of(Some(Role::Editor)), admin: of(Some(Role::Admin)) }
    }

    /// The lens of a role; `None` is nobody known.
    pub(super) fn of(&self, role: Option<Role>) -> &Arc<Lens> {
        match role {
            None => &self.nobody,
            Some(Role::Viewer) => &self.viewer,
            Some(Role::Editor) => &self.editor,
            Some(Role::Admin) => &self.admin,
        }
    }
}

impl Lens {
    fn new(collection: &Arc<Collection>, concealed: Concealed) -> Arc<Self> {
        let collection =
            if concealed.own.is_empty() { Arc::clone(collection) } else { Arc::new(collection.without(&concealed.own)) };
        let [prepared, prepared_for_owners] = [PreparedLists::default(), PreparedLists::default()];
        let hidden_alone = concealed.hidden_text(&[]).unwrap_or_default();
        Arc::new(Self { collection, concealed, hidden_alone, prepared, prepared_for_owners })
    }
}

impl Concealed {
    fn from(role: Option<Role>, collection: &Collection, targets: &BTreeMap<String, Arc<Collection>>) -> Self {
        let hidden = |collection: &Collection| collection.access.hidden_from(role).map(str::to_owned).collect::<Vec<_>>();
        let embedded =
            targets.iter().map(|(field, target)| (field.clone(), hidden(target))).filter(|(_, hidden)| !hidden.is_empty());
        Self { own: hidden(collection), embedded: embedded.collect() }
    }

    /// Whether the member of a record is hidden.
    pub(super) fn hides(&self, member: &str) -> bool {
        self.own.iter().any(|hidden| hidden == member)
    }

    /// Whether nothing is hidden in an answer that embeds `include`.
    fn is_nothing(&self, include: &[String]) -> bool {
        self.own.is_empty() && !self.embedded.keys().any(|field| include.contains(field))
    }

    /// What is hidden in an answer that embeds `include`, as keys spell it; `None` if nothing is.
    fn hidden_text(&self, include: &[String]) -> Option<String> {
        let embedded = || self.embedded.iter().filter(|(field, _)| include.contains(field)).collect::<BTreeMap<_, _>>();
        (!self.is_nothing(include)).then(|| json!({"own": self.own, "embedded": embedded()}).to_string())
    }

    /// The text of a record that embeds `include` without what is hidden, its other members as they are and in their order. What
    /// this returns is what the caller's entity tags are of, so every answer to them goes through here. It is the text itself for
    /// exactly those answers whose keys say that nothing is hidden. What cannot be read is not shown.
    pub(super) fn conceal<'a>(&self, document: &'a [u8], include: &[String]) -> Result<Cow<'a, [u8]>> {
        if self.is_nothing(include) {
            return Ok(Cow::Borrowed(document));
        }
        let unread = |error| Error::internal(format!("a record cannot be read, so it is not shown: {error}"));
        let members: RawMembers<'_> = serde_json::from_slice(document).map_err(unread)?;
        let mut kept = Vec::with_capacity(document.len());
        kept.push(b'{');
        for (name, value) in &members.0 {
            if self.hides(name) {
                continue;
            }
            if kept.len() > 1 {
                kept.push(b',');
            }
            serde_json::to_writer(&mut kept, name).map_err(unread)?;
            kept.push(b':');
            if name == INCLUDED {
                kept.extend(self.conceal_embedded(value)?);
            } else {
                kept.extend_from_slice(value.get().as_bytes());
            }
        }
        kept.push(b'}');
        Ok(Cow::Owned(kept))
    }

    /// The same of the text of a record alone.
    pub(super) fn conceal_text<'a>(&self, document: &'a str) -> Result<Cow<'a, str>> {
        match self.conceal(document.as_bytes(), &[])? {
            Cow::Borrowed(_) => Ok(Cow::Borrowed(document)),
            Cow::Owned(kept) => String::from_utf8(kept).map(Cow::Owned).map_err(Error::internal),
        }
    }

    /// The records embedded in one, each without what is hidden of it.
    fn conceal_embedded(&self, included: &RawValue) -> Result<Vec<u8>> {
        let unread = |error| Error::internal(format!("embedded records cannot be read, so they are not shown: {error}"));
        let records: RawMembers<'_> = serde_json::from_str(included.get()).map_err(unread)?;
        let mut kept = vec![b'{'];
        for (field, record) in &records.0 {
            if kept.len() > 1 {
                kept.push(b',');
            }
            serde_json::to_writer(&mut kept, field).map_err(unread)?;
            kept.push(b':');
            match self.embedded.get(field) {
                // No record, so nothing to hide.
                Some(_) if record.get() == "null" => kept.extend_from_slice(b"null"),
                Some(hidden) => {
                    let concealed = Self { own: hidden.clone(), embedded: BTreeMap::new() };
                    kept.extend_from_slice(&concealed.conceal(record.get().as_bytes(), &[])?);
                }
                None => kept.extend_from_slice(record.get().as_bytes()),
            }
        }
        kept.push(b'}');
        Ok(kept)
    }
}

/// The members of an object as their texts, in their order.
struct RawMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawMembers<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concealed(own: &[&str], embedded: &[(&str, &[&str])]) -> Concealed {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let embedded = embedded.iter().map(|(field, names)| ((*field).to_owned(), owned(names)));
        Concealed { own: owned(own), embedded: embedded.collect() }
    }

    #[test]
    fn what_is_hidden_is_taken_out_and_all_else_stays_as_it_is() {
        let salary = concealed(&["salary"], &[]);
        for (document, expected) in [
            (r#"{"b": 1.50, "salary": 5, "a": {"salary": 1}}"#, r#"{"b":1.50,"a":{"salary": 1}}"#),
            (r#"{"salary": {"x": [1, 2]}}"#, "{}"),
            (r#"{"a\"\u00e9": 1e2, "sal\u0061ry": 5, "salary": 6}"#, "{\"a\\\"é\":1e2}"),
            ("{}", "{}"),
        ] {
            assert_eq!(salary.conceal_text(document).unwrap(), expected, "{document}");
        }
        let text = r#"{ "as": "it is" }"#;
        assert!(matches!(concealed(&[], &[]).conceal_text(text).unwrap(), Cow::Borrowed(same) if same == text));
        assert!(
            salary.conceal_text("[1]").is_err() && salary.conceal_text("{\"a\":1").is_err(),
            "nothing is shown that is not understood"
        );
    }

    #[test]
    fn embedded_records_hide_what_their_own_collection_hides() {
        let rules = concealed(&[], &[("boss", &["salary", "note"])]);
        let document = r#"{"salary":1,"_include":{"boss":{"id":"b","salary":2,"note":3,"x":4},"team":{"salary":5}}}"#;
        let expected = r#"{"salary":1,"_include":{"boss":{"id":"b","x":4},"team":{"salary":5}}}"#;
        let conceal = |document: &'static str, include: &[&str]| {
            let include: Vec<String> = include.iter().map(|field| (*field).to_owned()).collect();
            String::from_utf8(rules.conceal(document.as_bytes(), &include).unwrap().into_owned()).unwrap()
        };
        assert_eq!(conceal(document, &["boss", "team"]), expected);
        assert_eq!(conceal(r#"{"_include":{"boss":null}}"#, &["boss"]), r#"{"_include":{"boss":null}}"#);
        // The same entry as without rules, so the same text.
        let spaced = r#"{"a": 1, "_include": {"team": {"salary": 5}}}"#;
        assert_eq!((conceal(spaced, &["team"]).as_str(), conceal(r#"{"a": 1}"#, &[]).as_str()), (spaced, r#"{"a": 1}"#));
    }

    #[test]
    fn keys_name_what_is_hidden_only_where_it_would_be_shown() {
        let rules = concealed(&[], &[("boss", &["salary"])]);
        assert_eq!(rules.hidden_text(&[]), None);
        assert_eq!(rules.hidden_text(&["team".to_owned()]), None);
        assert_ne!(
            rules.hidden_text(&["boss".to_owned()]),
            concealed(&[], &[("boss", &["note"])]).hidden_text(&["boss".to_owned()])
        );
        assert!(concealed(&["a"], &[]).hidden_text(&[]).is_some());
    }
}
