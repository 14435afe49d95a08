//! What this process owes the second tier: invalidations that it could not delete there.

use std::collections::BTreeSet;

use crate::cache::target::Target;

/// With more than this it is the collections that are owed: they are few, and an outage may be long.
const MAX_OWED: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Debts {
    owed: BTreeSet<Target>,
    /// What is being paid. It is kept apart: the same target may be owed again meanwhile, by a later commit.
    in_payment: BTreeSet<Target>,
    /// The server process that this one last dealt with.
    server: Option<u64>,
    /// Whether it has vouched for that server.
    is_settled: bool,
}

/// What has to be deleted on one server.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cache) struct Due {
    pub server: u64,
    pub standing: Standing,
    /// What could not be deleted before.
    pub targets: Vec<Target>,
}

/// What this process knows of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Standing {
    /// All that it has announced and heard of, but what is due, is deleted there.
    Known,
    /// Nothing. Others may have filled it while this process still deleted elsewhere, or was not there.
    Unknown,
    /// The same, and there was another one before; told once.
    Changed,
}

impl Debts {
    pub fn owe(&mut self, targets: &[Target]) {
        self.owed.extend(targets.iter().cloned());
        if self.owed.len() > MAX_OWED {
            let collections = std::mem::take(&mut self.owed).into_iter().map(|target| match target.collection() {
                Some(collection) => Target::Collection(collection.clone()),
                None => Target::All,
            });
            self.owed = collections.collect();
        }
    }

    /// What has to be done on `server` before anything there may be used.
    pub fn due(&mut self, server: u64) -> Option<Due> {
        let last = self.server.replace(server);
        // Of a server that was left nobody knows what it missed, should it come back.
        self.is_settled &= last == Some(server);
        if self.is_settled && self.len() == 0 {
            return None;
        }
        let standing = match last {
            _ if self.is_settled => Standing::Known,
            Some(last) if last != server => Standing::Changed,
            Some(_) | None => Standing::Unknown,
        };
        self.in_payment.append(&mut self.owed);
        Some(Due { server, standing, targets: self.in_payment.iter().cloned().collect() })
    }

    /// Whether what is deleted on `server` needs no payment: it is the one that is dealt with.
    pub fn is_dealt_with(&self, server: u64) -> bool {
        self.server == Some(server)
    }

    /// Ends a payment; says whether nothing is owed any more.
    pub fn settle(&mut self, due: Due, is_paid: bool) -> bool {
        if is_paid {
            self.in_payment.clear();
            self.is_settled = self.server == Some(due.server);
        } else {
            self.owed.append(&mut self.in_payment);
        }
        is_paid && self.owed.is_empty()
    }

    pub fn settled_on(&self) -> Option<u64> {
        self.server.filter(|_| self.is_settled)
    }

    /// The same, if nothing is owed.
    pub fn clear_on(&self) -> Option<u64> {
        self.settled_on().filter(|_| self.len() == 0)
    }

    pub fn len(&self) -> usize {
        self.owed.len() + self.in_payment.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize) -> Target {
        format!("r:metrics:M-{number}").parse().unwrap()
    }

    fn settled_on(server: u64) -> Debts {
        let mut debts = Debts::default();
        let due = debts.due(server).unwrap();
        assert_eq!(due, Due { server, standing: Standing::Unknown, targets: Vec::new() }, "a new process vouches for nothing");
        assert!(debts.settle(due, true));
        assert_eq!(debts.due(server), None);
        debts
    }

    #[test]
    fn what_is_owed_again_during_its_payment_is_paid_again() {
        let mut debts = settled_on(1);
        debts.owe(&[record(1), record(2)]);
        let due = debts.due(1).unwrap();
        assert_eq!(due, Due { server: 1, standing: Standing::Known, targets: vec![record(1), record(2)] });
        debts.owe(&[record(2)]);
        assert!(!debts.settle(due, true), "the later commit was taken for paid");
        assert_eq!(debts.due(1).unwrap().targets, [record(2)]);
    }

    #[test]
    fn a_payment_that_failed_is_owed_still() {
        let mut debts = settled_on(1);
        debts.owe(&[record(1)]);
        let due = debts.due(1).unwrap();
        debts.owe(&[record(2)]);
        assert!(!debts.settle(due, false));
        assert_eq!((debts.len(), debts.due(1).unwrap().targets), (2, vec![record(1), record(2)]));
    }

    #[test]
    fn another_server_is_unknown_until_it_is_settled() {
        let mut debts = settled_on(1);
        debts.owe(&[record(1)]);
        let due = debts.due(2).unwrap();
        assert_eq!(due, Due { server: 2, standing: Standing::Changed, targets: vec![record(1)] });
        assert!(!debts.settle(due, false));
        assert_eq!(debts.due(2).unwrap().standing, Standing::Unknown, "told twice");
        // The first one is back, and nobody knows what it missed.
        let due = debts.due(1).unwrap();
        assert_eq!((due.standing, &*due.targets), (Standing::Changed, &[record(1)][..]));
    }

    #[test]
    fn debts_without_end_become_collections() {
        let mut debts = settled_on(1);
        let all: Vec<Target> = (0..=MAX_OWED).map(record).collect();
        debts.owe(&all);
        assert_eq!(debts.due(1).unwrap().targets, ["b:metrics".parse().unwrap()]);
    }
}
