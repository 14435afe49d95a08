//! Opening the database behind a server that already listens. A database server may be away, and come back or be mended
//! by its operator: it is waited for, without end. Everything else that is in the way ends the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};
use tokio::sync::OnceCell;

use super::running::{Admitted, Entrance};
use super::{App, Foundation, Running, StartError};
use crate::auth::CreatedKey;
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::telemetry::Told;

/// Between two attempts, before jitter adds up to as much again.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// Listens at once, and serves as soon as the database can be opened; see [`Running::ready`]. Call it in a Tokio
/// runtime. It fails at once if settings or declarations have mistakes, or the address is taken.
pub fn serve(settings: Settings) -> Result<Running, StartError> {
    let foundation = Foundation::lay(settings)?;
    let mut running = Running::listen(&foundation)?;
    running.open_with(|entrance| tokio::spawn(open(foundation, entrance)));
    Ok(running)
}

async fn open(foundation: Arc<Foundation>, entrance: Entrance) -> Result<Admitted, StartError> {
    let is_postgres = foundation.settings.database.is_postgres();
    let opened = OnceCell::new();
    let delays =
        ExponentialBuilder::default().with_min_delay(FIRST_DELAY).with_max_delay(LONGEST_DELAY).without_max_times().with_jitter();
    let mut wait = Wait::default();
    let (app, first_key) = (|| attempt(&foundation, &opened))
        .retry(delays)
        .when(|error| is_postgres && error.kind() == ErrorKind::Unavailable)
        .notify(|error, _| {
            entrance.refuse(error.detail());
            wait.tell(error);
        })
        .await?;
    wait.tell_end();
    Ok(Admitted { background: entrance.admit(app), first_key })
}

/// What a start does with the database. Each part may be done again after a later one failed, but opening: every
/// opened store reports its pool in the metrics.
async fn attempt(foundation: &Arc<Foundation>, opened: &OnceCell<Store>) -> Result<(App, Option<CreatedKey>)> {
    let store = opened.get_or_try_init(|| foundation.open_store()).await?;
    let app = App::over(Arc::clone(foundation), store.clone()).await?;
    let first_key = app.prepare().await?;
    Ok((app, first_key))
}

/// What the log has been told of the wait.
#[derive(Default)]
struct Wait {
    begun: Option<Instant>,
    told: Told,
}

impl Wait {
    fn tell(&mut self, error: &Error) {
        let now = Instant::now();
        self.begun.get_or_insert(now);
        if self.told.is_due(error.detail(), now) {
            tracing::warn!(%error, "waiting for the database; requests are refused until it can be opened");
        }
    }

    fn tell_end(&self) {
        if let Some(begun) = self.begun {
            tracing::info!(waited_seconds = begun.elapsed().as_secs(), "the database is open");
        }
    }
}
