//! Where requests come from: who is believed, and who is not.

use super::{quota, refused};
use crate::support::Server;
use crate::support::fixture::ITEMS;

#[tokio::test]
async fn nobody_gets_another_quota_by_a_header() {
    let server = Server::fixture_with(|settings| settings.limits.api = quota("1/1h"));
    assert_eq!(server.get(ITEMS).await.status, 200);
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
        ("cf-connecting-ip", "192.0.2.1"),
        ("client-ip", "192.0.2.1"),
    ] {
        refused(&server.get_with(ITEMS, &[(name, value)]).await);
    }
}

#[tokio::test]
async fn behind_a_proxy_only_what_it_wrote_counts() {
    let server = Server::fixture_with(|settings| {
        settings.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        settings.limits.api = quota("1/1h");
    });
    assert_eq!(server.get_with(ITEMS, &[("x-forwarded-for", "192.0.2.1")]).await.status, 200);
    for value in
        ["192.0.2.9, 192.0.2.1", "127.0.0.1,192.0.2.1", "10.0.0.1, 192.0.2.1", "192.0.2.9, 192.0.2.1, 10.0.0.7", ",,,192.0.2.1"]
    {
        refused(&server.get_with(ITEMS, &[("x-forwarded-for", value)]).await);
    }
    refused(&server.get_with(ITEMS, &[("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "192.0.2.1")]).await);
    refused(&server.get_with(ITEMS, &[("forwarded", "for=192.0.2.9;by=_x, For=\"192.0.2.1:80\"")]).await);
    assert_eq!(server.get_with(ITEMS, &[("forwarded", "for=192.0.2.2")]).await.status, 200);
    // Who sends what the proxy does not write shares a quota with all who do.
    assert_eq!(server.get_with(ITEMS, &[("forwarded", "for=192.0.2.3"), ("x-forwarded-for", "192.0.2.4")]).await.status, 200);
    refused(&server.get_with(ITEMS, &[("forwarded", "for=192.0.2.5"), ("x-forwarded-for", "192.0.2.6")]).await);
}

#[tokio::test]
async fn a_header_of_any_length_is_read_or_refused_quickly() {
    let server = Server::fixture_with(|settings| {
        settings.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        settings.limits.api = quota("1/1h");
    });
    let hops = format!("{}192.0.2.1", "127.0.0.1, ".repeat(2_000));
    assert_eq!(server.get_with(ITEMS, &[("x-forwarded-for", &hops)]).await.status, 200);
    let nested = format!("for=192.0.2.1;x=\"{}\"", "(".repeat(20_000));
    refused(&server.get_with(ITEMS, &[("forwarded", &nested)]).await);
}
