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
//! | [`telemetry`] | metrics, logs, request ids | config |
//! | [`store`] | all SQL, behind one interface | config, telemetry |
//! | [`cache`] | key, guard cells, entry, L1, single flight, reconcile | config, telemetry |
//! | [`catalog`] | collection and view files, loaded and checked; compiled validators | config |
//! | [`auth`] | who is asking and what they may do | cache, store |
//! | [`records`] | the read path and the write path; parsing of queries | cache, store, catalog, auth, telemetry |
//! | [`http`] | routes, bodies, middleware, problem+json, headers, API description | config, telemetry, records |
//! | [`app`] | the composition root | all |
//! | [`cli`] | the commands | all |

pub mod app;
pub mod auth;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod error;
pub mod http;
pub mod model;
pub mod records;
pub mod store;
pub mod telemetry;
