//! Invalidations by hand, as rows of the change log: whatever follows the log for a cache finds them there by the same snapshots as
//! changes, and retention removes them. Their collection is none that a file may declare, so no list of changes and no feed shows them.

use std::sync::Arc;

use chrono::Utc;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::connection::Access;
use super::contract::Author;
use super::{Store, write};
use crate::error::{Error, Result};
use crate::model::{CollectionName, LoggedChange, Operation, Position, timestamp_text};

/// The collection of invalidations in the change log; ids are of no importance.
const INVALIDATIONS: &str = "terrace_invalidations";

impl Store {
    /// Logs that `target` was invalidated; says where that stands.
    pub async fn invalidation_insert(&self, author: Author, target: &str) -> Result<Position> {
        let (id, now) = (uuid::Uuid::now_v7().to_string(), timestamp_text(Utc::now()));
        let row = json!([{
            "ordinal": 0, "id": id, "operation": Operation::Create.as_str(), "version": 1,
            "data": json!({"target": target}).to_string(), "before": null, "created_at": now, "updated_at": now,
        }]);
        let request = Arc::new((CollectionName::parse(INVALIDATIONS)?, author, row.to_string(), id));
        self.run("invalidation_insert", "", Access::Write, move |connection| {
            let request = Arc::clone(&request);
            async move {
                let (collection, author, row, id) = &*request;
                let position = write::log(connection, collection, author, row).await?.positions.remove(id);
                Ok(position.ok_or_else(|| Error::internal("an invalidation was not logged"))?)
            }
            .boxed()
        })
        .await
    }
}

/// What a row of the log invalidates by hand; `None` if it is of a change.
pub fn invalidated(row: &LoggedChange) -> Option<Result<String>> {
    (row.collection.as_str() == INVALIDATIONS).then(|| {
        let after: Value = serde_json::from_str(row.after.as_deref().unwrap_or_default()).map_err(Error::internal)?;
        let target = after.get("target").and_then(Value::as_str).map(str::to_owned);
        target.ok_or_else(|| Error::internal("an invalidation names no target"))
    })
}
