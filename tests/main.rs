//! The one integration target: it drives the real server over a socket.

mod freshness;
mod rest;
mod support;
