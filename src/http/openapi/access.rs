//! What schemas say of access: which members not everybody sees or sets, and so need not be there.

use serde_json::{Map, Value, json};

use super::schemas::strings;
use crate::model::Collection;

/// Keeps only those of the required members; none is no list.
pub(super) fn require(members: &mut Map<String, Value>, keep: impl Fn(&str) -> bool) {
    let mut required = strings(members.get("required"));
    required.retain(|name| keep(name));
    if required.is_empty() {
        members.shift_remove("required");
    } else {
        members.insert("required".to_owned(), json!(required));
    }
}

/// Who sees and sets the members that not everybody may, in their descriptions.
pub(super) fn describe_access(collection: &Collection, members: &mut Map<String, Value>) {
    let Some(properties) = members.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut note = |name: &str, note: String| {
        if let Some(property) = properties.get_mut(name).and_then(Value::as_object_mut) {
            let said = property.get("description").and_then(Value::as_str).map(|said| format!("{said} ")).unwrap_or_default();
            property.insert("description".to_owned(), json!(format!("{said}{note}")));
        }
    };
    for (name, field) in &collection.access.fields {
        let (read, write) = (field.read.as_str(), field.write.as_str());
        note(name, format!("Seen by {read}, set by {write}; to others it is not there, or stays as it is."));
    }
    if let Some(owner) = &collection.access.owner_field {
        note(owner, "Whose the record is: whoever creates it. Only administrators name another.".to_owned());
    }
}
