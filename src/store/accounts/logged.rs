//! The rows that changes of accounts leave in the change log.

use serde_json::json;

use super::super::connection::Connection;
use super::super::contract::Author;
use super::super::failure::Failure;
use super::super::write;
use crate::error::{Error, Result};
use crate::model::{Change, CollectionName, Operation, RecordId};

/// The collection of users in the change log; ids are theirs.
pub const USERS: &str = "terrace_users";
/// The collection of API keys in the change log; ids are their prefixes.
pub const KEYS: &str = "terrace_keys";
/// The collection of sessions in the change log; ids are theirs.
pub const SESSIONS: &str = "terrace_sessions";

/// Something that happened to an account.
pub(super) struct Event<'a> {
    pub collection: &'static str,
    pub id: &'a str,
    pub operation: Operation,
    /// What, for who reads the log.
    pub what: &'static str,
}

impl<'a> Event<'a> {
    pub fn of_key(prefix: &'a str, operation: Operation, what: &'static str) -> Self {
        Self { collection: KEYS, id: prefix, operation, what }
    }

    pub fn of_user(id: &'a str, operation: Operation, what: &'static str) -> Self {
        Self { collection: USERS, id, operation, what }
    }

    pub fn of_session(id: &'a str, operation: Operation, what: &'static str) -> Self {
        Self { collection: SESSIONS, id, operation, what }
    }
}

/// Logs `events`; returns what has to be announced after the commit.
pub(super) async fn log(
    connection: &mut Connection<'_>,
    author: &Author,
    now: &str,
    events: &[Event<'_>],
) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::with_capacity(events.len());
    for collection in [USERS, KEYS, SESSIONS] {
        let own: Vec<&Event<'_>> = events.iter().filter(|event| event.collection == collection).collect();
        if own.is_empty() {
            continue;
        }
        let texts: Vec<_> = own
            .iter()
            .enumerate()
            .map(|(ordinal, event)| {
                let after = json!({"event": event.what}).to_string();
                json!({
                    "ordinal": ordinal, "id": event.id, "operation": event.operation.as_str(), "version": 1,
                    "data": after, "before": null, "created_at": now, "updated_at": now,
                })
            })
            .collect();
        let texts = serde_json::to_string(&texts).map_err(Error::internal)?;
        let collection = CollectionName::parse(collection)?;
        let mut positions = write::log(connection, &collection, author, &texts).await?.positions;
        for event in own {
            let position = positions.remove(event.id);
            changes.push(Change {
                position: position.ok_or_else(|| Error::internal(format!("no change was logged for {}", event.id)))?,
                collection: collection.clone(),
                id: RecordId::parse(event.id).map_err(Error::internal)?,
                operation: event.operation,
                // Nothing is listed by what they hold: their own guards are all that depends on them.
                terms: Vec::new(),
                members: None,
                words: None,
            });
        }
    }
    Ok(changes)
}
