//! Listening: sockets, workers and time limits of connections. Operators may have a server of their own, with a thread of its
//! own: it answers when clients keep all others busy.

use std::net::SocketAddr;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::KeepAlive;
use actix_web::{App, HttpServer};
use prometheus::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use super::certificate::Certificate;
use super::connections::Connections;
use super::door::{Door, Serves, Transport};
use super::{Front, spans};
use crate::config::{HttpSettings, Settings};
use crate::error::{Error, Result};
use crate::overload::Capacity;
use crate::telemetry::Telemetry;

/// How long a closed connection may linger, so that a client which is still sending reads the refusal of its request.
const LINGER_TIMEOUT: Duration = Duration::from_secs(3);
/// How many connections beyond `http.max_connections` are told so, at least. Beyond those nobody is told anything: they wait
/// until one of them is over.
const LEAST_SURPLUS: usize = 64;
/// Connections of operators at once, if they have an address of their own.
const MOST_OPERATORS: usize = 256;
/// What the database, Redis, files and surplus connections need besides.
const OTHER_DESCRIPTORS: u64 = 512;
/// Connections that the system may complete before a worker takes them; more than a burst of reconnecting clients.
const BACKLOG: u32 = 4096;

/// Servers that listen.
pub struct Listening {
    /// Where data is: with port 0 in the settings, the port that the system chose.
    pub addresses: Vec<SocketAddr>,
    /// Where operators are served, if not there.
    pub operations: Vec<SocketAddr>,
    /// Whether they speak TLS.
    pub is_encrypted: bool,
    /// A server for each of the two. It serves while this future is polled, and it can be stopped through its handle.
    pub servers: Vec<Server>,
    /// What watches over connections and certificates; abort it when the servers have stopped.
    pub watches: Vec<JoinHandle<()>>,
}

/// Listens on `http.listen`, and on `operations.listen` if that is another address. The servers do not react to signals: the
/// application stops them, and requests in flight then have `http.shutdown_timeout` to end.
pub fn serve(settings: &Settings, front: &Front, telemetry: &Telemetry) -> Result<Listening> {
    let (http, operations) = (&settings.http, &settings.operations);
    let certificate = Certificate::open(http)?;
    raise_descriptor_limit(http);
    let transport = if certificate.is_some() { Transport::Tls } else { Transport::Plain };
    let serves = if operations.listen.is_empty() { Serves::Everything } else { Serves::Data };
    let public = Planned {
        setting: "http.listen",
        address: &http.listen,
        door: Door { serves, transport },
        capacity: Capacity::connections(http.max_connections, telemetry.registry())?,
        most: http.max_connections,
        workers: if http.workers > 0 { http.workers } else { available_parallelism().map_or(1, NonZero::get) },
    };
    let mut bound = vec![public.bind(http, front, certificate.as_ref())?];
    if !operations.listen.is_empty() {
        let private = Planned {
            setting: "operations.listen",
            address: &operations.listen,
            door: Door { serves: Serves::Operations, transport },
            // Who reads metrics is told nothing of its own connections.
            capacity: Capacity::connections(MOST_OPERATORS, &Registry::new())?,
            most: MOST_OPERATORS,
            workers: 1,
        };
        bound.push(private.bind(http, front, certificate.as_ref())?);
    }
    let mut addresses = bound.iter().map(|bound| bound.server_addresses.clone());
    let (addresses, operations) = (addresses.next().unwrap_or_default(), addresses.next().unwrap_or_default());
    let watches = certificate.map(|certificate| tokio::spawn(certificate.follow()));
    let mut listening = Listening {
        addresses,
        operations,
        is_encrypted: watches.is_some(),
        servers: Vec::new(),
        watches: Vec::from_iter(watches),
    };
    for Bound { server, connections, .. } in bound {
        listening.servers.push(server);
        listening.watches.push(tokio::spawn(connections.end_idle()));
    }
    Ok(listening)
}

/// A server that is to listen.
struct Planned<'a> {
    setting: &'static str,
    address: &'a str,
    door: Door,
    capacity: Capacity,
    most: usize,
    workers: usize,
}

/// A server that listens, and its connections.
struct Bound {
    server: Server,
    server_addresses: Vec<SocketAddr>,
    connections: Connections,
}

impl Planned<'_> {
    fn bind(self, settings: &HttpSettings, front: &Front, certificate: Option<&Certificate>) -> Result<Bound> {
        let (front, door) = (front.clone(), self.door);
        let application = move || {
            let front = front.clone();
            App::new().wrap(spans::layer()).configure(move |application| front.configure_behind(door, application))
        };
        // A head that begins just before an idle connection would be ended has its own time too.
        let connections = Connections::new(self.capacity, settings.keep_alive.saturating_add(settings.head_timeout));
        let noted = connections.clone();
        let keep_alive = if settings.keep_alive.is_zero() { KeepAlive::Disabled } else { settings.keep_alive.into() };
        let surplus = (self.most / 4).max(LEAST_SURPLUS);
        let server = HttpServer::new(application)
            .workers(self.workers)
            .keep_alive(keep_alive)
            .client_request_timeout(settings.head_timeout)
            .client_disconnect_timeout(LINGER_TIMEOUT)
            .on_connect(move |stream, data| noted.note(stream, data))
            // Workers share connections out evenly, as long as all have room.
            .max_connections(self.most.saturating_add(surplus).div_ceil(self.workers))
            .backlog(BACKLOG)
            // An answer is written at once; waiting to fill a packet would only delay the end of a large one.
            .tcp_nodelay(true)
            // Rounded up: the server counts in whole seconds, and 0 would cut requests off at once.
            .shutdown_timeout(settings.shutdown_timeout.as_millis().div_ceil(1000).min(3600) as u64)
            .disable_signals();
        let bound = match certificate {
            None => server.bind(self.address),
            Some(certificate) => server.bind_rustls_0_23(self.address, certificate.config()?),
        };
        let server = bound.map_err(|error| {
            let detail = format!("{}: cannot listen on {:?}: {error}.", self.setting, self.address);
            Error::bad_request("cannot_listen", detail)
        })?;
        Ok(Bound { server_addresses: server.addrs(), server: server.run(), connections })
    }
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
