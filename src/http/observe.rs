//! What is counted and logged of every request: metrics by route template, method and status, slow requests, and the
//! access log. Labels come from closed sets, so no client can make new time series.

use std::sync::OnceLock;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use prometheus::{Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::{Error, Result};

/// From a hit to the slowest thing anybody waits for, in seconds.
const BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The statuses that Terrace answers with. Any other is counted as `other`.
const STATUSES: [u16; 22] =
    [200, 201, 204, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 414, 415, 422, 429, 500, 503, 504];

/// The methods that some route takes. Any other is counted as `other`.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

const OTHER: &str = "other";

/// The collectors of the HTTP server.
pub(super) struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
}

impl HttpMetrics {
    /// Registers the collectors, and the build's description.
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let labels = ["route", "method", "status"];
        let requests = IntCounterVec::new(Opts::new("terrace_http_requests_total", "Requests answered."), &labels);
        let durations = HistogramVec::new(
            HistogramOpts::new("terrace_http_request_duration_seconds", "Time from the request's head to its answer.")
                .buckets(BUCKETS.to_vec()),
            &labels,
        );
        let in_flight = IntGauge::new("terrace_http_requests_in_flight", "Requests being answered.");
        let build = Gauge::with_opts(
            Opts::new("terrace_build_info", "Always 1; the labels describe the build.")
                .const_label("version", env!("CARGO_PKG_VERSION"))
                .const_label("profile", if cfg!(debug_assertions) { "debug" } else { "release" }),
        );
        let (requests, durations) = (requests.map_err(Error::internal)?, durations.map_err(Error::internal)?);
        let (in_flight, build) = (in_flight.map_err(Error::internal)?, build.map_err(Error::internal)?);
        build.set(1.0);
        registry.register(Box::new(requests.clone())).map_err(Error::internal)?;
        registry.register(Box::new(durations.clone())).map_err(Error::internal)?;
        registry.register(Box::new(in_flight.clone())).map_err(Error::internal)?;
        registry.register(Box::new(build)).map_err(Error::internal)?;
        Ok(Self { requests, durations, in_flight })
    }

    /// The handles of one route.
    pub(super) fn route(&self, template: impl Into<String>) -> RouteMetrics {
        RouteMetrics {
            template: template.into(),
            requests: self.requests.clone(),
            durations: self.durations.clone(),
            handles: Default::default(),
        }
    }

    /// Counts a request as in flight until the guard is dropped, also when its client goes away.
    pub(super) fn enter(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }
}

/// A request in flight.
pub(super) struct InFlight<'a>(&'a IntGauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The handles of one route. Each is looked up by its labels once and then kept: a request costs two of them.
pub(super) struct RouteMetrics {
    template: String,
    requests: IntCounterVec,
    durations: HistogramVec,
    handles: [[OnceLock<(IntCounter, Histogram)>; STATUSES.len() + 1]; METHODS.len() + 1],
}

impl RouteMetrics {
    /// The route with its parameters' names, for example `/api/v1/metrics/{id}`.
    pub(super) fn template(&self) -> &str {
        &self.template
    }

    /// Counts an answer.
    pub(super) fn record(&self, method: &Method, status: StatusCode, elapsed: Duration) {
        let row = METHODS.iter().position(|known| known == method).unwrap_or(METHODS.len());
        let column = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len());
        let Some(handle) = self.handles.get(row).and_then(|columns| columns.get(column)) else { return };
        let (requests, durations) = handle.get_or_init(|| self.handle(row, column));
        requests.inc();
        durations.observe(elapsed.as_secs_f64());
    }

    fn handle(&self, row: usize, column: usize) -> (IntCounter, Histogram) {
        let status = STATUSES.get(column).map_or_else(|| OTHER.to_owned(), u16::to_string);
        let labels = [self.template.as_str(), METHODS.get(row).map_or(OTHER, Method::as_str), &status];
        (self.requests.with_label_values(&labels), self.durations.with_label_values(&labels))
    }
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLog {
    /// Whether each is.
    pub(super) access: bool,
    /// One that takes longer is logged as a warning.
    pub(super) slow_request: Duration,
}

impl RequestLog {
    /// Whether an answer that took `elapsed` is logged.
    pub(super) fn concerns(self, elapsed: Duration) -> bool {
        self.access || elapsed > self.slow_request
    }

    /// Logs an answer, if it shall be. The query string stays out: its values may be private.
    pub(super) fn write(self, method: &Method, path: &str, route: &str, status: StatusCode, elapsed: Duration) {
        let (status, ms) = (status.as_u16(), elapsed.as_micros() as f64 / 1000.0);
        if elapsed > self.slow_request {
            tracing::warn!(%method, route, status, ms, "slow request");
        }
        if self.access {
            tracing::info!(%method, path, route, status, ms, "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let telemetry = Telemetry::new().unwrap();
        let metrics = HttpMetrics::new(telemetry.registry()).unwrap();
        let route = metrics.route("/api/v1/metrics/{id}");
        let in_flight = metrics.enter();
        for _ in 0..3 {
            route.record(&Method::GET, StatusCode::OK, Duration::from_micros(50));
        }
        route.record(&Method::from_bytes(b"BREW").unwrap(), StatusCode::IM_A_TEAPOT, Duration::from_secs(2));
        let text = telemetry.encode().unwrap();
        for line in [
            "terrace_http_requests_total{method=\"GET\",route=\"/api/v1/metrics/{id}\",status=\"200\"} 3",
            "terrace_http_requests_total{method=\"other\",route=\"/api/v1/metrics/{id}\",status=\"other\"} 1",
            "terrace_http_requests_in_flight 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("status=\"200\",le=\"0.0001\"} 3"), "{text}");
        assert!(text.contains("terrace_build_info{"), "{text}");
        drop(in_flight);
        assert!(telemetry.encode().unwrap().contains("terrace_http_requests_in_flight 0"));
    }
}
