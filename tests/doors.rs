//! Two addresses: one for data, and one for operators.

use std::net::SocketAddr;

use reqwest::Method;
use terrace::model::Role;
use tokio::net::TcpStream;

use crate::support::fixture::{ITEMS, item};
use crate::support::{Reply, Server};

const FOR_OPERATORS: [&str; 5] = ["/metrics", "/openapi.json", "/docs/", "/docs/swagger-ui.css", "/admin/cache"];
const FOR_BOTH: [&str; 3] = ["/health", "/health/live", "/health/ready"];
const DATA: [&str; 4] = ["/api/items", "/api/items/A", "/api/items/_stats?by=tier", "/api/totals"];

async fn ask(address: SocketAddr, method: Method, path: &str) -> Reply {
    Reply::read(reqwest::Client::new().request(method, format!("http://{address}{path}"))).await
}

#[tokio::test]
async fn with_an_address_of_their_own_operators_are_served_there_and_nowhere_else() {
    let server = Server::fixture_with(|settings| settings.operations.listen = "127.0.0.1:0".to_owned());
    server.create_item(item("A", "a")).await;
    let (public, operations) = (server.address, server.operations.unwrap());
    assert_ne!(public.port(), operations.port());
    for (address, served, hidden) in [(public, &DATA[..], &FOR_OPERATORS[..]), (operations, &FOR_OPERATORS, &DATA)] {
        for path in served.iter().chain(&FOR_BOTH) {
            let request = reqwest::Client::new().get(format!("http://{address}{path}"));
            let reply = Reply::read(request.header("authorization", server.admin.as_ref().unwrap())).await;
            assert_eq!(reply.status, 200, "{address} {path}: {}", reply.text);
        }
        for path in hidden {
            for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::DELETE] {
                let reply = ask(address, method.clone(), path).await;
                assert_eq!(reply.status, 404, "{address} {method} {path}: {}", reply.text);
            }
        }
    }
    assert_eq!(server.get(ITEMS).await.expect(200)["pagination"]["total"], 1, "nothing was written or deleted");
}

#[tokio::test]
async fn without_one_everything_is_served_at_one_address() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    assert!(server.operations.is_none());
    for path in DATA.iter().chain(&FOR_OPERATORS).chain(&FOR_BOTH) {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn operators_are_served_while_clients_hold_every_connection_that_there_is() {
    let server = Server::fixture_with(|settings| {
        settings.operations.listen = "127.0.0.1:0".to_owned();
        settings.http.workers = 1;
        settings.http.max_connections = 1;
    });
    let mut silent = Vec::new();
    // More than those that are told that they are too many.
    for _ in 0..80 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let operations = server.operations.unwrap();
    let held = async || {
        let text = ask(operations, Method::GET, "/metrics").await.text;
        text.contains("terrace_connections 1\n") && text.contains("terrace_surplus_connections_total 64\n")
    };
    server.eventually("all connections are held", held).await;
    assert_eq!(ask(operations, Method::GET, "/health").await.status, 200);
}

#[tokio::test]
async fn metrics_and_the_description_may_need_a_role() {
    use terrace::config::Audience;
    let server = Server::fixture_with(|settings| {
        settings.operations.metrics = Audience::Viewer;
        settings.operations.docs = Audience::Admin;
    });
    for path in ["/metrics", "/openapi.json", "/docs/", "/docs/swagger-ui.css"] {
        server.get(path).await.problem(401, "unauthenticated");
    }
    server.get("/health").await.expect(200);
    let [viewer, editor, admin] = [Role::Viewer, Role::Editor, Role::Admin].map(|role| server.key_for(role, &[]));
    for (key, description) in [(viewer.await, 403), (editor.await, 403), (admin.await, 200)] {
        assert_eq!(server.get_as(&key, "/metrics").await.status, 200);
        for path in ["/openapi.json", "/docs/"] {
            assert_eq!(server.get_as(&key, path).await.status, description, "{path}");
        }
    }
    let scoped = server.key_for(Role::Admin, &["items:read"]).await;
    server.get_as(&scoped, "/metrics").await.problem(403, "insufficient_scope");
    server.get_as("Bearer nonsense", "/metrics").await.problem(401, "invalid_token");
}
