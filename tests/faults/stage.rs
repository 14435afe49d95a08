//! Three server processes on one private PostgreSQL and one private Redis, a proxy before each thing that each of them connects to, and a client
//! for all of them. What an answer shows is recorded, and what no answer may be is a problem.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::history::{Instance, Recorder};
use super::proxy::Proxy;
use crate::support::DEADLINE;
use crate::support::fixture::ITEMS;
use crate::support::postgres::PrivatePostgres;
use crate::support::process::Process;
use crate::support::redis::PrivateRedis;
use crate::support::schema::Row;

/// How many processes there are at a time.
pub const SERVERS: usize = 3;

/// What may be wrong with an answer while the scenario does its worst. Anything else is a violation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// A 503 that says when to come back.
    pub refusals: bool,
    /// No answer at all, for the process may be gone.
    pub cuts: bool,
}

/// Everything that runs.
pub struct Stage {
    pub recorder: Recorder,
    pub postgres: Mutex<PrivatePostgres>,
    pub redis: Mutex<PrivateRedis>,
    /// By server.
    pub to_postgres: Vec<Proxy>,
    pub to_redis: Vec<Proxy>,
    pub allowed: Allowed,
    servers: RwLock<Vec<Server>>,
    further: Vec<Vec<(String, String)>>,
    faults: TempDir,
    client: reqwest::Client,
    next: AtomicUsize,
    started: AtomicUsize,
    numbers: AtomicU64,
}

struct Server {
    /// `None` between its end and its next start.
    process: Option<Process>,
    instance: Instance,
}

/// An answer of one instance.
pub struct Answer {
    pub status: u16,
    pub instance: Instance,
    pub cache: String,
    pub token: Option<String>,
    pub body: Value,
}

/// Where to send a request.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub server: usize,
    pub instance: Instance,
    socket: std::net::SocketAddr,
}

impl Stage {
    /// Starts everything. `records` is how many records the workload has.
    pub async fn set(records: usize, allowed: Allowed, settings: impl Fn(usize) -> Vec<(String, String)>) -> Arc<Self> {
        let postgres = PrivatePostgres::start();
        let redis = PrivateRedis::start();
        let [database, second_tier] = [postgres.url(), redis.url()].map(|url| socket_of(&url));
        let (mut to_postgres, mut to_redis) = (Vec::new(), Vec::new());
        for _ in 0..SERVERS {
            to_postgres.push(Proxy::before(database).await);
            to_redis.push(Proxy::before(second_tier).await);
        }
        let stage = Self {
            recorder: Recorder::new(records),
            postgres: Mutex::new(postgres),
            redis: Mutex::new(redis),
            to_postgres,
            to_redis,
            allowed,
            servers: RwLock::default(),
            further: (0..SERVERS).map(settings).collect(),
            faults: TempDir::new().unwrap(),
            client: reqwest::Client::builder().timeout(Duration::from_secs(15)).build().unwrap(),
            next: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            numbers: AtomicU64::new(1),
        };
        let stage = Arc::new(stage);
        for server in 0..SERVERS {
            std::fs::create_dir(stage.faults_of(server)).unwrap();
            stage.servers.write().unwrap().push(Server { process: None, instance: 0 });
        }
        // The first one makes the tables.
        stage.start(0).await;
        futures_util::future::join_all((1..SERVERS).map(|server| stage.start(server))).await;
        stage
    }

    /// Starts a server that does not run, and waits until it is ready.
    pub async fn start(self: &Arc<Self>, server: usize) {
        let stage = Arc::clone(self);
        let process = tokio::task::spawn_blocking(move || stage.launch(server)).await.unwrap();
        let address = process.address;
        let instance = self.started.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let reply = self.client.get(format!("http://{address}/health/ready")).send().await;
            if reply.is_ok_and(|reply| reply.status() == 200) {
                break;
            }
            assert!(Instant::now() < deadline, "server {server} does not become ready:\n{}", process.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.servers.write().unwrap()[server] = Server { process: Some(process), instance };
    }

    fn launch(&self, server: usize) -> Process {
        let [database, redis] = [&self.to_postgres, &self.to_redis].map(|proxies| proxies[server].address);
        let url = format!("postgres://terrace@{database}/terrace");
        let redis = format!("redis://{redis}");
        let faults = self.faults_of(server).display().to_string();
        let mut settings: Vec<(&str, &str)> = vec![
            ("FAULTS_DIR", &faults),
            ("TERRACE_REDIS__URL", &redis),
            ("TERRACE_HTTP__WORKERS", "2"),
            ("TERRACE_DATABASE__MIN_CONNECTIONS", "1"),
            ("TERRACE_DATABASE__MAX_CONNECTIONS", "8"),
            // All clients have one address.
            ("TERRACE_LIMITS__AUTH", ""),
        ];
        settings.extend(self.further[server].iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Process::serve(&url, &settings)
    }

    /// Ends it as SIGKILL does.
    pub async fn kill(&self, server: usize) {
        let process = self.servers.write().unwrap()[server].process.take();
        tokio::task::spawn_blocking(move || drop(process)).await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn has_ended(&self, server: usize) {
        let has_ended = || self.servers.write().unwrap()[server].process.as_mut().is_none_or(Process::has_ended);
        let deadline = Instant::now() + DEADLINE;
        while !has_ended() {
            assert!(Instant::now() < deadline, "server {server} does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.kill(server).await;
    }

    /// What is stored: the number of each record.
    pub fn stored(&self) -> BTreeMap<String, u64> {
        let rows = self.postgres.lock().unwrap().sql("SELECT id, data->>'tier' FROM records WHERE collection = 'items'");
        let number = |row: Row| {
            let mut columns = row.into_iter().map(Option::unwrap);
            (columns.next().unwrap(), columns.next().unwrap().parse().unwrap())
        };
        rows.into_iter().map(number).collect()
    }

    fn faults_of(&self, server: usize) -> PathBuf {
        self.faults.path().join(server.to_string())
    }

    /// Switches a part of the protocol off, everywhere.
    pub fn switch_off(&self, part: &str) {
        (0..SERVERS).for_each(|server| self.arm(server, part, ""));
    }

    /// Arms a point of `faults`.
    pub fn arm(&self, server: usize, point: &str, order: &str) {
        let directory = self.faults_of(server);
        // Nobody may read half of an order.
        std::fs::write(directory.join("draft"), order).unwrap();
        std::fs::rename(directory.join("draft"), directory.join(point)).unwrap();
    }

    pub fn disarm(&self, server: usize, point: &str) {
        let _ = std::fs::remove_file(self.faults_of(server).join(point));
    }

    /// The next number for a document.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The next server, by turns.
    pub fn any(&self) -> Option<Address> {
        self.address(self.next.fetch_add(1, Ordering::Relaxed) % SERVERS)
    }

    /// Another one than that.
    pub fn other_than(&self, server: usize) -> Option<Address> {
        self.address((server + 1 + fastrand::usize(..SERVERS - 1)) % SERVERS)
    }

    /// `None` while it does not run.
    pub fn address(&self, server: usize) -> Option<Address> {
        let servers = self.servers.read().unwrap();
        let Server { process, instance } = &servers[server];
        process.as_ref().map(|process| Address { server, instance: *instance, socket: process.address })
    }

    /// What a server has logged.
    pub fn log(&self, server: usize) -> String {
        self.servers.read().unwrap()[server].process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// What the servers have logged, for when something is wrong.
    pub fn logs(&self) -> String {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let logs = servers.iter().enumerate().map(|(server, running)| {
            let log = running.process.as_ref().map(Process::log).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            format!("-- server {server}:\n{}\n", log.get(from..).unwrap_or(&log))
        });
        logs.collect()
    }

    /// Sends a request by whom an `Authorization` field says; what comes, or 0 and why nothing did.
    pub async fn ask(
        &self,
        to: Address,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
    ) -> (u16, String) {
        let mut request = self.client.request(method, format!("http://{}{path}", to.socket));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => (response.status().as_u16(), response.text().await.unwrap_or_default()),
            Err(error) => (0, format!("{error:?}")),
        }
    }

    /// Sends a request; `None` if there is no answer, or none that says something about records.
    pub async fn send(
        &self,
        to: Address,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        expected: &[u16],
    ) -> Option<Answer> {
        let mut request = self.client.request(method.clone(), format!("http://{}{ITEMS}{path}", to.socket));
        if let Some(token) = token {
            request = request.header("consistency-token", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let whole = async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.text().await?))
        };
        let (status, headers, text) = match whole.await {
            Ok(whole) => whole,
            Err(error) => {
                let is_cut = !error.is_timeout() && self.allowed.cuts;
                if !is_cut {
                    self.recorder.problem(format!("no answer to {method} {path} from server {}: {error:?}", to.server));
                }
                self.recorder.refused();
                return None;
            }
        };
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        if status == 503 && header("retry-after").is_some() && self.allowed.refusals {
            self.recorder.refused();
            return None;
        }
        if !expected.contains(&status) {
            self.recorder.problem(format!("{method} {path} on server {}: {status} {text}", to.server));
            return None;
        }
        let body = serde_json::from_str(&text).unwrap_or_default();
        let cache = header("x-cache").unwrap_or_default();
        Some(Answer { status, instance: to.instance, cache, token: header("consistency-token"), body })
    }
}

/// The address that a URL names.
pub fn socket_of(url: &str) -> std::net::SocketAddr {
    let authority = url.split("://").nth(1).unwrap().split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap().parse().unwrap()
}
