//! Where a request comes from: the peer, or, if that is a proxy of ours (`http.trusted_proxies`), where the proxy says
//! that it came from. Proxies append to what they were sent, so headers are read from their ends, and only as far as
//! trusted proxies have written them: what is before that a client may have made up.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, X_FORWARDED_FOR};
use ipnet::IpNet;
use smallvec::SmallVec;

/// The proxies in front.
#[derive(Clone, Debug)]
pub(super) struct Proxies(Vec<IpNet>);

/// How a header writes hops.
#[derive(Clone, Copy)]
enum Spelling {
    /// RFC 7239.
    Forwarded,
    /// Addresses, separated by commas.
    ForwardedFor,
}

impl Proxies {
    pub(super) fn new(trusted: &[IpNet]) -> Self {
        Self(trusted.to_vec())
    }

    /// The address of the client. A server bound to `[::]` sees IPv4 clients as mapped IPv6 addresses: they become what
    /// they are.
    pub(super) fn client(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        if self.0.is_empty() || !self.trusts(peer) { Some(peer) } else { Some(self.behind(peer, request.headers())) }
    }

    /// The last hop that is no proxy of ours, by the headers of a request that one of ours has sent.
    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let by = |name: &HeaderName, spelling| headers.contains_key(name).then(|| self.walk(peer, headers, name, spelling));
        match (by(&FORWARDED, Spelling::Forwarded), by(&X_FORWARDED_FOR, Spelling::ForwardedFor)) {
            (Some(address), None) | (None, Some(address)) => address,
            (Some(address), Some(same)) if address == same => address,
            // One of them the proxy did not write, and nobody knows which. Whoever sends it is not told from others who do.
            (Some(_), Some(_)) | (None, None) => peer,
        }
    }

    fn walk(&self, peer: IpAddr, headers: &HeaderMap, name: &HeaderName, spelling: Spelling) -> IpAddr {
        let lines: SmallVec<[&HeaderValue; 4]> = headers.get_all(name).collect();
        let mut known = peer;
        for line in lines.into_iter().rev() {
            let Some(hops) = line.to_str().ok().and_then(|line| hops(line, spelling)) else { return known };
            for hop in hops.into_iter().rev() {
                // A hop that hides itself hides those before it.
                let Some(address) = hop.and_then(address) else { return known };
                known = address;
                if !self.trusts(known) {
                    return known;
                }
            }
        }
        known
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The hops of a line, in its order; `None` if it is not well-formed. A hop may not say its address.
fn hops(line: &str, spelling: Spelling) -> Option<SmallVec<[Option<&str>; 4]>> {
    match spelling {
        Spelling::ForwardedFor => Some(line.split(',').map(|hop| Some(trimmed(hop))).collect()),
        Spelling::Forwarded => {
            let mut hops = SmallVec::new();
            let mut rest = line;
            loop {
                let (hop, after) = element(rest)?;
                hops.push(hop);
                match after.strip_prefix(',') {
                    Some(next) => rest = next,
                    None if after.is_empty() => return Some(hops),
                    None => return None,
                }
            }
        }
    }
}

/// The `for` of the first element of RFC 7239's `forwarded-element`s, and what comes after the element.
fn element(text: &str) -> Option<(Option<&str>, &str)> {
    let (mut found, mut rest) = (None, text);
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        // Elements and pairs may be empty.
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            if !name.bytes().all(is_token) {
                return None;
            }
            if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
                return None;
            }
            rest = after.trim_start_matches([' ', '\t']);
        }
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None => return Some((found, rest)),
        }
    }
}

/// A token or a quoted string, and what comes after it. No address needs an escape, so a string with one is none.
fn value(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, after) = quoted.split_once('"')?;
        return (!value.contains('\\')).then_some((value, after));
    }
    // Many write an IPv6 address or a port without the quotes that they need.
    let is_part = |byte: u8| is_token(byte) || matches!(byte, b':' | b'[' | b']');
    let end = text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address, perhaps in brackets, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    const CLIENT: &str = "192.0.2.7";

    /// The address of a request that comes from `peer` with these headers, to a server behind 10.0.0.0/8 and fd00::/8.
    fn seen(peer: &str, headers: &[(&str, &str)]) -> String {
        let proxies = Proxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut request = TestRequest::default().peer_addr(SocketAddr::new(peer.parse().unwrap(), 4711));
        for header in headers {
            request = request.append_header(*header);
        }
        proxies.client(&request.to_http_request()).unwrap().to_string()
    }

    fn by_proxy(headers: &[(&str, &str)]) -> String {
        seen("10.0.0.1", headers)
    }

    #[test]
    fn a_client_that_is_no_proxy_is_whoever_connects() {
        for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            for value in ["127.0.0.1", "for=127.0.0.1", "10.0.0.1", "garbage"] {
                assert_eq!(seen(CLIENT, &[(name, value)]), CLIENT);
            }
        }
        assert_eq!(seen("::ffff:192.0.2.7", &[]), CLIENT);
        let without = Proxies::new(&[]);
        let request = TestRequest::default().peer_addr("10.0.0.1:1".parse().unwrap()).insert_header(("x-forwarded-for", CLIENT));
        assert_eq!(without.client(&request.to_http_request()).unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn a_proxy_of_ours_says_who_its_client_is() {
        for value in
            ["192.0.2.7", "192.0.2.7:4711", " 192.0.2.7 ", "::ffff:192.0.2.7", "192.0.2.7, 10.0.0.2", "1.1.1.1,192.0.2.7"]
        {
            assert_eq!(by_proxy(&[("x-forwarded-for", value)]), CLIENT, "{value}");
        }
        for value in [
            "for=192.0.2.7",
            "For=\"192.0.2.7:4711\"",
            "proto=https;for=192.0.2.7;by=10.0.0.1",
            "for=1.1.1.1, for=192.0.2.7",
            "for=192.0.2.7;host=\"a,b;for=1.1.1.1\" , for=10.0.0.2",
            "for=unknown, for=192.0.2.7",
            ", ,for=192.0.2.7",
        ] {
            assert_eq!(by_proxy(&[("forwarded", value)]), CLIENT, "{value}");
        }
        for value in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:4711"] {
            assert_eq!(seen("fd00::1", &[("x-forwarded-for", value)]), "2001:db8::7", "{value}");
            assert_eq!(seen("fd00::1", &[("forwarded", &format!("for=\"{value}\""))]), "2001:db8::7", "{value}");
        }
        assert_eq!(seen("::ffff:10.0.0.1", &[("x-forwarded-for", CLIENT)]), CLIENT);
    }

    #[test]
    fn what_the_client_has_made_up_is_not_read() {
        // The proxy appends to the line, or writes one of its own.
        assert_eq!(by_proxy(&[("x-forwarded-for", "127.0.0.1, 10.0.0.9, 192.0.2.7")]), CLIENT);
        assert_eq!(by_proxy(&[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", CLIENT)]), CLIENT);
        assert_eq!(by_proxy(&[("forwarded", "for=\"evil"), ("forwarded", "for=192.0.2.7")]), CLIENT);
        // A quote that the client opens swallows what the proxy appends: then the proxy is all that is known.
        for value in [
            "for=1.1.1.1;x=\", for=192.0.2.7",
            "for=1.1.1.1;x=\", for=\"[2001:db8::7]\"",
            "for=1.1.1.1\\\", for=192.0.2.7 x",
            "for=1.1.1.1, for=192.0.2.7;for=1.1.1.1",
            "for",
            "=1.1.1.1",
            "for=",
        ] {
            assert_eq!(by_proxy(&[("forwarded", value)]), "10.0.0.1", "{value}");
        }
        // A header that the proxy does not write contradicts the one that it does.
        assert_eq!(by_proxy(&[("x-forwarded-for", CLIENT), ("forwarded", "for=1.1.1.1")]), "10.0.0.1");
        assert_eq!(by_proxy(&[("x-forwarded-for", CLIENT), ("forwarded", "for=192.0.2.7")]), CLIENT);
    }

    #[test]
    fn a_hop_that_hides_itself_is_where_the_way_ends() {
        for (value, known) in
            [("unknown, 10.0.0.2", "10.0.0.2"), ("1.1.1.1, unknown", "10.0.0.1"), ("", "10.0.0.1"), ("10.0.0.5", "10.0.0.5")]
        {
            assert_eq!(by_proxy(&[("x-forwarded-for", value)]), known, "{value}");
        }
        for (value, known) in
            [("for=_hidden, for=10.0.0.2", "10.0.0.2"), ("for=1.1.1.1, for=unknown", "10.0.0.1"), ("by=1.1.1.1", "10.0.0.1")]
        {
            assert_eq!(by_proxy(&[("forwarded", value)]), known, "{value}");
        }
    }

    proptest! {
        /// Whatever a client sends, the proxy's word at the end counts, or nobody's.
        #[test]
        fn no_client_is_anybody_it_likes(sent in "[ -~]{0,60}") {
            prop_assert_eq!(by_proxy(&[("x-forwarded-for", &format!("{sent}, {CLIENT}"))]), CLIENT);
            let seen = by_proxy(&[("forwarded", &format!("{sent}, for={CLIENT}"))]);
            prop_assert!(seen == CLIENT || seen == "10.0.0.1", "{}", seen);
            let seen = by_proxy(&[("forwarded", &format!("{sent}, for=\"{CLIENT}:80\""))]);
            prop_assert!(seen == CLIENT || seen == "10.0.0.1", "{}", seen);
        }
    }
}
