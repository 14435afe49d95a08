//! Where a request comes from.

use std::net::IpAddr;

use actix_web::HttpRequest;

/// The address of the client. A server bound to `[::]` sees IPv4 clients as mapped IPv6 addresses: they become what they are.
pub(super) fn address(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|peer| peer.ip().to_canonical())
}
