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
    /// The server process that this one has vouched for.
    settled_on: Option<u64>,
}

/// What has to be deleted on one server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub server: u64,
    pub targets: Vec<Target>,
    /// Whether it comes after another server.
    pub is_other_server: bool,
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

    /// What has to be deleted on `server` before anything there may be used. A server that this process has not vouched for
    /// owes everything: others may have filled it while this one still deleted elsewhere, or was not there.
    pub fn due(&mut self, server: u64) -> Option<Due> {
        let is_known = self.settled_on == Some(server);
        if is_known && self.owed.is_empty() {
            return None;
        }
        self.in_payment.append(&mut self.owed);
        let targets = if is_known { self.in_payment.iter().cloned().collect() } else { vec![Target::All] };
        Some(Due { server, targets, is_other_server: self.settled_on.is_some_and(|settled| settled != server) })
    }

    /// Ends a payment; says whether nothing is owed any more.
    pub fn settle(&mut self, due: Due, is_paid: bool) -> bool {
        if is_paid {
            self.in_payment.clear();
            self.settled_on = Some(due.server);
        } else {
            self.owed.append(&mut self.in_payment);
        }
        is_paid && self.owed.is_empty()
    }

    pub fn settled_on(&self) -> Option<u64> {
        self.settled_on
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
        assert_eq!((&*due.targets, due.is_other_server), (&[Target::All][..], false), "a new process vouches for nothing");
        assert!(debts.settle(due, true));
        assert_eq!(debts.due(server), None);
        debts
    }

    #[test]
    fn what_is_owed_again_during_its_payment_is_paid_again() {
        let mut debts = settled_on(1);
        debts.owe(&[record(1), record(2)]);
        let due = debts.due(1).unwrap();
        assert_eq!(due.targets, [record(1), record(2)]);
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
    fn another_server_is_owed_everything() {
        let mut debts = settled_on(1);
        debts.owe(&[record(1)]);
        let due = debts.due(2).unwrap();
        assert_eq!((&*due.targets, due.is_other_server), (&[Target::All][..], true));
        assert!(!debts.settle(due, false));
        // The first one is back, and was not told.
        assert_eq!(debts.due(1).unwrap().targets, [record(1)]);
    }

    #[test]
    fn debts_without_end_become_collections() {
        let mut debts = settled_on(1);
        let all: Vec<Target> = (0..=MAX_OWED).map(record).collect();
        debts.owe(&all);
        assert_eq!(debts.due(1).unwrap().targets, ["b:metrics".parse().unwrap()]);
    }
}
