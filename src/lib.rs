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
//! | [`tls`] | whom a connection of ours trusts | nothing |
//! | [`redis_client`] | the connections that cache and bus share | config, telemetry, tls |
//! | [`store`] | all SQL, behind one interface | config, telemetry, tls |
//! | [`cache`] | key, guard cells, entry, both tiers, single flight, bus, reconcile | config, faults, redis_client, telemetry |
//! | [`catalog`] | collection and view files, loaded and checked; compiled validators | config |
//! | [`auth`] | who is asking and what they may do | cache, store |
//! | [`limits`] | how often clients may ask | config |
//! | [`records`] | the read path and the write path; parsing of queries | cache, store, catalog, auth, telemetry |
//! | [`jobs`] | what happens without a request: retention, warming | records, store |
//! | [`http`] | routes, bodies, middleware, problem+json, headers, API description | config, telemetry, records |
//! | [`app`] | the composition root | all |
//! | [`cli`] | the commands | all |
//!
//! # One read
//!
//! `GET /api/v1/metrics?category=operational`
//!
//! 1. `http::front` names the request, finds the collection by the path and calls `http::reads::list_records`.
//! 2. [`records::Records::list`] checks access and looks the query string up among the prepared ones; a new one is parsed
//!    into a canonical [`model::Query`] and its [`cache::CacheKey`].
//! 3. [`cache::Cache::get`] finds an entry whose guards are current and which has not expired: a hit. Nothing was parsed,
//!    nothing copied, no lock held across an await.
//! 4. Otherwise [`cache::Cache::get_or_load`] joins a load of this key that is in the air and new enough, or captures the
//!    generation of the entry's guard, `category = operational`, and only then starts the loader in a task of its own.
//! 5. The loader asks [`store::Store::record_list`] for the page and, through an entry of its own, for the count; the
//!    database's text becomes the body.
//! 6. The entry goes into L1 if its guard has not moved since, and to everybody who waits for it.
//! 7. `http::reads` negotiates the encoding, which is made once per entry, and answers 200 or 304.
//!
//! # One write
//!
//! `PATCH /api/v1/metrics/NET-REVENUE`
//!
//! 1. `http::writes` reads the body within its limit and calls [`records::Records::patch`], which checks access.
//! 2. In a task that survives a client which hangs up, [`store::Store::record_write`] opens a transaction, reads the stored
//!    record and asks the planner of `records` what to write: preconditions, merge, validation, version and times.
//! 3. The store writes the record and its change, checks references, and commits.
//! 4. [`cache::Reconciler::announce`] moves the guards of the record, of every indexed term of the old and the new document,
//!    and of the collection. From here on nobody is served what was loaded before.
//! 5. Then the client is answered, with the position of the change.
//!
//! A process that did not make the change itself finds it when it reads the change log, every `cache.reconcile_interval`.

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
pub mod records;
pub mod redis_client;
pub mod store;
pub mod telemetry;
pub mod tls;
