//! Placeholder until the branch `sql` is merged: its file replaces this one.

pub(in crate::store) use super::super::sqlite::SqliteDialect as PostgresDialect;
