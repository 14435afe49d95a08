//! Which text of a record goes into the body: the whole document as it is stored, or some members of it, with the
//! records it refers to and the search's highlights spliced in. Documents are put together, never parsed.

use super::column::Column;
use super::dialect::{Dialect, is_in, is_safe_name};
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::Collection;

/// Appends the document: all of it, or the id and `fields`, as far as they exist and in their order.
pub(super) fn push_document(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    fields: Option<&[String]>,
) {
    let Some(fields) = fields else {
        statement.sql("records.data").sql(dialect.as_text());
        return;
    };
    let id = collection.id_field();
    let mut members: Vec<&str> = if fields.iter().any(|field| field == id) { Vec::new() } else { vec![id] };
    for field in fields {
        // What no member can be called is not there.
        if is_safe_name(field) && !members.contains(&field.as_str()) {
            members.push(field);
        }
    }
    // Each member brings its comma; the leading one is cut off. Without any (no such member) there is nothing to cut.
    statement.sql("'{' || ltrim(''");
    for member in members {
        statement.sql(" || coalesce(");
        statement.text(format!(",{}:", serde_json::Value::from(member))).sql(" || (");
        dialect.push_member(statement, member);
        statement.sql("), '')");
    }
    statement.sql(", ',') || '}'");
}

/// Appends `{"field": record, …}` for the reference fields of `include`; null where there is no such record.
pub(super) fn push_included(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    include: &[String],
) -> Result<()> {
    if include.is_empty() {
        statement.sql("CAST(NULL AS text) AS included");
        return Ok(());
    }
    statement.sql("'{'");
    for (at, field) in include.iter().enumerate() {
        let Some(target) = collection.references.get(field) else {
            return Err(Error::internal(format!("{field:?} of {} is not a reference", collection.name)));
        };
        let column = Column::of(dialect, collection, field)?;
        let comma = if at == 0 { "" } else { "," };
        statement.sql(format!(
            " || '{comma}\"{field}\":' || coalesce((SELECT {} FROM {} WHERE {} AND target.id = {}), 'null')",
            dialect.document("target"),
            dialect.table(target, "target"),
            is_in(target, "target"),
            column.value
        ));
    }
    statement.sql(" || '}' AS included");
    Ok(())
}

/// Adds a member to the end of an object's text.
pub(super) fn splice(document: &mut String, member: &str, value: &str) {
    if document.ends_with('}') {
        document.truncate(document.len() - 1);
        let comma = if document.ends_with('{') { "" } else { "," };
        document.push_str(&format!("{comma}\"{member}\":{value}}}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_spliced_into_an_object_with_or_without_others() {
        let mut document = r#"{"a":{}}"#.to_owned();
        splice(&mut document, "_include", r#"{"b":null}"#);
        assert_eq!(document, r#"{"a":{},"_include":{"b":null}}"#);
        let mut empty = "{}".to_owned();
        splice(&mut empty, "x", "1");
        assert_eq!(empty, r#"{"x":1}"#);
    }
}
