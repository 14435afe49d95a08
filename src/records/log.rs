//! The change log as the cache reads it: stored rows with the terms that the catalog knows.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::document;
use crate::cache::ChangeLog;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::{Change, ChangePage, LoggedChange, Position, Snapshot, Term};
use crate::store::Store;

/// Joins the store's log with the declared collections.
pub struct CatalogedLog {
    store: Store,
    catalog: Arc<Catalog>,
}

impl CatalogedLog {
    /// The log of `store`, read with the declarations of `catalog`.
    pub fn new(store: Store, catalog: Arc<Catalog>) -> Self {
        Self { store, catalog }
    }

    /// A change of a collection that is no longer declared has no terms, and nothing depends on them. A document that
    /// cannot be read gives none either: lists by its terms then wait for their TTL, and later changes do not wait for ever.
    fn change(&self, logged: LoggedChange) -> Change {
        let mut terms: Vec<Term> = Vec::new();
        if let Some(declared) = self.catalog.get(&logged.collection) {
            for text in [&logged.before, &logged.after].into_iter().flatten() {
                match document::stored_members(text) {
                    Ok(members) => terms.extend(declared.collection.terms(&members)),
                    Err(error) => {
                        tracing::error!(position = %logged.position, %error, "the change log has a document that is none")
                    }
                }
            }
        }
        terms.sort();
        terms.dedup();
        Change { position: logged.position, collection: logged.collection, id: logged.id, operation: logged.operation, terms }
    }
}

impl ChangeLog for CatalogedLog {
    fn changes_since<'a>(
        &'a self,
        seen: &'a Snapshot,
        after: Option<Position>,
        limit: u32,
    ) -> BoxFuture<'a, Result<ChangePage<Change>>> {
        async move {
            let ChangePage { changes, unreadable, snapshot, more_after } = self.store.changes_since(seen, after, limit).await?;
            let changes = changes.into_iter().map(|logged| self.change(logged)).collect();
            Ok(ChangePage { changes, unreadable, snapshot, more_after })
        }
        .boxed()
    }
}
