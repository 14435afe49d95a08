//! Taking accounts along to another database: rows as they are, whatever they mean. All columns are texts.

use std::fmt;
use std::sync::Arc;

use diesel::prelude::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use futures_util::FutureExt as _;

use super::super::Store;
use super::super::connection::{Access, Connection};
use super::super::failure::Failure;
use super::super::statement::Statement;
use crate::error::Result;

/// The tables with their columns, each behind those that it refers to.
const TABLES: [(&str, &[&str]); 4] = [
    ("users", &["id", "email", "password_hash", "role", "created_at", "updated_at", "disabled_at"]),
    (
        "api_keys",
        &[
            "prefix",
            "name",
            "hash",
            "role",
            "user_id",
            "scopes",
            "quota",
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
        ],
    ),
    (
        "sessions",
        &["id", "user_id", "family", "newest", "previous", "step", "created_at", "rotated_at", "expires_at", "ended_at"],
    ),
    ("signing_keys", &["kid", "algorithm", "private", "created_at"]),
];

/// The rows of all tables. They hold secrets: nothing of them is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccountRows(Vec<(usize, Vec<Option<String>>)>);

impl fmt::Debug for AccountRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AccountRows({})", self.0.len())
    }
}

impl AccountRows {
    /// How many users and keys there are.
    pub fn accounts(&self) -> usize {
        self.0.iter().filter(|(table, _)| *table < 2).count()
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Nullable<Text>)]
    c0: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c1: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c2: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c3: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c4: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c5: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c6: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c7: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c8: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c9: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c10: Option<String>,
}

const WIDTH: usize = 11;

impl Row {
    fn into_columns(self, width: usize) -> Vec<Option<String>> {
        let Self { c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 } = self;
        [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10].into_iter().take(width).collect()
    }
}

impl Store {
    /// All rows.
    pub async fn copy_accounts(&self) -> Result<AccountRows> {
        self.run("copy_accounts", "", Access::Read, |connection| {
            async move {
                let mut rows = Vec::new();
                for (table, (name, columns)) in TABLES.iter().enumerate() {
                    let named =
                        (0..WIDTH).map(|at| format!("{} AS c{at}", columns.get(at).copied().unwrap_or("CAST(NULL AS text)")));
                    let named: Vec<String> = named.collect();
                    let key = columns.first().copied().unwrap_or_default();
                    let query = format!("SELECT {} FROM {name} ORDER BY {key}", named.join(", "));
                    let found: Vec<Row> = connection.load(Statement::new(query)).await?;
                    rows.extend(found.into_iter().map(|row| (table, row.into_columns(columns.len()))));
                }
                Ok(AccountRows(rows))
            }
            .boxed()
        })
        .await
    }

    /// Has these rows from now on, and no others.
    pub async fn copy_write_accounts(&self, rows: AccountRows) -> Result<()> {
        let request = Arc::new(rows);
        self.run("copy_write_accounts", "", Access::Write, move |connection| {
            let rows = Arc::clone(&request);
            async move { write(connection, &rows).await }.boxed()
        })
        .await
    }
}

async fn write(connection: &mut Connection<'_>, rows: &AccountRows) -> Result<(), Failure> {
    for (name, _) in TABLES.iter().rev() {
        connection.execute(Statement::new(format!("DELETE FROM {name}"))).await?;
    }
    for (table, values) in &rows.0 {
        let Some((name, columns)) = TABLES.get(*table) else { continue };
        let mut insert = Statement::new(format!("INSERT INTO {name} ({}) VALUES (", columns.join(", ")));
        for (at, value) in values.iter().enumerate() {
            insert.sql(if at == 0 { "" } else { ", " }).optional_text(value.clone());
        }
        insert.sql(")");
        connection.execute(insert).await?;
    }
    Ok(())
}
