//! A model of the protocol between instances, Redis and the change log, checked exhaustively: whatever the order of steps
//! and whatever single thing fails, nobody is served less than the bound demands, and once everything is quiet every cache
//! shows what is stored. Each part of the protocol is needed: without it the checker finds a history that breaks this.
//!
//! `model/protocol.rs` has the states, `model/steps.rs` what may happen.

mod protocol;
mod steps;

use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model as _, Property};

use protocol::{Budget, INSTANCES, Parts, Protocol, State, Write};

/// Everything in caches that may be served shows what must be shown, and so did everything that was served.
fn is_never_served_old(protocol: &Protocol, state: &State) -> bool {
    let parts = protocol.parts;
    !state.was_served_old
        && (0..INSTANCES).all(|index| {
            let demand = state.demand(index, parts);
            let in_redis = state.readable(index, parts).and_then(|server| state.valid(server, parts));
            [state.instances[index].l1, in_redis].into_iter().flatten().all(|shown| shown & demand == demand)
        })
}

/// Nothing is left to be done, but what may go wrong or be asked for.
fn is_quiet(state: &State) -> bool {
    let is_done = |write: &Write| matches!(write, Write::Answered | Write::Orphaned);
    state.writes.iter().all(is_done)
        && state.instances.iter().all(|instance| {
            instance.seen == state.committed
                && instance.round.is_none()
                && instance.load.is_none()
                && !instance.is_pending
                && instance.link.is_some()
        })
}

fn is_fresh_once_quiet(protocol: &Protocol, state: &State) -> bool {
    let parts = protocol.parts;
    let in_redis = |index| state.readable(index, parts).and_then(|server| state.valid(server, parts));
    let shown = (0..INSTANCES).flat_map(|index| [state.instances[index].l1, in_redis(index)]);
    !is_quiet(state) || shown.flatten().all(|shown| shown == state.committed)
}

/// Who has nothing left to do is done: no instance waits for ever.
fn ends_quiet(protocol: &Protocol, state: &State) -> bool {
    let mut actions = Vec::new();
    protocol.actions(state, &mut actions);
    !actions.is_empty() || is_quiet(state)
}

fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always(NEVER_OLD, is_never_served_old),
        Property::always(FRESH, is_fresh_once_quiet),
        Property::always(ENDS, ends_quiet),
        // A model in which nothing happens would have all of these.
        Property::sometimes("a cache shows all writes, and everything is quiet", |_, state| {
            is_quiet(state) && state.instances.iter().any(|instance| instance.l1 == Some(0b11))
        }),
        Property::sometimes("a cache shows what is old by now", |_, state: &State| {
            state.instances.iter().any(|instance| instance.l1.is_some_and(|shown| shown != state.committed))
        }),
    ]
}

const NEVER_OLD: &str = "never served beyond the bound";
const FRESH: &str = "always fresh once quiet";
const ENDS: &str = "ends quiet";

/// Nothing goes wrong but that messages may be lost.
const CALM: Budget = Budget { writes: 2, loads: 2, crashes: 0, lost_links: 0, evictions: 0, promotions: 0, copies: 0 };
/// So that there are not too many states, with one write each.
const CRASH: Budget = Budget { writes: 1, loads: 3, crashes: 1, evictions: 1, ..CALM };
const LOST_LINK: Budget = Budget { writes: 1, loads: 3, lost_links: 1, evictions: 1, ..CALM };
const PROMOTION: Budget = Budget { writes: 1, promotions: 1, copies: 1, ..CALM };

fn protocol(parts: Parts, budget: Budget, writers: [usize; 2]) -> Protocol {
    Protocol { parts, budget, writers }
}

/// Goes through every state.
#[track_caller]
fn holds(what: &str, budget: Budget, writers: [usize; 2]) {
    let began = Instant::now();
    let checker = protocol(Parts::ALL, budget, writers).checker().threads(2).spawn_bfs().join();
    println!("{what}: {} states, {:.1} s", checker.unique_state_count(), began.elapsed().as_secs_f64());
    for (name, path) in checker.discoveries() {
        assert!(![NEVER_OLD, FRESH, ENDS].contains(&name), "{what}: {name}:\n{:#?}", path.into_actions());
    }
    checker.assert_properties();
}

/// Finds a history that breaks a promise.
#[track_caller]
fn breaks(what: &str, parts: Parts, budget: Budget, writers: [usize; 2]) {
    let checker = protocol(parts, budget, writers).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries().into_iter().find(|(name, _)| [NEVER_OLD, FRESH].contains(name));
    let (name, path) = found.unwrap_or_else(|| panic!("without {what} everything holds"));
    println!("without {what} {name:?} does not hold, as {} states show: {:?}", checker.unique_state_count(), path.into_actions());
}

#[test]
fn nothing_old_is_served_whatever_the_order_of_steps() {
    holds("two instances write", CALM, [0, 1]);
    holds("one instance writes", CALM, [0, 0]);
}

#[test]
fn nothing_old_is_served_after_a_crash_at_any_step() {
    holds("a crash", CRASH, [0, 1]);
    holds("a crash, and two writes", Budget { crashes: 1, loads: 1, ..CALM }, [0, 1]);
}

#[test]
fn nothing_old_is_served_after_a_link_is_lost() {
    holds("a lost link", LOST_LINK, [0, 1]);
}

#[test]
fn nothing_old_is_served_after_redis_is_another_one_that_lacks_the_last_deletions() {
    holds("a promotion", PROMOTION, [0, 1]);
}

#[test]
fn without_the_capture_before_the_load_something_old_is_served() {
    breaks("the capture", Parts { capture: false, ..Parts::ALL }, CALM, [0, 1]);
}

#[test]
fn without_the_reconciling_something_old_is_served() {
    breaks("the reconciling", Parts { reconcile: false, ..Parts::ALL }, CALM, [0, 1]);
}

#[test]
fn without_the_check_of_tokens_something_old_is_served() {
    breaks("the check of tokens", Parts { token: false, ..Parts::ALL }, CALM, [0, 1]);
}

#[test]
fn every_other_part_of_the_protocol_is_needed_too() {
    breaks("a move after the deletion", Parts { move_after: false, ..Parts::ALL }, CALM, [0, 1]);
    breaks("reading the log by snapshots", Parts { snapshot: false, ..Parts::ALL }, CALM, [0, 0]);
    breaks("nonces", Parts { nonces: false, ..Parts::ALL }, CALM, [0, 1]);
    breaks("the server in messages", Parts { server_in_messages: false, ..Parts::ALL }, PROMOTION, [0, 1]);
    breaks("catching up", Parts { catch_up: false, ..Parts::ALL }, CRASH, [0, 1]);
    // Who has caught up with a server finds no value of another one there. Each of the two would do here; but that there
    // is nothing to catch up with says another process, which has read the log some time ago.
    let neither = Parts { server_in_values: false, catch_up: false, server_in_messages: true, ..Parts::ALL };
    breaks("the server in values and catching up", neither, PROMOTION, [0, 1]);
}
