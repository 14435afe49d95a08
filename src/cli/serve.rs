//! `terrace serve`: the application until a signal, and one short banner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Done, Failure, counted, print};
use crate::app;
use crate::config::Settings;
use crate::model::{AccessRule, Collection};
use crate::records::Resources;
use crate::telemetry::logs;

pub(super) async fn run(settings: Settings) -> Result<Done, Failure> {
    logs::init(&settings.log)?;
    let running = app::serve(settings)?;
    let resources = Arc::clone(running.resources());
    let greet = |addresses: &[SocketAddr]| {
        if let Some(address) = addresses.first() {
            // A closed standard output must not end the server.
            let _ = print(&banner(*address, &resources));
        }
    };
    running.until_signal(greet).await?;
    Ok(Done::Whole)
}

fn banner(address: SocketAddr, resources: &Resources) -> String {
    let address = format!("http://{}", reachable(address));
    let collections = resources.collections().iter().map(|resource| resource.collection());
    let most_indexed = collections
        .filter(|collection| collection.access.read == AccessRule::Public)
        .max_by_key(|collection| collection.indexes.len());
    let mut lines = vec![
        format!("Terrace {} serves {}", env!("CARGO_PKG_VERSION"), counted(resources.collections().len(), "collection")),
        format!("  address  {address}"),
        format!("  docs     {address}/docs"),
    ];
    lines.extend(most_indexed.map(|collection| format!("  try      curl '{address}{}'", example(collection))));
    lines.join("\n")
}

fn example(collection: &Collection) -> String {
    format!("{}?limit=2", collection.path)
}

/// An address that a browser on this machine can open: listening on all addresses is not one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
