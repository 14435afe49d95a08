//! How often clients may ask: bursts in one process, by actix-governor, and quotas that all instances share in Redis. It
//! knows neither routes nor answers.
//!
//! | file | owns |
//! |---|---|
//! | `burst` | bursts of a client address, in this process |
//! | `quotas` | the quotas of callers: what is decided here, and when the shared buckets are asked |
//! | `gcra` | the arithmetic of a bucket |
//! | `lease`, `slot` | what is held of a shared bucket, and what is known of it |
//! | `table` | all buckets that the process has dealings with |
//! | `tier` | the shared buckets |
//! | `keeper` | giving back, presence, forgetting |
//! | `who` | whose requests are counted together |

#[cfg(feature = "governor")]
mod burst;
mod gcra;
mod keeper;
mod lease;
mod metrics;
mod quotas;
mod slot;
mod table;
mod tier;
mod who;

#[cfg(feature = "governor")]
pub use burst::BurstLimit;
pub use quotas::{Check, Policy, Quotas};
pub use slot::{Standing, Verdict};

/// What stands in for the limit in a binary without actix-governor: settings that ask for one are refused.
#[cfg(not(feature = "governor"))]
#[derive(Clone, Debug)]
pub struct BurstLimit;

#[cfg(not(feature = "governor"))]
impl BurstLimit {
    /// No limit, if none is asked for.
    pub fn new(settings: &crate::config::LimitsSettings) -> crate::error::Result<Self> {
        match settings.burst {
            0 => Ok(Self),
            _ => Err(crate::error::Error::bad_request(
                "no_limits",
                "limits.burst: this binary was built without the feature \"governor\", so it must be 0.",
            )),
        }
    }

    /// Always allowed.
    pub fn check(&self, _: Option<std::net::IpAddr>) -> crate::error::Result<()> {
        Ok(())
    }

    /// There is nothing to forget.
    pub async fn forget_idle_clients(self) {
        std::future::pending().await
    }
}
