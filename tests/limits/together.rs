//! Three instances and one Redis: what they let pass together, against a single bucket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{quota, read_as, refused, trust_everybody};
use crate::observability::{metrics, value};
use crate::support::fixture::ITEMS;
use crate::support::redis::PrivateRedis;
use crate::support::{Server, redis};

/// Three servers that count together already.
struct Three(Vec<Arc<Server>>);

/// A request that was answered: when it was sent and when its answer was there, in seconds.
#[derive(Clone, Copy, Debug)]
struct Passed {
    sent: f64,
    answered: f64,
}

impl Three {
    async fn with(limit: &str) -> Self {
        let limit = quota(limit);
        let first = Server::fixture_with(|settings| {
            redis::join(settings);
            trust_everybody(settings);
            settings.limits.api = limit;
        });
        let (second, third) = (first.beside(|_| {}), first.beside(|_| {}));
        let three = Self([first, second, third].map(Arc::new).into());
        for server in &three.0 {
            server
                .eventually("they know of each other", async || {
                    value(&metrics(server).await, "terrace_quota_instances", &[]) == 3.0
                })
                .await;
        }
        three
    }

    /// The sum of a metric over all.
    async fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let mut sum = 0.0;
        for server in &self.0 {
            sum += value(&metrics(server).await, name, labels);
        }
        sum
    }

    /// `loops` clients with one address ask each server all the time. What passed, and for how long they asked.
    async fn besiege(&self, client: &'static str, loops: usize, time: Duration) -> (Vec<Passed>, f64) {
        let begun = Instant::now();
        let clients = self.0.iter().flat_map(|server| (0..loops).map(move |_| Arc::clone(server)));
        let clients: Vec<_> = clients
            .map(|server| {
                tokio::spawn(async move {
                    let mut passed = Vec::new();
                    while begun.elapsed() < time {
                        let sent = begun.elapsed().as_secs_f64();
                        let reply = read_as(&server, client, ITEMS).await;
                        let answered = begun.elapsed().as_secs_f64();
                        match reply.status.as_u16() {
                            200 => passed.push(Passed { sent, answered }),
                            _ => drop(refused(&reply)),
                        }
                    }
                    passed
                })
            })
            .collect();
        let mut passed = Vec::new();
        for client in clients {
            passed.extend(client.await.unwrap());
        }
        (passed, begun.elapsed().as_secs_f64())
    }
}

/// A server that counts in a Redis of its own already, and waits for it.
async fn alone_with(private: &PrivateRedis, limit: &str) -> Server {
    let server = Server::fixture_with(|settings| {
        settings.redis.url = private.url();
        settings.redis.timeout = Duration::from_secs(30);
        settings.limits.api = quota(limit);
    });
    server.eventually("it counts in Redis", async || value(&metrics(&server).await, "terrace_quota_instances", &[]) == 1.0).await;
    server
}

/// The name and the text of the only bucket there is.
fn only_bucket(private: &PrivateRedis) -> (String, String) {
    let [key] = &private.command::<Vec<String>>(&["KEYS", "*:q2:*"])[..] else { panic!("there is one bucket") };
    (key.clone(), private.command(&["GET", key]))
}

/// Checks that in every stretch of time no more was let pass than a single bucket would have, and `tolerance` of the quota.
/// What was sent and answered in a stretch was let pass in it, so this holds on a machine of any speed.
fn within(mut passed: Vec<Passed>, requests: f64, period: f64, tolerance: f64) {
    passed.sort_by(|one, other| one.answered.total_cmp(&other.answered));
    for begin in &passed {
        let mut count = 0.0;
        for end in passed.iter().filter(|end| end.sent >= begin.sent) {
            count += 1.0;
            let most = requests * (1.0 + tolerance) + (end.answered - begin.sent) * requests / period;
            assert!(count <= most + 1e-6, "{count} passed between {begin:?} and {end:?}, and {most} may");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_exceed_a_quota_by_no_more_than_a_hundredth_and_give_nearly_all_of_it() {
    let three = Three::with("600/6s").await;
    let (passed, time) = three.besiege("192.0.2.1", 4, Duration::from_secs(3)).await;
    let (count, whole) = (passed.len() as f64, 600.0 + time * 100.0);
    within(passed, 600.0, 6.0, 0.01);
    println!("{count} of {whole} passed, with {} questions", three.sum("terrace_quota_questions_total", &["answered"]).await);
    assert!(count >= 0.95 * whole, "{count} of {whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_of_sixty_is_kept_exactly() {
    let three = Three::with("60/6s").await;
    let (passed, time) = three.besiege("192.0.2.1", 4, Duration::from_secs(3)).await;
    let (count, whole) = (passed.len() as f64, 60.0 + time * 10.0);
    within(passed, 60.0, 6.0, 0.0);
    assert!(count >= (whole - 2.0).floor(), "{count} of {whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_long_quota_exactly_as_many_pass_as_it_has() {
    for (limit, requests) in [("60/1h", 60_usize), ("5/1h", 5), ("100/15m", 100), ("1000/1h", 1000)] {
        let three = Three::with(limit).await;
        let (passed, _) = three.besiege("192.0.2.1", 3, Duration::from_millis(1500)).await;
        // What blocks were given back too late for is missing, and comes back.
        let least = if requests <= 60 { requests } else { requests - requests.div_ceil(50) };
        let most = if requests <= 60 { requests } else { requests + requests / 100 };
        assert!((least..=most).contains(&passed.len()), "{} of {limit}", passed.len());
    }
}

/// What a single bucket lets pass of these requests.
fn reference(arrivals: &[f64], requests: f64, period: f64) -> usize {
    let (mut due, mut passed) = (0.0_f64, 0);
    for arrival in arrivals {
        let next = due.max(*arrival) + period / requests;
        if next - arrival <= period + 1e-9 {
            (due, passed) = (next, passed + 1);
        }
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_and_go_get_what_a_single_bucket_would_give_them() {
    let three = Arc::new(Three::with("300/3s").await);
    let clients = (0..12).map(|number| {
        let three = Arc::clone(&three);
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(number);
            let client = format!("198.51.100.{number}");
            let (begun, mut arrivals, mut passed) = (Instant::now(), Vec::new(), Vec::new());
            // The bucket is used up first, so that what is lost afterwards is missed.
            let mut left_of_burst = 300;
            while begun.elapsed() < Duration::from_secs(4) {
                let server = &three.0[random.usize(0..3)];
                let sent = begun.elapsed().as_secs_f64();
                arrivals.push(sent);
                if read_as(server, &client, ITEMS).await.status == 200 {
                    passed.push(Passed { sent, answered: begun.elapsed().as_secs_f64() });
                }
                left_of_burst -= 1;
                if left_of_burst <= 0 && random.u8(0..100) < 10 * number as u8 {
                    tokio::time::sleep(Duration::from_millis(random.u64(5..100))).await;
                }
            }
            let expected = reference(&arrivals, 300.0, 3.0);
            let count = passed.len();
            within(passed, 300.0, 3.0, 0.01);
            println!("client {number}: {count} of {expected} and {} sent", arrivals.len());
            assert!(count as f64 >= 0.97 * expected as f64 - 3.0, "{count} of {expected}");
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_one_instance_asks_redis_once_or_so() {
    let three = Three::with("100000/1h").await;
    let before = three.sum("terrace_quota_questions_total", &["answered"]).await;
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let server = Arc::clone(&three.0[0]);
            tokio::spawn(async move { read_as(&server, "192.0.2.1", ITEMS).await.status.as_u16() })
        })
        .collect();
    for one in crowd {
        assert_eq!(one.await.unwrap(), 200);
    }
    let questions = three.sum("terrace_quota_questions_total", &["answered"]).await - before;
    assert!((1.0..=40.0).contains(&questions), "{questions} for 200 requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_of_a_large_quota_waits_for_nobody_and_is_counted_all_the_same() {
    let private = PrivateRedis::start();
    let server = alone_with(&private, "1000/1h").await;
    server.get(ITEMS).await.expect(200);
    let policy = "\"api\";q=1000;w=3600";
    let told = async || value(&metrics(&server).await, "terrace_quota_questions_total", &["answered"]);
    server.eventually("the bucket is told", async || told().await >= 1.0).await;
    // A server that hangs would be waited for: up to five requests pass without it.
    private.pause();
    for expected in (994..999).rev() {
        let begun = Instant::now();
        let reply = server.get(ITEMS).await;
        assert_eq!((super::left(&reply, policy), reply.cache()), (expected, "HIT"));
        assert!(begun.elapsed() < Duration::from_secs(15), "it waited for Redis");
    }
    private.resume();
    server.eventually("all are counted", async || told().await >= 2.0).await;
    let backlog = || only_bucket(&private).1.split(':').nth(1).unwrap().parse::<f64>().unwrap();
    // 3.6 s for each.
    server.eventually("six are counted", async || (5.0..=6.5).contains(&(backlog() / 3.6e6))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_again_within_a_moment_does_not_wait_though_the_quota_is_small() {
    let private = PrivateRedis::start();
    let server = alone_with(&private, "100/1h").await;
    let asked = async || value(&metrics(&server).await, "terrace_quota_questions_total", &["answered"]);
    // At this pace each block has one request.
    let pace = || tokio::time::sleep(Duration::from_millis(300));
    server.get(ITEMS).await.expect(200);
    pace().await;
    server.get(ITEMS).await.expect(200);
    for expected in [97, 96, 95] {
        pace().await;
        let before = asked().await;
        private.pause();
        let begun = Instant::now();
        let reply = server.get(ITEMS).await;
        assert_eq!((super::left(&reply, "\"api\";q=100;w=3600"), reply.cache()), (expected, "HIT"));
        assert!(begun.elapsed() < Duration::from_secs(15), "it waited for Redis");
        private.resume();
        server.eventually("the next one is leased behind the answer", async || asked().await > before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_is_refused_without_asking_again() {
    let three = Three::with("5/1h").await;
    for _ in 0..5 {
        assert_eq!(read_as(&three.0[1], "192.0.2.1", ITEMS).await.status, 200);
    }
    refused(&read_as(&three.0[0], "192.0.2.1", ITEMS).await);
    let before = three.sum("terrace_quota_questions_total", &["answered"]).await;
    for _ in 0..50 {
        refused(&read_as(&three.0[0], "192.0.2.1", ITEMS).await);
    }
    assert_eq!(three.sum("terrace_quota_questions_total", &["answered"]).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_block_goes_back() {
    let three = Three::with("1000/1h").await;
    let returned = async || three.sum("terrace_quota_leased_requests_total", &["returned"]).await;
    for _ in 0..40 {
        assert_eq!(read_as(&three.0[0], "192.0.2.1", ITEMS).await.status, 200);
    }
    three.0[0].eventually("a block goes back", async || returned().await > 0.0).await;
    // What goes back can be had by others: less than two requests are lost, where a block had several.
    let reply = read_as(&three.0[1], "192.0.2.1", ITEMS).await;
    assert!((957..=960).contains(&super::left(&reply, "\"api\";q=1000;w=3600")), "{}", reply.header("ratelimit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_clock_jumps_neither_gives_quota_away_nor_takes_it() {
    let private = PrivateRedis::start();
    let server = alone_with(&private, "60/1h").await;
    // What the server's clock does to a bucket, its time does the other way round. libfaketime and jemalloc do not agree.
    let jump = |seconds: f64| {
        let (key, bucket) = only_bucket(&private);
        let (at, backlog) = bucket.split_once(':').unwrap();
        let moved = format!("{:.0}:{backlog}", at.parse::<f64>().unwrap() - seconds * 1e6);
        private.command::<()>(&["SET", &key, &moved, "KEEPTTL"]);
    };
    let left = async || super::left(&server.get(ITEMS).await, "\"api\";q=60;w=3600");
    for expected in (30..60).rev() {
        assert_eq!(left().await, expected);
    }
    jump(-3.0 * 3600.0);
    assert_eq!(left().await, 29, "set back, it stands still");
    assert_eq!(left().await, 28);
    jump(1800.0);
    assert_eq!(left().await, 57, "half an hour brings thirty back, less the one that is asked for");
    jump(3.0 * 3600.0);
    assert_eq!(left().await, 59, "set forward far enough, the bucket is full again");
}
