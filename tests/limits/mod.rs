//! Quotas over real servers and a real Redis: what is counted, what is told, and what three instances let pass together.
//! They need `scripts/with-servers`.

mod bursts;
mod counted;
mod outages;
mod proxies;
mod together;

use std::time::Duration;

use terrace::config::Settings;
use terrace::model::Quota;

use crate::support::{Reply, Server};

fn quota(text: &str) -> Option<Quota> {
    Some(text.parse().unwrap())
}

/// Takes the word of whoever connects for where a request comes from, so that a test can be any client.
fn trust_everybody(settings: &mut Settings) {
    settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

/// A read by the client with this address.
async fn read_as(server: &Server, client: &str, path: &str) -> Reply {
    server.get_with(path, &[("x-forwarded-for", client)]).await
}

/// `r` of `RateLimit`, after its form and that of `RateLimit-Policy` have been checked.
fn left(reply: &Reply, policy: &str) -> u32 {
    assert_eq!(reply.header("ratelimit-policy"), policy, "{}", reply.text);
    let name = policy.split(';').next().unwrap();
    let parameters = reply.header("ratelimit").strip_prefix(name).unwrap_or_else(|| panic!("{:?}", reply.headers));
    let (left, whole_in) = parameters.strip_prefix(";r=").unwrap().split_once(";t=").unwrap();
    assert!(whole_in.parse::<u64>().is_ok(), "{parameters}");
    left.parse().unwrap()
}

/// When a refused client may come back, after the refusal's form has been checked.
fn refused(reply: &Reply) -> Duration {
    reply.problem(429, "quota_exceeded");
    Duration::from_secs(reply.header("retry-after").parse().unwrap())
}
