//! Where a client stands in the change log: the ids of its events. Numbers of transactions are given out before they commit, so a
//! single number cannot say what somebody has seen; a place holds a snapshot. Any instance can go on from it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::model::{Position, ServerRun, Snapshot};

/// More transactions are not open at a time, and more changes do not end in the middle of one.
const MAX_UNSEEN: usize = 4_096;
const MAX_WITHIN: usize = 64;

/// What a client has of the changes of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which database this is about.
    pub(super) installation: u64,
    /// All changes that this sees,
    pub(super) seen: Snapshot,
    /// of these transactions, which it does not see, those up to here,
    pub(super) within: Vec<Position>,
    /// and no row with a higher number. A server that recovers from a crash may give numbers of transactions out again, but none
    /// of rows.
    pub(super) newest: i64,
}

impl Place {
    /// Whether the client has this change.
    pub(super) fn has(&self, position: Position) -> bool {
        let is_within = |within: &Position| within.transaction == position.transaction && position.sequence <= within.sequence;
        self.seen.sees(position.transaction) || self.within.iter().any(is_within)
    }

    /// The place behind `last`, when all changes have been told that `round` sees, in the order of their positions, up to this.
    pub(super) fn behind(&self, round: &Snapshot, last: Position) -> Self {
        let seen = self.seen.joined(round, last.transaction);
        let is_open = |within: &&Position| within.transaction != last.transaction && !seen.sees(within.transaction);
        let within = self.within.iter().filter(is_open).copied().chain([last]).collect();
        Self { installation: self.installation, seen, within, newest: self.newest.max(last.sequence) }
    }

    /// The place when all has been told that `round` sees.
    pub(super) fn after(&self, round: &Snapshot) -> Self {
        let seen = Snapshot { server: round.server, ..self.seen.joined(round, u64::MAX) };
        let within = self.within.iter().filter(|within| !seen.sees(within.transaction)).copied().collect();
        Self { installation: self.installation, seen, within, newest: self.newest }
    }
}

/// `INSTALLATION.RUN.TIMELINE.NEWEST.NEXT.UNSEEN-UNSEEN.TRANSACTION-ROW`: nothing that a header or a URL would have to escape.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { installation, seen: Snapshot { next, in_progress, server }, within, newest } = self;
        let unseen: Vec<String> = in_progress.iter().map(u64::to_string).collect();
        let within: Vec<String> = within.iter().map(Position::to_string).collect();
        let (run, timeline, unseen, within) = (server.number, server.timeline, unseen.join("-"), within.join("-"));
        write!(formatter, "{installation}.{run}.{timeline}.{newest}.{next}.{unseen}.{within}")
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        read(text).ok_or_else(|| {
            let detail = "Last-Event-ID is the id of an event of this feed, sent back as it came.";
            Error::bad_request("invalid_last_event_id", detail)
        })
    }
}

fn read(text: &str) -> Option<Place> {
    let mut parts = text.split('.');
    let mut part = || parts.next();
    let (installation, run, timeline, newest, next) = (part()?, part()?, part()?, part()?, part()?);
    let (unseen, within) = (part()?, part()?);
    if parts.next().is_some() {
        return None;
    }
    let next = number(next)?;
    let in_progress: Vec<u64> = numbers(unseen)?;
    let within: Vec<u64> = numbers(within)?;
    if in_progress.len() > MAX_UNSEEN || within.len() > 2 * MAX_WITHIN || in_progress.iter().any(|unseen| *unseen >= next) {
        return None;
    }
    let (pairs, rest) = within.as_chunks::<2>();
    let position = |[transaction, sequence]: &[u64; 2]| {
        Some(Position { transaction: *transaction, sequence: i64::try_from(*sequence).ok()? })
    };
    let within = pairs.iter().map(position).collect::<Option<Vec<_>>>().filter(|_| rest.is_empty())?;
    let server = ServerRun { number: signed(run)?, timeline: signed(timeline)? };
    let seen = Snapshot { next, in_progress, server };
    Some(Place { installation: number(installation)?, seen, within, newest: signed(newest)? })
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    if text.is_empty() { Some(Vec::new()) } else { text.split('-').map(number).collect() }
}

/// Only digits: the numbers' own parsers would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn signed(text: &str) -> Option<i64> {
    number(text).and_then(|number| i64::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(transaction: u64, sequence: i64) -> Position {
        Position { transaction, sequence }
    }

    fn place(next: u64, in_progress: &[u64], within: &[Position]) -> Place {
        let server = ServerRun { number: 1_700_000_000, timeline: 3 };
        let seen = Snapshot { next, in_progress: in_progress.to_vec(), server };
        Place { installation: u64::MAX, seen, within: within.to_vec(), newest: 9 }
    }

    #[test]
    fn a_place_reads_what_it_writes_and_nothing_else() {
        for place in [place(0, &[], &[]), place(10, &[3], &[]), place(u64::MAX, &[3, 7, 9], &[at(3, 5), at(12, i64::MAX)])] {
            assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        }
        let good = place(10, &[3], &[at(3, 5)]).to_string();
        for wrong in [
            "",
            "1",
            "1.1.1.1.1..x",
            &format!("{good}."),
            &format!("{good}-7"),
            &good.replace(".10.", ".+10."),
            &good.replace(".10.", ".2."),
        ] {
            assert_eq!(wrong.parse::<Place>().unwrap_err().code(), "invalid_last_event_id", "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_place_or_refused(text in "[0-9.-]{0,60}|.{0,40}") {
            match text.parse::<Place>() {
                Ok(place) => prop_assert_eq!(place.to_string().parse::<Place>().unwrap(), place),
                Err(error) => prop_assert_eq!(error.code(), "invalid_last_event_id"),
            }
        }

        /// Whatever commits when, and wherever a client is cut off: it has each change once, in the rounds before and after.
        #[test]
        fn a_reader_who_goes_on_from_any_place_has_each_change_once(
            // By transaction: how many rows, and in which round they are first visible.
            transactions in proptest::collection::vec((1_usize..4, 0_usize..5), 1..12),
            cuts in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let mut sequence = 0;
            let mut log: Vec<(usize, Position)> = Vec::new();
            for (number, (rows, round)) in transactions.iter().enumerate() {
                for _ in 0..*rows {
                    sequence += 1;
                    log.push((*round, at(number as u64, sequence)));
                }
            }
            let snapshot = |round: usize| {
                let begun = transactions.iter().enumerate().filter(|(_, (_, visible))| *visible <= round);
                let next = begun.map(|(number, _)| number as u64 + 1).max().unwrap_or_default();
                let is_open = |number: &u64| transactions[usize::try_from(*number).unwrap()].1 > round;
                Snapshot { next, in_progress: (0..next).filter(is_open).collect(), server: ServerRun::default() }
            };
            let mut told = Vec::new();
            let mut client = place(0, &[], &[]);
            for round in 0..5 {
                let now = snapshot(round);
                // A cut somewhere in the round: the next reader sees the same or, as here, only what is there then.
                let news: Vec<Position> = log.iter().map(|(_, row)| *row).filter(|row| now.sees(row.transaction) && !client.has(*row)).collect();
                let cut = cuts.get(round).copied().unwrap_or(usize::MAX);
                let mut current = client.clone();
                for row in news.iter().take(cut) {
                    told.push(*row);
                    current = client.behind(&now, *row);
                }
                client = if cut < news.len() { current.to_string().parse().unwrap() } else { client.after(&now) };
            }
            // All that is left.
            let end = snapshot(5);
            told.extend(log.iter().map(|(_, row)| *row).filter(|row| end.sees(row.transaction) && !client.has(*row)));
            told.sort_unstable();
            let all: Vec<Position> = log.iter().map(|(_, row)| *row).collect();
            prop_assert_eq!(told, all);
        }
    }
}
