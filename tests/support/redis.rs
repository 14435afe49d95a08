//! Redis: the server that all tests share, and one for a single test, to be stopped, filled and broken.
//!
//! ```ignore
//! let mut redis = PrivateRedis::start();
//! let server = Server::fixture_with(|settings| settings.redis.url = redis.url());
//! redis.stop();
//! redis.start_again();
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use tempfile::TempDir;
use terrace::config::Settings;

use super::DEADLINE;
use super::postgres::{free_port, signal};
use super::schema::required;
use super::tls::Issued;

/// For `redis.url`: the server that all tests of the run share.
pub fn url() -> String {
    required("TEST_REDIS")
}

/// Lets a server use the shared Redis, under a prefix that no other test has.
pub fn join(settings: &mut Settings) {
    settings.redis.url = url();
    settings.redis.prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
}

/// What is different about a server from the shared one.
#[derive(Default)]
pub struct Plan {
    arguments: Vec<String>,
    certificate: Option<Issued>,
    password: Option<String>,
}

impl Plan {
    /// An option, as in `redis.conf`.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Answers TLS with this certificate, and nothing but TLS over TCP.
    pub fn tls(mut self, certificate: &Issued) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// Wants this password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Starts it.
    pub fn start(self) -> PrivateRedis {
        let mut redis = self.prepare();
        redis.start_again();
        redis
    }

    /// All but starts it: its URL is known, and nobody listens there.
    pub fn prepare(self) -> PrivateRedis {
        PrivateRedis { directory: TempDir::new().unwrap(), port: free_port(), plan: self, process: None }
    }
}

/// A server of its own, until it is dropped. It keeps nothing: each start begins empty.
pub struct PrivateRedis {
    directory: TempDir,
    port: u16,
    plan: Plan,
    process: Option<Child>,
}

impl PrivateRedis {
    /// One like the shared server.
    pub fn start() -> Self {
        Plan::default().start()
    }

    /// One with something changed.
    pub fn planned() -> Plan {
        Plan::default()
    }

    /// For `redis.url`.
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1", self.port)
    }

    /// The same at another address, for example that of a proxy.
    pub fn url_at(&self, host: &str, port: u16) -> String {
        let scheme = if self.plan.certificate.is_some() { "rediss" } else { "redis" };
        let password = self.plan.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        format!("{scheme}://{password}{host}:{port}")
    }

    /// Where it listens, for a proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, where it was before, and waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = Command::new(required("TEST_REDIS_BIN"));
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxmemory", "256mb"]);
        command.args(["--maxmemory-policy", "allkeys-lru", "--repl-diskless-sync-delay", "0"]);
        for (name, file) in [("dir", ""), ("logfile", "redis.log"), ("pidfile", "redis.pid"), ("unixsocket", "socket")] {
            command.arg(format!("--{name}")).arg(self.file(file));
        }
        let port = self.port.to_string();
        match &self.plan.certificate {
            None => command.args(["--port", &port]),
            Some(issued) => {
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file"]);
                command.arg(&issued.certificate).arg("--tls-key-file").arg(&issued.key)
            }
        };
        if let Some(password) = &self.plan.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.plan.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while self.ask::<String>(&["PING"]).is_err() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "Redis did not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
    }

    /// Ends it as a crash does, and returns when it has ended. All it had is lost.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it does not run");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// It does nothing more until [`Self::resume`]; to clients it hangs.
    pub fn pause(&self) {
        signal(&[self.process.as_ref().expect("it does not run").id()], "STOP");
    }

    /// The end of [`Self::pause`].
    pub fn resume(&self) {
        signal(&[self.process.as_ref().expect("it does not run").id()], "CONT");
    }

    /// Follows another server from now on, and returns when it has all that the other one had.
    pub fn follow(&self, master: &Self) {
        self.command::<String>(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
        let deadline = Instant::now() + DEADLINE;
        while !self.command::<String>(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(Instant::now() < deadline, "it does not follow:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Follows nobody from now on.
    pub fn promote(&self) {
        self.command::<String>(&["REPLICAOF", "NO", "ONE"]);
    }

    /// `CONFIG SET` of one or more options at once.
    pub fn configure(&self, options: &[(&str, &str)]) {
        let words = options.iter().flat_map(|(name, value)| [*name, *value]);
        let command: Vec<&str> = ["CONFIG", "SET"].into_iter().chain(words).collect();
        self.command::<String>(&command);
    }

    /// Wants another password from now on, though its URL keeps the old one.
    pub fn change_password(&self, password: &str) {
        self.configure(&[("requirepass", password)]);
    }

    /// Answers with this certificate from now on.
    pub fn install(&self, issued: &Issued) {
        let [certificate, key] = [&issued.certificate, &issued.key].map(|file| file.to_str().unwrap());
        self.configure(&[("tls-cert-file", certificate), ("tls-key-file", key)]);
    }

    /// Runs a command past the network, without a password.
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.ask(words).unwrap_or_else(|error| panic!("{error}: {words:?}"))
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("redis.log")).unwrap_or_default()
    }

    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let password = self.plan.password.as_ref().map_or_else(String::new, |password| format!("?pass={password}"));
        let client = redis::Client::open(format!("unix://{}{password}", self.file("socket").display()))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut client.get_connection()?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}
