//! CSV cells: how the values of a field are written into them and read back. What does not survive the way there and
//! back: a null becomes an absent field, and a text of two quotation marks an empty one.

use serde_json::{Map, Value};

use crate::model::{Collection, Field, IdRule, ScalarType, ServerFields};

/// What separates the elements of an array.
const SEPARATOR: char = ';';

/// An empty string, which an empty cell cannot be: that is an absent field.
const EMPTY_STRING: &str = "\"\"";

/// The columns of an export: the id where it is no property, the properties in the order of the schema, the server's.
pub(super) fn columns(collection: &Collection) -> Vec<String> {
    let generated = (collection.id == IdRule::Generated).then(|| collection.id_field().to_owned());
    let properties = collection.schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    generated.into_iter().chain(properties.cloned()).chain(ServerFields::ALL.map(str::to_owned)).collect()
}

/// The cell of a value. `field` is `None` for what is neither a scalar nor an array of scalars; that is JSON.
pub(super) fn write(field: Option<Field>, value: &Value) -> String {
    match (field, value) {
        (_, Value::Null) => String::new(),
        (Some(Field { array: false, .. }), Value::String(text)) if text.is_empty() => EMPTY_STRING.to_owned(),
        (Some(Field { array: false, .. }), Value::String(text)) => text.clone(),
        (Some(Field { array: true, scalar }), Value::Array(elements)) => {
            joined(scalar, elements).unwrap_or_else(|| value.to_string())
        }
        _ => value.to_string(),
    }
}

/// The elements with separators, or `None` if they could not be told apart again.
fn joined(scalar: ScalarType, elements: &[Value]) -> Option<String> {
    let plain = |element: &Value| match element {
        Value::String(text) if text.is_empty() || text == EMPTY_STRING || text.contains(SEPARATOR) => None,
        Value::String(text) if scalar == ScalarType::Text => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) if scalar != ScalarType::Text => Some(element.to_string()),
        _ => None,
    };
    let elements: Vec<String> = elements.iter().map(plain).collect::<Option<_>>()?;
    let joined = elements.join(&SEPARATOR.to_string());
    // What begins like JSON would be read as JSON.
    (!joined.is_empty() && !joined.starts_with('[')).then_some(joined)
}

/// The value of a cell; `None` for an absent field. What is not of the field's type stays text, for the schema to
/// refuse with the right words.
pub(super) fn read(field: Option<Field>, cell: &str) -> Option<Value> {
    if cell.is_empty() {
        return None;
    }
    let value = match field {
        Some(Field { array: false, scalar }) => read_scalar(scalar, cell),
        Some(Field { array: true, scalar }) => match serde_json::from_str(cell) {
            Ok(elements @ Value::Array(_)) => elements,
            _ => cell.split(SEPARATOR).map(|element| read_scalar(scalar, element)).collect(),
        },
        None => serde_json::from_str(cell).unwrap_or_else(|_| Value::from(cell)),
    };
    Some(value)
}

fn read_scalar(scalar: ScalarType, cell: &str) -> Value {
    match scalar {
        ScalarType::Text | ScalarType::Timestamp if cell == EMPTY_STRING => Value::from(""),
        ScalarType::Text | ScalarType::Timestamp => Value::from(cell),
        ScalarType::Integer | ScalarType::Number | ScalarType::Boolean => match serde_json::from_str(cell.trim()) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => Value::from(cell),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: Option<Field> = Some(Field { scalar: ScalarType::Text, array: false });
    const TEXTS: Option<Field> = Some(Field { scalar: ScalarType::Text, array: true });
    const NUMBER: Option<Field> = Some(Field { scalar: ScalarType::Number, array: false });
    const INTEGERS: Option<Field> = Some(Field { scalar: ScalarType::Integer, array: true });

    #[test]
    fn every_value_comes_back_as_it_was() {
        for (field, value) in [
            (TEXT, json!("plain")),
            (TEXT, json!("")),
            (TEXT, json!("a,b;\"c\"\r\n\u{1f980} [1]")),
            (TEXT, json!("0123")),
            (TEXT, json!("null")),
            (TEXT, json!("\"quoted\"")),
            (NUMBER, json!(1.5)),
            (NUMBER, json!(-0.0)),
            (NUMBER, json!(123456789012345678_u64)),
            (TEXTS, json!([])),
            (TEXTS, json!(["a", "b"])),
            (TEXTS, json!([""])),
            (TEXTS, json!(["a;b", "c"])),
            (TEXTS, json!(["[1]"])),
            (TEXTS, json!(["\"x\"", "1"])),
            (TEXTS, json!(["a", null])),
            (TEXTS, json!(["\"\"", "a"])),
            (INTEGERS, json!([1, -2])),
            (INTEGERS, json!([1, "2"])),
            (None, json!({"a": [1, "b"]})),
            (None, json!("5")),
            (None, json!(5)),
        ] {
            let cell = write(field, &value);
            assert_eq!(read(field, &cell), Some(value.clone()), "{value} as {cell:?}");
        }
    }

    #[test]
    fn an_empty_cell_is_an_absent_field() {
        assert_eq!(write(TEXT, &Value::Null), "");
        for field in [TEXT, TEXTS, NUMBER, None] {
            assert_eq!(read(field, ""), None);
        }
    }

    #[test]
    fn what_is_not_of_the_fields_type_stays_text() {
        assert_eq!(read(NUMBER, "many"), Some(json!("many")));
        assert_eq!(read(NUMBER, " 5 "), Some(json!(5)));
        assert_eq!(read(INTEGERS, "1;x"), Some(json!([1, "x"])));
        assert_eq!(read(INTEGERS, "[1"), Some(json!(["[1"])));
        assert_eq!(read(None, "plain"), Some(json!("plain")));
    }
}
