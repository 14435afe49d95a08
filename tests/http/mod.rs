//! The HTTP contract, over a socket: what the parts of `http` promise together.

mod reads;
mod refusals;
mod system;
mod writes;
