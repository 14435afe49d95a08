//! What instances tell each other: JSON on one channel. It is read as a stranger's: a name that is none, and whatever else is
//! not understood, makes a message unreadable as a whole, and the change log tells what it would have told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::told::Told;
use crate::cache::instance::InstanceId;
use crate::cache::target::Target;
use crate::model::{Position, ServerRun, Snapshot};

/// A message and who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cache) struct Message {
    pub from: InstanceId,
    #[serde(flatten)]
    pub news: News,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "news")]
pub(in crate::cache) enum News {
    Changes(Changes),
    /// Somebody asked for an invalidation.
    Invalidate(Changes),
    /// A sign of life, of which its sender makes sure that it comes back.
    Heartbeat(u64),
}

/// Committed changes, or an invalidation, whose guards have been deleted in the second tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cache) struct Changes {
    /// The transactions that `targets` tell of wholly, each with its newest row: who has applied them need not read them.
    pub transactions: Vec<Place>,
    /// The transactions that those came after: who has not applied them has not applied these either.
    pub predecessors: Vec<u64>,
    /// The newest row of all, for explanations.
    pub newest: Option<Place>,
    /// Whether it was found in the log: then it was committed a while ago.
    pub is_found: bool,
    pub targets: Vec<Target>,
    /// What moved the guards among them, as far as it is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Told>,
    /// Whose terms the targets name: a fingerprint of what the sender has declared.
    pub declarations: u64,
    /// Whose transactions: the run and the timeline of the database server.
    pub database: (i64, i64),
    /// Which Redis has deleted the guards.
    pub server: u64,
    /// When it was sent by the sender's clock, in microseconds since 1970: good for a metric, and for nothing else.
    pub sent_us: u64,
}

/// A [`Position`] on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cache) struct Place(u64, i64);

impl From<Position> for Place {
    fn from(Position { transaction, sequence }: Position) -> Self {
        Self(transaction, sequence)
    }
}

impl From<Place> for Position {
    fn from(Place(transaction, sequence): Place) -> Self {
        Self { transaction, sequence }
    }
}

impl Changes {
    pub fn is_of(&self, database: ServerRun) -> bool {
        self.database == (database.number, database.timeline)
    }

    /// How long ago it was sent, as far as the two clocks agree.
    pub fn delay(&self) -> Duration {
        Duration::from_micros(now_us().saturating_sub(self.sent_us))
    }
}

/// How much of the log has been applied to the second tier: all changes that a snapshot sees have had their guards deleted there.
/// Kept in Redis, it tells a process that comes later where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cache) struct Covered {
    /// On which Redis: one that was filled from a dump, or as a replica, has this text of another one.
    pub server: u64,
    next: u64,
    in_progress: Vec<u64>,
    database: (i64, i64),
}

impl Covered {
    pub fn new(server: u64, seen: Snapshot) -> Self {
        let database = (seen.server.number, seen.server.timeline);
        Self { server, next: seen.next, in_progress: seen.in_progress, database }
    }
}

impl From<Covered> for Snapshot {
    fn from(covered: Covered) -> Self {
        let (number, timeline) = covered.database;
        Self { next: covered.next, in_progress: covered.in_progress, server: ServerRun { number, timeline } }
    }
}

/// By this machine's clock.
pub(in crate::cache) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Message {
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl News {
    pub const KINDS: [&str; 3] = ["changes", "invalidate", "heartbeat"];

    /// How metrics spell it.
    pub fn kind(&self) -> &'static str {
        let [changes, invalidate, heartbeat] = Self::KINDS;
        match self {
            Self::Changes(_) => changes,
            Self::Invalidate(_) => invalidate,
            Self::Heartbeat(_) => heartbeat,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Change, Words};

    fn changes() -> News {
        let targets = ["r:metrics:M-1", "t:metrics:4:tier=i:1", "c:metrics", "b:domains"].map(|target| target.parse().unwrap());
        let words = Words::of(["a brass lamp"]);
        let change = Change { members: Some(vec!["name".to_owned()]), words, ..crate::cache::tests::change(1, 2, "M-1") };
        News::Changes(Changes {
            transactions: vec![Position { transaction: u64::MAX, sequence: i64::MAX }.into()],
            predecessors: vec![1, u64::MAX],
            newest: Some(Place(u64::MAX, i64::MAX)),
            is_found: true,
            changes: Told::of(&[Arc::new(change)], &targets),
            targets: targets.to_vec(),
            declarations: u64::MAX,
            database: (i64::MIN, 1),
            server: u64::MAX - 1,
            sent_us: now_us(),
        })
    }

    #[test]
    fn a_message_is_read_as_it_was_sent() {
        let from = InstanceId::random();
        let News::Changes(told) = changes() else { panic!() };
        for news in [changes(), News::Invalidate(told), News::Heartbeat(u64::MAX)] {
            let message = Message { from, news };
            assert_eq!(Message::parse(message.to_json().as_bytes()), Some(message));
        }
    }

    #[test]
    fn a_message_with_a_name_that_is_none_is_no_message() {
        let good = Message { from: InstanceId::random(), news: changes() }.to_json();
        let wrongs = [
            ("r:metrics:M-1", "r:metrics:a/b"),
            ("b:domains", "b:Domains"),
            ("c:metrics", "d:metrics"),
            ("\"record\":\"r:metrics:M-1\"", "\"record\":\"c:metrics\""),
            ("\"record\":\"r:metrics:M-1\"", "\"record\":\"r:domains:M-1\""),
            ("\"operation\":\"update\"", "\"operation\":\"upsert\""),
        ];
        for (name, wrong) in wrongs {
            assert!(good.contains(name));
            assert_eq!(Message::parse(good.replace(name, wrong).as_bytes()), None, "{wrong}");
        }
        for wrong in ["", "{}", "[]", "null", "\u{0}", &good[..good.len() - 1]] {
            assert_eq!(Message::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
