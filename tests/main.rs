//! The one integration target: it drives the real server over a socket, and the real binary as a process.

mod cli;
mod http;
mod support;
