//! Documents of which something may be left out: when their id is said elsewhere, and when `fields` names what is shown.

use serde_json::{Value, json};

use super::schemas::{document, record};
use super::{component, component_name};
use crate::model::Collection;

/// A document whose id is said beside it, in the path or in the operation of a batch, and so may be left out.
pub(super) fn replacement(collection: &Collection) -> Value {
    let mut schema = document(collection);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name.as_str() != Some(collection.id_field()));
    }
    schema
}

/// What a read shows of a record: all of it, or the members that `fields` names.
pub(super) fn shown(collection: &Collection) -> Value {
    let whole = component("schemas", &component_name(collection.name.as_str(), "record"));
    let members = record(collection).get("properties").cloned().unwrap_or_default();
    let some = json!({
        "type": "object",
        "description": "Some members of a record: those that `fields` names.",
        "properties": members,
    });
    json!({"anyOf": [whole, some]})
}
