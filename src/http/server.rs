//! Listening: sockets, workers and time limits of connections.

use std::net::SocketAddr;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::{App, HttpServer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use super::connections::Connections;
use super::{Front, spans};
use crate::config::HttpSettings;
use crate::error::{Error, Result};
use crate::overload::Capacity;
use crate::telemetry::Telemetry;

/// How long a closed connection may linger, so that a client which is still sending reads the refusal of its request.
const LINGER_TIMEOUT: Duration = Duration::from_secs(3);
/// How many connections beyond `http.max_connections` are told so, at least. Beyond those nobody is told anything: they wait
/// until one of them is over.
const LEAST_SURPLUS: usize = 64;
/// What the database, Redis, files and surplus connections need besides.
const OTHER_DESCRIPTORS: u64 = 512;
/// Connections that the system may complete before a worker takes them; more than a burst of reconnecting clients.
const BACKLOG: u32 = 4096;

/// A server that listens.
pub struct Listening {
    /// The server; it serves while this future is polled, and it can be stopped through its handle.
    pub server: Server,
    /// Where it listens; with port 0 in the settings, the port that the system chose.
    pub addresses: Vec<SocketAddr>,
    /// What watches over its connections; abort it when the server has stopped.
    pub watch: JoinHandle<()>,
}

/// Listens on `settings.listen`. The server does not react to signals: the application stops it, and requests in flight
/// then have `settings.shutdown_timeout` to end.
pub fn serve(settings: &HttpSettings, front: Front, telemetry: &Telemetry) -> Result<Listening> {
    let capacity = Capacity::connections(settings.max_connections, telemetry.registry())?;
    // A head that begins just before an idle connection would be ended has its own time too.
    let connections = Connections::new(capacity, settings.keep_alive.saturating_add(settings.head_timeout));
    let noted = connections.clone();
    raise_descriptor_limit(settings);
    let application = move || {
        let front = front.clone();
        App::new().wrap(spans::layer()).configure(move |application| front.configure(application))
    };
    let keep_alive = if settings.keep_alive.is_zero() { KeepAlive::Disabled } else { settings.keep_alive.into() };
    let mut server = HttpServer::new(application)
        .keep_alive(keep_alive)
        .client_request_timeout(settings.head_timeout)
        .client_disconnect_timeout(LINGER_TIMEOUT)
        .on_connect(move |stream, data| noted.note(stream, data))
        .max_connections(most_per_worker(settings))
        .backlog(BACKLOG)
        // An answer is written at once; waiting to fill a packet would only delay the end of a large one.
        .tcp_nodelay(true)
        // Rounded up: the server counts in whole seconds, and 0 would cut requests off at once.
        .shutdown_timeout(settings.shutdown_timeout.as_millis().div_ceil(1000).min(3600) as u64)
        .disable_signals();
    if settings.workers > 0 {
        server = server.workers(settings.workers);
    }
    let server = server.bind(&settings.listen).map_err(|error| {
        let detail = format!("http.listen: cannot listen on {:?}: {error}.", settings.listen);
        Error::bad_request("cannot_listen", detail)
    })?;
    Ok(Listening { addresses: server.addrs(), server: server.run(), watch: tokio::spawn(connections.end_idle()) })
}

/// Raises the number of file descriptors that the process may have, as far as it may itself. Mostly it is 1,024 at first, which
/// is only right for programs that use select(2).
fn raise_descriptor_limit(settings: &HttpSettings) {
    // A connection has two, see `connections`.
    let needed = (settings.max_connections as u64).saturating_mul(2).saturating_add(OTHER_DESCRIPTORS);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let result = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit });
    if raised < needed || result.is_err() {
        let current = limit.current;
        tracing::warn!(
            needed,
            current,
            maximum = limit.maximum,
            "this process may not have as many file descriptors as http.max_connections needs; lower it, or raise the limit"
        );
    }
}

/// Workers share connections out evenly, as long as all have room.
fn most_per_worker(settings: &HttpSettings) -> usize {
    let workers = if settings.workers > 0 { settings.workers } else { available_parallelism().map_or(1, NonZero::get) };
    let surplus = (settings.max_connections / 4).max(LEAST_SURPLUS);
    settings.max_connections.saturating_add(surplus).div_ceil(workers)
}
