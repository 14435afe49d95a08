//! Sessions: a login, and the refresh tokens that follow from it.

use std::fmt;
use std::net::IpAddr;
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
use super::{stored_role, users};
use crate::error::Result;
use crate::model::{Change, Operation, Role};

/// A session as stored. All but times and ids are hashes, or mean nothing without a token.
#[derive(Clone)]
pub struct Session {
    /// A UUIDv7.
    pub id: String,
    /// The hash of what all its refresh tokens have in common.
    pub family: String,
    /// The hash of the newest refresh token.
    pub newest: String,
    /// The hash of the one before.
    pub previous: Option<String>,
    /// By what the newest follows from the one before.
    pub step: Option<String>,
    /// Since when the newest is the newest.
    pub rotated_at: String,
    /// When it ends by itself.
    pub expires_at: String,
    /// When it was ended.
    pub ended_at: Option<String>,
    /// Whose it is.
    pub holder: SessionHolder,
}

/// Whose a session is.
#[derive(Clone, Debug)]
pub struct SessionHolder {
    /// The user's id.
    pub id: String,
    /// What the user may do.
    pub role: Role,
    /// Since when the user may do nothing.
    pub disabled_at: Option<String>,
}

/// A session to be begun.
#[derive(Clone)]
pub struct NewSession {
    /// A UUIDv7.
    pub id: String,
    /// The id of its user.
    pub user: String,
    /// The hash of what all its refresh tokens have in common.
    pub family: String,
    /// The hash of its first refresh token.
    pub newest: String,
    /// When it ends by itself.
    pub expires_at: String,
}

/// What becomes of a session whose refresh token was sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing.
    Keep,
    /// It has a new refresh token.
    Next {
        /// Its hash.
        newest: String,
        /// By what it follows from the one that was sent.
        step: String,
    },
    /// It ends.
    End(&'static str),
}

/// Decides what becomes of a session, inside of the transaction; it may be asked again.
pub type Rotator = Arc<dyn Fn(Option<&Session>) -> Rotation + Send + Sync>;

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(QueryableByName)]
struct SessionRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    family: String,
    #[diesel(sql_type = Text)]
    newest: String,
    #[diesel(sql_type = Nullable<Text>)]
    previous: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    step: Option<String>,
    #[diesel(sql_type = Text)]
    rotated_at: String,
    #[diesel(sql_type = Text)]
    expires_at: String,
    #[diesel(sql_type = Nullable<Text>)]
    ended_at: Option<String>,
    #[diesel(sql_type = Text)]
    user_id: String,
    #[diesel(sql_type = Text)]
    user_role: String,
    #[diesel(sql_type = Nullable<Text>)]
    user_disabled_at: Option<String>,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Text)]
    #[expect(dead_code, reason = "only the lock counts")]
    id: String,
}

const SELECT: &str = "SELECT sessions.id, sessions.family, sessions.newest, sessions.previous, sessions.step, sessions.rotated_at, \
     sessions.expires_at, sessions.ended_at, users.id AS user_id, users.role AS user_role, users.disabled_at AS user_disabled_at \
     FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.id = ";

impl SessionRow {
    fn into_session(self) -> Result<Session> {
        Ok(Session {
            holder: SessionHolder { id: self.user_id, role: stored_role(&self.user_role)?, disabled_at: self.user_disabled_at },
            id: self.id,
            family: self.family,
            newest: self.newest,
            previous: self.previous,
            step: self.step,
            rotated_at: self.rotated_at,
            expires_at: self.expires_at,
            ended_at: self.ended_at,
        })
    }
}

impl Store {
    /// Begins a session, unless the user may do nothing by now or has another password than the one whose hash is `password_hash`:
    /// then `None`.
    pub async fn session_insert(
        &self,
        session: NewSession,
        password_hash: SecretString,
        origin: Option<IpAddr>,
        now: &str,
    ) -> Result<Option<Vec<Change>>> {
        let request = Arc::new((session, password_hash, now.to_owned()));
        self.run("session_insert", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (session, password_hash, now) = &*request;
                // Whoever disables the user waits, or was first.
                let user = users::locked_by_id(connection, &session.user).await?;
                let is_valid = user.is_some_and(|user| {
                    user.disabled_at.is_none() && user.password_hash.expose_secret() == password_hash.expose_secret()
                });
                if !is_valid {
                    return Ok(None);
                }
                let mut old = Statement::new("DELETE FROM sessions WHERE user_id = ");
                old.text(&session.user).sql(" AND expires_at < ").text(now);
                connection.execute(old).await?;
                let mut insert = Statement::new(
                    "INSERT INTO sessions (id, user_id, family, newest, created_at, rotated_at, expires_at) VALUES (",
                );
                insert.text(&session.id).sql(", ").text(&session.user).sql(", ").text(&session.family).sql(", ");
                insert.text(&session.newest).sql(", ").text(now).sql(", ").text(now).sql(", ").text(&session.expires_at).sql(")");
                connection.execute(insert).await?;
                let author = Author { actor: format!("user:{}", session.user), origin };
                let event = Event::of_session(&session.id, Operation::Create, "login");
                logged::log(connection, &author, now, &[event]).await.map(Some)
            }
            .boxed()
        })
        .await
    }

    /// The session, and whose it is.
    pub async fn session_read(&self, id: &str) -> Result<Option<Session>> {
        let request: Arc<str> = id.into();
        self.run("session_read", "", Access::Read, move |connection| {
            let id = Arc::clone(&request);
            async move { read(connection, &id).await }.boxed()
        })
        .await
    }

    /// Does with the session `id` what `decide` says, which may be asked again; two requests at once are one after the other. Returns
    /// the changes.
    pub async fn session_rotate(&self, id: &str, origin: Option<IpAddr>, now: &str, decide: Rotator) -> Result<Vec<Change>> {
        let request = Arc::new((id.to_owned(), now.to_owned(), decide));
        self.run("session_rotate", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (id, now, decide) = &*request;
                // The user's row is not locked: who disables the user ends this session too, and waits for it.
                let mut lock = Statement::new("SELECT id FROM sessions WHERE id = ");
                lock.text(id).sql(connection.dialect().lock_to_write());
                let _locked: Vec<IdRow> = connection.load(lock).await?;
                let session = read(connection, id).await?;
                let rotation = decide(session.as_ref());
                let Some(session) = session else { return Ok(Vec::new()) };
                match rotation {
                    Rotation::Keep => Ok(Vec::new()),
                    Rotation::Next { newest, step } => {
                        let mut update = Statement::new("UPDATE sessions SET previous = newest, newest = ");
                        update.text(newest).sql(", step = ").text(step).sql(", rotated_at = ").text(now);
                        update.sql(" WHERE id = ").text(id);
                        connection.execute(update).await?;
                        Ok(Vec::new())
                    }
                    Rotation::End(what) => {
                        let mut update = Statement::new("UPDATE sessions SET ended_at = ");
                        update.text(now).sql(" WHERE id = ").text(id);
                        connection.execute(update).await?;
                        let author = Author { actor: format!("user:{}", session.holder.id), origin };
                        logged::log(connection, &author, now, &[Event::of_session(id, Operation::Update, what)]).await
                    }
                }
            }
            .boxed()
        })
        .await
    }
}

async fn read(connection: &mut Connection<'_>, id: &str) -> Result<Option<Session>, Failure> {
    let mut statement = Statement::new(SELECT);
    statement.text(id);
    let rows: Vec<SessionRow> = connection.load(statement).await?;
    Ok(rows.into_iter().next().map(SessionRow::into_session).transpose()?)
}
