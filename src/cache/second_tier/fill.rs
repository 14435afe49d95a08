//! Writing a value behind the answer, and giving the lease back.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::seek::{Capture, LEASE, Lease};
use super::value::{self, Times};
use super::{Address, SecondTier};
use crate::cache::{Entry, Scope};
use crate::error::{Error, Result};

impl SecondTier {
    /// Writes `entry`, which was loaded after `capture`, in the background. What is outdated already is not written, nor anything
    /// while too many others are being written.
    pub(in crate::cache) fn fill(self: &Arc<Self>, scope: &Arc<Scope>, address: Address, capture: Capture, entry: &Arc<Entry>) {
        let permit = Arc::clone(&self.fills).try_acquire_owned().ok();
        let Some(permit) = permit.filter(|_| entry.is_valid() && !self.is_suspended()) else {
            scope.metrics().second.fills_dropped.inc();
            self.release(&address, capture);
            return;
        };
        let (tier, scope, entry) = (Arc::clone(self), Arc::clone(scope), Arc::clone(entry));
        tokio::spawn(async move {
            let counter = match tier.write(&address, &capture, &entry, permit).await {
                Ok(Written::Stored) => &scope.metrics().second.fills_stored,
                Ok(Written::Dropped) => &scope.metrics().second.fills_dropped,
                Err(error) => {
                    tracing::debug!(%error, "an entry was not written to the second tier");
                    &scope.metrics().second.fill_errors
                }
            };
            counter.inc();
        });
    }

    /// Lets others load what this instance did not: it failed, or is outdated.
    pub(in crate::cache) fn release(&self, address: &Address, capture: Capture) {
        if !capture.holds_lease() {
            return;
        }
        let lease = self.names.lease(&address.value);
        tokio::spawn(async move {
            let mut pipeline = redis::Pipeline::new();
            pipeline.del(lease).ignore();
            // A lease that stays ends by itself.
            let _ = capture.link.run::<()>(&pipeline).await;
        });
    }

    async fn write(
        &self,
        address: &Address,
        capture: &Capture,
        entry: &Arc<Entry>,
        _permit: OwnedSemaphorePermit,
    ) -> Result<Written> {
        let age = entry.age();
        let kept = entry.retention().saturating_sub(age).min(self.max_ttl);
        let mut pipeline = redis::Pipeline::new();
        let is_kept = kept.as_millis() > 0;
        if is_kept {
            let times = Times { lifetime: entry.lifetime(), kept, age };
            let bytes = self.encode(address, capture, entry, times).await?;
            pipeline.cmd("SET").arg(&address.value).arg(bytes).arg("PX").arg(value::milliseconds(kept)).ignore();
        }
        if capture.holds_lease() {
            pipeline.del(self.names.lease(&address.value)).ignore();
        }
        if !pipeline.is_empty() {
            // The connection of the capture: another one may lead to a server that never had these nonces.
            capture.link.run::<()>(&pipeline).await?;
        }
        Ok(if is_kept { Written::Stored } else { Written::Dropped })
    }

    /// Compressing takes too long for a thread that serves hits.
    async fn encode(&self, address: &Address, capture: &Capture, entry: &Arc<Entry>, times: Times) -> Result<Vec<u8>> {
        let above = self.compress_above;
        if entry.identity().body.len() <= above {
            return value::encode(address.key.as_str(), entry, &capture.stamp, &times, above);
        }
        let (key, entry, stamp) = (address.key.clone(), Arc::clone(entry), capture.stamp.clone());
        let coding = tokio::task::spawn_blocking(move || value::encode(key.as_str(), &entry, &stamp, &times, above));
        coding.await.map_err(Error::internal)?
    }
}

impl Capture {
    /// Whether the lease is surely still this load's: a later one must not be cut short.
    fn holds_lease(&self) -> bool {
        self.lease == Lease::Held && self.at.elapsed() < LEASE / 2
    }
}

/// What became of a fill.
enum Written {
    Stored,
    /// It is too old to be kept.
    Dropped,
}
