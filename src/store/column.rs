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
    /// Whether records may lack it.
    pub nullable: bool,
}

impl Column {
    /// The field `name` of `collection`. Fields are checked where queries are parsed, so an unknown one is a mistake
    /// of the house.
    pub fn of(dialect: &dyn Dialect, collection: &Collection, name: &str) -> Result<Self> {
        let own = |scalar| Self {
            value: name.to_owned(),
            json: name.to_owned(),
            kind: Field { scalar, array: false },
            nullable: false,
        };
        match name {
            _ if name == collection.id_field() => Ok(Self { value: "id".into(), json: "id".into(), ..own(ScalarType::Text) }),
            ServerFields::VERSION => Ok(own(ScalarType::Integer)),
            ServerFields::CREATED_AT | ServerFields::UPDATED_AT => Ok(own(ScalarType::Timestamp)),
            _ => match collection.fields.get(name) {
                Some(kind) if is_safe_name(name) => {
                    Ok(Self { value: dialect.value(name, *kind), json: dialect.json(name), kind: *kind, nullable: true })
                }
                Some(_) | None => Err(Error::internal(format!("{} has no field {name:?} that SQL can name", collection.name))),
            },
        }
    }
}
