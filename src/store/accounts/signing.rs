//! Keys that access tokens are signed with.

use std::fmt;
use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use futures_util::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::Store;
use super::super::connection::{Access, Connection};
use super::super::failure::Failure;
use super::super::statement::Statement;
use super::mark;
use crate::error::Result;

/// A signing key.
#[derive(Clone)]
pub struct SigningKey {
    /// What tokens name it by.
    pub kid: String,
    /// What it signs by, as JOSE spells it.
    pub algorithm: String,
    /// The private key, as `auth` spells it.
    pub private: SecretString,
    /// When it was made.
    pub created_at: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[derive(QueryableByName)]
struct SigningRow {
    #[diesel(sql_type = Text)]
    kid: String,
    #[diesel(sql_type = Text)]
    algorithm: String,
    #[diesel(sql_type = Text)]
    private: String,
    #[diesel(sql_type = Text)]
    created_at: String,
}

impl Store {
    /// All signing keys, the newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        self.run("signing_keys", "", Access::Read, |connection| all(connection).boxed()).await
    }

    /// Adds `offered` unless there is a key that was made after `after`, and removes those that were made before `old`; returns what
    /// there is then, the newest first. Of several that do it at once one adds its key.
    pub async fn signing_keys_renew(&self, offered: SigningKey, after: &str, old: &str) -> Result<Vec<SigningKey>> {
        let request = Arc::new((offered, after.to_owned(), old.to_owned()));
        self.run("signing_keys_renew", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (offered, after, old) = &*request;
                let lock = connection.dialect().lock_to_write();
                mark(connection, lock).await?;
                let stored = all(connection).await?;
                if stored.iter().any(|key| key.created_at > *after) {
                    return Ok(stored);
                }
                let mut delete = Statement::new("DELETE FROM signing_keys WHERE created_at < ");
                delete.text(old);
                connection.execute(delete).await?;
                let mut insert = Statement::new("INSERT INTO signing_keys (kid, algorithm, private, created_at) VALUES (");
                insert.text(&offered.kid).sql(", ").text(&offered.algorithm).sql(", ");
                insert.text(offered.private.expose_secret()).sql(", ").text(&offered.created_at).sql(")");
                connection.execute(insert).await?;
                all(connection).await
            }
            .boxed()
        })
        .await
    }
}

async fn all(connection: &mut Connection<'_>) -> Result<Vec<SigningKey>, Failure> {
    let query = "SELECT kid, algorithm, private, created_at FROM signing_keys ORDER BY created_at DESC, kid";
    let rows: Vec<SigningRow> = connection.load(Statement::new(query)).await?;
    let key = |row: SigningRow| SigningKey {
        kid: row.kid,
        algorithm: row.algorithm,
        private: row.private.into(),
        created_at: row.created_at,
    };
    Ok(rows.into_iter().map(key).collect())
}
