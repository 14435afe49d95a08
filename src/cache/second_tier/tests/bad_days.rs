//! A Redis that goes, stops, or is full.

use std::process::{Child, Command, Stdio};

use super::*;

/// A server of one test.
pub(super) struct Private {
    process: Child,
    port: u16,
}

impl Private {
    pub(super) fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(variable("TEST_REDIS_BIN"));
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        Self { process: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(), port }
    }

    pub(super) fn installation(&self) -> Installation {
        Installation::at(format!("redis://127.0.0.1:{}", self.port))
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn reads_go_on_when_redis_goes() {
    let redis = Private::start();
    let one = redis.installation().instance().await;
    one.seed("M-1", "body").await;
    drop(redis);
    assert_eq!(one.read("M-1", "never").await.0, Outcome::Hit);
    for number in 0..20 {
        assert_eq!(one.read(&format!("N-{number}"), "body").await.0, Outcome::Miss);
    }
}

#[tokio::test]
async fn a_redis_that_hangs_holds_one_round_of_reads_up_for_its_timeout_and_no_other() {
    let redis = Private::start();
    let one = redis.installation().instance().await;
    redis.signal("-STOP");
    let began = Instant::now();
    assert_eq!(one.read("M-1", "body").await.0, Outcome::Miss);
    assert!(began.elapsed() >= RedisSettings::default().timeout.mul_f64(0.9), "{:?}", began.elapsed());
    one.until("the link is given up", async || one.tier.link().is_none()).await;
    let errors = one.scope.metrics().second.errors.get();
    assert_eq!(one.read("M-2", "body").await.0, Outcome::Miss);
    assert_eq!((errors, one.scope.metrics().second.errors.get()), (1, 1), "it was asked again");
    redis.signal("-CONT");
    one.until("there is a link", async || one.tier.usable_link().is_some()).await;
    one.seed("M-3", "body").await;
}

#[tokio::test]
async fn a_full_redis_is_read_and_not_filled() {
    let redis = Private::start();
    let installation = redis.installation();
    let (one, other) = (installation.instance().await, installation.instance().await);
    one.seed("M-1", "body").await;
    one.command::<()>("CONFIG", &[b"SET", b"maxmemory", b"1"]).await;
    assert_eq!(other.read("M-1", "never").await.0, Outcome::HitL2);
    assert_eq!(other.read("M-2", "body").await.0, Outcome::Miss);
    assert!(other.tier.link().is_some(), "the link was given up");
    assert!(other.scope.metrics().second.errors.get() > 0);
    // What is deleted must go all the same.
    other.bump(Target::Guard(record("M-1"))).await;
    assert_eq!(installation.instance().await.read("M-1", "new").await, (Outcome::Miss, Bytes::from("new")));
}
