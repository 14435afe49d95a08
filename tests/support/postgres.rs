//! A PostgreSQL server for one test, to be stopped, starved and broken. Its data are a copy of the directory that
//! `scripts/with-servers` made.
//!
//! ```ignore
//! let mut postgres = PrivatePostgres::start();
//! let server = Server::start_with(|settings| settings.database.url = postgres.url());
//! postgres.stop(Stop::Immediate);
//! postgres.start_again();
//! ```

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::DEADLINE;
use super::schema::{Row, Session, required};
use super::tls::Issued;

/// How to end a server.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// As an operator does it: open transactions are rolled back, connections closed, everything written.
    Fast,
    /// As a crash: the next start recovers from the log.
    Immediate,
}

/// What is different about a server from the one of `scripts/with-servers`.
#[derive(Default)]
pub struct Plan {
    configuration: String,
    certificate: Option<Issued>,
    hosts: Option<&'static str>,
    small_disk_mib: Option<u32>,
}

impl Plan {
    /// A line of `postgresql.conf`.
    pub fn line(mut self, line: &str) -> Self {
        self.configuration += &format!("{line}\n");
        self
    }

    /// Answers TLS with this certificate, and nothing but TLS over TCP.
    pub fn tls(mut self, certificate: &Issued) -> Self {
        self.certificate = Some(certificate.clone());
        self
    }

    /// Wants a password over TCP, which the role `terrace` does not have until the superuser gives it one.
    pub fn passwords(mut self) -> Self {
        self.hosts = Some("host all all 127.0.0.1/32 scram-sha-256");
        self
    }

    /// Keeps the tables of the database, though not the write-ahead log, on a disk of this size. Needs root, for it is
    /// a file system of its own.
    pub fn small_disk(mut self, mib: u32) -> Self {
        self.small_disk_mib = Some(mib);
        self
    }

    /// Starts it.
    pub fn start(self) -> PrivatePostgres {
        let mut postgres = self.prepare();
        postgres.start_again();
        postgres
    }

    /// All but starts it: its URL is known, and nobody listens there.
    pub fn prepare(self) -> PrivatePostgres {
        let directory = TempDir::new().unwrap();
        // Another user's server passes through it.
        run(Command::new("chmod").arg("711").arg(directory.path()));
        let data = directory.path().join("data");
        run(Command::new("cp").arg("-a").arg(required("TEST_POSTGRES_TEMPLATE")).arg(&data));
        let mut postgres = PrivatePostgres { directory, port: free_port(), process: None, disk: None };
        postgres.configure(&self.configuration);
        if let Some(hosts) = self.hosts {
            postgres.only_hosts(hosts);
        }
        if let Some(certificate) = &self.certificate {
            postgres.install(certificate);
            postgres.configure("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
            // The socket, which only the test uses, stays as it is.
            postgres.only_hosts("hostssl all all 127.0.0.1/32 trust");
        }
        if let Some(mib) = self.small_disk_mib {
            postgres.move_to_small_disk(mib);
        }
        postgres
    }
}

/// A server of its own, until it is dropped.
pub struct PrivatePostgres {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
    /// Where a small disk is mounted.
    disk: Option<PathBuf>,
}

impl PrivatePostgres {
    /// One like that of `scripts/with-servers`.
    pub fn start() -> Self {
        Plan::default().start()
    }

    /// One with something changed.
    pub fn planned() -> Plan {
        Plan::default()
    }

    /// For `database.url`: a role that owns its database and is no superuser.
    pub fn url(&self) -> String {
        format!("postgres://terrace@127.0.0.1:{}/terrace", self.port)
    }

    /// Starts it, where it was before, and waits until it takes connections.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(program("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c"]);
        command.arg(format!("unix_socket_directories={}", self.data().display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(self.data());
        as_its_user(&mut command);
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while Session::open(&self.socket_url()).is_err() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "PostgreSQL did not start:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.process = Some(process);
    }

    /// Ends it, and returns when it has ended.
    pub fn stop(&mut self, stop: Stop) {
        let mut process = self.process.take().expect("it does not run");
        signal(
            &[process.id()],
            match stop {
                Stop::Fast => "INT",
                Stop::Immediate => "QUIT",
            },
        );
        process.wait().unwrap();
    }

    /// Ends one of its processes as the system does when memory runs out: the others end themselves, and the server recovers.
    pub fn kill_process(&self, id: &str) {
        assert!(children(self.process.as_ref().expect("it does not run").id()).contains(&id.parse().unwrap()));
        signal(&[id.parse().unwrap()], "KILL");
    }

    /// From its next start on it is a standby without anybody to follow, until somebody calls `pg_promote()`.
    pub fn become_standby(&self) {
        let file = self.data().join("standby.signal");
        File::create(&file).unwrap();
        own(&file);
    }

    /// It and its connections' processes do nothing more until [`Self::resume`]; to clients it hangs.
    pub fn pause(&self) {
        // The first one first: it can then start no others.
        let id = self.process.as_ref().expect("it does not run").id();
        signal(&[id], "STOP");
        signal(&children(id), "STOP");
    }

    /// Who connects gets no answer until [`Self::resume`]; who is connected does.
    pub fn pause_listener(&self) {
        signal(&[self.process.as_ref().expect("it does not run").id()], "STOP");
    }

    /// The end of [`Self::pause`].
    pub fn resume(&self) {
        let id = self.process.as_ref().expect("it does not run").id();
        signal(&children(id), "CONT");
        signal(&[id], "CONT");
    }

    /// A connection of the superuser to the database, past the network.
    pub fn session(&self) -> Session {
        Session::open(&self.socket_url()).unwrap()
    }

    /// Runs statements as the superuser; the rows of all.
    pub fn sql(&self, statements: &str) -> Vec<Row> {
        self.session().query(statements).unwrap_or_else(|error| panic!("{error}: {statements}"))
    }

    /// Adds lines to `postgresql.conf`, for the next start or [`Self::reload`].
    pub fn configure(&mut self, lines: &str) {
        let file = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}\n{lines}\n")).unwrap();
    }

    /// Makes it read its configuration again.
    pub fn reload(&self) {
        self.sql("SELECT pg_reload_conf()");
    }

    /// Has this certificate from the next start or [`Self::reload`] on.
    pub fn install(&self, certificate: &Issued) {
        for (from, name) in [(&certificate.certificate, "server.crt"), (&certificate.key, "server.key")] {
            let file = self.data().join(name);
            fs::copy(from, &file).unwrap();
            run(Command::new("chmod").arg("600").arg(&file));
            own(&file);
        }
    }

    /// Fills the small disk until nothing more fits.
    pub fn fill_disk(&self) {
        use std::io::Write as _;
        let disk = self.disk.as_ref().expect("it has no small disk");
        let mut ballast = File::options().create(true).append(true).open(disk.join("ballast")).unwrap();
        let piece = vec![0xA5; 4096];
        let full = loop {
            if let Err(error) = ballast.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    /// Takes away what [`Self::fill_disk`] put there.
    pub fn free_disk(&self) {
        fs::remove_file(self.disk.as_ref().expect("it has no small disk").join("ballast")).unwrap();
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("postgres.log")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn socket_url(&self) -> String {
        let directory = self.data().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{directory}:{}/terrace?connect_timeout=2", self.port)
    }

    /// Lets only this line of `pg_hba.conf` speak for connections over TCP.
    fn only_hosts(&self, line: &str) {
        let rules = format!("local all all trust\n{line}\n");
        fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
    }

    fn move_to_small_disk(&mut self, mib: u32) {
        let disk = self.directory.path().join("small");
        fs::create_dir(&disk).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=711"), "terrace-test"]).arg(&disk));
        self.disk = Some(disk.clone());
        let tables = disk.join("tables");
        fs::create_dir(&tables).unwrap();
        own(&tables);
        self.start_again();
        let mut session = self.session();
        session.execute(&format!("CREATE TABLESPACE small OWNER terrace LOCATION '{}'", tables.display()));
        session.execute("ALTER DATABASE terrace SET default_tablespace = small");
        drop(session);
        self.stop(Stop::Fast);
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let ids: Vec<u32> = std::iter::once(process.id()).chain(children(process.id())).collect();
            signal(&ids[..1], "QUIT");
            // It may be paused.
            signal(&ids, "CONT");
            let _ = process.wait();
        }
        if let Some(disk) = &self.disk {
            // Lazily, for the last of its processes may still be on their way out.
            let _ = Command::new("umount").arg("-l").arg(disk).status();
        }
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(&required("TEST_POSTGRES_BIN")).join(name)
}

/// Who runs the servers, if that is not whoever runs the tests.
fn other_user() -> Option<String> {
    Some(required("TEST_POSTGRES_USER")).filter(|name| !name.is_empty())
}

fn own(path: &Path) {
    if let Some(user) = other_user() {
        run(Command::new("chown").arg(user).arg(path));
    }
}

/// PostgreSQL refuses to run as root.
fn as_its_user(command: &mut Command) {
    let Some(name) = other_user() else { return };
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let mut entries = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|entry| entry[0] == name).unwrap_or_else(|| panic!("there is no user {name}"));
    command.uid(entry[2].parse().unwrap()).gid(entry[3].parse().unwrap());
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{error}: {command:?}"));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {:?}: {problem}", output.status.into_raw());
}

/// Processes that have ended meanwhile do not matter.
pub fn signal(processes: &[u32], name: &str) {
    if processes.is_empty() {
        return;
    }
    let ids = processes.iter().map(u32::to_string);
    Command::new("kill").arg(format!("-{name}")).args(ids).stderr(Stdio::null()).status().unwrap();
}

/// The processes that this one started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|process| parent_of(*process) == Some(parent)).collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc(5): the name, in parentheses, may contain anything; state and parent follow it.
    status.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Below the range from which the system gives outgoing connections theirs, so that it is still free after a stop.
pub fn free_port() -> u16 {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
