//! What this process has applied of the change log.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::model::{Position, Snapshot};

/// The most transactions of others that are noted while no round reads the log. What is beyond is read there, and applied
/// again.
const MAX_HEARD: usize = 100_000;

/// What has been applied.
#[derive(Debug)]
pub(in crate::cache) struct Progress {
    /// What the last round read, and of what was announced as much as goes in without a gap: no need to read it.
    pub seen: Snapshot,
    /// Transactions that this process announced, or heard of, and the last round's snapshot did not see, each with its
    /// newest row. All changes of a transaction are announced together.
    pub own: BTreeMap<u64, i64>,
    /// The newest row that rounds of this run of the server have come across. Rows that a crashed server writes later are
    /// newer than all that it had committed, whatever the numbers of their transactions.
    pub newest: i64,
    /// When the last round began that read the log to its end.
    pub read_at: Instant,
    /// How often something was forgotten. What was dealt with before that need not be dealt with where it counts now.
    pub rewinds: u64,
}

impl Progress {
    /// Everything that `seen` sees has been applied, at `read_at`.
    pub fn new(seen: Snapshot, read_at: Instant) -> Self {
        Self { seen, own: BTreeMap::new(), newest: 0, read_at, rewinds: 0 }
    }

    /// Forgets what `covered` does not see, so that the next round applies it again.
    pub fn rewind(&mut self, covered: Snapshot) {
        self.rewinds += 1;
        self.own.clear();
        let next = self.seen.next.min(covered.next);
        let mut in_progress: Vec<u64> = [&*self.seen.in_progress, &*covered.in_progress].concat();
        in_progress.retain(|transaction| *transaction < next);
        in_progress.sort_unstable();
        in_progress.dedup();
        self.seen = Snapshot { next, in_progress, server: self.seen.server };
    }

    /// Forgets everything but what `seen` sees.
    pub fn start_anew(&mut self, seen: Snapshot, read_at: Instant) {
        *self = Self { rewinds: self.rewinds + 1, ..Self::new(seen, read_at) };
    }

    /// This process has announced a transaction.
    pub fn announced(&mut self, Position { transaction, sequence }: Position) {
        if let Some(newest) = self.own.get_mut(&transaction) {
            *newest = sequence.max(*newest);
        } else if !self.seen.sees(transaction) {
            self.own.insert(transaction, sequence);
            self.seen.see(transaction);
        }
    }

    /// Another process has announced a transaction, and it was applied here.
    pub fn heard(&mut self, position: Position) {
        if self.own.len() < MAX_HEARD {
            self.announced(position);
        }
    }

    /// Whether it is the newest row of a transaction that was announced or heard of, and that no round has seen since.
    pub fn has_noted(&self, Position { transaction, sequence }: Position) -> bool {
        self.own.get(&transaction) == Some(&sequence)
    }

    /// Whether a transaction has been applied.
    pub fn has_applied(&self, transaction: u64) -> bool {
        self.own.contains_key(&transaction) || self.seen.sees(transaction)
    }

    /// Everything that `snapshot` sees has been applied; `newest` was the newest row of it that was read.
    pub fn applied(&mut self, snapshot: Snapshot, newest: i64, read_at: Instant) {
        let (seen, unseen) = std::mem::take(&mut self.own).into_iter().partition(|(transaction, _)| snapshot.sees(*transaction));
        let seen: BTreeMap<u64, i64> = seen;
        self.newest = seen.into_values().fold(self.newest.max(newest), i64::max);
        self.own = unseen;
        self.seen = snapshot;
        self.own.keys().for_each(|transaction| self.seen.see(*transaction));
        self.read_at = read_at;
    }

    /// What `next` is at least, if the database is the one that was read before: its numbers only go up.
    pub fn expected_next(&self) -> u64 {
        self.own.last_key_value().map_or(0, |(own, _)| own.saturating_add(1)).max(self.seen.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServerRun;

    #[test]
    fn a_rewound_progress_has_applied_only_what_both_have_seen() {
        let snapshot =
            |next, in_progress: &[u64]| Snapshot { next, in_progress: in_progress.to_vec(), server: ServerRun::default() };
        let has_applied = |progress: &Progress| -> Vec<u64> { (0..20).filter(|number| progress.has_applied(*number)).collect() };
        let begin = Progress::new(snapshot(10, &[7]), Instant::now());
        for (covered, both) in [
            (snapshot(5, &[2]), vec![0, 1, 3, 4]),
            (snapshot(12, &[3]), vec![0, 1, 2, 4, 5, 6, 8, 9, 11]),
            (snapshot(10, &[7]), vec![0, 1, 2, 3, 4, 5, 6, 8, 9]),
        ] {
            let mut progress = Progress::new(begin.seen.clone(), begin.read_at);
            progress.announced(Position { transaction: 11, sequence: 1 });
            assert!(progress.has_applied(11));
            progress.rewind(covered);
            assert_eq!(has_applied(&progress), both);
        }
    }
}
