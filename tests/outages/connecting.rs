//! A server that is there and does not let us in: wrong password, missing database, TLS. All of it is mended without a
//! restart of Terrace.

use std::path::Path;

use serde_json::json;

use super::{ready, waits_because};
use crate::support::Server;
use crate::support::fixture::{ITEMS, item};
use crate::support::postgres::PrivatePostgres;
use crate::support::tls::Authority;

/// A server that demands TLS of its database and believes what this authority has signed.
fn demanding(postgres: &PrivatePostgres, ca_file: &Path) -> Server {
    let url = format!("{}?sslmode=require", postgres.url());
    Server::fixture_on(url, |settings| settings.database.ca_file = ca_file.to_owned())
}

#[tokio::test]
async fn a_wrong_password_is_told_and_may_become_right() {
    let postgres = PrivatePostgres::planned().passwords().start();
    postgres.sql("ALTER ROLE terrace PASSWORD 'another'");
    let server = Server::fixture_on(postgres.url().replace("terrace@", "terrace:the-secret@"), |_| {});
    waits_because(&server, "PostgreSQL refuses the user or the password of database.url.").await;
    assert!(!server.get(ITEMS).await.text.contains("the-secret"));
    postgres.sql("ALTER ROLE terrace PASSWORD 'the-secret'");
    ready(&server).await;
    server.create_item(item("A", "a")).await;
    let without = Server::fixture_on(postgres.url(), |_| {});
    waits_because(&without, "PostgreSQL wants a password, and database.url has none.").await;
}

#[tokio::test]
async fn a_database_that_is_missing_may_be_created() {
    let postgres = PrivatePostgres::start();
    let url = postgres.url();
    let server = Server::fixture_on(format!("{}absent", url.strip_suffix("terrace").unwrap()), |_| {});
    waits_because(&server, "PostgreSQL has no such database as database.url names.").await;
    postgres.sql("CREATE DATABASE absent OWNER terrace");
    ready(&server).await;
    server.create_item(item("A", "a")).await;
}

#[tokio::test]
async fn a_server_without_tls_is_not_taken_for_one_with_it() {
    let authority = Authority::new();
    let mut postgres = PrivatePostgres::start();
    let server = demanding(&postgres, &authority.file());
    waits_because(&server, "PostgreSQL does not offer TLS, which sslmode in database.url demands.").await;
    postgres.install(&authority.issue("127.0.0.1"));
    postgres.configure("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'");
    postgres.reload();
    ready(&server).await;
}

#[tokio::test]
async fn a_certificate_must_be_the_hosts_and_from_who_is_trusted() {
    let authority = Authority::new();
    let postgres = PrivatePostgres::planned().tls(&authority.issue("other.example")).start();
    let unknown = Authority::new();
    let stranger = demanding(&postgres, &unknown.file());
    waits_because(&stranger, "comes from nobody whom database.ca_file names").await;
    // Without a file of ours, those of the system count.
    let system = demanding(&postgres, Path::new(""));
    waits_because(&system, "sslmode in database.url").await;
    let server = demanding(&postgres, &authority.file());
    waits_because(&server, "for another host name than the one in database.url").await;
    postgres.install(&authority.issue("127.0.0.1"));
    postgres.reload();
    ready(&server).await;
    server.create_items([item("A", "a")]).await;
    assert_eq!(server.get(ITEMS).await.json()["data"][0]["sku"], json!("A"));
    let encrypted = "SELECT bool_and(ssl)::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'terrace'";
    assert_eq!(postgres.sql(encrypted)[0][0].as_deref(), Some("true"));
    waits_because(&stranger, "comes from nobody whom database.ca_file names").await;
    // Whoever does not demand TLS is encrypted all the same where the server insists.
    ready(&Server::fixture_on(postgres.url(), |_| {})).await;
}
