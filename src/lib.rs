//! Terrace: fast, always-fresh reads of JSON collections over REST.
//!
//! This file is the map of the house. Each room owns one thing and may use only the rooms named beside it
//! (besides `model` and `error`); `tests/architecture.rs` holds the table against the `use crate::` lines.
//!
//! | room | owns | may use |
//! |---|---|---|
//! | [`model`] | plain values | nothing |
//! | [`error`] | the one domain error | nothing |
//! | [`store`] | all SQL: one logic, and one dialect for each database | `config`, `telemetry` |

pub mod config;
pub mod error;
pub mod model;
pub mod store;
pub mod telemetry;
