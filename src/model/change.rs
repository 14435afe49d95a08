//! Changes, the rows of the append-only log, and guards, what a cached entry depends on.

use std::fmt;
use std::str::FromStr;

use super::{CollectionName, RecordId, Scalar, Words};
use crate::error::Error;

/// How far along the change log something is. Transactions are numbered when they begin to write and not when they
/// commit, so a position says nothing about visibility: a [`Snapshot`] does. Clients get it as the `Consistency-Token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The transaction that wrote the change: PostgreSQL's 64-bit transaction id. SQLite, which has one writer at a
    /// time, has the sequence here as well.
    pub transaction: u64,
    /// The number of the row, never used twice.
    pub sequence: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.transaction, self.sequence)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // Only digits: the numbers' own parsers would take a sign.
        let is_plain = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
        let numbers = text.split_once('-').filter(|(transaction, sequence)| is_plain(transaction) && is_plain(sequence));
        let parsed = numbers.and_then(|(transaction, sequence)| Some((transaction.parse().ok()?, sequence.parse().ok()?)));
        let (transaction, sequence) = parsed.ok_or_else(|| {
            Error::bad_request(
                "invalid_consistency_token",
                "A consistency token is two whole numbers with a hyphen between them, for example 1042-7: \
                 send it back as a write answered it.",
            )
        })?;
        Ok(Self { transaction, sequence })
    }
}

/// What tells one life of a database server from another, as far as its log is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerRun {
    /// Another number after each start, and after each crash that the server recovers from by itself. PostgreSQL may then
    /// give out numbers again that it had given to transactions which left nothing behind.
    pub number: i64,
    /// The history that it writes. A standby that takes over begins another one, which may lack the end of the last. 0 if
    /// the server does not tell.
    pub timeline: i64,
}

impl ServerRun {
    /// How many numbers of transactions may be given out again after the server was started anew or recovered from a crash: those
    /// which nobody committed, and that were given out after its log was last written to disk. That happens with each commit,
    /// and within 0.6 seconds at the latest, so this allows for over 16,000 of them a second. Changes of so many
    /// transactions are read again.
    pub const REUSED: u64 = 10_000;
}

/// The most transactions that [`Snapshot::see`] notes as unseen, to keep what is sent to the database short.
const MAX_NOTED: u64 = 256;

/// Which transactions a reader has seen. The log is read by what a snapshot has not seen: numbers are given out before
/// commits, so neither "above the last number" nor "below the oldest open one" finds each change once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// No transaction from this number on is seen.
    pub next: u64,
    /// Nor are these, which are smaller: they were in progress.
    pub in_progress: Vec<u64>,
    /// Whose numbers these are. An embedded database is always the same.
    pub server: ServerRun,
}

impl Snapshot {
    /// Whether it sees what `transaction` committed.
    pub fn sees(&self, transaction: u64) -> bool {
        transaction < self.next && !self.in_progress.contains(&transaction)
    }

    /// The smallest number that it does not see.
    pub fn oldest_unseen(&self) -> u64 {
        self.in_progress.iter().copied().fold(self.next, u64::min)
    }

    /// Forgets that it saw the last `transactions` that were numbered.
    #[must_use]
    pub fn without_last(mut self, transactions: u64) -> Self {
        self.next = self.next.saturating_sub(transactions);
        let next = self.next;
        self.in_progress.retain(|unseen| *unseen < next);
        self
    }

    /// One that sees what this one sees, and of what `other` sees the transactions with smaller numbers than `below`.
    #[must_use]
    pub fn joined(&self, other: &Self, below: u64) -> Self {
        let reach = other.next.min(below);
        let unseen = self.in_progress.iter().copied().filter(|unseen| *unseen >= reach || !other.sees(*unseen));
        let further = other.in_progress.iter().copied().filter(|unseen| (self.next..reach).contains(unseen));
        Self { next: self.next.max(reach), in_progress: unseen.chain(further).collect(), server: self.server }
    }

    /// What is still seen in the next run of the server, as `now` begins it: whatever was committed, `now` sees too. What it does
    /// not see bears a number that is given out again.
    #[must_use]
    pub fn restarted(&self, now: &Self) -> Self {
        let next = self.next.min(now.next);
        let mut in_progress: Vec<u64> =
            self.in_progress.iter().chain(&now.in_progress).copied().filter(|unseen| *unseen < next).collect();
        in_progress.sort_unstable();
        in_progress.dedup();
        Self { next, in_progress, server: now.server }
    }

    /// Takes a committed transaction in, so that its changes are not read again. Those between are noted as not seen; if
    /// they are too many, nothing happens, which costs no more than reading the changes.
    pub fn see(&mut self, transaction: u64) {
        if transaction < self.next {
            self.in_progress.retain(|unseen| *unseen != transaction);
        } else if transaction - self.next + self.in_progress.len() as u64 <= MAX_NOTED {
            self.in_progress.extend(self.next..transaction);
            self.next = transaction.saturating_add(1);
        }
    }
}

/// One page of the changes that a snapshot did not see.
#[derive(Clone, Debug)]
pub struct ChangePage<C = LoggedChange> {
    /// The changes by their positions.
    pub changes: Vec<C>,
    /// How many rows of the page cannot be read; they were logged as errors and left out.
    pub unreadable: usize,
    /// What the database saw when it read this page.
    pub snapshot: Snapshot,
    /// Where the next page begins; `None` if there is nothing more.
    pub more_after: Option<Position>,
}

/// What a change did to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The record did not exist before.
    Create,
    /// The record existed and has a new document.
    Update,
    /// The record is gone.
    Delete,
}

impl Operation {
    /// How the log spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// Reads the log's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete].into_iter().find(|operation| operation.as_str() == text)
    }
}

/// One `field = value` that a document has: each indexed scalar, and each element of an indexed array.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The field's name.
    pub field: String,
    /// The canonical value.
    pub value: Scalar,
}

/// One row of the change log, as the cache needs it: which guards it invalidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the log.
    pub position: Position,
    /// The record's collection.
    pub collection: CollectionName,
    /// The record.
    pub id: RecordId,
    /// What happened.
    pub operation: Operation,
    /// Every indexed term of the old and of the new document, sorted, without repetition.
    pub terms: Vec<Term>,
    /// The members that an update changed, sorted; `None` if nobody can tell, or the record is new or gone.
    pub members: Option<Vec<String>>,
    /// The words of the old and of the new document in the texts that are searched; `None` if nobody can tell, or the texts are
    /// as they were.
    pub words: Option<Words>,
}

impl Change {
    /// The guards that this change moves to a new generation.
    pub fn guards(&self) -> impl Iterator<Item = Guard> + '_ {
        let terms = self.terms.iter().map(|term| Guard::Term(self.collection.clone(), term.clone()));
        [Guard::Record(self.collection.clone(), self.id.clone()), Guard::Collection(self.collection.clone())]
            .into_iter()
            .chain(terms)
    }
}

/// One row of the change log as it is stored: the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// Its place in the log.
    pub position: Position,
    /// The record's collection.
    pub collection: CollectionName,
    /// The record.
    pub id: RecordId,
    /// What happened.
    pub operation: Operation,
    /// The record's version afterwards; for a deletion, the one that was deleted.
    pub version: i64,
    /// Who did it.
    pub actor: String,
    /// From where; `None` if not over a network, or past Terrace.
    pub origin: Option<String>,
    /// When, as [`super::timestamp_text`] spells it.
    pub at: String,
    /// The document before, as JSON text; `None` for a creation.
    pub before: Option<String>,
    /// The document after, as JSON text; `None` for a deletion.
    pub after: Option<String>,
}

/// What a cached entry depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// One record.
    Record(CollectionName, RecordId),
    /// All records that have one `field = value`.
    Term(CollectionName, Term),
    /// All records of a collection.
    Collection(CollectionName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_what_it_writes_and_nothing_else() {
        let position = Position { transaction: u64::MAX, sequence: i64::MAX };
        assert_eq!(position.to_string(), "18446744073709551615-9223372036854775807");
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        for wrong in ["", "-", "7", "7-", "-7", "7-8-9", "+7-8", "7--8", " 7-8", "7-8 ", "a-b", "1-9223372036854775808", "७-1"]
        {
            let error = wrong.parse::<Position>().unwrap_err();
            assert!(error.detail().contains("1042-7"), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn positions_are_ordered_by_transaction_and_then_by_sequence() {
        let at = |transaction, sequence| Position { transaction, sequence };
        assert!(at(1, 9) < at(2, 3) && at(2, 3) < at(2, 4));
    }

    #[test]
    fn a_snapshot_takes_in_transactions_in_any_order() {
        let at = |next, in_progress: &[u64]| Snapshot { next, in_progress: in_progress.to_vec(), server: ServerRun::default() };
        let mut snapshot = at(10, &[7]);
        assert_eq!([6, 7, 9, 10].map(|transaction| snapshot.sees(transaction)), [true, false, true, false]);
        assert_eq!(snapshot.oldest_unseen(), 7);
        snapshot.see(12);
        assert_eq!(snapshot, at(13, &[7, 10, 11]));
        [10, 7, 11, 13].into_iter().for_each(|transaction| snapshot.see(transaction));
        assert_eq!(snapshot, at(14, &[]));
        assert_eq!(snapshot.oldest_unseen(), 14);
        snapshot.see(14 + MAX_NOTED + 1);
        assert_eq!(snapshot.next, 14, "more was noted than a statement should carry");
        snapshot.see(u64::MAX);
        assert_eq!(snapshot.next, 14);
    }

    #[test]
    fn a_joined_snapshot_sees_what_either_sees_below_the_limit() {
        let at = |next, in_progress: &[u64]| Snapshot { next, in_progress: in_progress.to_vec(), server: ServerRun::default() };
        let all = [at(0, &[]), at(10, &[]), at(10, &[3, 7]), at(14, &[7, 11]), at(14, &[3, 12, 13]), at(20, &[0, 9, 10, 19])];
        for one in &all {
            for other in &all {
                for below in [0, 3, 7, 8, 10, 12, 14, 30, u64::MAX] {
                    let joined = one.joined(other, below);
                    for number in 0..25 {
                        let expected = one.sees(number) || number < below && other.sees(number);
                        assert_eq!(joined.sees(number), expected, "{number}: {one:?} and {other:?} below {below}: {joined:?}");
                    }
                    assert!(joined.in_progress.iter().all(|unseen| *unseen < joined.next));
                }
            }
        }
    }

    #[test]
    fn a_snapshot_that_forgets_has_not_seen_the_newest() {
        let snapshot = Snapshot { next: 100, in_progress: vec![7, 95], server: ServerRun { number: 1, timeline: 2 } };
        let forgetful = snapshot.clone().without_last(10);
        assert_eq!(forgetful, Snapshot { next: 90, in_progress: vec![7], ..snapshot.clone() });
        assert_eq!([7, 89, 90, 99].map(|transaction| forgetful.sees(transaction)), [false, true, false, false]);
        assert_eq!(snapshot.without_last(1_000).oldest_unseen(), 0);
    }
}
