//! Who Terrace knows: users, API keys, sessions and signing keys. What outdates a cached principal is written to the change log in
//! the same transaction, like the change of a record, and without any secret; so whatever holds for records holds for principals.
//!
//! Whoever makes something that acts for a user locks the user's row first, and whoever changes a user does: what is made meanwhile is
//! made before the change, and is seen by it, or after it, and sees it.

mod copy;
mod keys;
mod logged;
mod sessions;
mod signing;
mod users;

pub use copy::AccountRows;
pub use keys::{ApiKey, KeyHolder, NewKey};
pub use logged::{KEYS, SESSIONS, USERS};
pub use sessions::{NewSession, Rotation, Rotator, Session, SessionHolder};
pub use signing::SigningKey;
pub use users::{NewUser, User, UserState};

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;

use super::connection::Connection;
use super::failure::Failure;
use super::statement::Statement;
use crate::error::{Error, Result};
use crate::model::Role;

/// The name of the row that is locked by who makes a signing key or the first key of all.
const MARK: &str = "accounts";

#[derive(QueryableByName)]
struct ValueRow {
    #[diesel(sql_type = Text)]
    value: String,
}

/// The mark; `lock` locks its row.
async fn mark(connection: &mut Connection<'_>, lock: &'static str) -> Result<String, Failure> {
    let mut statement = Statement::new("SELECT value FROM installation WHERE name = ");
    statement.text(MARK).sql(lock);
    let rows: Vec<ValueRow> = connection.load(statement).await?;
    let row = rows.into_iter().next().ok_or_else(|| Error::internal("the mark of the accounts is missing"))?;
    Ok(row.value)
}

fn stored_role(text: &str) -> Result<Role> {
    text.parse().map_err(Error::internal)
}
