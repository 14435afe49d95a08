//! SECURITY.md is held to what there is, and what it says of requests that Terrace never sends.

use std::collections::BTreeSet;
use std::fs;

use crate::support::process::Process;
use crate::support::{root, sqlite_url, terrace};

/// Every link to a test: its item, its name and its file.
fn named() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut found = Vec::new();
    for section in text.split("\n### ").skip(1) {
        let item = section.split_whitespace().next().unwrap();
        let section = section.split("\n## ").next().unwrap();
        found.extend(links(section).map(|(name, file)| (item.to_owned(), name, file)));
    }
    let parsers = text.split("\n## ").find(|section| section.starts_with("Parsers")).unwrap();
    found.extend(links(parsers).map(|(name, file)| ("parsers".to_owned(), name, file)));
    found
}

fn links(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split("[`").skip(1).map(|rest| {
        let (name, rest) = rest.split_once("`](").unwrap_or_else(|| panic!("no link: {rest:.60}"));
        (name.to_owned(), rest.split(')').next().unwrap().to_owned())
    })
}

#[test]
fn every_test_that_is_named_exists_and_every_item_names_one() {
    let named = named();
    for (item, name, file) in &named {
        let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{item}: {file}: {error}"));
        let function = format!("fn {name}(");
        let before = source.split(&function).next().filter(|before| before.len() < source.len());
        let before = before.unwrap_or_else(|| panic!("{item}: {file} has no {name}"));
        // What stands between the function before it and its name.
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(attributes.contains("test"), "{item}: {name} in {file} is no test");
        assert!(!attributes.contains("ignore"), "{item}: {name} in {file} is not run");
    }
    let items: BTreeSet<&str> = named.iter().map(|(item, ..)| item.as_str()).collect();
    for number in 1..=10 {
        assert!(items.contains(&*format!("API{number}")), "API{number} names no test");
    }
    assert!(items.contains("parsers"));
}

#[test]
fn nothing_in_the_binary_can_fetch_what_a_client_names() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let own = manifest["dependencies"].as_table().unwrap();
    for client in ["reqwest", "hyper", "awc", "ureq", "curl", "isahc", "surf", "attohttpc", "lettre"] {
        assert!(!own.contains_key(client), "{client}: say in SECURITY.md (API7) what it may be made to fetch");
    }
    for (name, feature) in [("jsonschema", "resolve-http"), ("jsonschema", "resolve-file"), ("actix-web", "openssl")] {
        let features = own[name].get("features").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        assert!(!features.iter().any(|own| own.as_str() == Some(feature)), "{name}: {feature}");
        assert_eq!(own[name].get("default-features").and_then(toml::Value::as_bool), Some(false), "{name}");
    }
}

#[test]
fn schemas_cannot_reach_outside() {
    for reference in
        ["https://example.com/schema.json", "http://127.0.0.1:1/x", "file:///etc/passwd", "other.json", "/etc/passwd"]
    {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("collections")).unwrap();
        let file = format!("name = \"items\"\n[schema.properties.x]\n\"$ref\" = \"{reference}\"\n");
        fs::write(directory.path().join("collections/items.toml"), file).unwrap();
        let mut command = terrace(directory.path(), &["check"]);
        command.env("TERRACE_COLLECTIONS__DIR", "collections").env("TERRACE_DATABASE__URL", sqlite_url(directory.path()));
        let output = command.output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && told.contains("schema.properties.x.$ref"), "{reference}: {told}");
    }
}

#[tokio::test]
async fn a_malformed_request_writes_nothing_into_the_log() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let directory = tempfile::tempdir().unwrap();
    let process = Process::serve(&sqlite_url(directory.path()), &[]);
    process.answers("/health/ready", 200).await;
    let before = process.log();
    let requests: [&[u8]; 5] = [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost x\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"POST /api/items HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\nx: \x00\r\n\r\n",
    ];
    for request in requests {
        let mut stream = tokio::net::TcpStream::connect(process.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // A refusal may end in a reset.
        let _ = tokio::time::timeout(crate::support::DEADLINE, stream.read_to_string(&mut answer)).await.expect("no end");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Something that is written after them shows that they have been dealt with.
    process.answers("/health", 200).await;
    assert_eq!(process.log(), before);
}
