//! The binary as a process that serves the fixture: for what only a process has, its log, its exit code and its signals.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, Reply, fixture, settings_on, terrace};

/// `terrace serve`, until it is dropped.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    client: reqwest::Client,
    _directory: TempDir,
}

/// A command over the fixture's declarations on the database that a URL names, with further settings.
pub fn command(directory: &TempDir, database_url: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    fixture::declare(&mut settings_on(database_url.to_owned()), directory.path());
    declared(directory, database_url, arguments, settings)
}

fn declared(directory: &TempDir, database_url: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = terrace(directory.path(), arguments);
    command.env("TERRACE_COLLECTIONS__DIR", "collections").env("TERRACE_COLLECTIONS__VIEWS_DIR", "views");
    command.env("TERRACE_HTTP__LISTEN", "127.0.0.1:0").env("TERRACE_DATABASE__URL", database_url);
    command.envs(settings.iter().copied());
    command
}

impl Process {
    /// Starts it, and waits until it listens.
    pub fn serve(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let command = command(&directory, database_url, &["serve"], settings);
        Self::run(command, directory)
    }

    /// The same with `from` → `to` in the files of the collections, and without the view.
    pub fn serve_edited(database_url: &str, settings: &[(&str, &str)], edits: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        fixture::declare_edited(directory.path(), edits);
        let command = declared(&directory, database_url, &["serve"], settings);
        Self::run(command, directory)
    }

    fn run(mut command: Command, directory: TempDir) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, written) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| *written.lock().unwrap() += &(line + "\n")));
        let client = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self { address: unknown, child, log, client, _directory: directory };
        process.until("the server listens", |log| log.contains("listening address="));
        let log = process.log();
        let address = log.split("listening address=").nth(1).unwrap().split_whitespace().next().unwrap();
        process.address = address.parse().unwrap();
        process
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// How many lines of the log have this text.
    pub fn told(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits for something in the log.
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(&self.log()) {
            assert!(Instant::now() < deadline, "{what} did not come true:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until `path` is answered with `status`.
    pub async fn answers(&self, path: &str, status: u16) -> Reply {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let reply = self.get(path).await;
            if reply.status == status {
                return reply;
            }
            assert!(Instant::now() < deadline, "{path}: {} {}\n{}", reply.status, reply.text, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::read(self.client.get(format!("http://{}{path}", self.address))).await
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        self.send_as(method, path, body, None).await
    }

    /// The same by who has a key or a token.
    pub async fn send_as(&self, method: Method, path: &str, body: &Value, credential: Option<&str>) -> Reply {
        let request = self.client.request(method, format!("http://{}{path}", self.address)).json(body);
        Reply::read(match credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        })
        .await
    }

    /// Sends SIGTERM; its exit code, once it has ended.
    pub fn terminate(&mut self) -> Option<i32> {
        // Its idle connections would otherwise be waited for.
        self.client = reqwest::Client::new();
        self.signal("TERM");
        self.ended()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
