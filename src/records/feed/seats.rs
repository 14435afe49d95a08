//! How many feeds there are at once: of all callers, and of each of them, or one could take the places of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of a process.
pub(super) struct Seats {
    all: u32,
    of_one: u32,
    /// Held for moments, and never across an await.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: u32,
    /// Of those that have any.
    by_caller: HashMap<String, u32>,
}

/// One place, until it is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    caller: String,
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Everything.
    All(u32),
    /// What this caller may have.
    Own(u32),
}

impl Seats {
    pub(super) fn new(all: u32, of_one: u32) -> Arc<Self> {
        Arc::new(Self { all, of_one, taken: Mutex::default() })
    }

    /// A place for `caller`.
    pub(super) fn take(self: &Arc<Self>, caller: String) -> Result<Seat, Full> {
        let mut taken = self.taken();
        let own = taken.by_caller.get(&caller).copied().unwrap_or_default();
        if own >= self.of_one {
            return Err(Full::Own(self.of_one));
        }
        if taken.all >= self.all {
            return Err(Full::All(self.all));
        }
        taken.all += 1;
        taken.by_caller.insert(caller.clone(), own + 1);
        drop(taken);
        Ok(Seat { seats: Arc::clone(self), caller })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        match taken.by_caller.get_mut(&self.caller) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(taken.by_caller.remove(&self.caller)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_does_not_get_the_places_of_all_and_whoever_leaves_makes_room() {
        let seats = Seats::new(3, 2);
        let take = |caller: &str| seats.take(caller.to_owned());
        let (first, second) = (take("a").unwrap(), take("a").unwrap());
        assert_eq!(take("a").err(), Some(Full::Own(2)));
        let third = take("b").unwrap();
        assert_eq!(take("c").err(), Some(Full::All(3)));
        drop(first);
        let fourth = take("a").unwrap();
        assert_eq!(take("b").err(), Some(Full::All(3)));
        drop((second, third, fourth));
        let taken = seats.taken();
        assert_eq!((taken.all, taken.by_caller.len()), (0, 0));
    }
}
