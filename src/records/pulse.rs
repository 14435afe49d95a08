//! Asking the database for a sign of life: one question at a time, however many want to know, so that health checks, which
//! nobody limits, take no more than one connection from those who want records.

use std::time::Instant;

use tokio::sync::Mutex;

use crate::error::Result;

/// The last question and its answer.
///
/// The lock is held while the question is asked: that is what makes all others wait for its answer. Who is cancelled lets go.
#[derive(Default)]
pub(super) struct Pulse {
    last: Mutex<Option<(Instant, Result<()>)>>,
}

impl Pulse {
    /// The answer to a question that was asked after this call.
    pub(super) async fn ask(&self, question: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let came = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((began, answer)) = &*last
            && *began > came
        {
            return answer.clone();
        }
        let began = Instant::now();
        let answer = question().await;
        *last = Some((began, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn all_who_wait_share_one_answer_and_nobody_gets_an_old_one() {
        let (pulse, asked) = (Pulse::default(), Cell::new(0));
        let question = async || {
            asked.set(asked.get() + 1);
            tokio::task::yield_now().await;
            if asked.get() == 1 { Ok(()) } else { Err(Error::internal("away")) }
        };
        let answers = join_all((0..100).map(|_| pulse.ask(question))).await;
        // The first one had its answer when the others came; they share the second.
        assert_eq!(asked.get(), 2);
        assert!(answers[0].is_ok() && answers[1..].iter().all(Result::is_err));
        assert!(pulse.ask(question).await.is_err());
        assert_eq!(asked.get(), 3, "an answer from before is none");
    }
}
