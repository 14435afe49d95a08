//! Bursts: what one address may send at once, whatever it asks for.
#![cfg(feature = "governor")]

use super::trust_everybody;
use crate::support::fixture::ITEMS;
use crate::support::{Reply, Server};

/// A burst of three, and one a second: who asks without a pause is refused soon, however slow the machine is.
const BURST: u32 = 3;
const ENOUGH: u32 = 200;

fn server(change: impl FnOnce(&mut terrace::config::Settings)) -> Server {
    Server::fixture_with(|settings| {
        (settings.limits.burst, settings.limits.per_second) = (BURST, 1);
        change(settings);
    })
}

/// Asks until it is refused; how often it was answered, and the refusal.
async fn spend(ask: impl AsyncFn() -> Reply) -> (u32, Reply) {
    for answered in 0..ENOUGH {
        let reply = ask().await;
        if reply.status != 200 {
            return (answered, reply);
        }
    }
    panic!("nobody was refused");
}

fn is_refusal(reply: &Reply) {
    let problem = reply.problem(429, "too_many_requests");
    assert!(problem["detail"].as_str().unwrap().contains("limits.burst"), "{problem}");
    // The next one may come within a second; none is told to come at once.
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn who_sends_more_than_a_burst_is_told_when_to_come_back() {
    let server = server(|_| {});
    let (answered, refusal) = spend(async || server.get(ITEMS).await).await;
    assert!(answered >= BURST, "{answered}");
    is_refusal(&refusal);
    // Whatever it asks for, and whatever it says where it comes from: nobody believes it.
    let spoofed = async || server.get_with("/api/items/x", &[("x-forwarded-for", "192.0.2.1")]).await.status == 429;
    server.eventually("it is refused by its own address", spoofed).await;
    // And it is served again.
    server.eventually("it may ask again", async || server.get(ITEMS).await.status == 200).await;
}

#[tokio::test]
async fn behind_a_proxy_each_client_has_a_burst_of_its_own() {
    let server = server(trust_everybody);
    let ask = async |client: &str| server.get_with(ITEMS, &[("x-forwarded-for", client)]).await;
    let (answered, refusal) = spend(async || ask("192.0.2.1").await).await;
    assert!(answered >= BURST, "{answered}");
    is_refusal(&refusal);
    for _ in 0..BURST {
        assert_eq!(ask("192.0.2.2").await.status, 200);
    }
    // One network of version 6 is one client.
    let hosts = std::cell::Cell::new(0);
    let (answered, refusal) = spend(async || {
        hosts.set(hosts.get() + 1);
        ask(&format!("2001:db8:1:1::{:x}", hosts.get())).await
    })
    .await;
    assert!(answered >= BURST, "{answered}");
    is_refusal(&refusal);
    assert_eq!(ask("2001:db8:1:2::1").await.status, 200);
}
