//! Bursts: each client address has a bucket of `limits.burst` requests, refilled by `limits.per_second` (GCRA, as the
//! governor crate does it).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use actix_governor::governor::clock::{Clock as _, DefaultClock};
use actix_governor::governor::middleware::NoOpMiddleware;
use actix_governor::{GovernorConfig, GovernorConfigBuilder, KeyExtractor, SimpleKeyExtractionError};
use actix_web::dev::ServiceRequest;

use super::who::Who;
use crate::config::LimitsSettings;
use crate::error::{Error, ErrorKind, Result};

/// How often buckets that are full again are forgotten. governor keeps them for ever: a million addresses are 100 MB.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// The burst limit of a process. Clones share the buckets.
#[derive(Clone)]
pub struct BurstLimit {
    config: Option<GovernorConfig<Client, NoOpMiddleware>>,
}

/// Who has a bucket: an IPv4 address, or the /64 of an IPv6 address, which one client usually has to itself.
#[derive(Clone)]
struct Client;

impl KeyExtractor for Client {
    type Key = IpAddr;
    type KeyExtractionError = SimpleKeyExtractionError<&'static str>;

    fn extract(&self, request: &ServiceRequest) -> Result<IpAddr, Self::KeyExtractionError> {
        Ok(client(request.peer_addr().map(|peer| peer.ip())))
    }
}

impl BurstLimit {
    /// The limit that `settings` ask for; a burst of 0 is none.
    pub fn new(settings: &LimitsSettings) -> Result<Self> {
        if settings.burst == 0 {
            return Ok(Self { config: None });
        }
        let mut builder = GovernorConfigBuilder::default().key_extractor(Client);
        let config = builder.requests_per_second(settings.per_second.into()).burst_size(settings.burst).finish();
        let invalid = || Error::bad_request("invalid_limit", "limits.per_second must be over 0.");
        Ok(Self { config: Some(config.ok_or_else(invalid)?) })
    }

    /// Takes a request out of the client's bucket.
    pub fn check(&self, address: Option<IpAddr>) -> Result<()> {
        let Some(config) = &self.config else { return Ok(()) };
        config.limiter().check_key(&client(address)).map_err(|refusal| {
            let wait = refusal.wait_time_from(DefaultClock::default().now());
            Error::new(ErrorKind::TooManyRequests, "too_many_requests", "This client asks too often; see limits.burst.")
                .with_retry_after(wait)
        })
    }

    /// Forgets buckets that are full again, from time to time, until the task is aborted.
    pub async fn forget_idle_clients(self) {
        let Some(config) = &self.config else { return std::future::pending::<()>().await };
        let mut ticks = tokio::time::interval(FORGET_INTERVAL);
        loop {
            ticks.tick().await;
            config.limiter().retain_recent();
            config.limiter().shrink_to_fit();
        }
    }
}

impl fmt::Debug for BurstLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BurstLimit").field("enabled", &self.config.is_some()).finish()
    }
}

/// Limiters want an address: all of a network share its first one.
fn client(address: Option<IpAddr>) -> IpAddr {
    match Who::at(address) {
        Who::Address(address) => address.into(),
        Who::Network(network) => Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(network)) << 64).into(),
        Who::Actor(_) | Who::Unknown => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_client_that_spends_its_burst_waits_and_others_do_not() {
        let limit = BurstLimit::new(&LimitsSettings { burst: 3, per_second: 1, ..LimitsSettings::default() }).unwrap();
        for _ in 0..3 {
            limit.check(peer("192.0.2.1")).unwrap();
        }
        let refusal = limit.check(peer("192.0.2.1")).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::TooManyRequests);
        assert!(refusal.retry_after().unwrap() <= Duration::from_secs(1));
        assert!(limit.check(peer("192.0.2.2")).is_ok());
    }

    #[test]
    fn no_burst_is_no_limit() {
        let limit = BurstLimit::new(&LimitsSettings { burst: 0, per_second: 1, ..LimitsSettings::default() }).unwrap();
        assert!((0..1_000).all(|_| limit.check(peer("192.0.2.1")).is_ok()));
    }
}
