//! Freshness: what was written is read, at once, and nothing that the write did not touch is forgotten.

mod abandoned;
mod concurrent;
mod demands;
mod elsewhere;
mod own_writes;
mod precision;
mod random;
