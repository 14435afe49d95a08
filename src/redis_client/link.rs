//! One connection and the server process at its end: how it begins, which servers are refused, and how commands are sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult, Value};
use tokio::task::AbortHandle;
use tokio::time::{error::Elapsed, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::failure::{self, Failure};
use super::{Shared, Target};
use crate::error::{Error, Result};

/// What is needed of the server: the oldest version with everything that Terrace sends.
const OLDEST: (u32, u32) = (6, 2);
/// The newest major version that Terrace was tested with.
const TESTED_MAJOR: u32 = 7;

/// How long making a connection may take: a name, TCP, TLS and the login. What comes after has `redis.timeout`.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One connection and the server process that it leads to. Clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    connection: MultiplexedConnection,
    peer: Peer,
    number: u64,
    timeout: Duration,
    driver: AbortHandle,
    has_ended: Arc<AtomicBool>,
    /// Weak: who holds a link must not keep the client's tasks running.
    shared: Weak<Shared>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Which process this is.
    pub server: u64,
    pub version: String,
    /// Whether Terrace was tested with it.
    pub is_tested: bool,
}

impl Link {
    /// Which server process this is: another number after each restart, and another one for each replica.
    pub fn server(&self) -> u64 {
        self.0.peer.server
    }

    /// Runs commands in one round trip, within `redis.timeout`. A failure that means the connection ends it for all.
    pub async fn run<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T> {
        let mut connection = self.0.connection.clone();
        let begun = Instant::now();
        self.judge(begun, timeout(self.0.timeout, pipeline.query_async(&mut connection)).await)
    }

    /// Runs a script, which is loaded first if the server does not know it, within `redis.timeout`.
    pub async fn invoke<T: FromRedisValue>(&self, script: &redis::ScriptInvocation<'_>) -> Result<T> {
        let mut connection = self.0.connection.clone();
        let begun = Instant::now();
        self.judge(begun, timeout(self.0.timeout, script.invoke_async(&mut connection)).await)
    }

    /// Connects, and refuses a server that Terrace cannot use.
    pub(super) async fn make(target: &Target, number: u64, shared: Weak<Shared>) -> Result<Self> {
        let begin = async {
            let stream = target.address.open().await?;
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let begun = MultiplexedConnection::new_with_config(&target.address.login, stream, config).await;
            begun.map_err(|error| failure::from_login(&error))
        };
        let begun = timeout(CONNECT_TIMEOUT, begin).await;
        let (mut connection, driver) = begun.unwrap_or_else(|_| Err(failure::too_slow("two seconds")))?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(driver, Arc::clone(&has_ended), number, shared.clone())).abort_handle();
        let asked = timeout(target.timeout, ask(&mut connection, &target.probe)).await;
        match asked.unwrap_or_else(|_| Err(failure::too_slow("redis.timeout"))) {
            Ok(peer) => {
                let timeout = target.timeout;
                Ok(Self(Arc::new(Inner { connection, peer, number, timeout, driver, has_ended, shared })))
            }
            Err(error) => {
                driver.abort();
                Err(error)
            }
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Whether the server or the network has ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::SeqCst)
    }

    /// Ends the connection, also for commands that wait for their answers.
    pub(super) fn cut(&self) {
        self.0.driver.abort();
    }

    fn judge<T>(&self, begun: Instant, outcome: Result<RedisResult<T>, Elapsed>) -> Result<T> {
        // Without the client nobody counts, and nobody makes a new link.
        let Some(shared) = self.0.shared.upgrade() else {
            return outcome.map_err(|_| failure::ended())?.map_err(|error| failure::from_login(&error));
        };
        let metrics = &shared.metrics;
        let error = match outcome {
            Ok(Ok(value)) => {
                metrics.answered.inc();
                metrics.duration.observe(begun.elapsed().as_secs_f64());
                return Ok(value);
            }
            Ok(Err(error)) => match failure::from_command(&error) {
                Failure::Refused(error) => {
                    metrics.refused.inc();
                    shared.complain(&error);
                    return Err(error);
                }
                Failure::Lost(error) => {
                    metrics.lost.inc();
                    error
                }
            },
            Err(_) => {
                metrics.too_slow.inc();
                failure::too_slow("redis.timeout")
            }
        };
        shared.lose(self.0.number, &error);
        Err(error)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // By itself it would wait for answers that a server which hangs does not give.
        self.driver.abort();
    }
}

/// Moves bytes until the connection ends, and says so.
async fn drive(driver: impl Future<Output = ()>, has_ended: Arc<AtomicBool>, number: u64, shared: Weak<Shared>) {
    driver.await;
    has_ended.store(true, Ordering::SeqCst);
    if let Some(shared) = shared.upgrade() {
        shared.lose(number, &failure::ended());
    }
}

/// Asks who is there. `probe` is the name of a key that nobody has: deleting it shows whether writes are taken.
async fn ask(connection: &mut MultiplexedConnection, probe: &str) -> Result<Peer> {
    // Alone: a server that ends the connection says why to the first command.
    let info: RedisResult<String> = redis::cmd("INFO").arg("server").query_async(connection).await;
    let peer = peer(&info.map_err(|error| failure::from_login(&error))?)?;
    let mut questions = redis::pipe();
    questions.cmd("ROLE").cmd("DEL").arg(probe);
    let answers: RedisResult<(Vec<Value>, i64)> = questions.query_async(connection).await;
    let (role, _) = answers.map_err(|error| failure::from_login(&error))?;
    let role = role.into_iter().next().and_then(|role| redis::from_redis_value::<String>(role).ok());
    if role.is_some_and(|role| role != "master") {
        return Err(failure::replica());
    }
    Ok(peer)
}

/// Reads what `INFO server` says.
fn peer(info: &str) -> Result<Peer> {
    let member = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim();
    if member("redis_mode") == "cluster" {
        return Err(failure::cluster());
    }
    let (version, run) = (member("redis_version"), member("run_id"));
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < OLDEST || run.is_empty() {
        let version = if version.is_empty() { "of no version" } else { version };
        return Err(unsupported(version));
    }
    Ok(Peer { server: xxh3_64(run.as_bytes()), version: version.to_owned(), is_tested: major <= TESTED_MAJOR })
}

fn unsupported(version: &str) -> Error {
    let (major, minor) = OLDEST;
    failure::unusable(&format!("The server that redis.url names is Redis {version}, and Terrace needs {major}.{minor} or later."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, mode: &str) -> String {
        format!("# Server\r\nredis_version:{version}\r\nredis_mode:{mode}\r\nrun_id:abc\r\n")
    }

    #[test]
    fn old_servers_and_clusters_are_refused_and_new_ones_are_told_from_tested_ones() {
        for (version, is_tested) in [("6.2.0", true), ("7.0.15", true), ("7.4", true), ("8.0.0", false), ("10.1.2", false)] {
            let peer = peer(&info(version, "standalone")).unwrap();
            assert_eq!((peer.version.as_str(), peer.is_tested), (version, is_tested));
        }
        for version in ["6.0.16", "5.0.3", "2.8", ""] {
            let error = peer(&info(version, "standalone")).unwrap_err();
            assert!(error.detail().contains("redis.url") && error.detail().contains("6.2"), "{error}");
        }
        assert!(peer(&info("7.0.15", "cluster")).unwrap_err().detail().contains("cluster"));
    }
}
