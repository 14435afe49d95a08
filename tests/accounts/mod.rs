//! Callers: API keys, users and their sessions, and who may administer; on one server and on several.

mod elsewhere;
mod forged;
mod in_flight;
mod keys;
mod logged;
mod outage;
mod paused;
mod sessions;
