//! Fields as SQL expressions. The server's own fields are columns, all others are members of `data`.

use super::dialect::{Dialect, is_safe_name};
use crate::error::{Error, Result};
use crate::model::{Collection, Field, ScalarType, ServerFields};

/// A field in SQL.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// As a value that compares as the field's type does.
    pub value: String,
    /// As JSON.
    pub json: String,
    /// The field's type.
    pub kind: Field,
    /// Whether records may lack it. The server's own fields and the id are columns, which they never lack.
    pub nullable: bool,
}

impl Column {
    /// The field `name` of `collection` in a query, where other tables may have columns of that name.
    pub fn of(dialect: &dyn Dialect, collection: &Collection, name: &str) -> Result<Self> {
        Self::in_row(dialect, collection, name, "records.")
    }

    /// The same in the definition of an index, which knows no other table.
    pub fn in_index(dialect: &dyn Dialect, collection: &Collection, name: &str) -> Result<Self> {
        Self::in_row(dialect, collection, name, "")
    }

    /// Fields are checked where queries are parsed, so an unknown one is a mistake of the house.
    fn in_row(dialect: &dyn Dialect, collection: &Collection, name: &str, row: &str) -> Result<Self> {
        let own = |column: &str, scalar| Self {
            value: format!("{row}{column}"),
            json: format!("{row}{column}"),
            kind: Field { scalar, array: false },
            nullable: false,
        };
        match name {
            _ if name == collection.id_field() => Ok(own("id", ScalarType::Text)),
            ServerFields::VERSION => Ok(own(name, ScalarType::Integer)),
            ServerFields::CREATED_AT | ServerFields::UPDATED_AT => Ok(own(name, ScalarType::Timestamp)),
            _ => match collection.fields.get(name) {
                Some(kind) if is_safe_name(name) => Ok(Self {
                    value: dialect.value(row, name, *kind),
                    json: dialect.json(row, name),
                    kind: *kind,
                    nullable: true,
                }),
                Some(_) | None => Err(Error::internal(format!("{} has no field {name:?} that SQL can name", collection.name))),
            },
        }
    }
}
