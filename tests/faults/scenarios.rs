//! What happens meanwhile: one thing in each scenario, and again if the run is a longer one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use super::history::{Document, NOBODY, Source};
use super::proxy::{Proxy, Rule, Rules};
use super::run::{HOP, INTERVAL, Promise, run};
use super::stage::{Allowed, SERVERS, Stage};
use super::workload::{GROUPS, RECORDS, SPARE, body, index, name};
use crate::support::fixture;
use crate::support::postgres::Stop;
use crate::support::redis::PrivateRedis;
use crate::support::schema::required;

/// How long the load lasts at least; `scripts/chaos` says more.
pub fn least() -> Duration {
    let said = std::env::var("CHAOS_SECONDS").ok();
    Duration::from_secs(said.map_or(3, |seconds| seconds.parse().expect("CHAOS_SECONDS is a number of seconds")))
}

/// Nothing but what the scenario is about may be wrong.
const NOTHING: Allowed = Allowed { refusals: false, cuts: false };

/// Nothing excuses an answer by saying that it is stale: the database answers, and no list may lag.
const NO_EXCUSE: Duration = Duration::ZERO;

/// All well: the bus brings each change.
const BY_THE_BUS: Promise = Promise { elsewhere: HOP, marked: NO_EXCUSE, allowed: NOTHING };

/// The bus fails silently: the log brings what it did not.
const BY_THE_LOG: Promise = Promise { elsewhere: INTERVAL.saturating_add(HOP), marked: NO_EXCUSE, allowed: NOTHING };

/// Redis is away, or another one.
const WITHOUT_REDIS: Promise = Promise { elsewhere: Duration::from_secs(2), marked: NO_EXCUSE, allowed: NOTHING };

/// One scenario at a time: each has the machine to itself.
pub async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Runs a scenario whose misfortune is `round`.
async fn scenario(name: &str, promise: Promise, round: impl AsyncFn(&Arc<Stage>)) {
    let _turn = alone().await;
    let stage = Stage::set(RECORDS, promise.allowed, |_| Vec::new()).await;
    on(&stage, name, promise, round).await;
}

async fn on(stage: &Arc<Stage>, name: &str, promise: Promise, round: impl AsyncFn(&Arc<Stage>)) {
    let misfortunes = async {
        let end = Instant::now() + least();
        // Caches fill first.
        sleep(Duration::from_secs(1)).await;
        loop {
            round(stage).await;
            if Instant::now() >= end {
                break;
            }
        }
    };
    run(name, stage, promise, misfortunes).await;
}

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_wrong() {
    scenario("nothing wrong", BY_THE_BUS, async |_| sleep(millis(500)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_dropped() {
    scenario("messages are dropped", BY_THE_LOG, async |stage| {
        for rule in [Rule::DropMessages { one_passes_in: 3 }, Rule::DropAllButHeartbeats] {
            stage.to_redis.iter().for_each(|proxy| proxy.set(Rules::bus(rule)));
            sleep(millis(1500)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_of_an_instance_is_cut_and_then_silently_held() {
    scenario("the bus is cut, then held", WITHOUT_REDIS, async |stage| {
        for (server, rule) in [(0, Rule::Cut), (1, Rule::Hold)] {
            stage.to_redis[server].set(Rules::bus(rule));
            sleep(millis(2500)).await;
            // What was held is released.
            stage.to_redis[server].set(Rules::default());
            sleep(millis(500)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ways_to_redis_and_to_the_database_are_slow() {
    scenario("slow ways", WITHOUT_REDIS, async |stage| {
        stage.to_redis[0].set(Rules::all(Rule::Delay(millis(40))));
        stage.to_redis[1].set(Rules::bus(Rule::Delay(millis(300))));
        stage.to_postgres[2].set(Rules::all(Rule::Delay(millis(10))));
        sleep(millis(2000)).await;
        stage.to_redis.iter().chain(&stage.to_postgres).for_each(|proxy| proxy.set(Rules::default()));
        sleep(millis(300)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_cannot_reach_redis() {
    scenario("one instance without Redis", WITHOUT_REDIS, async |stage| {
        for rule in [Rule::Cut, Rule::Hold] {
            let server = fastrand::usize(..SERVERS);
            stage.to_redis[server].set(Rules::all(rule));
            sleep(millis(2500)).await;
            stage.to_redis[server].set(Rules::default());
            sleep(millis(500)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_started_again_empty() {
    scenario("Redis is killed and started again", WITHOUT_REDIS, async |stage| {
        stage.redis.lock().unwrap().stop();
        sleep(millis(1500)).await;
        stage.redis.lock().unwrap().start_again();
        sleep(millis(1500)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_paused_for_5_seconds() {
    scenario("Redis is paused for 5 s", WITHOUT_REDIS, async |stage| {
        stage.redis.lock().unwrap().pause();
        sleep(millis(5000)).await;
        stage.redis.lock().unwrap().resume();
        sleep(millis(1000)).await;
    })
    .await;
}

/// It has room for a small part of what it is given, so guards go as well, and at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_drops_whatever_was_not_used_lately() {
    let dropped = std::sync::Mutex::new(0);
    scenario("Redis drops what it has no room for", WITHOUT_REDIS, async |stage| {
        let told = |section: &str, name: &str| -> u64 {
            let text: String = stage.redis.lock().unwrap().command(&["INFO", section]);
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap().trim().parse().unwrap()
        };
        let room = told("memory", "used_memory") + 8 * 1024;
        stage.redis.lock().unwrap().configure(&[("maxmemory", &room.to_string()), ("maxmemory-policy", "allkeys-lru")]);
        sleep(millis(2500)).await;
        *dropped.lock().unwrap() = told("stats", "evicted_keys");
    })
    .await;
    let dropped = dropped.into_inner().unwrap();
    assert!(dropped > 50, "only {dropped} keys were dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_promoted_without_the_last_bumps() {
    let others = std::sync::Mutex::new(Vec::new());
    scenario("a replica that lags is promoted", WITHOUT_REDIS, async |stage| {
        let (replica, way) = {
            let replica = PrivateRedis::start();
            let port = stage.redis.lock().unwrap().port();
            let way = Proxy::before(([127, 0, 0, 1], port).into()).await;
            replica.command::<String>(&["REPLICAOF", "127.0.0.1", &way.address.port().to_string()]);
            (replica, way)
        };
        let follows = || replica.command::<String>(&["INFO", "replication"]).contains("master_link_status:up");
        while !follows() {
            sleep(millis(10)).await;
        }
        sleep(millis(500)).await;
        way.set(Rules::all(Rule::Hold));
        sleep(millis(700)).await;
        replica.promote();
        // Not all at once: for a while some are still with the old one.
        for proxy in &stage.to_redis {
            proxy.lead_to(([127, 0, 0, 1], replica.port()).into());
            sleep(millis(200)).await;
        }
        let old = std::mem::replace(&mut *stage.redis.lock().unwrap(), replica);
        others.lock().unwrap().push((old, way));
        sleep(millis(1000)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_is_killed_between_its_commit_and_its_announcement() {
    let promise = Promise { allowed: Allowed { cuts: true, ..NOTHING }, ..BY_THE_LOG };
    let killed = std::sync::Mutex::new(0);
    scenario("a writer is killed before it announces", promise, async |stage| {
        let server = fastrand::usize(..SERVERS);
        let address = stage.address(server).unwrap();
        stage.arm(server, "before_announce", "kill");
        stage.has_ended(server).await;
        stage.disarm(server, "before_announce");
        // What it has committed, the others must show from now on.
        let stored = stage.stored();
        let number = |record: usize| stored.iter().find(|(name, _)| index(name) == record).map(|(_, number)| *number);
        *killed.lock().unwrap() += stage.recorder.acknowledge_what_is(address.instance, number);
        stage.start(server).await;
        sleep(millis(700)).await;
    })
    .await;
    assert!(killed.into_inner().unwrap() > 0, "nothing was committed by those that were killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loaders_pause_between_their_read_and_their_fill() {
    scenario("loaders pause before they fill", BY_THE_BUS, async |stage| {
        (0..SERVERS).for_each(|server| stage.arm(server, "before_fill", "pause 150"));
        sleep(millis(2000)).await;
        (0..SERVERS).for_each(|server| stage.disarm(server, "before_fill"));
        sleep(millis(500)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_is_open_beside_others() {
    // Only the log tells of what it writes, and of what others write meanwhile.
    scenario("a long transaction", BY_THE_LOG, async |stage| {
        stage.to_redis.iter().for_each(|proxy| proxy.set(Rules::bus(Rule::DropAllButHeartbeats)));
        let number = stage.number();
        let document = Document { number, group: (number % GROUPS.len() as u64) as u8, word: 0 };
        let (id, data) = (name(SPARE), body(SPARE, document));
        let mut session = stage.postgres.lock().unwrap().session();
        // It has a number below those of all that follow, and who wants R001 waits for it.
        session.execute(&format!(
            "BEGIN; SELECT 1 FROM records WHERE id = 'R001' FOR UPDATE; INSERT INTO records (collection, id, data) \
             VALUES ('items', '{id}', '{data}') ON CONFLICT (collection, id) DO UPDATE SET data = excluded.data"
        ));
        sleep(millis(2500)).await;
        let begun = stage.recorder.begin(NOBODY, &[(SPARE, Some(document))]);
        session.execute("COMMIT");
        stage.recorder.acknowledge(&begun, None);
        sleep(millis(1000)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_restarted() {
    // For as long as it is away, and until the log has been read again.
    let promise = Promise { marked: Duration::from_secs(3), allowed: Allowed { refusals: true, ..NOTHING }, ..WITHOUT_REDIS };
    scenario("PostgreSQL is restarted", promise, async |stage| {
        let own = Arc::clone(stage);
        let restart = move || {
            let mut postgres = own.postgres.lock().unwrap();
            postgres.stop(if fastrand::bool() { Stop::Fast } else { Stop::Immediate });
            std::thread::sleep(millis(500));
            postgres.start_again();
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
        sleep(millis(3000)).await;
    })
    .await;
}

/// It knows nothing of what the others write, and its clients reach it all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_cut_from_everything() {
    let _turn = alone().await;
    let directory = tempfile::TempDir::new().unwrap();
    let short = [("stale_if_error = \"1h\"", "stale_if_error = \"4s\"")];
    let declared = fixture::declare_edited(directory.path(), &short).display().to_string();
    let settings = |_| vec![("TERRACE_COLLECTIONS__DIR".to_owned(), declared.clone())];
    // Together with what is allowed to all answers, that is what the collection declares.
    let promise = Promise { marked: Duration::from_secs(2), allowed: Allowed { refusals: true, ..NOTHING }, ..WITHOUT_REDIS };
    let stage = Stage::set(RECORDS, promise.allowed, settings).await;
    let misfortune = async |stage: &Arc<Stage>| {
        let server = fastrand::usize(..SERVERS);
        let ways = [&stage.to_redis[server], &stage.to_postgres[server]];
        ways.iter().for_each(|way| way.set(Rules::all(Rule::Cut)));
        sleep(millis(7000)).await;
        ways.iter().for_each(|way| way.set(Rules::default()));
        sleep(millis(2000)).await;
    };
    on(&stage, "one instance is cut from everything", promise, misfortune).await;
    let stale = stage.recorder.so_far().reads.iter().filter(|read| read.source == Source::Stale).count();
    assert!(stale > 0, "nothing stood in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_one_instance_is_an_hour_fast() {
    let _turn = alone().await;
    let library = required("TEST_FAKETIME");
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let wrong_clock = |server| match server {
        // Time since the start, which every system measures rightly, stays as it is.
        1 => vec![setting("LD_PRELOAD", &library), setting("FAKETIME", "+1h"), setting("FAKETIME_DONT_FAKE_MONOTONIC", "1")],
        _ => Vec::new(),
    };
    let stage = Stage::set(RECORDS, NOTHING, wrong_clock).await;
    let is_an_hour_fast = |log: &str| {
        let told = log.split('Z').next().unwrap().parse::<chrono::NaiveDateTime>().unwrap();
        (told - chrono::Utc::now().naive_utc()).num_minutes() > 50
    };
    assert!(!is_an_hour_fast(&stage.log(0)) && is_an_hour_fast(&stage.log(1)), "the clock is right");
    on(&stage, "a clock is an hour fast", BY_THE_BUS, async |_| sleep(millis(500)).await).await;
}

/// Early refreshes, expiry, and lists that lag on purpose, while the bus says little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_may_lag_and_everything_expires_soon() {
    let _turn = alone().await;
    let directory = tempfile::TempDir::new().unwrap();
    let short =
        [("record_ttl = \"10m\"", "record_ttl = \"1500ms\""), ("list_ttl = \"10m\"", "list_ttl = \"1500ms\"\nmax_lag = \"1s\"")];
    let declared = fixture::declare_edited(directory.path(), &short).display().to_string();
    let settings = |_| vec![("TERRACE_COLLECTIONS__DIR".to_owned(), declared.clone())];
    let promise = Promise { marked: Duration::from_secs(1), ..BY_THE_LOG };
    let stage = Stage::set(RECORDS, promise.allowed, settings).await;
    let misfortune = async |stage: &Arc<Stage>| {
        for rule in [Rule::Pass, Rule::DropAllButHeartbeats] {
            stage.to_redis.iter().for_each(|proxy| proxy.set(Rules::bus(rule)));
            sleep(millis(1500)).await;
        }
    };
    on(&stage, "lists may lag, all expires soon", promise, misfortune).await;
    let stale = stage.recorder.so_far().reads.iter().filter(|read| read.source == Source::Stale).count();
    assert!(stale > 5, "only {stale} answers were stale");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_killed_and_started_under_load() {
    let promise = Promise { allowed: Allowed { cuts: true, ..NOTHING }, ..BY_THE_LOG };
    scenario("an instance is killed and started again", promise, async |stage| {
        let server = fastrand::usize(..SERVERS);
        stage.kill(server).await;
        sleep(millis(300)).await;
        stage.start(server).await;
        sleep(millis(700)).await;
    })
    .await;
}
