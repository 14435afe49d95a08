//! `terrace serve`: the application until a signal, and one short banner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::{Done, Failure, counted, print};
use crate::app;
use crate::auth::CreatedKey;
use crate::config::Settings;
use crate::model::{AccessRule, Collection};
use crate::records::Resources;
use crate::telemetry::logs;

pub(super) async fn run(settings: Settings) -> Result<Done, Failure> {
    logs::init(&settings.log)?;
    let running = app::serve(settings)?;
    let resources = Arc::clone(running.resources());
    let (scheme, operations) = (running.scheme(), running.operations().first().copied());
    let greet = |addresses: &[SocketAddr], first_key: Option<CreatedKey>| {
        if let Some(address) = addresses.first() {
            let [address, operations] =
                [*address, operations.unwrap_or(*address)].map(|address| format!("{scheme}://{}", reachable(address)));
            // A closed standard output must not end the server.
            let _ = print(&banner(&address, &operations, &resources));
            if let Some(key) = first_key {
                let _ = print(&first_key_text(&operations, &key));
            }
        }
    };
    running.until_signal(greet).await?;
    Ok(Done::Whole)
}

/// It goes to standard output, which is no log, and nowhere else: only its hash is stored.
fn first_key_text(address: &str, key: &CreatedKey) -> String {
    let text = key.text.expose_secret();
    format!(
        "\nThis installation is new. Here is its first API key, for an administrator, which is not shown again:\n\n  {text}\n\n  \
         try      curl -H 'Authorization: Bearer {text}' {address}/admin/cache\n  more     terrace key create --help; \
         terrace user add --help\n  end it   terrace key revoke {}",
        key.prefix
    )
}

fn banner(address: &str, operations: &str, resources: &Resources) -> String {
    let collections = resources.collections().iter().map(|resource| resource.collection());
    let most_indexed = collections
        .filter(|collection| collection.access.read == AccessRule::Public)
        .max_by_key(|collection| collection.indexes.len());
    let mut lines = vec![
        format!("Terrace {} serves {}", env!("CARGO_PKG_VERSION"), counted(resources.collections().len(), "collection")),
        format!("  address  {address}"),
        format!("  docs     {operations}/docs"),
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
