//! What an invalidation is about, how it is spelled (in messages, in the names of Redis keys and in explanations), and
//! what caused it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::instance::InstanceId;
use crate::error::{Error, Result};
use crate::model::{Change, CollectionName, Guard, Number, Position, RecordId, Scalar, Term};

/// An announcement that would name more guards of one collection names the collection: beyond this, dropping the few entries that
/// nothing touched is cheaper than naming all that something did.
pub const BULK: usize = 64;

/// What an invalidation is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Whatever depends on one guard.
    Guard(Guard),
    /// Whatever depends on anything of a collection.
    Collection(CollectionName),
    /// The records of a collection whose ids match.
    Records(CollectionName, Pattern),
    /// Everything.
    All,
}

/// A pattern over record ids: `*` is any text, `?` any one character.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

/// An invalidation's cause, and since when what it invalidates may have been outdated.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Why.
    pub cause: Cause,
    /// It happened then or later. `max_lag` and `max-stale` count from here, so a time too early costs a load, and one too late
    /// serves what is older than allowed.
    pub since: Instant,
}

/// Why a guard moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// A change in the log.
    Change {
        /// Its place in the log.
        #[serde(serialize_with = "position_text")]
        position: Position,
        /// The instance that told of it; none if it was found in the log.
        by: Option<InstanceId>,
    },
    /// Somebody asked for it.
    Invalidated {
        /// The instance that was asked.
        by: Option<InstanceId>,
    },
    /// Nobody can tell what changed, or since when.
    Unknown,
}

fn position_text<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(position)
}

impl Move {
    /// Something that happened just now.
    pub fn now(cause: Cause) -> Self {
        Self { cause, since: Instant::now() }
    }
}

impl Target {
    /// What `changes` invalidate: each guard once, or the whole collection where those are more than [`BULK`].
    pub fn of_changes<C: Borrow<Change>>(changes: &[C]) -> Vec<Self> {
        let mut collections: BTreeMap<&CollectionName, BTreeSet<Guard>> = BTreeMap::new();
        for change in changes.iter().map(Borrow::borrow) {
            let guards = collections.entry(&change.collection).or_default();
            if guards.len() <= BULK {
                guards.extend(change.guards());
            }
        }
        let targets = collections.into_iter().flat_map(|(collection, guards)| {
            if guards.len() > BULK {
                vec![Self::Collection(collection.clone())]
            } else {
                guards.into_iter().map(Self::Guard).collect()
            }
        });
        targets.collect()
    }

    /// The collections of `changes` as a whole.
    pub(super) fn collections_of<C: Borrow<Change>>(changes: &[C]) -> Vec<Self> {
        let collections: BTreeSet<&CollectionName> =
            changes.iter().map(Borrow::borrow).map(|change: &Change| &change.collection).collect();
        collections.into_iter().cloned().map(Self::Collection).collect()
    }

    /// What kind of thing it is, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Guard(Guard::Record(..)) => "record",
            Self::Guard(Guard::Term(..)) => "term",
            Self::Guard(Guard::Collection(_)) | Self::Collection(_) => "collection",
            Self::Records(..) => "records",
            Self::All => "all",
        }
    }

    /// The collection it is about; `None` for all.
    pub fn collection(&self) -> Option<&CollectionName> {
        match self {
            Self::Guard(guard) => Some(collection_of(guard)),
            Self::Collection(collection) | Self::Records(collection, _) => Some(collection),
            Self::All => None,
        }
    }
}

/// The collection that a guard is about.
pub(super) fn collection_of(guard: &Guard) -> &CollectionName {
    match guard {
        Guard::Record(collection, _) | Guard::Term(collection, _) | Guard::Collection(collection) => collection,
    }
}

impl Pattern {
    /// Any text that could match an id is a pattern.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > 255 {
            return Err(Error::bad_request("invalid_pattern", "A pattern over record ids has 1 to 255 bytes."));
        }
        Ok(Self(text.into()))
    }

    /// Whether it matches the whole of `id`.
    pub fn matches(&self, id: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), id.chars().collect());
        // Greedy, going back to the last `*` only: linear for what people write, never worse than the product of the lengths.
        let (mut at, mut seen, mut star) = (0, 0, None);
        while let Some(character) = text.get(seen) {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(wanted) if *wanted == '?' || wanted == character => {
                    at += 1;
                    seen += 1;
                }
                Some(_) | None => match star {
                    Some((star_at, tried)) => {
                        star = Some((star_at, tried + 1));
                        at = star_at + 1;
                        seen = tried + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.get(at..).is_some_and(|rest| rest.iter().all(|character| *character == '*'))
    }
}

/// The spelling of a guard: a letter for its kind, its collection, and what it is about. No two guards are spelled alike, since no
/// name of a collection has a colon.
pub(super) struct Spelled<'a>(pub(super) &'a Guard);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // In pieces, without a format to be read: look-ups in the second tier spell these.
            Guard::Record(collection, id) => {
                ["r:", collection.as_str(), ":", id.as_str()].into_iter().try_for_each(|part| formatter.write_str(part))
            }
            Guard::Collection(collection) => {
                ["c:", collection.as_str()].into_iter().try_for_each(|part| formatter.write_str(part))
            }
            Guard::Term(collection, Term { field, value }) => {
                let kind = match value {
                    Scalar::Boolean(_) => 'b',
                    Scalar::Integer(_) => 'i',
                    Scalar::Number(_) => 'n',
                    Scalar::Text(_) => 't',
                };
                // The length of the field says where the value begins: a field may have any character.
                write!(formatter, "t:{collection}:{}:{field}={kind}:{value}", field.len())
            }
        }
    }
}

fn parse_guard(text: &str) -> Option<Guard> {
    let (kind, rest) = text.split_once(':')?;
    let (collection, rest) = rest.split_once(':').unwrap_or((rest, ""));
    let collection = CollectionName::parse(collection).ok()?;
    match kind {
        "r" => Some(Guard::Record(collection, RecordId::parse(rest).ok()?)),
        "c" => rest.is_empty().then_some(Guard::Collection(collection)),
        "t" => {
            let (length, rest) = rest.split_once(':')?;
            let (field, rest) = rest.split_at_checked(length.parse().ok()?)?;
            let (kind, value) = rest.strip_prefix('=')?.split_once(':')?;
            let value = match kind {
                "b" => Scalar::Boolean(value.parse().ok()?),
                "i" => Scalar::Integer(value.parse().ok()?),
                "n" => Scalar::Number(Number::new(value.parse().ok()?)?),
                "t" => Scalar::Text(value.to_owned()),
                _ => return None,
            };
            Some(Guard::Term(collection, Term { field: field.to_owned(), value }))
        }
        _ => None,
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(guard) => Spelled(guard).fmt(formatter),
            Self::Collection(collection) => write!(formatter, "b:{collection}"),
            Self::Records(collection, pattern) => write!(formatter, "p:{collection}:{}", pattern.0),
            Self::All => formatter.write_str("*"),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::bad_request("invalid_target", format!("{text:?} names nothing that can be invalidated."));
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(collection) = text.strip_prefix("b:") {
            return CollectionName::parse(collection).map(Self::Collection);
        }
        if let Some((collection, pattern)) = text.strip_prefix("p:").and_then(|rest| rest.split_once(':')) {
            return Ok(Self::Records(CollectionName::parse(collection)?, Pattern::parse(pattern)?));
        }
        parse_guard(text).map(Self::Guard).ok_or_else(unknown)
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> CollectionName {
        CollectionName::parse("metrics").unwrap()
    }

    #[test]
    fn a_target_is_read_as_it_was_spelled_and_no_two_are_spelled_alike() {
        let term = |field: &str, value| Target::Guard(Guard::Term(metrics(), Term { field: field.to_owned(), value }));
        let targets = [
            Target::All,
            Target::Collection(metrics()),
            Target::Records(metrics(), Pattern::parse("a:*?").unwrap()),
            Target::Guard(Guard::Collection(metrics())),
            Target::Guard(Guard::Record(metrics(), RecordId::parse("a:b=c *").unwrap())),
            term("tier", Scalar::Integer(1)),
            term("tier", Scalar::Number(Number::new(1.0).unwrap())),
            term("tier", Scalar::Number(Number::new(0.1 + 0.2).unwrap())),
            term("tier", Scalar::Text("1".to_owned())),
            term("tier", Scalar::Text(String::new())),
            term("tier=t:1", Scalar::Text("é:=\n".to_owned())),
            term("tier", Scalar::Text("t:1=t:é:=\n".to_owned())),
            term("open", Scalar::Boolean(true)),
        ];
        for target in &targets {
            assert_eq!(target.to_string().parse::<Target>().unwrap(), *target);
        }
        let spelled: std::collections::BTreeSet<String> = targets.iter().map(Target::to_string).collect();
        assert_eq!(spelled.len(), targets.len());
        for wrong in
            ["", "x", "r:metrics", "r:Metrics:a", "t:metrics:9:tier=i:1", "t:metrics:4:tier=i:x", "c:metrics:x", "q:metrics:a"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_ids() {
        let cases = [
            ("M-1", "M-1", true),
            ("M-1", "M-10", false),
            ("M-*", "M-", true),
            ("M-*", "m-1", false),
            ("*-1?", "M-10", true),
            ("*-1?", "M-1", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("?", "é", true),
            ("**", "", true),
        ];
        for (pattern, id, matches) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(id), matches, "{pattern} {id}");
        }
    }

    #[test]
    fn many_guards_of_one_collection_become_the_collection() {
        let changes = |count: usize| -> Vec<Change> {
            (0..count).map(|number| super::super::tests::change(1, 1, &format!("M-{number}"))).collect()
        };
        // Each change has its record, the collection and one term, and the last two are shared.
        assert_eq!(Target::of_changes(&changes(2)).len(), 4);
        assert_eq!(Target::of_changes(&changes(BULK - 2)).len(), BULK);
        assert_eq!(Target::of_changes(&changes(BULK - 1)), [Target::Collection(metrics())]);
        assert_eq!(Target::of_changes(&changes(1_000)), [Target::Collection(metrics())]);
    }
}
