//! API keys.

use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use futures_util::FutureExt as _;

use super::super::Store;
use super::super::connection::{Access, Connection};
use super::super::contract::Author;
use super::super::failure::Failure;
use super::super::statement::Statement;
use super::logged::{self, Event};
use super::{MARK, mark, stored_role, users};
use crate::error::{Error, Result};
use crate::model::{Change, Operation, Quota, Role, Scope};

/// An API key as stored.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// What it is found by, and named by.
    pub prefix: String,
    /// What its owner calls it.
    pub name: String,
    /// The hash of its secret, as `auth` spells it.
    pub hash: String,
    /// What it may do at most.
    pub role: Role,
    /// What it may do of that; `None` for all of it.
    pub scopes: Option<Vec<Scope>>,
    /// How often it may ask, if it has a quota of its own.
    pub quota: Option<Quota>,
    /// When it was made.
    pub created_at: String,
    /// When it ends by itself.
    pub expires_at: Option<String>,
    /// When it was ended.
    pub revoked_at: Option<String>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<String>,
    /// For whom it acts.
    pub holder: Option<KeyHolder>,
}

/// The user for whom a key acts.
#[derive(Clone, Debug)]
pub struct KeyHolder {
    /// The user's id.
    pub id: String,
    /// The user's address.
    pub email: String,
    /// What the user may do, and so the key at most.
    pub role: Role,
    /// Since when the user, and so the key, may do nothing.
    pub disabled_at: Option<String>,
}

/// An API key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What it is found by.
    pub prefix: String,
    /// What its owner calls it.
    pub name: String,
    /// The hash of its secret.
    pub hash: String,
    /// What it may do at most.
    pub role: Role,
    /// The address of the user for whom it acts.
    pub user: Option<String>,
    /// What it may do of its role; `None` for all of it.
    pub scopes: Option<Vec<Scope>>,
    /// Its own quota.
    pub quota: Option<Quota>,
    /// When it ends by itself.
    pub expires_at: Option<String>,
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Text)]
    prefix: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    hash: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Nullable<Text>)]
    scopes: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    quota: Option<String>,
    #[diesel(sql_type = Text)]
    created_at: String,
    #[diesel(sql_type = Nullable<Text>)]
    expires_at: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    revoked_at: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    last_used_at: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    user_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    user_email: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    user_role: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    user_disabled_at: Option<String>,
}

const SELECT: &str = "SELECT api_keys.prefix, api_keys.name, api_keys.hash, api_keys.role, api_keys.scopes, api_keys.quota, \
     api_keys.created_at, api_keys.expires_at, api_keys.revoked_at, api_keys.last_used_at, users.id AS user_id, \
     users.email AS user_email, users.role AS user_role, users.disabled_at AS user_disabled_at \
     FROM api_keys LEFT JOIN users ON users.id = api_keys.user_id";

impl KeyRow {
    fn into_key(self) -> Result<ApiKey> {
        let scopes = self.scopes.as_deref().map(parse_scopes).transpose()?;
        let quota = self.quota.as_deref().map(|text| text.parse().map_err(Error::internal)).transpose()?;
        let holder = match (self.user_id, self.user_email, self.user_role) {
            (Some(id), Some(email), Some(role)) => {
                Some(KeyHolder { id, email, role: stored_role(&role)?, disabled_at: self.user_disabled_at })
            }
            _ => None,
        };
        Ok(ApiKey {
            prefix: self.prefix,
            name: self.name,
            hash: self.hash,
            role: stored_role(&self.role)?,
            scopes,
            quota,
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
            holder,
        })
    }
}

fn parse_scopes(text: &str) -> Result<Vec<Scope>> {
    let texts: Vec<String> = serde_json::from_str(text).map_err(Error::internal)?;
    texts.iter().map(|text| text.parse().map_err(Error::internal)).collect()
}

impl Store {
    /// Makes a key. Fails if the user for whom it shall act is not there, or may do nothing.
    pub async fn key_insert(&self, key: NewKey, author: &Author, now: &str) -> Result<Vec<Change>> {
        let request = Arc::new((key, author.clone(), now.to_owned()));
        self.run("key_insert", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move { insert(connection, &request.0, &request.1, &request.2).await }.boxed()
        })
        .await
    }

    /// Makes the first key of all; `None` if there has been one, or there are keys or users. Of several that ask at once one
    /// makes it.
    pub async fn key_insert_first(&self, key: NewKey, author: &Author, now: &str) -> Result<Option<Vec<Change>>> {
        // Reading alone comes first: a database that takes no writes for now can be served.
        if !self.run("key_insert_first", "", Access::Read, |connection| mark(connection, "").boxed()).await?.is_empty() {
            return Ok(None);
        }
        let request = Arc::new((key, author.clone(), now.to_owned()));
        self.run("key_insert_first", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (key, author, now) = &*request;
                let lock = connection.dialect().lock_to_write();
                if !mark(connection, lock).await?.is_empty() {
                    return Ok(None);
                }
                let mut made = Statement::new("UPDATE installation SET value = 'made' WHERE name = ");
                made.text(MARK);
                connection.execute(made).await?;
                let known = "SELECT prefix AS name FROM api_keys UNION ALL SELECT id AS name FROM users LIMIT 1";
                let known: Vec<NameRow> = connection.load(Statement::new(known)).await?;
                if known.iter().any(|row| !row.name.is_empty()) {
                    return Ok(None);
                }
                insert(connection, key, author, now).await.map(Some)
            }
            .boxed()
        })
        .await
    }

    /// The key with this prefix, and for whom it acts.
    pub async fn key_read(&self, prefix: &str) -> Result<Option<ApiKey>> {
        let request: Arc<str> = prefix.into();
        self.run("key_read", "", Access::Read, move |connection| {
            let prefix = Arc::clone(&request);
            async move {
                let mut statement = Statement::new(format!("{SELECT} WHERE api_keys.prefix = "));
                statement.text(&*prefix);
                let rows: Vec<KeyRow> = connection.load(statement).await?;
                Ok(rows.into_iter().next().map(KeyRow::into_key).transpose()?)
            }
            .boxed()
        })
        .await
    }

    /// All keys, the oldest first.
    pub async fn key_list(&self) -> Result<Vec<ApiKey>> {
        self.run("key_list", "", Access::Read, |connection| {
            async move {
                let statement = Statement::new(format!("{SELECT} ORDER BY api_keys.created_at, api_keys.prefix"));
                let rows: Vec<KeyRow> = connection.load(statement).await?;
                Ok(rows.into_iter().map(KeyRow::into_key).collect::<Result<_>>()?)
            }
            .boxed()
        })
        .await
    }

    /// Ends a key. `None` if there is no such key; no change if it was ended before.
    pub async fn key_revoke(&self, prefix: &str, author: &Author, now: &str) -> Result<Option<Vec<Change>>> {
        let request = Arc::new((prefix.to_owned(), author.clone(), now.to_owned()));
        self.run("key_revoke", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (prefix, author, now) = &*request;
                let mut update = Statement::new("UPDATE api_keys SET revoked_at = ");
                update.text(now).sql(" WHERE revoked_at IS NULL AND prefix = ").text(prefix);
                if connection.execute(update).await? > 0 {
                    let event = Event::of_key(prefix, Operation::Update, "revoked");
                    return logged::log(connection, author, now, &[event]).await.map(Some);
                }
                let mut statement = Statement::new("SELECT prefix AS name FROM api_keys WHERE prefix = ");
                statement.text(prefix);
                let found: Vec<NameRow> = connection.load(statement).await?;
                Ok(found.first().map(|_| Vec::new()))
            }
            .boxed()
        })
        .await
    }

    /// Notes that a key was used, unless that was noted after `before`. It is no change: nothing depends on it.
    pub async fn key_used(&self, prefix: &str, now: &str, before: &str) -> Result<()> {
        let request = Arc::new((prefix.to_owned(), now.to_owned(), before.to_owned()));
        self.run("key_used", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (prefix, now, before) = &*request;
                let mut update = Statement::new("UPDATE api_keys SET last_used_at = ");
                update.text(now).sql(" WHERE prefix = ").text(prefix);
                update.sql(" AND (last_used_at IS NULL OR last_used_at < ").text(before).sql(")");
                connection.execute(update).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }
}

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

async fn insert(connection: &mut Connection<'_>, key: &NewKey, author: &Author, now: &str) -> Result<Vec<Change>, Failure> {
    let user = match &key.user {
        None => None,
        Some(email) => {
            let user = users::locked_by_email(connection, email).await?;
            let user = user.ok_or_else(|| Error::not_found(format!("There is no user {email:?}.")))?;
            if user.disabled_at.is_some() {
                let detail = format!("The user {email:?} is disabled, and so would be the key.");
                return Err(Error::conflict("user_disabled", detail).into());
            }
            Some(user.id)
        }
    };
    let scopes = key.scopes.as_ref().map(|scopes| {
        let texts: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        serde_json::Value::from(texts).to_string()
    });
    let mut statement = Statement::new(
        "INSERT INTO api_keys (prefix, name, hash, role, user_id, scopes, quota, created_at, expires_at) VALUES (",
    );
    statement.text(&key.prefix).sql(", ").text(&key.name).sql(", ").text(&key.hash).sql(", ").text(key.role.as_str());
    statement.sql(", ").optional_text(user).sql(", ").optional_text(scopes);
    statement.sql(", ").optional_text(key.quota.as_ref().map(Quota::to_string)).sql(", ").text(now);
    statement.sql(", ").optional_text(key.expires_at.clone()).sql(")");
    connection.execute(statement).await?;
    logged::log(connection, author, now, &[Event::of_key(&key.prefix, Operation::Create, "created")]).await
}
