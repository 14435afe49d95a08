//! Which properties of a schema are fields: scalars and arrays of scalars, with their types.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{Field, ScalarType, ServerFields};

/// `$ref`s that are followed before a property counts as something else.
const MAX_REFERENCES: usize = 8;

/// Every property of `schema` that can be filtered, sorted or counted. The server's own fields are not among them.
pub(super) fn of_schema(schema: &Value) -> BTreeMap<String, Field> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let fields = properties.filter(|(name, _)| is_plain(name)).filter_map(|(name, property)| {
        let field = Kind::of(schema, property, MAX_REFERENCES)?.field?;
        Some((name.clone(), field))
    });
    fields.collect()
}

/// The fields that every record has besides its properties.
pub(super) fn of_server() -> [(String, Field); 3] {
    ServerFields::ALL.map(|name| {
        let scalar = if name == ServerFields::VERSION { ScalarType::Integer } else { ScalarType::Timestamp };
        (name.to_owned(), Field { scalar, array: false })
    })
}

/// Whether the property `name` may be `null`.
pub(super) fn is_nullable(schema: &Value, name: &str) -> bool {
    let property = schema.get("properties").and_then(|properties| properties.get(name));
    property.and_then(|property| Kind::of(schema, property, MAX_REFERENCES)).is_some_and(|kind| kind.nullable)
}

/// Names that the store can write into a JSON path and a query string can carry. Others stay part of the document and
/// are no fields.
fn is_plain(name: &str) -> bool {
    name.len() <= 60
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What a property's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    /// `None` when only `null` is known so far.
    field: Option<Field>,
    nullable: bool,
}

impl Kind {
    const NULL: Self = Self { field: None, nullable: true };

    fn scalar(scalar: ScalarType) -> Self {
        Self { field: Some(Field { scalar, array: false }), nullable: false }
    }

    /// `None` when the values are objects, or of several types.
    fn of(root: &Value, property: &Value, references: usize) -> Option<Self> {
        if let Some(pointer) = property.get("$ref").and_then(Value::as_str) {
            let target = root.pointer(pointer.strip_prefix('#')?)?;
            return Self::of(root, target, references.checked_sub(1)?);
        }
        if let Some(types) = property.get("type") {
            let names: Vec<&str> = match types {
                Value::String(name) => vec![name],
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                _ => return None,
            };
            return Self::union(names.into_iter().map(|name| Self::of_type(root, property, name, references)));
        }
        if let Some(values) = property.get("enum").and_then(Value::as_array) {
            return Self::union(values.iter().map(Self::of_value));
        }
        if let Some(value) = property.get("const") {
            return Self::of_value(value);
        }
        let alternatives = property.get("anyOf").or_else(|| property.get("oneOf"))?.as_array()?;
        Self::union(alternatives.iter().map(|alternative| Self::of(root, alternative, references.checked_sub(1)?)))
    }

    fn of_type(root: &Value, property: &Value, name: &str, references: usize) -> Option<Self> {
        match name {
            "string" => Some(Self::scalar(ScalarType::Text)),
            "integer" => Some(Self::scalar(ScalarType::Integer)),
            "number" => Some(Self::scalar(ScalarType::Number)),
            "boolean" => Some(Self::scalar(ScalarType::Boolean)),
            "null" => Some(Self::NULL),
            "array" => {
                let element = Self::of(root, property.get("items")?, references.checked_sub(1)?)?.field?;
                (!element.array).then_some(Self { field: Some(Field { array: true, ..element }), nullable: false })
            }
            _ => None,
        }
    }

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::NULL),
            Value::Bool(_) => Some(Self::scalar(ScalarType::Boolean)),
            Value::Number(number) if number.is_i64() => Some(Self::scalar(ScalarType::Integer)),
            Value::Number(_) => Some(Self::scalar(ScalarType::Number)),
            Value::String(_) => Some(Self::scalar(ScalarType::Text)),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The one kind that all of `kinds` are, apart from `null`; integers among numbers are numbers.
    fn union(kinds: impl Iterator<Item = Option<Self>>) -> Option<Self> {
        let mut union = Self { field: None, nullable: false };
        for kind in kinds {
            let kind = kind?;
            union.nullable |= kind.nullable;
            union.field = match (union.field, kind.field) {
                (None, field) | (field, None) => field,
                (Some(one), Some(other)) if one.array == other.array => {
                    Some(Field { scalar: common(one.scalar, other.scalar)?, array: one.array })
                }
                (Some(_), Some(_)) => return None,
            };
        }
        Some(union)
    }
}

fn common(one: ScalarType, other: ScalarType) -> Option<ScalarType> {
    match (one, other) {
        (ScalarType::Integer, ScalarType::Number) | (ScalarType::Number, ScalarType::Integer) => Some(ScalarType::Number),
        (one, other) => (one == other).then_some(one),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_and_arrays_of_scalars_are_fields() {
        let schema = json!({
            "$defs": {"level": {"enum": ["low", "high"]}, "loop": {"$ref": "#/$defs/loop"}},
            "properties": {
                "text": {"type": "string"}, "nullable": {"type": ["string", "null"]}, "number": {"type": ["integer", "number"]},
                "level": {"$ref": "#/$defs/level"}, "constant": {"const": true}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "object": {"type": "object"}, "mixed": {"type": ["string", "integer"]}, "any": {}, "matrix": {"type": "array",
                "items": {"type": "array", "items": {"type": "string"}}}, "bag": {"type": "array"}, "loop": {"$ref": "#/$defs/loop"},
                "nothing": {"type": "null"}, "odd-name": {"type": "string"}, "_x": {"type": "string"},
            }
        });
        let found: Vec<_> = of_schema(&schema).into_iter().map(|(name, field)| (name, field.scalar, field.array)).collect();
        let expected = [
            ("constant", ScalarType::Boolean, false),
            ("level", ScalarType::Text, false),
            ("maybe", ScalarType::Integer, false),
            ("nullable", ScalarType::Text, false),
            ("number", ScalarType::Number, false),
            ("tags", ScalarType::Text, true),
            ("text", ScalarType::Text, false),
        ];
        assert_eq!(found, expected.map(|(name, scalar, array)| (name.to_owned(), scalar, array)));
        assert!(is_nullable(&schema, "nullable") && is_nullable(&schema, "maybe") && !is_nullable(&schema, "text"));
    }
}
