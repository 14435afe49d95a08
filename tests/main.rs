//! The one integration target: it drives the real server over a socket.

mod architecture;
mod cli;
mod compression;
mod freshness;
mod hostile;
mod observability;
mod plans;
mod rest;
mod shutdown;
mod stale;
mod support;
