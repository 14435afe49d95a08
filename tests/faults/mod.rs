//! Proof by fault: three server processes, clients that write and read all the time, something bad that happens meanwhile,
//! and a checker that knows when an answer is too old. Each scenario prints its figures. They need `scripts/with-servers`;
//! `scripts/chaos` runs them for longer.
//!
//! `stage` is what runs, `workload` what the clients do, `proxy` how traffic is disturbed, `history` what was written and
//! seen, and `checker`, which `by_hand` tests, who decides.

mod by_hand;
mod callers;
mod checker;
mod history;
pub mod proxy;
mod resp;
mod run;
mod scenarios;
mod stage;
mod switches;
mod workload;
