//! Cursors: where a page ended, as an opaque text. A cursor carries the order it belongs to and is refused under another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{Collection, Direction, Scalar, ScalarType, SortKey};

/// Makes the text from the sort values and id of the last record, a JSON array as the store returns it.
pub(super) fn encode(sort: &[SortKey], values: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("[{},{values}]", Value::from(sort_text(sort))))
}

/// Reads a text back to the values of `sort`'s fields and the id.
pub(super) fn decode(collection: &Collection, sort: &[SortKey], text: &str) -> Result<Vec<Option<Scalar>>> {
    let invalid = || Error::parameter("cursor", "This is not a cursor that a page with the same sort has given.");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let (order, values): (String, Vec<Value>) = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    if order != sort_text(sort) || values.len() != sort.len() + 1 {
        return Err(invalid());
    }
    let types =
        sort.iter().map(|key| collection.fields.get(&key.field).map(|field| field.scalar)).chain([Some(ScalarType::Text)]);
    let read = |(kind, value): (Option<ScalarType>, &Value)| match value {
        Value::Null => Ok(None),
        // SQLite has no booleans: it returns 0 and 1.
        Value::Number(number) if kind == Some(ScalarType::Boolean) => Ok(Some(Scalar::Boolean(number.as_i64() == Some(1)))),
        value => kind.and_then(|kind| kind.from_json(value)).map(Some).ok_or_else(invalid),
    };
    types.zip(&values).map(read).collect()
}

/// The order as the `sort` parameter spells it.
pub(super) fn sort_text(sort: &[SortKey]) -> String {
    let keys: Vec<String> = sort
        .iter()
        .map(|key| match key.direction {
            Direction::Ascending => key.field.clone(),
            Direction::Descending => format!("-{}", key.field),
        })
        .collect();
    keys.join(",")
}
