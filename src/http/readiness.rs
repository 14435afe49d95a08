//! Whether requests should be sent to this process and, if not, why; and how the second tier is, without which it serves all
//! the same. What is said here is for anybody who asks: it names settings and never their values.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// When a client that came too early may try again; an installation tries to open its database about as often.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Whether requests should be sent to this process. The application says so. Clones share the state.
///
/// The lock protects one value and is never held across an await. Only health checks and refused requests take it.
#[derive(Clone)]
pub struct Readiness {
    ready: Arc<RwLock<Ready>>,
    second_tier: Arc<dyn Fn() -> SecondTier + Send + Sync>,
}

/// How the second tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondTier {
    /// The installation has none.
    Off,
    /// It is used.
    Up {
        /// The server's version.
        version: String,
        /// What it refuses nevertheless.
        complaint: Option<String>,
    },
    /// It is not used for this reason.
    Down(String),
}

/// A state of [`Readiness`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// It listens; what is behind the collections is being opened.
    #[default]
    Starting,
    /// It listens, and the database cannot be opened yet. The reason may be read by clients.
    Waiting(String),
    /// Requests are served, mostly from the database: the cache is being warmed.
    Warming,
    /// Everything is started.
    Yes,
    /// It takes no more connections.
    Stopping,
}

impl Readiness {
    /// It has just started; `second_tier` is asked at every check.
    pub fn new(second_tier: impl Fn() -> SecondTier + Send + Sync + 'static) -> Self {
        Self { ready: Arc::default(), second_tier: Arc::new(second_tier) }
    }

    /// The second tier, as a health check shows it.
    pub(super) fn second_tier(&self) -> Value {
        match (self.second_tier)() {
            SecondTier::Off => json!({"status": "off"}),
            SecondTier::Up { version, complaint: None } => json!({"status": "up", "version": version}),
            SecondTier::Up { version, complaint: Some(reason) } => json!({"status": "up", "version": version, "reason": reason}),
            SecondTier::Down(reason) => json!({"status": "down", "reason": reason}),
        }
    }

    /// From now on it is like this.
    pub fn set(&self, state: Ready) {
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The cache is as warm as it gets, or has taken too long. Who stops meanwhile goes on stopping.
    pub fn end_warming(&self) {
        let mut state = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        if *state == Ready::Warming {
            *state = Ready::Yes;
        }
    }

    /// Why it is not ready; `None` if everything is started.
    pub(super) fn obstacle(&self) -> Option<String> {
        match &*self.ready.read().unwrap_or_else(PoisonError::into_inner) {
            Ready::Starting => Some("starting".to_owned()),
            Ready::Waiting(reason) => Some(format!("waiting for the database: {reason}")),
            Ready::Warming => Some("warming the cache (cache.warm_before_ready)".to_owned()),
            Ready::Yes => None,
            Ready::Stopping => Some("stopping".to_owned()),
        }
    }

    /// The answer to requests that need what is not open yet. It has nothing for the log: whoever waits has told it.
    pub(super) fn refusal(&self) -> Error {
        let obstacle = self.obstacle().unwrap_or_else(|| "starting".to_owned());
        let detail = format!("This server is not ready: {}.", obstacle.trim_end_matches('.'));
        Error::new(ErrorKind::Unavailable, "unavailable", detail).with_retry_after(RETRY_AFTER)
    }
}
