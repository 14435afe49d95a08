//! How often clients may ask. For now bursts in one process, by actix-governor, which limits by the address of the peer;
//! quotas that all instances share come with issue 5. It knows neither routes nor answers.

#[cfg(feature = "governor")]
mod burst;

#[cfg(feature = "governor")]
pub use burst::BurstLimit;

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
