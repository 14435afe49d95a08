//! Which installation this is: an id that is made once and stays with the database, so that what several installations
//! keep in one place elsewhere is told apart; and a secret, so that what an installation keeps elsewhere is known to be its own.

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use futures_util::FutureExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Store;
use super::connection::{Access, Connection};
use super::failure::Failure;
use super::statement::Statement;
use crate::error::{Error, Result};

/// The name of the id among the marks of the installation.
pub(super) const ID: &str = "id";

/// The name of the secret among them.
const SECRET: &str = "secret";

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Store {
    /// The id of the installation, the same for every process and at any time. Made if nobody has asked before; of
    /// several that ask first at once, one makes it.
    pub async fn installation_id(&self) -> Result<String> {
        self.made_once(ID, Uuid::now_v7().to_string()).await
    }

    /// What only processes of the installation know: `offered`, unless somebody offered something before.
    pub async fn installation_secret(&self, offered: SecretString) -> Result<SecretString> {
        Ok(self.made_once(SECRET, offered.expose_secret().to_owned()).await?.into())
    }

    async fn made_once(&self, name: &'static str, offered: String) -> Result<String> {
        // Reading alone comes first: a database that takes no writes for now still says which it is.
        if let Some(value) =
            self.run("installation", "", Access::Read, move |connection| stored(connection, name).boxed()).await?
        {
            return Ok(value);
        }
        self.run("installation", "", Access::Write, move |connection| {
            let offered = offered.clone();
            async move {
                let mut statement = Statement::new("INSERT INTO installation (name, value) VALUES (");
                statement.text(name).sql(", ").text(offered).sql(") ON CONFLICT (name) DO NOTHING");
                connection.execute(statement).await?;
                let value = stored(connection, name).await?;
                Ok(value.ok_or_else(|| Error::internal(format!("the installation's {name} was not stored")))?)
            }
            .boxed()
        })
        .await
    }
}

async fn stored(connection: &mut Connection<'_>, name: &str) -> Result<Option<String>, Failure> {
    let mut statement = Statement::new("SELECT value FROM installation WHERE name = ");
    statement.text(name);
    let rows: Vec<IdRow> = connection.load(statement).await?;
    Ok(rows.into_iter().next().map(|row| row.value))
}
