//! The private servers that other tests break: each way of breaking one does what it says, or those tests prove nothing.

use std::process::{Command, Output};
use std::time::Duration;

use crate::support::postgres::{PrivatePostgres, Stop};
use crate::support::redis::PrivateRedis;
use crate::support::schema::{Session, required};
use crate::support::tls::Authority;

fn number(postgres: &PrivatePostgres, query: &str) -> i64 {
    postgres.sql(query)[0][0].as_ref().unwrap().parse().unwrap()
}

#[test]
fn a_private_server_keeps_its_place_and_what_was_committed() {
    let mut postgres = PrivatePostgres::planned().line("max_connections = 12").start();
    let url = postgres.url();
    assert_eq!(number(&postgres, "SHOW max_connections"), 12);
    let mut session = Session::open(&url).unwrap();
    session.execute("CREATE TABLE kept (n int)");
    for (n, stop) in [Stop::Fast, Stop::Immediate].into_iter().enumerate() {
        session.execute(&format!("INSERT INTO kept VALUES ({n})"));
        postgres.stop(stop);
        assert!(session.query("SELECT 1").is_err() && Session::open(&url).is_err(), "{stop:?}");
        postgres.start_again();
        session = Session::open(&url).unwrap();
        assert_eq!(number(&postgres, "SELECT count(*) FROM kept"), n as i64 + 1, "{stop:?}");
    }
    let roles = session.query("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user").unwrap();
    assert_eq!(roles, [[Some("terrace".to_owned()), Some("f".to_owned())]]);
    assert!(postgres.log().contains("database system was not properly shut down"), "{}", postgres.log());
}

#[test]
fn a_server_that_was_only_prepared_is_not_there_yet() {
    let mut postgres = PrivatePostgres::planned().prepare();
    assert!(Session::open(&postgres.url()).is_err());
    postgres.configure("default_transaction_read_only = on");
    postgres.start_again();
    let refused = Session::open(&postgres.url()).unwrap().query("CREATE TABLE t (n int)").unwrap_err();
    assert!(refused.0.starts_with("25006"), "{refused}");
    postgres.configure("default_transaction_read_only = off");
    postgres.reload();
    // The postmaster passes it on in its own time; a new connection of later has it.
    let writes = || Session::open(&postgres.url()).unwrap().query("CREATE TABLE t (n int)").is_ok();
    assert!((0..200).any(|_| writes() || {
        std::thread::sleep(Duration::from_millis(20));
        false
    }));
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let postgres = PrivatePostgres::start();
    let mut session = postgres.session();
    session.execute("SELECT 1");
    postgres.pause();
    let (done, is_done) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || done.send(session.query("SELECT 1").is_ok()));
    assert!(is_done.recv_timeout(Duration::from_millis(300)).is_err(), "it answered");
    postgres.resume();
    assert!(is_done.recv_timeout(Duration::from_secs(20)).unwrap());
    asking.join().unwrap().unwrap();
    // One that is dropped while it is paused must not hang either.
    postgres.pause();
}

#[test]
fn a_small_disk_gets_full_and_free_again() {
    let postgres = PrivatePostgres::planned().small_disk(32).start();
    let mut session = Session::open(&postgres.url()).unwrap();
    session.execute("CREATE TABLE big (t text)");
    session.execute("INSERT INTO big SELECT repeat(md5(n::text), 20) FROM generate_series(1, 100) n");
    postgres.fill_disk();
    let fill = "INSERT INTO big SELECT repeat(md5(n::text), 20) FROM generate_series(1, 5000) n";
    let refused = session.query(fill).unwrap_err();
    assert!(refused.0.starts_with("53100"), "{refused}");
    assert_eq!(session.query("SELECT count(*) FROM big").unwrap()[0][0].as_deref(), Some("100"));
    postgres.free_disk();
    session.execute(fill);
}

#[test]
fn tls_is_the_only_way_in_and_its_certificate_counts() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let postgres = PrivatePostgres::planned().tls(&authority.issue("127.0.0.1")).start();
    let refused = Session::open(&postgres.url()).map(drop).unwrap_err();
    assert!(refused.0.starts_with("28000"), "{refused}");
    let psql = |trusted: &Authority| -> Output {
        let mut psql = Command::new(format!("{}/psql", required("TEST_POSTGRES_BIN")));
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", trusted.file()).args([&postgres.url(), "-Atc", "SELECT 1"]);
        psql.output().unwrap()
    };
    assert_eq!(String::from_utf8(psql(&authority).stdout).unwrap(), "1\n");
    assert!(String::from_utf8(psql(&stranger).stderr).unwrap().contains("certificate verify failed"));
}

#[test]
fn a_private_redis_keeps_its_place_and_nothing_else() {
    let mut server = PrivateRedis::planned().password("a-secret").start();
    server.command::<()>(&["SET", "key", "value"]);
    let with = |url: &str| -> redis::RedisResult<Option<String>> {
        redis::cmd("GET").arg("key").query(&mut redis::Client::open(url)?.get_connection()?)
    };
    assert_eq!(with(&server.url()).unwrap().as_deref(), Some("value"));
    assert!(with(&server.url().replace("a-secret", "another")).is_err());
    let url = server.url();
    server.stop();
    assert!(with(&url).is_err());
    server.start_again();
    assert_eq!(with(&url).unwrap(), None);
}

#[test]
fn a_promoted_replica_has_what_it_got_before() {
    let (mut first, second) = (PrivateRedis::start(), PrivateRedis::start());
    first.command::<()>(&["SET", "key", "value"]);
    second.follow(&first);
    let write = || redis::cmd("SET").arg("key").arg("new").exec(&mut connection(&second.url()));
    assert_eq!(write().unwrap_err().code(), Some("READONLY"));
    first.stop();
    second.promote();
    assert_eq!(second.command::<String>(&["GET", "key"]), "value");
    write().unwrap();
}

#[test]
fn a_paused_redis_answers_when_it_is_resumed() {
    let server = PrivateRedis::start();
    let mut client = connection(&server.url());
    server.pause();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(redis::cmd("PING").query::<String>(&mut client).is_err());
    server.resume();
    assert_eq!(redis::cmd("PING").query::<String>(&mut connection(&server.url())).unwrap(), "PONG");
    // One that is dropped while it is paused must not hang either.
    server.pause();
}

#[test]
fn a_redis_with_tls_offers_nothing_else() {
    let authority = Authority::new();
    let server = PrivateRedis::planned().tls(&authority.issue("127.0.0.1")).start();
    let plain = server.url().replace("rediss", "redis");
    assert!(redis::Client::open(plain).unwrap().get_connection_with_timeout(Duration::from_secs(1)).is_err());
    let trusting = |authority: &Authority| {
        let root_cert = Some(std::fs::read(authority.file()).unwrap());
        let client = redis::Client::build_with_tls(server.url(), redis::TlsCertificates { client_tls: None, root_cert }).unwrap();
        redis::cmd("PING").query::<String>(&mut client.get_connection()?)
    };
    assert_eq!(trusting(&authority).unwrap(), "PONG");
    assert!(trusting(&Authority::new()).is_err());
}

fn connection(url: &str) -> redis::Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}
