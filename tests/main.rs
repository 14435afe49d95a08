//! The one integration target: it drives the real server over a socket.

mod rest;
mod support;
