//! Listening: sockets, workers and time limits of connections.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::{App, HttpServer};

use super::{Front, spans};
use crate::config::HttpSettings;
use crate::error::{Error, Result};

/// How long a client may take to send the head of a request. A slow one would otherwise hold a connection for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed connection may linger, so that a client which is still sending reads the refusal of its request.
const LINGER_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that the system may complete before a worker takes them; more than a burst of reconnecting clients.
const BACKLOG: u32 = 4096;

/// A server that listens.
pub struct Listening {
    /// The server; it serves while this future is polled, and it can be stopped through its handle.
    pub server: Server,
    /// Where it listens; with port 0 in the settings, the port that the system chose.
    pub addresses: Vec<SocketAddr>,
}

/// Listens on `settings.listen`. The server does not react to signals: the application stops it, and requests in flight
/// then have `settings.shutdown_timeout` to end.
pub fn serve(settings: &HttpSettings, front: Front) -> Result<Listening> {
    let application = move || {
        let front = front.clone();
        App::new().wrap(spans::layer()).configure(move |application| front.configure(application))
    };
    let keep_alive = if settings.keep_alive.is_zero() { KeepAlive::Disabled } else { settings.keep_alive.into() };
    let mut server = HttpServer::new(application)
        .keep_alive(keep_alive)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(LINGER_TIMEOUT)
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
    Ok(Listening { addresses: server.addrs(), server: server.run() })
}
