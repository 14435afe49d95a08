//! Content codings: once per entry, each with a tag of its own, and never for those who do not want them.

use std::io::Read as _;

use reqwest::Method;
use serde_json::json;

use crate::support::Server;
use crate::support::fixture::{ITEMS, item};

const CODINGS: [&str; 4] = ["zstd", "br", "gzip", "deflate"];

struct Coded {
    coding: String,
    etag: String,
    vary: String,
    body: Vec<u8>,
}

async fn ask(server: &Server, path: &str, headers: &[(&str, &str)]) -> Coded {
    let mut request = server.request(Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (coding, etag, vary) = (header("content-encoding"), header("etag"), header("vary"));
    assert_eq!(header("content-type"), "application/json", "{path}");
    Coded { coding, etag, vary, body: response.bytes().await.unwrap().to_vec() }
}

fn decode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        "" => decoded.extend(body),
        "zstd" => drop(zstd::Decoder::new(body).unwrap().read_to_end(&mut decoded).unwrap()),
        "br" => brotli::BrotliDecompress(&mut &*body, &mut decoded).unwrap(),
        "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut decoded).unwrap()),
        "deflate" => drop(flate2::read::ZlibDecoder::new(body).read_to_end(&mut decoded).unwrap()),
        other => panic!("the coding {other:?} was not asked for"),
    }
    decoded
}

async fn filled() -> Server {
    let server = Server::fixture();
    server.create_items((0..60).map(|number| item(&format!("ITEM-{number}"), "a"))).await;
    let mut large = item("LARGE", "b");
    large["description"] = json!("Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich. ".repeat(40));
    server.create_item(large).await;
    server
}

#[tokio::test]
async fn every_coding_decodes_to_the_same_body_and_has_a_tag_of_its_own() {
    let server = filled().await;
    for path in [ITEMS, "/api/items/LARGE", "/api/items?category=a&limit=100"] {
        let plain = ask(&server, path, &[]).await;
        assert_eq!((plain.coding.as_str(), plain.vary.as_str()), ("", "accept-encoding"));
        let mut tags = vec![plain.etag.clone()];
        // The second round is answered from the entry.
        for round in 0..2 {
            for coding in CODINGS {
                let coded = ask(&server, path, &[("accept-encoding", coding)]).await;
                assert_eq!(coded.coding, coding, "{path}");
                assert_eq!(decode(coding, &coded.body), plain.body, "{coding} {path}");
                assert!(coded.body.len() < plain.body.len() / 2, "{coding} saves nothing");
                assert_eq!(coded.vary, "accept-encoding");
                if round == 0 {
                    tags.push(coded.etag);
                } else {
                    assert!(tags.contains(&coded.etag), "the tag of {coding} has changed");
                }
            }
        }
        let count = tags.len();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), count, "{tags:?}");
    }
}

#[tokio::test]
async fn a_coded_answer_follows_a_write_at_once() {
    let server = filled().await;
    for coding in CODINGS {
        let path = "/api/items/LARGE";
        let before = ask(&server, path, &[("accept-encoding", coding)]).await;
        server.patch(path, &json!({"name": format!("in {coding}")})).await.expect(200);
        let after = ask(&server, path, &[("accept-encoding", coding)]).await;
        assert_ne!(after.etag, before.etag);
        let text = String::from_utf8(decode(coding, &after.body)).unwrap();
        assert!(text.contains(&format!("in {coding}")), "{coding}");
    }
}

#[tokio::test]
async fn the_weights_of_accept_encoding_decide() {
    let server = filled().await;
    for (accept, expected) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("br;q=0.5, gzip;q=0.9", "gzip"),
        ("zstd;q=0, *", "br"),
        ("*;q=0", ""),
        ("identity", ""),
        ("identity, gzip;q=0.5", ""),
        ("gzip;q=0", ""),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("compress, unknown", ""),
        ("", ""),
    ] {
        let answer = ask(&server, ITEMS, &[("accept-encoding", accept)]).await;
        assert_eq!(answer.coding, expected, "{accept:?}");
    }
}

#[tokio::test]
async fn a_client_can_turn_compression_off() {
    let server = filled().await;
    for value in ["1", "true", ""] {
        let answer = ask(&server, ITEMS, &[("accept-encoding", "zstd, br"), ("x-no-compression", value)]).await;
        assert_eq!(answer.coding, "", "{value:?}");
    }
}

#[tokio::test]
async fn bodies_under_one_kibibyte_are_sent_as_they_are() {
    let server = Server::fixture();
    let mut one = item("S", "a");
    one["description"] = json!("");
    let record = server.create_item(one.clone()).await.text;
    one["description"] = json!("x".repeat(1024 - record.len()));
    one["sku"] = json!("T");
    let exact = server.create_item(one.clone()).await.text;
    assert_eq!(exact.len(), 1024);
    one["description"] = json!(one["description"].as_str().unwrap().trim_start_matches('x').to_owned() + "x");
    one["sku"] = json!("U");
    let small = server.create_item(one).await.text;
    assert!(small.len() < 1024);
    for (path, expected) in [("/api/items/S", ""), ("/api/items/U", ""), ("/api/items/T", "zstd"), ("/api/items?sku=S", "")] {
        assert_eq!(ask(&server, path, &[("accept-encoding", "zstd")]).await.coding, expected, "{path}");
    }
}

#[tokio::test]
async fn encodings_count_against_the_memory_of_the_cache() {
    let server = filled().await;
    let size = async || server.get("/health").await.expect(200)["cache"]["size_bytes"].as_u64().unwrap();
    server.get(ITEMS).await;
    let before = size().await;
    let coded = ask(&server, ITEMS, &[("accept-encoding", "gzip")]).await;
    let after = size().await;
    assert!(after >= before + coded.body.len() as u64, "{before} {after} {}", coded.body.len());
}
