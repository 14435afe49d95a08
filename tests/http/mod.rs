//! The HTTP contract, over a socket: what the parts of `http` promise together.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "what fails here is a test")]

mod description;
mod reads;
mod refusals;
mod system;
mod writes;
