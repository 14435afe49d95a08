//! Terrace: fast, always-fresh reads of JSON collections over REST.
//!
//! This file is the map of the house. Each room owns one thing and may use only the rooms named beside it
//! (besides `model` and `error`); `tests/architecture.rs` holds the table against the `use crate::` lines.
//!
//! | room | owns | may use |
//! |---|---|---|
//! | [`model`] | plain values: collection, record, query, change, guard | nothing |
//! | [`error`] | the one domain error: no HTTP, no Diesel | nothing |
//! | [`config`] | settings: files, environment, checking | nothing |
//! | [`faults`] | faults on demand, for tests; nothing in a release build | nothing |
//! | [`telemetry`] | metrics, logs, request ids | config |
//! | [`overload`] | how much is done at once | telemetry |
//! | [`tls`] | whom a connection of ours trusts | nothing |
//! | [`redis_client`] | the connections that cache and bus share | config, telemetry, tls |
//! | [`store`] | all SQL, behind one interface | config, telemetry, tls |
//! | [`cache`] | key, guard cells, entry, both tiers, single flight, bus, reconcile | config, faults, overload, redis_client, telemetry |
//! | [`catalog`] | collection and view files, loaded and checked; compiled validators | config |
//! | [`auth`] | who is asking and what they may do: users, keys, sessions | cache, config, faults, store, telemetry |
//! | [`limits`] | how often clients may ask | config, redis_client, telemetry |
//! | [`records`] | the read path and the write path; parsing of queries | cache, store, catalog, auth, overload, telemetry |
//! | [`jobs`] | what happens without a request: retention, warming, tallying | records, store |
//! | [`http`] | routes, bodies, middleware, problem+json, headers, API description | auth, config, telemetry, overload, records |
//! | [`app`] | the composition root | all |
//! | [`cli`] | the commands | all |
//!
//! # One read
//!
//! `GET /api/v1/metrics?category=operational`
//!
//! 1. `http::front` names the request, finds the collection by the path and calls `http::reads::list_records`, which reads
//!    what the request demands of the age of its answer: mostly nothing, else a [`model::Freshness`].
//! 2. [`records::Records::list`] checks access and looks the query string up among the prepared ones; a new one is parsed
//!    into a canonical [`model::Query`] and its [`cache::CacheKey`].
//! 3. [`cache::Cache::get`] finds an entry whose guards are current and which has not expired, and [`cache::Trust`] holds: a hit.
//!    Nothing was parsed, nothing copied, no lock held across an await. A read with a `Consistency-Token` goes by
//!    [`cache::Reconciler::settle`] first: what the token names is applied here, or the read goes past the caches.
//! 4. Otherwise [`cache::Cache::get_or_load`] joins a load of this key that is in the air and new enough, or captures the
//!    generation of the entry's guard, `category = operational`, and starts a flight. It carries the flight out itself, and a task
//!    does if it is cancelled.
//! 5. With Redis the flight looks in L2 first: one round trip brings the value, the nonces of its guards and the time that is
//!    left, and the value counts if it has exactly those nonces. Otherwise a second round trip captures the nonces, making
//!    those that are missing, and takes the lease of the load; who does not get it waits for what another instance loads.
//! 6. Only then the loader runs. It asks [`store::Store::record_list`] for the page and, through an entry of its own, for the count; the
//!    database's text becomes the body.
//! 7. The entry goes into L1 if its guard has not moved since, and to everybody who waits for it; behind the answer it goes
//!    into L2, with the nonces from before the load.
//! 8. `http::reads` negotiates the encoding, which is made once per entry, and answers 200 or 304.
//!
//! # One caller
//!
//! `Authorization: Bearer trk_…`
//!
//! 1. Before `http::front` calls a handler, [`auth::Accounts::recognize`] hashes the credential and looks the entry of its principal up
//!    in L1: that is a hit if its guards are current, it has not expired, and the change log was read lately.
//! 2. Otherwise [`auth::Accounts::look_up`] reads the prefix of the key, or verifies the token, which names its user and its session:
//!    those rows are the guards. [`cache::Cache::get_or_load`] then goes the same way as for a record.
//! 3. The loader reads the key, or the session with its user, and compares hashes. What does not hold is an error, and not stored.
//! 4. Revoking a key, disabling a user and ending a session write the row and a change in one transaction, and announce it like a
//!    record's: see `store::accounts` and [`auth::Accounts`].
//!
//! # One write
//!
//! `PATCH /api/v1/metrics/NET-REVENUE`
//!
//! 1. `http::writes` reads the body within its limit and calls [`records::Records::patch`], which checks access.
//! 2. In a task that survives a client which hangs up, [`store::Store::record_write`] opens a transaction, reads the stored
//!    record and asks the planner of `records` what to write: preconditions, merge, validation, version and times.
//! 3. The store writes the record and its change, checks references, and commits. With an `Idempotency-Key` it is
//!    [`store::Store::record_write_once`], which claims the key first and keeps the answer last, in the same transaction.
//! 4. [`cache::Reconciler::announce`] moves the guards of the record, of every indexed term of the old and the new document,
//!    and of the collection. With Redis, [`cache::Bus`] deletes their nonces there and publishes them in one round trip, and the
//!    guards here move once more. From here on nobody is served by this instance what was loaded before. If Redis is away, the
//!    deletions are owed, and the second tier is not used until they are paid.
//! 5. Then the transaction counts as applied, and the client is answered, with the position of the change. Whoever follows the
//!    change log ([`records::Feed`]) is told now, or when the log is read next.
//!
//! Other instances hear of it over the bus, move their guards, and note the transaction as applied. A process that has not
//! heard of it, whoever made it, finds it when it reads the change log, every `cache.reconcile_interval` or as soon as something is
//! suspected ([`cache::Trust`]), applies it by the same steps, and so announces it again.

pub mod app;
pub mod auth;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod error;
pub mod faults;
pub mod http;
pub mod jobs;
pub mod limits;
pub mod model;
pub mod overload;
pub mod records;
pub mod redis_client;
pub mod store;
pub mod telemetry;
pub mod tls;
