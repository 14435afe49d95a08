//! Metrics, logs and request ids: the one meter provider over one Prometheus registry, and the subscriber. It knows no room that
//! is measured; each room makes its own instruments from [`Telemetry`] once, when it is built.

pub mod logs;
mod request_id;
mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, Registry, TextEncoder};
pub use request_id::RequestId;
pub(crate) use told::{REMINDER, Told};

use crate::error::{Error, Result};

/// The meter and the registry behind `/metrics`. Clones share both.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Registry,
    meter: Meter,
    /// By name. The lock is never held across an await.
    histograms: Arc<Mutex<HashMap<String, HistogramVec>>>,
    // Dropping the provider would stop its instruments.
    _provider: SdkMeterProvider,
}

impl Telemetry {
    /// A registry of its own, so that servers in one process (tests) do not share counts.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_scope_info()
            .without_target_info()
            .build()
            .map_err(Error::internal)?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("terrace");
        Ok(Self { registry, meter, histograms: Arc::default(), _provider: provider })
    }

    /// Makes OpenTelemetry instruments.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Takes plain Prometheus collectors, for what is counted on every hit: a cached handle costs 12 ns there, and
    /// 241 ns through a meter.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The plain histogram of this name, made by the first call: what is opened again, because it could not be, goes on with it.
    pub fn histogram(&self, options: HistogramOpts, labels: &[&str]) -> Result<HistogramVec> {
        let mut histograms = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        let name = options.common_opts.name.clone();
        if let Some(known) = histograms.get(&name) {
            return Ok(known.clone());
        }
        let made = register(&self.registry, HistogramVec::new(options, labels))?;
        histograms.insert(name, made.clone());
        Ok(made)
    }

    /// Everything in the Prometheus text format.
    pub fn encode(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(Error::internal)
    }
}

/// Registers a plain collector.
pub(crate) fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> Result<C> {
    let collector = collector.map_err(Error::internal)?;
    registry.register(Box::new(collector.clone())).map_err(Error::internal)?;
    Ok(collector)
}
