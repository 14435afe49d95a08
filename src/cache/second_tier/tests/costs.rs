//! What look-ups and invalidations cost Redis, by its own account.

use std::collections::BTreeMap;

use super::bad_days::Private;
use super::*;

/// How many records are looked up.
const COUNT: u64 = 50;

/// How often Redis ran each command, and read from a connection.
struct Account {
    commands: BTreeMap<String, u64>,
    reads: u64,
}

impl Account {
    async fn of(instance: &Instance) -> Self {
        let text: String = instance.command("INFO", &[b"all"]).await;
        let reads = text.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap().trim().parse().unwrap();
        let command = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        Self { commands: text.lines().filter_map(command).collect(), reads }
    }

    /// What happened since `before`, without asking for it.
    fn since(self, before: &Self) -> Self {
        let count = |(name, count): (String, u64)| {
            let count = count - before.commands.get(&name).copied().unwrap_or_default();
            (count > 0 && name != "info").then_some((name, count))
        };
        Self { commands: self.commands.into_iter().filter_map(count).collect(), reads: self.reads - before.reads - 1 }
    }

    fn walks_no_keys(&self) {
        for walk in ["keys", "scan", "sscan", "hscan", "zscan", "randomkey"] {
            assert!(!self.commands.contains_key(walk), "{walk}: {:?}", self.commands);
        }
    }
}

fn ids() -> impl Iterator<Item = String> {
    (0..COUNT).map(|number| format!("M-{number}"))
}

#[tokio::test]
async fn a_hit_is_one_round_trip_and_nothing_walks_through_keys() {
    let redis = Private::start();
    let installation = redis.installation();
    let (one, other) = (installation.instance().await, installation.instance().await);
    // The first one brings the script along.
    one.seed("first", "body").await;
    let before = Account::of(&one).await;
    for id in ids() {
        one.seed(&id, "body").await;
    }
    let misses = Account::of(&one).await.since(&before);
    misses.walks_no_keys();
    // A look, a capture and a fill each.
    assert!(misses.reads <= 3 * COUNT, "{} round trips: {:?}", misses.reads, misses.commands);

    let before = Account::of(&one).await;
    for id in ids() {
        assert_eq!(other.read(&id, "never").await.0, Outcome::HitL2);
    }
    let hits = Account::of(&one).await.since(&before);
    assert_eq!(hits.reads, COUNT, "round trips: {:?}", hits.commands);
    let each = ["mget", "pttl"].map(|name| (name.to_owned(), COUNT));
    assert_eq!(hits.commands, BTreeMap::from(each));

    let before = Account::of(&one).await;
    for target in ["r:metrics:M-1", "c:metrics", "b:metrics", "p:metrics:M-*", "*"] {
        let target: Target = target.parse().unwrap();
        one.bump(target).await;
    }
    let bumps = Account::of(&one).await.since(&before);
    bumps.walks_no_keys();
    assert_eq!(bumps.reads, 5, "round trips: {:?}", bumps.commands);
}
