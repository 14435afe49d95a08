//! Prepared lists: what a query string means, parsed once and kept, since clients send the same ones again and again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::cache::CacheKey;
use crate::error::Result;
use crate::model::{Footprint, Query};

/// More different query strings than a client with a user interface has. Beyond that the table starts anew: who sends
/// ever new queries waits for the database, not for the parser.
const MAX_ENTRIES: usize = 1_024;

/// A longer query string is parsed each time, so that the table stays at a few MiB.
const MAX_RAW_BYTES: usize = 512;

/// A parsed list request.
pub(super) struct Prepared {
    pub(super) query: Query,
    pub(super) key: CacheKey,
    pub(super) footprint: Footprint,
}

/// The prepared lists of one collection, by their query strings. The lock protects the table and is never held across
/// an await.
#[derive(Default)]
pub(super) struct PreparedLists {
    table: RwLock<HashMap<Box<str>, Arc<Prepared>>>,
}

impl PreparedLists {
    /// What `raw` means; `prepare` finds out if nobody has yet. Errors are not kept.
    pub(super) fn get(&self, raw: &str, prepare: impl FnOnce() -> Result<Prepared>) -> Result<Arc<Prepared>> {
        if let Some(known) = self.table.read().unwrap_or_else(PoisonError::into_inner).get(raw) {
            return Ok(Arc::clone(known));
        }
        let prepared = Arc::new(prepare()?);
        if raw.len() <= MAX_RAW_BYTES {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            if table.len() >= MAX_ENTRIES {
                table.clear();
            }
            table.insert(raw.into(), Arc::clone(&prepared));
        }
        Ok(prepared)
    }
}
