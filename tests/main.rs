//! The one integration target: it drives the real server over a socket.

mod cli;
mod compression;
mod freshness;
mod observability;
mod rest;
mod shutdown;
mod stale;
mod support;
