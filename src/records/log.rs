//! The change log as the cache reads it: stored rows with the terms that the catalog knows.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::document;
use super::effect::Effect;
use crate::cache::{ChangeLog, Logged};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::model::{Change, ChangePage, LoggedChange, Position, Snapshot};
use crate::store::{self, Store};

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

    fn logged(&self, logged: LoggedChange) -> Result<Logged> {
        let position = logged.position;
        match store::invalidated(&logged) {
            Some(target) => Ok(Logged::Invalidation { position, target: target?.parse()? }),
            None => self.change(logged).map(Logged::Change),
        }
    }

    /// A change of a collection that is no longer declared has no terms, and nothing depends on them. A document that
    /// cannot be read (by psql somebody may write numbers that are larger than any double) hides its terms: there is then
    /// no saying which lists depend on it.
    fn change(&self, logged: LoggedChange) -> Result<Change> {
        let effect = match self.catalog.get(&logged.collection) {
            Some(declared) => {
                let read = |text: &Option<String>| text.as_deref().map(document::stored_members).transpose();
                let (before, after) = (read(&logged.before)?, read(&logged.after)?);
                Effect::of(&declared.collection, before.as_ref(), after.as_ref())
            }
            None => Effect { terms: Vec::new(), members: None, words: None },
        };
        Ok(Change {
            position: logged.position,
            collection: logged.collection,
            id: logged.id,
            operation: logged.operation,
            terms: effect.terms,
            members: effect.members,
            words: effect.words,
        })
    }
}

impl ChangeLog for CatalogedLog {
    fn changes_since<'a>(
        &'a self,
        seen: &'a Snapshot,
        after: Option<Position>,
        limit: u32,
    ) -> BoxFuture<'a, Result<ChangePage<Logged>>> {
        async move {
            let ChangePage { changes: logged, mut unreadable, snapshot, more_after } =
                self.store.changes_since(seen, after, limit).await?;
            let mut changes = Vec::with_capacity(logged.len());
            for logged in logged {
                let position = logged.position;
                match self.logged(logged) {
                    Ok(change) => changes.push(change),
                    Err(error) => {
                        unreadable += 1;
                        tracing::error!(%position, %error, "the change log has a document that cannot be read; it is left out");
                    }
                }
            }
            Ok(ChangePage { changes, unreadable, snapshot, more_after })
        }
        .boxed()
    }
}
