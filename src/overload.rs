//! How much is done at once. What cannot be answered from memory takes a slot; when none is left it is refused at once, so
//! that hits and what is already under way are not slowed down by a queue that nobody waits for any more. It knows neither
//! requests nor the cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge, Registry};

use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::Told;

/// When a client that was refused may try again. What fills the slots mostly ends sooner, or not before a time limit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A number of slots. Clones share them.
#[derive(Clone, Debug)]
pub struct Capacity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    setting: &'static str,
    most: usize,
    taken: AtomicUsize,
    gauge: IntGauge,
    refusals: IntCounter,
    /// What the log has been told. Taken by refusals only, never across an await.
    told: Mutex<Told>,
}

/// A slot. It is free again when this is dropped.
#[derive(Debug)]
pub struct Slot(Capacity);

impl Capacity {
    /// `most` slots, as the setting named `http.max_in_flight` says.
    pub fn in_flight(most: usize, registry: &Registry) -> Result<Self> {
        let gauge = IntGauge::new("terrace_in_flight", "Requests in flight that could not be answered from memory.");
        let refusals = IntCounter::new("terrace_in_flight_refusals_total", "Requests refused by http.max_in_flight.");
        Self::new("http.max_in_flight", most, registry, gauge, refusals)
    }

    /// `most` slots for connections, as the setting named `http.max_connections` says.
    pub fn connections(most: usize, registry: &Registry) -> Result<Self> {
        let gauge = IntGauge::new("terrace_connections", "Connections that are open.");
        let refusals = IntCounter::new("terrace_surplus_connections_total", "Connections beyond http.max_connections.");
        Self::new("http.max_connections", most, registry, gauge, refusals)
    }

    /// Any number of slots, which nobody counts.
    pub fn unlimited() -> Result<Self> {
        Self::in_flight(usize::MAX, &Registry::new())
    }

    fn new(
        setting: &'static str,
        most: usize,
        registry: &Registry,
        gauge: prometheus::Result<IntGauge>,
        refusals: prometheus::Result<IntCounter>,
    ) -> Result<Self> {
        let (gauge, refusals) = (gauge.map_err(Error::internal)?, refusals.map_err(Error::internal)?);
        registry.register(Box::new(gauge.clone())).map_err(Error::internal)?;
        registry.register(Box::new(refusals.clone())).map_err(Error::internal)?;
        let (taken, told) = (AtomicUsize::new(0), Mutex::default());
        Ok(Self(Arc::new(Shared { setting, most, taken, gauge, refusals, told })))
    }

    /// Takes a slot, or refuses at once.
    pub fn take(&self) -> Result<Slot> {
        let shared = &self.0;
        // Each decides by what it added itself, so no more than `most` have one, however many ask at the same time.
        if shared.taken.fetch_add(1, Ordering::Acquire) < shared.most {
            shared.gauge.inc();
            return Ok(Slot(self.clone()));
        }
        shared.taken.fetch_sub(1, Ordering::Relaxed);
        shared.refusals.inc();
        if shared.told.lock().unwrap_or_else(PoisonError::into_inner).is_due(shared.setting, Instant::now()) {
            tracing::warn!(most = shared.most, "more is asked than is done at once; the rest is refused ({})", shared.setting);
        }
        Err(self.refusal())
    }

    /// What is told to who gets no slot. It has nothing for the log: it was told there, and not with every request.
    pub fn refusal(&self) -> Error {
        let detail = format!("This server has as much to do as it takes at once ({}); try again.", self.0.setting);
        Error::new(ErrorKind::Unavailable, "overloaded", detail).with_retry_after(RETRY_AFTER)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In this order: whoever gets the slot next finds it gone from the gauge.
        self.0.0.gauge.dec();
        self.0.0.taken.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped() {
        let registry = Registry::new();
        let capacity = Capacity::in_flight(2, &registry).unwrap();
        let (first, second) = (capacity.take().unwrap(), capacity.take().unwrap());
        let refusal = capacity.take().unwrap_err();
        assert_eq!((refusal.kind(), refusal.code()), (ErrorKind::Unavailable, "overloaded"));
        assert!(refusal.detail().contains("http.max_in_flight") && refusal.retry_after().is_some(), "{refusal}");
        // Whoever has it, has it alone.
        let work = first;
        assert!(capacity.take().is_err(), "the work goes on");
        drop(work);
        let third = capacity.take().unwrap();
        assert_eq!((capacity.0.gauge.get(), capacity.0.refusals.get()), (2, 2));
        drop((second, third));
        assert_eq!(capacity.0.gauge.get(), 0);
    }

    #[test]
    fn no_more_than_there_are_get_one_however_many_ask_at_once() {
        let capacity = Capacity::in_flight(5, &Registry::new()).unwrap();
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let slots: Vec<_> = (0..3).filter_map(|_| capacity.take().ok()).collect();
                        if !slots.is_empty() {
                            most.fetch_max(capacity.0.gauge.get() as usize, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=5).contains(&most.into_inner()));
        assert_eq!(capacity.0.taken.load(Ordering::Relaxed), 0);
    }
}
