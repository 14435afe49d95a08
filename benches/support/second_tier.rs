//! A hit in Redis through the cache, beside a bare MGET of the same keys over the same kind of connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use redis::aio::MultiplexedConnection;
use terrace::cache::{Basis, Cache, CacheKey, Content, Fingerprint, Kind, Lifetimes, Outcome, Presence, Scope, SecondTier};
use terrace::config::Settings;
use terrace::model::{CollectionName, Freshness, Guard, RecordId};
use terrace::redis_client::RedisClient;
use terrace::telemetry::Telemetry;

use super::{corpus, cpu};

const SEED: u64 = 2026;
const KEYS: usize = 256;
/// Both sides in turn, so that what else the machine does meets both.
const ROUNDS: usize = 61;
const PER_ROUND: usize = 512;

/// Prints the CPU time of this process per operation.
pub fn compare() {
    run(async |hits: &mut Hits, bare: &mut Bare| {
        for at_a_time in [1, 16] {
            let mut costs = cpu::Ratio::default();
            for _ in 0..ROUNDS {
                let bare_cost = cpu::measured(PER_ROUND, async || bare.many(PER_ROUND, at_a_time).await).await;
                costs.add(bare_cost, cpu::measured(PER_ROUND, async || hits.many(PER_ROUND, at_a_time).await).await);
            }
            costs.report(&format!("hit in Redis, {at_a_time} at a time"), "of a bare MGET");
        }
        let before = bare.commands().await;
        hits.many(PER_ROUND, 1).await;
        let after = bare.commands().await;
        let told: Vec<String> = after
            .into_iter()
            .map(|(name, calls)| {
                let calls = calls - before.iter().find(|(earlier, _)| *earlier == name).map_or(0, |(_, calls)| *calls);
                (name, calls)
            })
            .filter(|(name, calls)| *calls > 0 && name != "info")
            .map(|(name, calls)| format!("{name} {:.2}", calls as f64 / PER_ROUND as f64))
            .collect();
        println!("commands per hit, in one round trip: {}", told.join(", "));
    });
}

/// Nothing but `count` of one side, for callgrind.
pub fn only(what: &str, count: usize) {
    run(async |hits: &mut Hits, bare: &mut Bare| match what {
        "hits" => hits.many(count, 1).await,
        _ => bare.many(count, 1).await,
    });
}

fn run(work: impl AsyncFnOnce(&mut Hits, &mut Bare)) {
    // One thread for everything: a wake-up across threads would be counted or not, as the machine likes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut settings = Settings::default();
        settings.redis.url = std::env::var("TEST_REDIS").expect("run it as: scripts/with-servers cargo bench --bench tiers");
        settings.redis.prefix = format!("bench-{}", std::process::id());
        let mut hits = Hits::open(&settings).await;
        let mut bare = Bare::open(&settings).await;
        work(&mut hits, &mut bare).await;
    });
}

/// A cache whose first tier keeps nothing, so that each look-up goes to the second.
struct Hits {
    cache: Arc<Cache>,
    scope: Arc<Scope>,
    keys: Vec<(CacheKey, [Guard; 1])>,
}

impl Hits {
    async fn open(settings: &Settings) -> Self {
        let mut settings = settings.clone();
        settings.cache.l1_bytes = bytesize::ByteSize(0);
        let telemetry = Telemetry::new().unwrap();
        let cache = Cache::new(&settings.cache, &telemetry).unwrap();
        let lifetimes = Lifetimes::uniform(Duration::from_secs(600), Duration::ZERO);
        let scope = cache.scope(Kind::Record, "metrics", lifetimes, Fingerprint::of(&[&"bench"]));
        let client = RedisClient::connect(&settings.redis, &telemetry).unwrap().unwrap();
        let mut links = client.watch_links();
        let server = loop {
            if let Some(link) = client.link() {
                break link.server();
            }
            links.changed().await.unwrap();
        };
        let tier = SecondTier::new(client, &settings.redis, "bench", &cache);
        // Nothing was ever deleted here that this process would have to vouch for.
        tier.resume(server);
        cache.join(tier);
        let collection = CollectionName::parse("metrics").unwrap();
        let key = |number: usize| {
            let id = corpus::metric_id(number);
            (CacheKey::of_record(&scope, &id, ""), [Guard::Record(collection.clone(), RecordId::parse(&id).unwrap())])
        };
        let hits = Self { keys: (0..KEYS).map(key).collect(), cache, scope };
        hits.fill().await;
        hits
    }

    async fn fill(&self) {
        for ((key, guards), metric) in self.keys.iter().zip(corpus::metrics(SEED, KEYS)) {
            let content = Content {
                presence: Presence::Found,
                body: Bytes::from(metric.to_string()),
                etag: HeaderValue::from_static("\"AAAAAAAAAAAAAAAAAAAAAA\""),
                headers: Vec::new(),
                basis: Basis::Loaded,
            };
            let load = move || async move { Ok(content) };
            self.cache.get_or_load(&self.scope, key, guards, &Freshness::ANY, load).await.unwrap();
        }
        while self.cache.second_tier().unwrap().fills_in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn one(&self, number: usize) {
        let (key, guards) = &self.keys[number % KEYS];
        let load = || async { panic!("a load instead of a hit") };
        let found = self.cache.get_or_load(&self.scope, key, guards, &Freshness::ANY, load).await.unwrap();
        assert_eq!(found.outcome, Outcome::HitL2);
    }

    async fn many(&mut self, count: usize, at_a_time: usize) {
        let this = &*self;
        let loops = (0..at_a_time).map(|first| async move {
            for number in (first..count).step_by(at_a_time) {
                this.one(number).await;
            }
        });
        futures_util::future::join_all(loops).await;
    }
}

/// The same keys, asked for by `redis` itself.
struct Bare {
    connection: MultiplexedConnection,
    /// Of each entry: its value, and as many guards as it has.
    keys: Vec<Vec<String>>,
}

impl Bare {
    async fn open(settings: &Settings) -> Self {
        let client = redis::Client::open(settings.redis.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let of_kind = |kind: &str| format!("{}:bench:{kind}:*", settings.redis.prefix);
        let mut found = Vec::new();
        for kind in ["e", "g", "b"] {
            let keys: Vec<String> = redis::cmd("KEYS").arg(of_kind(kind)).query_async(&mut connection).await.unwrap();
            found.push(keys);
        }
        let [values, guards, bulk] = found.try_into().unwrap();
        assert!(values.len() == KEYS && guards.len() >= KEYS, "{} values, {} guards", values.len(), guards.len());
        let dependencies = values.iter().zip(&guards).map(|(value, guard)| [value.clone(), guard.clone()]);
        let keys = dependencies.map(|keys| keys.into_iter().chain(bulk.first().cloned()).collect()).collect();
        Self { connection, keys }
    }

    async fn many(&mut self, count: usize, at_a_time: usize) {
        let (connection, keys) = (&self.connection, &self.keys);
        let loops = (0..at_a_time).map(|first| async move {
            let mut connection = connection.clone();
            for number in (first..count).step_by(at_a_time) {
                let found: Vec<Option<Vec<u8>>> =
                    redis::cmd("MGET").arg(&keys[number % KEYS]).query_async(&mut connection).await.unwrap();
                assert!(found.iter().all(Option::is_some));
            }
        });
        futures_util::future::join_all(loops).await;
    }

    /// How often each command was called so far.
    async fn commands(&mut self) -> Vec<(String, u64)> {
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut self.connection).await.unwrap();
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        stats.lines().filter_map(line).collect()
    }
}
