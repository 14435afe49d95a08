//! Users.

use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use futures_util::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::Store;
use super::super::connection::{Access, Connection};
use super::super::contract::Author;
use super::super::failure::Failure;
use super::super::statement::Statement;
use super::logged::{self, Event};
use super::stored_role;
use crate::error::{Error, Result};
use crate::model::{Change, Operation, Role};

/// A user as stored.
#[derive(Clone, Debug)]
pub struct User {
    /// A UUIDv7.
    pub id: String,
    /// Lower-cased.
    pub email: String,
    /// As `auth` spells it.
    pub password_hash: SecretString,
    /// What the user may do.
    pub role: Role,
    /// When the user was added.
    pub created_at: String,
    /// Since when the user may do nothing.
    pub disabled_at: Option<String>,
}

/// A user to be added.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// A UUIDv7.
    pub id: String,
    /// Lower-cased.
    pub email: String,
    /// As `auth` spells it.
    pub password_hash: SecretString,
    /// What the user may do.
    pub role: Role,
}

/// Whether a user may do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// What the role allows.
    Active,
    /// Nothing.
    Disabled,
}

#[derive(QueryableByName)]
pub(super) struct UserRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    email: String,
    #[diesel(sql_type = Text)]
    password_hash: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    created_at: String,
    #[diesel(sql_type = Nullable<Text>)]
    disabled_at: Option<String>,
}

impl UserRow {
    pub fn into_user(self) -> Result<User> {
        Ok(User {
            role: stored_role(&self.role)?,
            id: self.id,
            email: self.email,
            password_hash: self.password_hash.into(),
            created_at: self.created_at,
            disabled_at: self.disabled_at,
        })
    }
}

const SELECT: &str = "SELECT id, email, password_hash, role, created_at, disabled_at FROM users";

#[derive(QueryableByName)]
struct PrefixRow {
    #[diesel(sql_type = Text)]
    prefix: String,
}

impl Store {
    /// Adds a user. Fails if there is one with this address.
    pub async fn user_insert(&self, user: NewUser, author: &Author, now: &str) -> Result<Vec<Change>> {
        let request = Arc::new((user, author.clone(), now.to_owned()));
        self.run("user_insert", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (user, author, now) = &*request;
                let mut insert =
                    Statement::new("INSERT INTO users (id, email, password_hash, role, created_at, updated_at) VALUES (");
                insert.text(&user.id).sql(", ").text(&user.email).sql(", ").text(user.password_hash.expose_secret());
                insert.sql(", ").text(user.role.as_str()).sql(", ").text(now).sql(", ").text(now);
                insert.sql(") ON CONFLICT (email) DO NOTHING");
                if connection.execute(insert).await? == 0 {
                    let detail = format!("There is a user {:?} already.", user.email);
                    return Err(Error::conflict("email_taken", detail).into());
                }
                logged::log(connection, author, now, &[Event::of_user(&user.id, Operation::Create, "added")]).await
            }
            .boxed()
        })
        .await
    }

    /// All users, by address.
    pub async fn user_list(&self) -> Result<Vec<User>> {
        self.run("user_list", "", Access::Read, |connection| {
            async move {
                let rows: Vec<UserRow> = connection.load(Statement::new(format!("{SELECT} ORDER BY email"))).await?;
                Ok(rows.into_iter().map(UserRow::into_user).collect::<Result<_>>()?)
            }
            .boxed()
        })
        .await
    }

    /// The user with this address.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let request: Arc<str> = email.into();
        self.run("user_by_email", "", Access::Read, move |connection| {
            let email = Arc::clone(&request);
            async move {
                let mut statement = Statement::new(format!("{SELECT} WHERE email = "));
                statement.text(&*email);
                one(connection, statement).await
            }
            .boxed()
        })
        .await
    }

    /// Lets a user act, or not any more; then the sessions end too. `None` if there is no such user; no change if nothing changes.
    pub async fn user_set_state(&self, email: &str, state: UserState, author: &Author, now: &str) -> Result<Option<Vec<Change>>> {
        let request = Arc::new((email.to_owned(), author.clone(), now.to_owned()));
        self.run("user_set_state", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (email, author, now) = &*request;
                let Some(user) = locked_by_email(connection, email).await? else { return Ok(None) };
                let (what, disabled_at) = match (state, &user.disabled_at) {
                    (UserState::Active, None) | (UserState::Disabled, Some(_)) => return Ok(Some(Vec::new())),
                    (UserState::Active, Some(_)) => ("enabled", None),
                    (UserState::Disabled, None) => ("disabled", Some(now.clone())),
                };
                let mut update = Statement::new("UPDATE users SET disabled_at = ");
                update.optional_text(disabled_at).sql(", updated_at = ").text(now).sql(" WHERE id = ").text(&user.id);
                connection.execute(update).await?;
                if state == UserState::Disabled {
                    end_sessions(connection, &user.id, now).await?;
                }
                log_with_keys(connection, author, now, &user.id, what).await.map(Some)
            }
            .boxed()
        })
        .await
    }

    /// Gives a user another password; the sessions end. `None` if there is no such user.
    pub async fn user_set_password(
        &self,
        email: &str,
        password_hash: SecretString,
        author: &Author,
        now: &str,
    ) -> Result<Option<Vec<Change>>> {
        let request = Arc::new((email.to_owned(), password_hash, author.clone(), now.to_owned()));
        self.run("user_set_password", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (email, password_hash, author, now) = &*request;
                let Some(user) = locked_by_email(connection, email).await? else { return Ok(None) };
                let mut update = Statement::new("UPDATE users SET password_hash = ");
                update.text(password_hash.expose_secret()).sql(", updated_at = ").text(now);
                update.sql(" WHERE id = ").text(&user.id);
                connection.execute(update).await?;
                end_sessions(connection, &user.id, now).await?;
                log_with_keys(connection, author, now, &user.id, "password changed").await.map(Some)
            }
            .boxed()
        })
        .await
    }
}

async fn one(connection: &mut Connection<'_>, statement: Statement) -> Result<Option<User>, Failure> {
    let rows: Vec<UserRow> = connection.load(statement).await?;
    Ok(rows.into_iter().next().map(UserRow::into_user).transpose()?)
}

/// The user, whom nobody else changes before this transaction ends.
pub(super) async fn locked_by_email(connection: &mut Connection<'_>, email: &str) -> Result<Option<User>, Failure> {
    let mut statement = Statement::new(format!("{SELECT} WHERE email = "));
    statement.text(email).sql(connection.dialect().lock_to_write());
    one(connection, statement).await
}

/// The same by id.
pub(super) async fn locked_by_id(connection: &mut Connection<'_>, id: &str) -> Result<Option<User>, Failure> {
    let mut statement = Statement::new(format!("{SELECT} WHERE id = "));
    statement.text(id).sql(connection.dialect().lock_to_write());
    one(connection, statement).await
}

/// What was cached of a session depends on its user, too, so the user's own change outdates it.
async fn end_sessions(connection: &mut Connection<'_>, user: &str, now: &str) -> Result<(), Failure> {
    let mut update = Statement::new("UPDATE sessions SET ended_at = ");
    update.text(now).sql(" WHERE ended_at IS NULL AND user_id = ").text(user);
    connection.execute(update).await?;
    Ok(())
}

/// A change of a user is one of each of the user's keys: what is cached of a key depends on the key alone.
async fn log_with_keys(
    connection: &mut Connection<'_>,
    author: &Author,
    now: &str,
    user: &str,
    what: &'static str,
) -> Result<Vec<Change>, Failure> {
    let mut statement = Statement::new("SELECT prefix FROM api_keys WHERE user_id = ");
    statement.text(user);
    let keys: Vec<PrefixRow> = connection.load(statement).await?;
    let mut events = vec![Event::of_user(user, Operation::Update, what)];
    events.extend(keys.iter().map(|key| Event::of_key(&key.prefix, Operation::Update, "its user changed")));
    logged::log(connection, author, now, &events).await
}
