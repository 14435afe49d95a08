//! The one integration target: it drives the real server over a socket, and the real binary as a process.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "what fails here is a test")]

mod access;
mod accounts;
mod administration;
mod architecture;
mod browsers;
mod changes;
mod cli;
mod coherence;
mod compression;
mod coverage;
mod doors;
mod encrypted;
mod faults;
mod freshness;
mod histories;
mod hostile;
mod http;
mod idempotency;
mod limits;
mod matrix;
mod model;
mod observability;
mod outages;
mod overload;
mod plans;
mod redis;
mod rest;
mod retention;
mod search;
mod security;
mod servers;
mod shutdown;
mod stale;
mod support;
mod warming;
