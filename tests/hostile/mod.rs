//! Bad input: each a 4xx problem that points to what is wrong, none a failure of the server, nothing stored.

mod bodies;
mod queries;
mod raw;

use serde_json::Value;

use crate::support::database::{Database, Stored};
use crate::support::fixture::item;
use crate::support::{Reply, Server};

/// A server with two records, and what its database holds.
struct Target {
    server: Server,
    database: Database,
    before: Stored,
}

impl Target {
    async fn new() -> Self {
        let server = Server::fixture();
        server.create_items([item("A", "a"), item("B", "b")]).await;
        let mut database = Database::of(&server);
        let before = database.stored();
        Self { server, database, before }
    }

    /// Nothing was stored, and the server still works.
    async fn assert_untouched(mut self) {
        assert_eq!(self.database.stored(), self.before);
        assert_eq!(self.server.get("/api/items").await.expect(200)["pagination"]["total"], 2);
        assert_eq!(self.server.get("/health").await.expect(200)["status"], "healthy");
        let metrics = self.server.get("/metrics").await.text;
        assert!(!metrics.contains("status=\"500\""), "{metrics}");
    }
}

/// A problem of the client's, whatever its code; says where the fault is: pointers, or the parameter.
fn fault(reply: &Reply, case: &str) -> Vec<String> {
    assert!(reply.status.is_client_error(), "{case}: {} {}", reply.status, reply.text);
    let code = reply.json()["code"].as_str().unwrap_or_else(|| panic!("{case}: {}", reply.text)).to_owned();
    let problem = reply.problem(reply.status.as_u16(), &code);
    assert!(!problem["detail"].as_str().unwrap().is_empty() && !problem["title"].as_str().unwrap().is_empty(), "{case}");
    assert!(problem["type"].as_str().unwrap().ends_with(&code), "{case}");
    let pointers = problem["errors"].as_array().into_iter().flatten().map(|error| error["pointer"].clone());
    let mut places: Vec<String> =
        pointers.chain(problem.get("parameter").cloned()).map(|place: Value| place.as_str().unwrap().to_owned()).collect();
    // Several rules may be broken at one place.
    places.dedup();
    places
}
