//! A record as the store hands it out: the database's own text, never parsed on the way to a client.

use chrono::{DateTime, SecondsFormat, Utc};

use super::RecordId;

/// One JSON document of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id, also present in `data`.
    pub id: RecordId,
    /// Counts the writes since the record was created, from 1; also present in `data`.
    pub version: i64,
    /// The whole public document, as JSON text.
    pub data: String,
}

/// The names of the members that the server owns. Clients may send them (as they read them); they are overwritten.
#[derive(Clone, Copy, Debug)]
pub struct ServerFields;

impl ServerFields {
    /// Counts the writes of a record, from 1.
    pub const VERSION: &'static str = "version";
    /// When the record was created.
    pub const CREATED_AT: &'static str = "created_at";
    /// When the record was last written.
    pub const UPDATED_AT: &'static str = "updated_at";
    /// All of them.
    pub const ALL: [&'static str; 3] = [Self::VERSION, Self::CREATED_AT, Self::UPDATED_AT];
}

/// The one spelling of the server's timestamps: RFC 3339, UTC, microseconds, so that text order is time order.
pub fn timestamp_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
