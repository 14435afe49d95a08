//! The settings and their defaults. Each says what goes wrong when it is too low and too high.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{CorsSettings, LimitsSettings, OperationsSettings};

/// Everything an installation can set outside of its collection files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The HTTP server.
    pub http: HttpSettings,
    /// What is for operators.
    pub operations: OperationsSettings,
    /// Pages of other origins.
    pub cors: CorsSettings,
    /// Where the truth is.
    pub database: DatabaseSettings,
    /// The cache.
    pub cache: CacheSettings,
    /// The second tier, and the way between instances.
    pub redis: RedisSettings,
    /// Where collection, view and sample files are.
    pub collections: CollectionsSettings,
    /// The change log.
    pub changes: ChangesSettings,
    /// Who is asking.
    pub auth: AuthSettings,
    /// How often clients may ask.
    pub limits: LimitsSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// The HTTP server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address and port to listen on, for example `127.0.0.1:8080`.
    pub listen: String,
    /// A PEM file with the certificate, followed by those between it and its authority, and one with its key; empty for no TLS.
    /// They are read again when they change.
    pub tls_certificate: PathBuf,
    /// The key of that certificate.
    pub tls_key: PathBuf,
    /// Threads that serve requests. Too few leave cores idle, more than cores only switch; 0 means one per core.
    pub workers: usize,
    /// The largest request body, and the largest record that patches may make. Too low refuses honest batches, too high lets one client fill the memory.
    pub max_body_bytes: ByteSize,
    /// Connections at once. One beyond is answered from memory or with a 503, and closed. Too low refuses honest clients, too
    /// high fills memory and file descriptors.
    pub max_connections: usize,
    /// Requests at once that cannot be answered from memory; one beyond gets a 503. Too low refuses bursts that the database
    /// would have managed, too high lets requests queue until nobody waits for their answers any more.
    pub max_in_flight: usize,
    /// How long the head of a request may take to arrive. Too low cuts off clients on slow lines, too high lets those who send
    /// slowly on purpose hold connections.
    #[serde(with = "humantime_text")]
    pub head_timeout: Duration,
    /// How long the body of a request may take to arrive. Too low cuts off large batches on slow lines, too high lets those who
    /// send slowly on purpose hold connections and memory.
    #[serde(with = "humantime_text")]
    pub body_timeout: Duration,
    /// How long requests in flight may take to end after SIGTERM. Too low cuts them off, too high delays a restart.
    #[serde(with = "humantime_text")]
    pub shutdown_timeout: Duration,
    /// How long an idle connection is kept. Too low makes clients reconnect, too high holds file descriptors.
    #[serde(with = "humantime_text")]
    pub keep_alive: Duration,
    /// The networks of the proxies in front, whose word on where a request comes from is taken. One too few, and all its
    /// clients are one; one too many, and whoever is in it can claim to be anybody.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            workers: 0,
            max_body_bytes: ByteSize::mib(1),
            max_connections: 8_000,
            max_in_flight: 1_000,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            trusted_proxies: Vec::new(),
        }
    }
}

/// Where the truth is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseSettings {
    /// `sqlite://PATH`, whose file and directory are created, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: String,
    /// A PEM file with the certificate authorities that PostgreSQL's certificate may come from; empty for the system's.
    pub ca_file: PathBuf,
    /// Connections that are kept open to PostgreSQL. Too few make the first requests of a burst wait for new ones, too
    /// many take them from other clients of the server.
    pub min_connections: u32,
    /// The most connections, besides one that follows the change log. Too few queue cache misses behind each other, too many only cost memory; all instances
    /// together must stay below PostgreSQL's own `max_connections`. Each thread that serves requests uses its own, and others' when there may be no
    /// more: with fewer than `http.workers`, threads wake each other for each statement, which costs more than a miss does.
    pub max_connections: u32,
    /// How long a request waits for a connection, or for a lock, before it is refused with 503.
    #[serde(with = "humantime_text")]
    pub acquire_timeout: Duration,
    /// How long making a connection to PostgreSQL may take. Too low fails on a busy network, too high hides a dead host.
    #[serde(with = "humantime_text")]
    pub connect_timeout: Duration,
    /// How long a PostgreSQL connection beyond `min_connections` may be unused before it is closed. Too low makes
    /// new ones all the time, too high holds them for a burst long past.
    #[serde(with = "humantime_text")]
    pub idle_timeout: Duration,
    /// How long one PostgreSQL statement may run. Too low ends honest searches, too high lets one bad query hold a
    /// connection.
    #[serde(with = "humantime_text")]
    pub statement_timeout: Duration,
}

impl DatabaseSettings {
    /// Whether `url` names a PostgreSQL server, and not an SQLite file.
    pub fn is_postgres(&self) -> bool {
        ["postgres://", "postgresql://"].iter().any(|scheme| self.url.starts_with(scheme))
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: "sqlite://data/terrace.db".to_owned(),
            ca_file: PathBuf::new(),
            min_connections: 5,
            max_connections: 20,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10 * 60),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// The cache in the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// `false` sends every read to the database.
    pub enabled: bool,
    /// Memory for entries. Too low evicts what is hot, too high lets the system kill the process.
    pub l1_bytes: ByteSize,
    /// No entry is fresh for longer, whatever its collection declares. A last bound on anything coherence missed.
    #[serde(with = "humantime_text")]
    pub max_ttl: Duration,
    /// By how many percent of its TTL an entry may expire early, at random. 0 lets entries that were loaded together
    /// expire together, 100 makes TTLs meaningless.
    pub jitter_percent: u8,
    /// How often the change log is read for changes that other processes made to the same database. Too low costs
    /// queries, too high serves stale data for that long after an import beside the running server; at most a minute.
    #[serde(with = "humantime_text")]
    pub reconcile_interval: Duration,
    /// Whether a request may say by `Cache-Control` how fresh its answer must be. `true` lets every client send the
    /// database a load per request, as browsers do when a page is reloaded; `false` leaves clients that need a newer
    /// answer nothing but a token.
    pub honor_request_directives: bool,
    /// How many entries a second are loaded by `[cache.warm]` of all collections together. Too few, and what is warmed
    /// comes after who asks for it; too many take the database's time from requests.
    pub warm_loads_per_second: u32,
    /// How long the server says that it is not ready while it warms for the first time; 0s says it is ready at once. Too
    /// low sends requests to a cold cache, too high delays each restart by as much.
    #[serde(with = "humantime_text")]
    pub warm_before_ready: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            l1_bytes: ByteSize::mib(256),
            max_ttl: Duration::from_secs(60 * 60),
            jitter_percent: 10,
            reconcile_interval: Duration::from_millis(500),
            honor_request_directives: true,
            warm_loads_per_second: 200,
            warm_before_ready: Duration::ZERO,
        }
    }
}

/// The second tier, which all instances share, and the way that changes are announced between them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` for TLS, or empty for no second tier.
    pub url: String,
    /// What the names of all keys begin with. Installations do not meet even with the same one.
    pub prefix: String,
    /// A PEM file with the certificate authorities that the server's certificate may come from; empty for the system's.
    pub ca_file: PathBuf,
    /// How long a command may take before the server counts as away. Too low gives the tier up at each pause of a busy
    /// server, too high holds reads and writes up for that long when it hangs.
    #[serde(with = "humantime_text")]
    pub timeout: Duration,
    /// Larger bodies are stored compressed. Too low spends CPU on what is small, too high fills the server and the network.
    pub compress_above: ByteSize,
    /// No value is kept for longer. Too low loads again what has not changed, too high keeps what nobody asks for until
    /// the server evicts it.
    #[serde(with = "humantime_text")]
    pub max_ttl: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            prefix: "terrace".to_owned(),
            ca_file: PathBuf::new(),
            timeout: Duration::from_millis(250),
            compress_above: ByteSize::kib(4),
            max_ttl: Duration::from_secs(60 * 60),
        }
    }
}

/// Where collection, view and sample files are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectionsSettings {
    /// Directory of the collection files, `*.toml`.
    pub dir: PathBuf,
    /// Directory of the view files, `*.toml`; it need not exist.
    pub views_dir: PathBuf,
    /// Directory of sample records, `<collection>.ndjson`, loaded into a database that has just been created; it
    /// need not exist.
    pub samples_dir: PathBuf,
}

impl Default for CollectionsSettings {
    fn default() -> Self {
        Self { dir: "config/collections".into(), views_dir: "config/views".into(), samples_dir: "config/samples".into() }
    }
}

/// The change log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesSettings {
    /// How long changes are kept, at least 10 minutes: every process must have seen a change before it goes. Too low
    /// forgets who did what, too high fills the disk.
    #[serde(with = "humantime_text")]
    pub retention: Duration,
    /// Clients that may follow changes at once (`_changes?live`), each over a connection of its own. Too low refuses some, too high
    /// lets them take what others need.
    pub streams: u32,
    /// So many of them for one caller: a user, an API key or, for strangers, an address. Too low refuses programs that follow
    /// several collections, too high lets one caller take the places of all.
    pub streams_per_caller: u32,
    /// How often a client that follows is told that its connection lives, and whether it may still follow is checked. Too low
    /// costs traffic and look-ups, too high lets proxies cut quiet connections, and revoked keys follow on.
    #[serde(with = "humantime_text")]
    pub heartbeat: Duration,
}

impl Default for ChangesSettings {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(90 * 24 * 60 * 60),
            streams: 100,
            streams_per_caller: 20,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// Who is asking.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// How long an access token holds. Too low has clients ask for another one all the time, too high makes a stolen one of use
    /// for longer.
    #[serde(with = "humantime_text")]
    pub access_token_lifetime: Duration,
    /// How long after its login a session ends, however often it was refreshed. Too low asks for the password often, too high
    /// lets a stolen refresh token be used for as long.
    #[serde(with = "humantime_text")]
    pub session_lifetime: Duration,
    /// How long a key signs new access tokens. Too low fills the table with keys, too high makes a stolen one of use for longer.
    #[serde(with = "humantime_text")]
    pub signing_key_lifetime: Duration,
    /// For how long callers are known, while the database does not answer, that were known before. Too low refuses everybody
    /// as soon as the database is away, too high lets those in whom somebody has refused meanwhile.
    #[serde(with = "humantime_text")]
    pub stale_if_error: Duration,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            access_token_lifetime: Duration::from_secs(10 * 60),
            session_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            signing_key_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            stale_if_error: Duration::from_secs(60),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A filter such as `info` or `terrace=debug,actix_web=warn`.
    pub level: String,
    /// Whether each request writes an access log line. It costs more than a cache hit does.
    pub access: bool,
    /// A request that takes longer is logged as a warning.
    #[serde(with = "humantime_text")]
    pub slow_request: Duration,
    /// A database operation that takes longer is logged as a warning.
    #[serde(with = "humantime_text")]
    pub slow_query: Duration,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
            access: false,
            slow_request: Duration::from_secs(1),
            slow_query: Duration::from_millis(100),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Durations as `10m` or `500ms`.
pub(super) mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is not a duration; write for example \"500ms\", \"10m\" or \"1h\""))
        })
    }
}
