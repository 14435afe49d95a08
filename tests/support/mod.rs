//! A real server on a port and a database of its own, and a client for it.

pub mod accounts;
pub mod database;
pub mod fixture;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod schema;
pub mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use terrace::app::App;
use terrace::config::Settings;
use tokio::sync::oneshot;

use schema::{Schema, Tested};

/// How long a condition may take to come true before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running server. Dropping it stops it and removes its files and its schema.
pub struct Server {
    pub address: SocketAddr,
    /// Where operators are served, if not there.
    pub operations: Option<SocketAddr>,
    pub settings: Settings,
    /// The value of an `Authorization` field: the first key of the database, if this server or the one that it is beside made it.
    pub admin: Option<String>,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    /// Both are another's if this server runs beside that one.
    directory: Option<TempDir>,
    schema: Option<Schema>,
}

/// When a server begins to listen.
#[derive(Clone, Copy, Debug)]
enum Start {
    WhenPrepared,
    AtOnce,
}

/// The root of the package, whatever directory the tests run in.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The binary, to be run in `directory` with no settings from the environment.
pub fn terrace(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERRACE_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}

/// Settings with the sample collections and a new database of the kind that this run is about: a file in `directory`, or
/// a schema of its own, which a server that is started with these settings drops.
pub fn settings(directory: &Path) -> Settings {
    let mut settings = settings_on(sqlite_url(directory));
    if Tested::now() == Tested::Postgres {
        settings.database.url = Schema::create().into_url();
        // Many tests share the server.
        settings.database.min_connections = 1;
        settings.database.max_connections = 4;
    }
    settings
}

/// A file in `directory`, for tests of what only SQLite does.
pub fn sqlite_url(directory: &Path) -> String {
    format!("sqlite://{}", directory.join("terrace.db").display())
}

/// Settings with the sample collections, on the database that a URL names.
pub fn settings_on(database_url: String) -> Settings {
    let mut settings = Settings::default();
    settings.http.listen = "127.0.0.1:0".to_owned();
    settings.http.workers = 2;
    // All tests of a server come from one address; those of quotas ask for their own.
    settings.limits.auth = None;
    settings.database.url = database_url;
    settings.collections.dir = root().join("config/collections");
    settings.collections.views_dir = root().join("config/views");
    settings.collections.samples_dir = root().join("config/samples");
    settings
}

/// Writes collections and views, given as TOML texts, to files in `directory`, and makes `settings` have no others.
pub fn declare(settings: &mut Settings, directory: &Path, collections: &[(&str, &str)], views: &[(&str, &str)]) {
    settings.collections.dir = directory.join("collections");
    settings.collections.views_dir = directory.join("views");
    settings.collections.samples_dir = directory.join("no-samples");
    for (parent, files) in [(&settings.collections.dir, collections), (&settings.collections.views_dir, views)] {
        std::fs::create_dir(parent).unwrap();
        for (name, text) in files {
            std::fs::write(parent.join(format!("{name}.toml")), text).unwrap();
        }
    }
}

impl Server {
    /// The sample collections with their sample records.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same, with settings changed by `change`.
    pub fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = settings(directory.path());
        change(&mut settings);
        Self::start_in(directory, settings)
    }

    /// Collections made of the TOML texts given, without views and samples.
    pub fn with_collections(files: &[(&str, &str)]) -> Self {
        Self::with_files(files, &[], |_| {})
    }

    /// Collections and views made of the TOML texts given, without samples.
    pub fn with_files(collections: &[(&str, &str)], views: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = settings(directory.path());
        declare(&mut settings, directory.path(), collections, views);
        change(&mut settings);
        Self::start_in(directory, settings)
    }

    /// A second server on this one's database and declarations, with settings changed by `change`.
    pub fn beside(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let mut server = Self::launch(settings, Start::WhenPrepared);
        server.admin.clone_from(&self.admin);
        server
    }

    /// Takes its files, so that they and its schema outlive it.
    pub fn keep_files(&mut self) -> TempDir {
        let _ = self.schema.take().map(Schema::into_url);
        self.directory.take().unwrap()
    }

    /// A server on files and a schema that another one has left.
    pub fn start_again(directory: TempDir, settings: Settings) -> Self {
        Self::start_in(directory, settings)
    }

    /// Stops it as SIGTERM would, and returns when it has ended.
    pub fn stop(mut self) {
        self.end();
    }

    fn start_in(directory: TempDir, settings: Settings) -> Self {
        let mut server = Self::launch(settings, Start::WhenPrepared);
        server.directory = Some(directory);
        server.schema = Schema::of(&server.settings.database.url);
        server
    }

    /// A server as `terrace serve` is one: it listens at once, and its database may come later.
    pub fn listen_in(directory: TempDir, settings: Settings) -> Self {
        let mut server = Self::launch(settings, Start::AtOnce);
        server.directory = Some(directory);
        server
    }

    fn launch(settings: Settings, start: Start) -> Self {
        if std::env::var_os("TEST_LOG").is_some() {
            // Fails when another test has done it already.
            let _ = terrace::telemetry::logs::init(&settings.log);
        }
        let (stop, stopped) = oneshot::channel();
        let (started, has_started) = std::sync::mpsc::channel();
        let own = settings.clone();
        let thread = thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let mut running = match start {
                    Start::WhenPrepared => App::open(own).await.unwrap().serve().await.unwrap(),
                    Start::AtOnce => terrace::app::serve(own).unwrap(),
                };
                let admin = running.take_first_key().map(|key| format!("Bearer {}", key.text.expose_secret()));
                started.send((running.addresses()[0], running.operations().first().copied(), admin)).unwrap();
                let _ = stopped.await;
                running.stop().await.unwrap();
            });
        });
        let (address, operations, admin) = has_started.recv_timeout(DEADLINE).expect("the server did not start");
        let client = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        Self {
            address,
            operations,
            settings,
            admin,
            client,
            stop: Some(stop),
            thread: Some(thread),
            directory: None,
            schema: None,
        }
    }

    /// A request to `path`, which may have a query string and is sent as it is: by an administrator to what is for administrators only,
    /// if the server has told one of its first key, and by nobody in particular to everything else.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.anonymous_request(method, path);
        match &self.admin {
            Some(admin) if path.starts_with("/admin") => request.header("authorization", admin),
            Some(_) | None => request,
        }
    }

    /// The same by nobody in particular to everything.
    pub fn anonymous_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::read(self.request(Method::GET, path)).await
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        Reply::read(self.request(method, path).json(body)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, body).await
    }

    /// A GET with further headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send_with(Method::GET, path, headers, None).await
    }

    /// A request with further headers and, perhaps, a JSON body.
    pub async fn send_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Reply {
        let is_by_somebody = headers.iter().any(|(name, _)| *name == "authorization");
        let mut request = if is_by_somebody { self.anonymous_request(method, path) } else { self.request(method, path) };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::read(if let Some(body) = body { request.json(body) } else { request }).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, body).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, body).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        Reply::read(self.request(Method::DELETE, path)).await
    }

    /// Sends bytes as they are over a connection of their own, and returns what comes back until it closes. A server may
    /// refuse a request, and close, before it has read all of it.
    pub async fn raw(&self, request: &[u8]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut reader, mut writer) = tokio::net::TcpStream::connect(self.address).await.unwrap().into_split();
        let mut answer = Vec::new();
        let exchange = async {
            // An error here is a connection that was closed early; what was answered before that counts.
            let (_, _) = tokio::join!(writer.write_all(request), reader.read_to_end(&mut answer));
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("no end of the answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Repeats `check` until it holds.
    pub async fn eventually(&self, what: &str, check: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !check().await {
            assert!(Instant::now() < deadline, "{what} did not come true");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Server {
    fn end(&mut self) {
        // Its idle connections would otherwise be waited for.
        self.client = reqwest::Client::new();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A whole answer.
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub async fn read(request: RequestBuilder) -> Self {
        Self::of(request.send().await.unwrap()).await
    }

    async fn of(response: Response) -> Self {
        Self { status: response.status(), headers: response.headers().clone(), text: response.text().await.unwrap() }
    }

    /// `X-Cache`.
    pub fn cache(&self) -> &str {
        self.header("x-cache")
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text))
    }

    /// A header's value, or `""`.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, after the status has been checked.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }

    /// The problem document, after its form has been checked.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!((&problem["status"], &problem["code"]), (&Value::from(status), &Value::from(code)), "{}", self.text);
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{}", self.text);
        problem
    }
}
