//! One connection and the server process at its end: how it begins, which servers are refused, and how commands are sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult};
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
    /// Which process this is, and which history its data have.
    pub server: u64,
    history: String,
    pub version: String,
    /// Whether Terrace was tested with this version.
    pub is_tested: bool,
}

impl Link {
    /// Which server this is: another number after each restart, after each promotion, and for each replica.
    pub fn server(&self) -> u64 {
        self.0.peer.server
    }

    /// Runs commands in one round trip, within `redis.timeout`; no commands in none. A failure that means the connection ends
    /// it for all.
    pub async fn run<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T> {
        // To the crate it is a mistake, and to whoever builds one from what there is to do it is not.
        if pipeline.is_empty() {
            return redis::from_redis_value(redis::Value::Array(Vec::new())).map_err(Error::internal);
        }
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

    /// Ends the link if the server is no longer what it was. Only writes would show it otherwise.
    pub(super) async fn verify(&self) {
        let mut connection = self.0.connection.clone();
        let error = match timeout(CONNECT_TIMEOUT, history(&mut connection)).await {
            Ok(Ok(history)) if history == self.0.peer.history => return,
            Ok(Ok(_)) => failure::unusable("Redis was made a master, or began its replication, anew; see redis.url."),
            Ok(Err(error)) => error,
            // Nobody waits for this one, so it may take its time.
            Err(_) => failure::too_slow("two seconds"),
        };
        if let Some(shared) = self.0.shared.upgrade() {
            shared.lose(self.0.number, &error);
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
    let (version, is_tested, run) = identity(&info.map_err(|error| failure::from_login(&error))?)?;
    let history = history(connection).await?;
    let written: RedisResult<i64> = redis::cmd("DEL").arg(probe).query_async(connection).await;
    written.map_err(|error| failure::from_login(&error))?;
    let server = xxh3_64(format!("{run} {history}").as_bytes());
    Ok(Peer { server, history, version, is_tested })
}

/// Version, whether it is a tested one, and run of the server of which `INFO server` tells.
fn identity(info: &str) -> Result<(String, bool, String)> {
    if member(info, "redis_mode") == "cluster" {
        return Err(failure::cluster());
    }
    let (version, run) = (member(info, "redis_version"), member(info, "run_id"));
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < OLDEST || run.is_empty() {
        return Err(unsupported(if version.is_empty() { "of no version" } else { version }));
    }
    Ok((version.to_owned(), major <= TESTED_MAJOR, run.to_owned()))
}

/// Which history of data this master continues: another one after each promotion, also of the same process. A master that
/// was a replica meanwhile has the data of the other one, which may lack what it had acknowledged itself.
async fn history(connection: &mut MultiplexedConnection) -> Result<String> {
    let info: RedisResult<String> = redis::cmd("INFO").arg("replication").query_async(connection).await;
    let info = info.map_err(|error| failure::from_login(&error))?;
    if member(&info, "role") != "master" {
        return Err(failure::replica());
    }
    Ok(member(&info, "master_replid").to_owned())
}

fn member<'i>(info: &'i str, name: &str) -> &'i str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
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
            let told = identity(&info(version, "standalone")).unwrap();
            assert_eq!(told, (version.to_owned(), is_tested, "abc".to_owned()));
        }
        for version in ["6.0.16", "5.0.3", "2.8", ""] {
            let error = identity(&info(version, "standalone")).unwrap_err();
            assert!(error.detail().contains("redis.url") && error.detail().contains("6.2"), "{error}");
        }
        assert!(identity(&info("7.0.15", "cluster")).unwrap_err().detail().contains("cluster"));
    }
}
