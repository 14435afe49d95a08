//! Whose requests are counted together: those of a known caller, else those of a client address.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::model::{Caller, Principal};

/// Who asks, for a bucket: what kind of name it is, and its bytes.
pub(super) enum Who<'a> {
    /// A user or an API key.
    Actor(&'a str),
    /// An IPv4 address.
    Address([u8; 4]),
    /// The /64 of an IPv6 address, which one client usually has to itself.
    Network([u8; 8]),
    /// Nobody knows.
    Unknown,
}

impl<'a> Who<'a> {
    pub fn asks(caller: &'a Caller) -> Self {
        match &caller.principal {
            Principal::Known(identity) => Self::Actor(&identity.actor),
            Principal::Operator => Self::Actor(caller.principal.actor()),
            Principal::Anonymous => Self::at(caller.address),
        }
    }

    /// A server bound to `[::]` sees IPv4 clients as mapped IPv6 addresses; without the conversion all would share a /64.
    pub fn at(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => Self::Address(address.octets()),
            Some(IpAddr::V6(address)) => Self::Network(((address.to_bits() >> 64) as u64).to_be_bytes()),
            None => Self::Unknown,
        }
    }

    /// The key of a bucket in this process. `seed` is secret, so nobody can find two callers with the same key.
    pub fn key(&self, seed: u64) -> u128 {
        let (kind, bytes) = self.parts();
        xxh3_128_with_seed(bytes, seed.wrapping_add(u64::from(kind)))
    }

    /// Different for any two that are different.
    pub fn bytes(&self) -> Vec<u8> {
        let (kind, bytes) = self.parts();
        [&[kind], bytes].concat()
    }

    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Actor(actor) => (b'a', actor.as_bytes()),
            Self::Address(address) => (b'4', address),
            Self::Network(network) => (b'6', network),
            Self::Unknown => (b'?', &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(address: &str) -> u128 {
        Who::at(Some(address.parse().unwrap())).key(7)
    }

    #[test]
    fn mapped_addresses_are_told_apart_and_a_network_is_one_client() {
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("::ffff:192.0.2.1"), key("::ffff:192.0.2.2"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:2::1"));
    }

    #[test]
    fn a_name_that_looks_like_an_address_is_not_one() {
        // All eight bytes long, or four, or none.
        let network = Who::at(Some("6b65:793a:6162:6364::".parse().unwrap()));
        let four = Who::at(Some("107.101.121.58".parse().unwrap()));
        let all = [network, Who::Actor("key:abcd"), four, Who::Actor("key:"), Who::Unknown, Who::Actor("")];
        assert_eq!(all.iter().map(|who| who.key(7)).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(Who::bytes).collect::<HashSet<_>>().len(), all.len());
    }
}
