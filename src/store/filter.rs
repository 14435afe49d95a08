//! Filters in SQL. A missing member and a JSON null are both SQL's null, as [`crate::model::Test`] wants it.

use super::column::Column;
use super::contract::Owner;
use super::dialect::{Dialect, is_safe_name, push_is_in};
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::{Collection, Condition, Field, Filter, Scalar, ScalarType, Test};

/// Appends the condition that a record is one of the collection's, and that `filter` selects it.
pub(super) fn push_selection(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    filter: Option<&Filter>,
) -> Result<()> {
    push_is_in(statement, &collection.name, "records");
    match filter {
        // The outermost conjunction is spelled without parentheses around it: each part is a term of its own to the planner.
        Some(Filter::All(parts)) => parts.iter().try_for_each(|part| {
            statement.sql(" AND ");
            push_filter(statement, dialect, collection, part)
        }),
        Some(filter) => {
            statement.sql(" AND ");
            push_filter(statement, dialect, collection, filter)
        }
        None => Ok(()),
    }
}

/// Appends `AND` the condition that a record is the owner's, if there is one. It is spelled as a filter of the field would be, and
/// so read along the field's index.
pub(super) fn push_owner(statement: &mut Statement, dialect: &dyn Dialect, owner: Option<&Owner>) -> Result<()> {
    let Some(Owner { field, subject }) = owner else { return Ok(()) };
    if !is_safe_name(field) {
        return Err(Error::internal(format!("the field {field:?} cannot stand in SQL")));
    }
    let value = dialect.value("records.", field, Field { scalar: ScalarType::Text, array: false });
    statement.sql(format!(" AND {value} = ")).text(subject.as_str());
    Ok(())
}

fn push_filter(statement: &mut Statement, dialect: &dyn Dialect, collection: &Collection, filter: &Filter) -> Result<()> {
    match filter {
        Filter::Test(condition) => push_condition(statement, dialect, collection, condition),
        Filter::All(parts) => push_parts(statement, dialect, collection, parts, Junction { word: " AND ", empty: "1 = 1" }),
        Filter::Any(parts) => push_parts(statement, dialect, collection, parts, Junction { word: " OR ", empty: "1 = 0" }),
    }
}

#[derive(Clone, Copy)]
struct Junction {
    word: &'static str,
    empty: &'static str,
}

/// Nested in halves, so that a thousand parts are ten levels deep: SQLite refuses expressions deeper than 1,000.
fn push_parts(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    parts: &[Filter],
    junction: Junction,
) -> Result<()> {
    match parts {
        [] => _ = statement.sql(junction.empty),
        [only] => push_filter(statement, dialect, collection, only)?,
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            statement.sql("(");
            push_parts(statement, dialect, collection, left, junction)?;
            statement.sql(junction.word);
            push_parts(statement, dialect, collection, right, junction)?;
            statement.sql(")");
        }
    }
    Ok(())
}

fn push_condition(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    condition: &Condition,
) -> Result<()> {
    let column = Column::of(dialect, collection, &condition.field)?;
    refuse_nul(&condition.field, condition.test.scalars())?;
    if column.kind.array {
        return push_array_test(statement, dialect, collection, &column, condition);
    }
    let value = &column.value;
    let compare = |statement: &mut Statement, operator: &'static str, scalar: &Scalar| {
        statement.sql(format!("{value} {operator} "));
        dialect.push_scalar(statement, scalar);
    };
    match &condition.test {
        Test::Eq(scalar) => compare(statement, "=", scalar),
        Test::Ne(scalar) => compare(statement, "IS DISTINCT FROM", scalar),
        Test::Gt(scalar) => compare(statement, ">", scalar),
        Test::Gte(scalar) => compare(statement, ">=", scalar),
        Test::Lt(scalar) => compare(statement, "<", scalar),
        Test::Lte(scalar) => compare(statement, "<=", scalar),
        Test::In(scalars) => {
            statement.sql(value.clone());
            dialect.push_in(statement, &column, scalars);
        }
        // One value that equals several different ones: nothing, but said by the database.
        Test::All(scalars) => push_each(statement, scalars, |statement, scalar| compare(statement, "=", scalar)),
        Test::Null(is_null) => _ = statement.sql(null_test(value, *is_null)),
    }
    Ok(())
}

/// No stored text has the character U+0000, and PostgreSQL takes none as a value either.
pub(super) fn refuse_nul<'s>(parameter: &str, scalars: impl IntoIterator<Item = &'s Scalar>) -> Result<()> {
    let has_nul = |scalar: &Scalar| matches!(scalar, Scalar::Text(text) if text.contains('\0'));
    match scalars.into_iter().any(has_nul) {
        true => Err(Error::parameter(parameter, "A text has no character U+0000.")),
        false => Ok(()),
    }
}

fn push_array_test(
    statement: &mut Statement,
    dialect: &dyn Dialect,
    collection: &Collection,
    column: &Column,
    condition: &Condition,
) -> Result<()> {
    let field = &condition.field;
    match &condition.test {
        Test::Eq(scalar) => dialect.push_array_has(statement, collection, field, std::slice::from_ref(scalar)),
        Test::Ne(scalar) => {
            // Records without the field do not have the value either.
            statement.sql("(");
            dialect.push_array_has(statement, collection, field, std::slice::from_ref(scalar));
            statement.sql(") IS NOT TRUE");
        }
        Test::In(scalars) => dialect.push_array_has(statement, collection, field, scalars),
        Test::All(scalars) => push_each(statement, scalars, |statement, scalar| {
            dialect.push_array_has(statement, collection, field, std::slice::from_ref(scalar));
        }),
        Test::Null(is_null) => _ = statement.sql(null_test(&column.value, *is_null)),
        Test::Gt(_) | Test::Gte(_) | Test::Lt(_) | Test::Lte(_) => {
            let detail = format!("{field} is a list: it has no order. Allowed are eq, ne, in, any, all and null.");
            return Err(Error::parameter(field, detail));
        }
    }
    Ok(())
}

fn null_test(value: &str, is_null: bool) -> String {
    format!("{value} IS {}", if is_null { "NULL" } else { "NOT NULL" })
}

fn push_each(statement: &mut Statement, scalars: &[Scalar], push: impl Fn(&mut Statement, &Scalar)) {
    if scalars.is_empty() {
        statement.sql("1 = 1");
    }
    for (at, scalar) in scalars.iter().enumerate() {
        if at > 0 {
            statement.sql(" AND ");
        }
        push(statement, scalar);
    }
}
