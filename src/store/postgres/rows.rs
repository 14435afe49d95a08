//! Rows of a single column, read by position, and their texts as the bytes that they came as: no layers for rows of any shape,
//! and no copy for each text.

use bytes::{Buf as _, Bytes};
use diesel::QueryResult;
use diesel::result::Error;
use diesel::row::{Field as _, Row as _};
use diesel_async::{AsyncConnectionCore as _, AsyncPgConnection};
use futures_util::TryStreamExt as _;

use crate::store::statement::Statement;

/// The type `text[]`.
const TEXT_ARRAY: u32 = 1009;

/// The text that a query has as its only value, if it has a row.
pub(in crate::store) async fn load_text(connection: &mut AsyncPgConnection, statement: Statement) -> QueryResult<Option<Bytes>> {
    let mut rows = connection.load(statement).await?;
    let mut text = None;
    while let Some(row) = rows.try_next().await? {
        text = row.get(0).and_then(|field| Some(Bytes::copy_from_slice(field.value()?.as_bytes())));
    }
    Ok(text)
}

/// The texts of a query's first column, in order and in UTF-8, as the database's are. An array of texts is all of these, and a
/// null is none.
pub(in crate::store) async fn load_texts(connection: &mut AsyncPgConnection, statement: Statement) -> QueryResult<Vec<Bytes>> {
    let mut rows = connection.load(statement).await?;
    let mut texts = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let Some(field) = row.get(0) else { continue };
        let Some(value) = field.value() else { continue };
        let bytes = Bytes::copy_from_slice(value.as_bytes());
        match value.get_oid().get() {
            TEXT_ARRAY => texts.append(&mut elements(bytes).ok_or_else(malformed)?),
            _ => texts.push(bytes),
        }
    }
    Ok(texts)
}

/// The elements of an array of one dimension, as PostgreSQL sends it: the number of dimensions, whether there are nulls (here
/// never), the type, the length, the first index; and each element behind its length.
fn elements(mut array: Bytes) -> Option<Vec<Bytes>> {
    let [dimensions, _nulls, _kind] = [array.try_get_i32().ok()?, array.try_get_i32().ok()?, array.try_get_i32().ok()?];
    if dimensions == 0 {
        return Some(Vec::new());
    }
    let [count, _first] = [array.try_get_i32().ok()?, array.try_get_i32().ok()?];
    let element = |_| {
        let length = usize::try_from(array.try_get_i32().ok()?).ok()?;
        (length <= array.len()).then(|| array.split_to(length))
    };
    (0..count).map(element).collect()
}

fn malformed() -> Error {
    Error::DeserializationError("PostgreSQL sent an array that is none".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(words: &[i32], elements: &[&str]) -> Bytes {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        for element in elements {
            bytes.extend(i32::try_from(element.len()).unwrap().to_be_bytes());
            bytes.extend(element.as_bytes());
        }
        bytes.into()
    }

    #[test]
    fn an_array_is_taken_apart_and_a_cut_one_is_refused() {
        assert_eq!(elements(array(&[0, 0, 25], &[])), Some(vec![]));
        let whole = array(&[1, 0, 25, 2, 1], &["{\"a\": 1}", ""]);
        assert_eq!(elements(whole.clone()), Some(vec![Bytes::from_static(b"{\"a\": 1}"), Bytes::new()]));
        for length in 0..whole.len() {
            assert_eq!(elements(whole.slice(..length)), None, "{length}");
        }
    }
}
