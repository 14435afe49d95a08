//! What a document must not hold so that either database can store it, beside what its schema says. The rules are the same
//! on both, so that an installation can move from one to the other.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::Members;
use crate::error::Violation;
use crate::model::{Collection, RecordId};

/// The most bytes of text in one entry of an index: PostgreSQL's entries take about 2,700 bytes, other values and overhead
/// included.
const MAX_INDEXED_BYTES: usize = 2_500;

/// Everything in `members` that cannot be stored under `id`.
pub(super) fn violations(collection: &Collection, id: &RecordId, members: &Members) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, value) in members {
        if name.contains('\0') {
            found.push(Violation::new("", "nul_character", "A name has no character U+0000."));
        }
        find_nul(value, &mut pointer(name), &mut found);
    }
    found.extend(too_long(collection, id, members));
    found
}

/// PostgreSQL's texts have no U+0000.
fn find_nul(value: &Value, at: &mut String, found: &mut Vec<Violation>) {
    let length = at.len();
    match value {
        Value::String(text) if text.contains('\0') => {
            found.push(Violation::new(at.clone(), "nul_character", "A text has no character U+0000."));
        }
        Value::Array(elements) => {
            for (position, element) in elements.iter().enumerate() {
                at.push_str(&format!("/{position}"));
                find_nul(element, at, found);
                at.truncate(length);
            }
        }
        Value::Object(inner) => {
            for (name, value) in inner {
                if name.contains('\0') {
                    found.push(Violation::new(at.clone(), "nul_character", "A name has no character U+0000."));
                }
                at.push_str(&pointer(name));
                find_nul(value, at, found);
                at.truncate(length);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The longest field of each index whose texts (with those of the default order and the id, which each entry ends with)
/// are too long together.
fn too_long(collection: &Collection, id: &RecordId, members: &Members) -> Vec<Violation> {
    let is_array = |field: &String| collection.fields.get(field).is_some_and(|kind| kind.array);
    let indexes = collection.indexes.iter().map(|index| index.fields.as_slice()).filter(|fields| !fields.iter().any(is_array));
    let mut culprits = BTreeSet::new();
    for fields in indexes.chain([[].as_slice()]) {
        let order = collection.sort.iter().map(|key| key.field.as_str());
        let named: BTreeSet<&str> = fields.iter().map(String::as_str).chain(order).collect();
        let texts = named.into_iter().filter(|name| *name != collection.id_field());
        let lengths = texts.filter_map(|name| Some((members.get(name)?.as_str()?.len(), name)));
        let lengths: Vec<(usize, &str)> = lengths.collect();
        let total: usize = lengths.iter().map(|(length, _)| length).sum();
        if total + id.as_str().len() > MAX_INDEXED_BYTES {
            culprits.extend(lengths.into_iter().max().map(|(_, name)| name));
        }
    }
    let detail =
        format!("The values of one index have at most {MAX_INDEXED_BYTES} bytes together, with the id; this one is too long.");
    culprits.into_iter().map(|name| Violation::new(pointer(name), "too_long", detail.clone())).collect()
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::model::*;

    fn collection() -> Collection {
        let text = Field { scalar: ScalarType::Text, array: false };
        let own = |fields: &[&str]| Index { fields: fields.iter().map(ToString::to_string).collect() };
        Collection {
            name: CollectionName::parse("items").unwrap(),
            description: None,
            path: "/items".into(),
            id: IdRule::Natural("key".into()),
            fields: BTreeMap::from([
                ("key".into(), text),
                ("a".into(), text),
                ("b/c".into(), text),
                ("title".into(), text),
                ("note".into(), text),
                ("tags".into(), Field { array: true, ..text }),
            ]),
            sort: vec![SortKey { field: "title".into(), direction: Direction::Ascending }],
            indexes: vec![own(&["a"]), own(&["a", "b/c"]), own(&["tags"])],
            search: Vec::new(),
            cache: CacheTimes {
                record_ttl: Duration::ZERO,
                list_ttl: Duration::ZERO,
                negative_ttl: Duration::ZERO,
                stale_if_error: Duration::ZERO,
                max_lag: Duration::ZERO,
            },
            warm: crate::model::WarmPlan::default(),
            access: Access::PUBLIC,
            limits: Default::default(),
            redact: Vec::new(),
            references: BTreeMap::new(),
            schema: json!({}),
        }
    }

    fn found(document: Value) -> Vec<String> {
        let id = RecordId::parse("k").unwrap();
        let Value::Object(members) = document else { panic!("not an object") };
        let found = violations(&collection(), &id, &members);
        found.iter().map(|violation| format!("{} {}", violation.pointer, violation.code)).collect()
    }

    #[test]
    fn the_longest_value_of_an_index_that_is_too_long_is_named() {
        let text = |length: usize| "é".repeat(length / 2);
        assert_eq!(found(json!({"a": text(2_498)})), Vec::<String>::new());
        assert_eq!(found(json!({"a": text(2_500)})), ["/a too_long"]);
        assert_eq!(found(json!({"a": text(1_200), "b/c": text(1_300)})), ["/b~1c too_long"]);
        assert_eq!(found(json!({"title": text(2_500)})), ["/title too_long"]);
        assert_eq!(found(json!({"a": text(1_200), "title": text(1_310)})), ["/title too_long"]);
        let unindexed = json!({"note": text(9_000), "tags": [text(9_000)], "b/c": text(2_000), "title": text(400)});
        assert_eq!(found(unindexed), Vec::<String>::new());
    }

    #[test]
    fn the_character_that_postgresql_cannot_store_is_found_wherever_it_is() {
        assert_eq!(found(json!({"note": "a\0b", "deep": [{"x": ["\0"]}]})), ["/note nul_character", "/deep/0/x/0 nul_character"]);
        assert_eq!(found(json!({"deep": {"x\0": 1}})), ["/deep nul_character"]);
        assert_eq!(found(json!({"x\0": 1})), [" nul_character"]);
    }
}
