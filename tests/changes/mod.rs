//! The change log: `_changes` as a list and as a live feed.

mod events;
mod list;
mod live;
mod outages;
mod random;
mod revoked;

use crate::support::Server;

/// The fixture with change logs that anybody may read, and two further lines of declarations for items.
fn public() -> Server {
    public_with(|_| {})
}

fn public_with(change: impl FnOnce(&mut terrace::config::Settings)) -> Server {
    Server::fixture_edited("read = \"public\"\nwrite", "read = \"public\"\nchanges = \"public\"\nwrite", change)
}
