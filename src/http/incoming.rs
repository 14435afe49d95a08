//! A request and the connection that it came over, which is looked up once: how far it may go for its answer, and what it is told
//! if that is too far.

use actix_web::HttpRequest;

use super::connections::Connection;
use super::reads::Reach;
use crate::error::{Error, ErrorKind, Result};

/// A request on its way through the front.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) request: &'a HttpRequest,
    /// A request in a unit test has none.
    pub(super) connection: Option<&'a Connection>,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(request: &'a HttpRequest) -> Self {
        Self { request, connection: Connection::of(request) }
    }

    /// The request begins. Each begins and ends, whether it is refused or not.
    pub(super) fn begin(self) -> Result<()> {
        self.connection.map_or(Ok(()), Connection::begin)
    }

    /// The connection, if it is one too many.
    pub(super) fn surplus(self) -> Option<&'a Connection> {
        self.connection.filter(|connection| connection.is_surplus())
    }

    /// How far it may go for its answer.
    pub(super) fn reach(self) -> Reach {
        match self.surplus() {
            Some(_) => Reach::Caches,
            None => Reach::Everything,
        }
    }

    /// Refuses a request that nothing in memory can answer, if it came over a surplus connection.
    pub(super) fn permit(self) -> Result<()> {
        self.surplus().map_or(Ok(()), |connection| Err(connection.refusal()))
    }

    /// Why it failed: that nothing is cached for it does not matter to who has not asked for what is cached.
    pub(super) fn explain(self, error: Error) -> Error {
        match self.surplus() {
            Some(connection) if error.kind() == ErrorKind::NotCached => connection.refusal(),
            Some(_) | None => error,
        }
    }
}
