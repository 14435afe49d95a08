//! A connection that is watched: an answer that does not come in time is given up by closing the connection. A timer for each statement
//! would cost as much as a look-up in L1, and there is one statement to a miss; so whoever carries the connection on looks from time to
//! time whether it is still the same statement.

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

/// What is known of the statement that a connection carries out.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Odd while somebody waits for an answer; each statement has a number of its own. Only who has the connection writes it.
    statement: AtomicU64,
    has_given_up: AtomicBool,
}

/// Somebody waits for an answer until this is dropped.
pub(super) struct Waiting<'a>(&'a Watch);

impl Watched {
    pub fn new(connection: AsyncPgConnection, watch: Arc<Watch>) -> Self {
        Self { connection, watch }
    }

    /// The connection for one statement, the answer to which is given up if it does not come in time.
    pub fn statement(&mut self) -> (&mut AsyncPgConnection, Waiting<'_>) {
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
    /// Ends when somebody has waited for an answer for all of `patience`.
    pub async fn until_given_up(&self, patience: Duration) {
        let (mut last, mut looks) = (0, 0);
        loop {
            tokio::time::sleep(patience / LOOKS).await;
            let statement = self.statement.load(Ordering::Relaxed);
            looks = if statement == last { looks + 1 } else { 0 };
            last = statement;
            if statement % 2 == 1 && looks >= LOOKS {
                self.has_given_up.store(true, Ordering::Relaxed);
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
        self.statement.store(self.statement.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
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
        let watch = Watch::default();
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
            () = watch.until_given_up(PATIENCE) => {}
            () = statements => {}
        }
        assert!(watch.has_given_up.load(Ordering::Relaxed));
        let waited = started.elapsed() - PATIENCE * 100;
        assert!((PATIENCE..=PATIENCE + 2 * PATIENCE / LOOKS).contains(&waited), "{waited:?}");
    }
}
