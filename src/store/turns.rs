//! Turns: writers of one record, or with one idempotency key, wait for each other here, where waiting takes no connection. In the database they would
//! wait for its lock anyway, each with a connection; a record that somebody locks for a minute would soon have them all,
//! and every other request would starve.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::{Failure, RETRY_AFTER};
use crate::error::{Error, ErrorKind};
use crate::model::{CollectionName, RecordId};

/// What one writer at a time may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A record.
    Record(CollectionName, RecordId),
    /// An idempotency key of an actor.
    Key(String, String),
}

/// The names that somebody has. The lock protects the table, and is never held across an await.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Name, Arc<Semaphore>>>);

/// The turn of one writer, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    name: Name,
    permit: Option<OwnedSemaphorePermit>,
    /// Taken only when this is dropped.
    semaphore: Option<Arc<Semaphore>>,
}

impl Turns {
    /// Waits for the turn of a writer of this name, for `patience` at most.
    pub async fn take(&self, name: Name, patience: Duration) -> Result<Turn<'_>, Failure> {
        let semaphore = Arc::clone(self.table().entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))));
        let mut turn = Turn { turns: self, name, permit: None, semaphore: Some(Arc::clone(&semaphore)) };
        match tokio::time::timeout(patience, semaphore.acquire_owned()).await {
            Ok(Ok(permit)) => turn.permit = Some(permit),
            Ok(Err(closed)) => return Err(Failure::Refused(Error::internal(closed))),
            Err(_) => {
                let detail =
                    "Other writers of this record, or with this Idempotency-Key, went first for all of database.acquire_timeout.";
                let refusal = Error::new(ErrorKind::Unavailable, "unavailable", detail).with_retry_after(RETRY_AFTER);
                return Err(Failure::Refused(refusal));
            }
        }
        Ok(turn)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    /// Whoever is the last to leave, after its turn or without one, clears the table. Clones are taken and given back
    /// under its lock, so the table's is the only one left then.
    fn drop(&mut self) {
        let mut table = self.turns.table();
        drop((self.permit.take(), self.semaphore.take()));
        if table.get(&self.name).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            table.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writers_of_one_record_take_turns_and_leave_nothing_behind() {
        let turns = Turns::default();
        let name = |id: &str| Name::Record(CollectionName::parse("items").unwrap(), RecordId::parse(id).unwrap());
        let patience = Duration::from_millis(20);
        let first = turns.take(name("a"), patience).await.unwrap();
        drop(turns.take(name("b"), patience).await.unwrap());
        let refused = turns.take(name("a"), patience).await.unwrap_err().into_error();
        assert!(refused.detail().contains("database.acquire_timeout") && refused.retry_after().is_some(), "{refused}");
        let (second, ()) = tokio::join!(turns.take(name("a"), patience), async { drop(first) });
        assert_eq!(turns.table().len(), 1);
        drop(second.unwrap());
        assert!(turns.table().is_empty());
    }
}
