//! The bad days of a Redis server, each with a real server of its own that is stopped, filled or broken. They need
//! `scripts/with-servers`.
