//! Which installation this is: an id that is made once and stays with the database, so that what several installations
//! keep in one place elsewhere is told apart.

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::Store;
use super::connection::{Access, Connection};
use super::failure::Failure;
use super::statement::Statement;
use crate::error::{Error, Result};

/// The name of the id among the marks of the installation.
pub(super) const ID: &str = "id";

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Store {
    /// The id of the installation, the same for every process and at any time. Made if nobody has asked before; of
    /// several that ask first at once, one makes it.
    pub async fn installation_id(&self) -> Result<String> {
        // Reading alone comes first: a database that takes no writes for now still says which it is.
        if let Some(id) = self.run("installation_id", "", Access::Read, |connection| stored(connection).boxed()).await? {
            return Ok(id);
        }
        let offered = Uuid::now_v7().to_string();
        self.run("installation_id", "", Access::Write, move |connection| {
            let offered = offered.clone();
            async move {
                let mut statement = Statement::new("INSERT INTO installation (name, value) VALUES (");
                statement.text(ID).sql(", ").text(offered).sql(") ON CONFLICT (name) DO NOTHING");
                connection.execute(statement).await?;
                Ok(stored(connection).await?.ok_or_else(|| Error::internal("the installation's id was not stored"))?)
            }
            .boxed()
        })
        .await
    }
}

async fn stored(connection: &mut Connection<'_>) -> Result<Option<String>, Failure> {
    let mut statement = Statement::new("SELECT value FROM installation WHERE name = ");
    statement.text(ID);
    let rows: Vec<IdRow> = connection.load(statement).await?;
    Ok(rows.into_iter().next().map(|row| row.value))
}
