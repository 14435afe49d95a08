//! HTTP: routes, headers, negotiation, problem+json, metrics of requests, and the API description. It calls `records` and
//! never the cache or the store; nothing else in the house knows a status code.
//!
//! | file | owns |
//! |---|---|
//! | `server`, `connections`, `certificate` | sockets, workers, time limits of connections, TLS |
//! | `door` | what answers at which address, and what browsers are told |
//! | `front` | the one service all requests go through |
//! | `routes` | which resource a path names, and what its answers have in common |
//! | `reads`, `writes`, `changes`, `system`, `admin` | handlers: parse, call, shape |
//! | `negotiation`, `conditional`, `idempotency`, `freshness`, `identifier`, `body`, `client` | what requests say |
//! | `arrival` | how long bodies may take, and how much memory |
//! | `quota` | which quota a request counts against, and how answers say so |
//! | `cache_status` | how answers say that they came about |
//! | `problem` | what failures look like |
//! | `readiness` | whether requests should be sent here, and why not |
//! | `observe`, `spans` | what is counted and logged |
//! | `openapi`, `docs` | the API description and its page |

mod admin;
mod arrival;
mod auth;
mod body;
mod cache_status;
mod certificate;
mod changes;
mod client;
mod conditional;
mod connections;
mod docs;
mod door;
mod freshness;
mod front;
mod idempotency;
mod identifier;
mod incoming;
mod negotiation;
mod observe;
pub mod openapi;
mod problem;
mod quota;
mod readiness;
mod reads;
mod routes;
mod seconds;
mod server;
mod spans;
mod system;
#[cfg(test)]
mod tests;
mod writes;

pub use front::Front;
pub use readiness::{Readiness, Ready, SecondTier};
pub use server::{Listening, serve};
pub use spans::{RequestSpan, layer};
