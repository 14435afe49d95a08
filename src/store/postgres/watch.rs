//! A connection that is watched: an operation whose answers do not come in time is given up by closing the connection. A timer for each
//! operation would cost as much as a look-up in L1, and there is one to a miss; so whoever carries the connection on looks from time to
//! time whether it is still the same operation.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use diesel_async::AsyncPgConnection;

/// So often within the time that an answer may take it is looked whether it has come: it is given up at most so much later.
const LOOKS: u32 = 8;

/// A connection, and who watches over it.
pub(super) struct Watched {
    connection: AsyncPgConnection,
    watch: Arc<Watch>,
}

/// What is known of the operation that a connection carries out.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Odd while somebody waits for answers; each operation has a number of its own. Only who has the connection writes it.
    operation: AtomicU64,
    has_given_up: AtomicBool,
}

/// Somebody waits for an answer until this is dropped.
pub(super) struct Waiting<'a>(&'a Watch);

impl Watched {
    pub fn new(connection: AsyncPgConnection, watch: Arc<Watch>) -> Self {
        Self { connection, watch }
    }

    /// The connection for one reading operation, which is given up if the answers do not come in time.
    pub fn watched(&mut self) -> (&mut AsyncPgConnection, Waiting<'_>) {
        (&mut self.connection, self.watch.wait())
    }

    /// Whether it was closed because an answer did not come.
    pub fn has_given_up(&self) -> bool {
        self.watch.has_given_up.load(Ordering::Relaxed)
    }
}

impl Deref for Watched {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.connection
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection
    }
}

impl Watch {
    /// Ends when somebody has waited for answers for all of `patience`, and some time after the connection has been dropped: then nobody
    /// waits for what it was asked last.
    pub async fn until_given_up(self: Arc<Self>, patience: Duration) {
        let (mut last, mut looks, mut alone) = (0, 0, 0);
        loop {
            tokio::time::sleep(patience / LOOKS).await;
            let operation = self.operation.load(Ordering::Relaxed);
            looks = if operation == last { looks + 1 } else { 0 };
            alone = if Arc::strong_count(&self) == 1 { alone + 1 } else { 0 };
            last = operation;
            if operation % 2 == 1 && looks >= LOOKS {
                self.has_given_up.store(true, Ordering::Relaxed);
                return;
            }
            if alone == 2 {
                return;
            }
        }
    }

    fn wait(&self) -> Waiting<'_> {
        self.advance();
        Waiting(self)
    }

    /// Not added atomically: nobody else writes it.
    fn advance(&self) {
        self.operation.store(self.operation.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up_and_many_that_do_are_not() {
        let watch = Arc::<Watch>::default();
        let started = tokio::time::Instant::now();
        let statements = async {
            for _ in 0..100 {
                let waiting = watch.wait();
                tokio::time::sleep(PATIENCE * 9 / 10).await;
                drop(waiting);
            }
            // Nobody waits.
            tokio::time::sleep(PATIENCE * 10).await;
            let _waiting = watch.wait();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = Arc::clone(&watch).until_given_up(PATIENCE) => {}
            () = statements => {}
        }
        assert!(watch.has_given_up.load(Ordering::Relaxed));
        let waited = started.elapsed() - PATIENCE * 100;
        assert!((PATIENCE..=PATIENCE + 2 * PATIENCE / LOOKS).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_has_any_more_is_not_kept_for_what_it_was_asked_last() {
        let watch = Arc::<Watch>::default();
        let carried = tokio::spawn(Arc::clone(&watch).until_given_up(PATIENCE));
        tokio::time::sleep(PATIENCE * 10).await;
        assert!(!carried.is_finished(), "somebody has it");
        drop(watch);
        tokio::time::timeout(PATIENCE, carried).await.unwrap().unwrap();
    }
}
