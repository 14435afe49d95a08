//! Documents: what a client sends, what is stored, and the entity tag of the stored text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result, Violation};
use crate::model::{Collection, IdRule, RecordId, ScalarType, ServerFields, timestamp_text};

/// A document's members.
pub(super) type Members = Map<String, Value>;

/// What an answer may add to a record, and a client may therefore send back.
const EMBEDDED: [&str; 2] = ["_include", "_highlight"];

/// The entity tag of a body, with quotes: 128 bits of XXH3. A record's text holds its version and time of update, so
/// two states of one record never have the same text.
pub(super) fn quoted_etag(body: &[u8]) -> String {
    let mut tag = [b'"'; 24];
    let [_, text @ .., _] = &mut tag;
    // 16 bytes are 22 characters. Into a slice, which is twice as fast as into a string.
    let _ = URL_SAFE_NO_PAD.encode_slice(xxh3_128(body).to_be_bytes(), text);
    str::from_utf8(&tag).unwrap_or_default().to_owned()
}

/// The members of a document that the client means: without what only the server writes.
pub(super) fn client_members(document: Value) -> Result<Members> {
    let Value::Object(mut members) = document else {
        return Err(Error::invalid(vec![Violation::new("", "type", "A document is a JSON object.")]));
    };
    members.retain(|name, _| !ServerFields::ALL.contains(&name.as_str()) && !EMBEDDED.contains(&name.as_str()));
    Ok(members)
}

/// The id that a document names, taken out of the members where the schema does not know it.
pub(super) fn take_id(collection: &Collection, members: &mut Members) -> Result<Option<RecordId>> {
    let (field, value) = match &collection.id {
        IdRule::Natural(field) => (field.as_str(), members.get(field).cloned()),
        // `shift_remove` keeps the order of the others.
        IdRule::Generated => ("id", members.shift_remove("id")),
    };
    let pointer = format!("/{field}");
    match value {
        None => Ok(None),
        Some(Value::String(text)) => RecordId::parse_at(&text, &pointer).map(Some),
        Some(_) => Err(Error::invalid(vec![Violation::new(pointer, "type", "An id is a string.")])),
    }
}

/// The id in a document differs from the one it is written to.
pub(super) fn id_mismatch(collection: &Collection, id: &RecordId) -> Error {
    let field = collection.id_field();
    let detail = format!("The id of a record never changes; here it is {:?}.", id.as_str());
    Error::invalid(vec![Violation::new(format!("/{field}"), "id_mismatch", detail)])
}

/// Integers that no filter, cursor or term can name, because they are beyond 64 bits: JSON Schema has no such bound, and
/// a page that ends at one could not be continued.
pub(super) fn integers_out_of_range(collection: &Collection, members: &Members) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, value) in members {
        let Some(field) = collection.fields.get(name).filter(|field| field.scalar == ScalarType::Integer) else { continue };
        let mut check = |pointer: String, value: &Value| {
            if value.is_number() && field.scalar.from_json(value).is_none() {
                found.push(Violation::new(pointer, "out_of_range", format!("An integer is from {} to {}.", i64::MIN, i64::MAX)));
            }
        };
        let name = name.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Array(elements) => {
                elements.iter().enumerate().for_each(|(position, element)| check(format!("/{name}/{position}"), element));
            }
            scalar => check(format!("/{name}"), scalar),
        }
    }
    found
}

/// A new id for a collection that leaves ids to the server.
pub(super) fn generated_id() -> Result<RecordId> {
    RecordId::parse(&uuid::Uuid::now_v7().to_string()).map_err(Error::internal)
}

/// The stored document: the id first where the server owns it, the client's members, then the server's.
pub(super) fn compose(
    collection: &Collection,
    id: &RecordId,
    members: &Members,
    version: i64,
    created_at: &str,
    updated_at: &str,
) -> Members {
    let mut document = Members::with_capacity(members.len() + 4);
    if collection.id == IdRule::Generated {
        document.insert("id".to_owned(), Value::from(id.as_str()));
    }
    document.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
    document.insert(ServerFields::VERSION.to_owned(), Value::from(version));
    document.insert(ServerFields::CREATED_AT.to_owned(), Value::from(created_at));
    document.insert(ServerFields::UPDATED_AT.to_owned(), Value::from(updated_at));
    document
}

/// Reads a stored text back. A text that is no object was not written by Terrace.
pub(super) fn stored_members(text: &str) -> Result<Members> {
    serde_json::from_str(text).map_err(|error| Error::internal(format!("a stored document is not a JSON object: {error}")))
}

/// The time of an update: now, but after the update before, even if the clock was set back.
pub(super) fn update_time(previous: Option<&str>) -> String {
    let now = Utc::now();
    let previous = previous.and_then(|text| DateTime::parse_from_rfc3339(text).ok()).map(|time| time.to_utc());
    let time = match previous {
        Some(previous) if previous >= now => previous + chrono::TimeDelta::microseconds(1),
        Some(_) | None => now,
    };
    timestamp_text(time)
}

/// RFC 7396: null removes a member, an object merges into one, anything else replaces.
pub(super) fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            members.shift_remove(&name);
        } else {
            merge_patch(members.entry(name).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_does_what_the_appendix_of_rfc_7396_says() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, expected) in cases {
            merge_patch(&mut target, patch.clone());
            assert_eq!(target, expected, "{patch}");
        }
    }

    #[test]
    fn updates_of_a_record_have_rising_times_even_if_the_clock_was_set_back() {
        let future = "2999-01-01T00:00:00.000000Z";
        assert_eq!(update_time(Some(future)), "2999-01-01T00:00:00.000001Z");
        assert!(update_time(None).as_str() < future);
    }
}
