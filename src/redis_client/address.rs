//! Where Redis is and how to get there: the URL, TCP and TLS. What goes over the connection is `link`'s and
//! `subscription`'s.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::failure::{from_connect, from_tls};
use crate::config::RedisSettings;
use crate::error::{Error, Result};
use crate::tls;

/// A connection over which nothing came for this long is asked whether it is alive, every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// After this long without an acknowledgement it is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long the handshake of TLS may take; part of what a whole connection may.
const TLS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Bytes to and from the server.
pub(super) type Stream = Pin<Box<dyn ReadWrite>>;

/// What a stream must be able to do.
pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> ReadWrite for S {}

/// Where Redis is.
pub(super) struct Address {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// User, password and database.
    pub login: RedisConnectionInfo,
}

impl Address {
    /// Reads `redis.url` and the certificate authorities.
    pub fn of(settings: &RedisSettings) -> Result<Self> {
        if !["redis://", "rediss://"].iter().any(|scheme| settings.url.starts_with(scheme)) {
            return Err(invalid_url());
        }
        // The parser's own words could repeat a part of the URL, which may hold a password.
        let info = settings.url.as_str().into_connection_info().map_err(|_| invalid_url())?;
        let login = info.redis_settings().clone();
        // What a subscription speaks.
        // The answer to setting a name would be lost, also when it is that there are too many connections.
        let login = login.set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        let (host, port, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host, *port, None),
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
                let config = tls::verifying(&settings.ca_file, "redis.ca_file")?;
                let name = ServerName::try_from(host.clone()).map_err(|_| invalid_url())?;
                (host, *port, Some((TlsConnector::from(Arc::new(config)), name)))
            }
            // The enum is open to more; a certificate always counts, and a socket in the file system has no scheme here.
            _ => return Err(invalid_url()),
        };
        Ok(Self { host: host.clone(), port, tls, login })
    }

    /// A new connection.
    pub async fn open(&self) -> Result<Stream> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| from_connect(&error))?;
        prepare(&tcp).map_err(|error| from_connect(&error))?;
        match &self.tls {
            None => Ok(Box::pin(tcp)),
            Some((connector, name)) => {
                // A server without TLS waits for the rest of what it takes for a command.
                let encrypted = timeout(TLS_TIMEOUT, connector.connect(name.clone(), tcp)).await;
                let encrypted = encrypted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                Ok(Box::pin(encrypted.map_err(|error| from_tls(&error))?))
            }
        }
    }
}

/// Small messages go at once, and a peer that vanished is noticed.
fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

fn invalid_url() -> Error {
    Error::bad_request(
        "invalid_setting",
        "redis.url is not one that Terrace understands; it takes redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss://… for \
         TLS, with characters such as @ and / in the password percent-encoded, and a number as the database.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RedisSettings {
        RedisSettings { url: url.to_owned(), ..RedisSettings::default() }
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_its_password() {
        for url in [
            "redis://",
            "redis://u:secret@h:port",
            "redis://u:secret@h/zero",
            "rediss://u:secret@h#insecure",
            "rediss://u:secret@h#more",
            "unix:///secret",
            "http://u:secret@h",
        ] {
            let error = Address::of(&settings(url)).map(drop).unwrap_err();
            assert!(error.detail().contains("redis.url"), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::of(&settings("redis://me:p%40ss@example.org/3")).unwrap();
        assert_eq!((address.host.as_str(), address.port, address.tls.is_some()), ("example.org", 6379, false));
        let login = &address.login;
        assert_eq!((login.username(), login.password(), login.db()), (Some("me"), Some("p@ss"), 3));
        let address = Address::of(&settings("rediss://[::1]:7000")).unwrap();
        assert_eq!((address.host.as_str(), address.port, address.tls.is_some()), ("::1", 7000, true));
    }
}
