//! TLS, with a certificate that is replaced while the server runs, and what only comes with it: HTTP/2.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::fixture::item;
use crate::support::process::Process;
use crate::support::tls::{Authority, Issued};
use crate::support::{DEADLINE, Server, sqlite_url, terrace};

/// A connection whose certificate has been checked.
async fn connect(address: std::net::SocketAddr, authority: &Authority, protocol: &str) -> TlsStream<TcpStream> {
    let mut config = terrace::tls::verifying(&authority.file(), "test").unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server that closes without saying so would be noticed here.
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// The certificate that a new connection is shown.
async fn shown(process: &Process, authority: &Authority) -> Vec<u8> {
    let stream = connect(process.address, authority, "http/1.1").await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn of(file: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(file).unwrap().to_vec()
}

/// A server with TLS.
fn encrypted(issued: &Issued) -> Server {
    Server::fixture_with(|settings| {
        settings.http.tls_certificate.clone_from(&issued.certificate);
        settings.http.tls_key.clone_from(&issued.key);
        settings.http.max_in_flight = 1_000;
    })
}

#[tokio::test]
async fn data_is_served_over_tls_and_browsers_are_told_to_come_back_that_way() {
    let authority = Authority::new();
    let server = encrypted(&authority.issue("127.0.0.1"));
    let mut stream = connect(server.address, &authority, "http/1.1").await;
    let answer = ask(&mut stream, "/api/items").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"data\":[]"), "{answer}");
    assert!(answer.to_lowercase().contains("strict-transport-security: max-age=31536000\r\n"), "{answer}");
    // Nobody is served in the clear, and who does not shake hands does not stay.
    let clear = server.raw(b"GET /api/items HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!clear.contains("HTTP/1.1 200"), "{clear}");
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, silent.read_to_end(&mut nothing)).await.expect("the server waits for ever");
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs_and_a_bad_one_is_not_taken() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = ["server.crt", "server.key"].map(|name| directory.path().join(name));
    let place = |issued: &Issued| {
        std::fs::copy(&issued.certificate, &certificate).unwrap();
        std::fs::copy(&issued.key, &key).unwrap();
    };
    place(&issued);
    let (first, first_key) = (of(&certificate), std::fs::read(&key).unwrap());
    let settings =
        [("TERRACE_HTTP__TLS_CERTIFICATE", certificate.to_str().unwrap()), ("TERRACE_HTTP__TLS_KEY", key.to_str().unwrap())];
    let process = Process::serve(&sqlite_url(directory.path()), &settings);
    let mut old = connect(process.address, &authority, "http/1.1").await;
    assert_eq!(shown(&process, &authority).await, first);

    place(&authority.issue("127.0.0.1"));
    let second = of(&certificate);
    assert_ne!(first, second);
    let deadline = Instant::now() + DEADLINE;
    while shown(&process, &authority).await != second {
        assert!(Instant::now() < deadline, "{}", process.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ask(&mut old, "/health/live").await.starts_with("HTTP/1.1 200"), "connections that are there go on");
    assert_eq!(process.told("the certificate has been replaced"), 1, "{}", process.log());

    // The key of the first certificate is not that of the second.
    std::fs::write(&key, first_key).unwrap();
    process.until("the wrong key is told", |log| log.contains("is not the key of the certificate in http.tls_certificate"));
    assert_eq!(shown(&process, &authority).await, second);
    std::fs::write(&certificate, "no certificate at all").unwrap();
    process.until("the bad certificate is told", |log| log.contains("(http.tls_certificate) has no certificate"));
    assert_eq!(shown(&process, &authority).await, second);
    std::fs::remove_file(&certificate).unwrap();
    process.until("the missing certificate is told", |log| log.contains("(http.tls_certificate) cannot be read"));
    assert_eq!(shown(&process, &authority).await, second);

    let third = authority.issue("127.0.0.1");
    place(&third);
    process.until("the third one is there", |log| log.matches("the certificate has been replaced").count() == 2);
    assert_eq!(shown(&process, &authority).await, of(&third.certificate));
    assert_eq!(process.told("the old one is shown on"), 3, "each once: {}", process.log());
    assert!(!process.log().contains("BEGIN"), "{}", process.log());
}

#[tokio::test]
async fn settings_that_make_no_pair_keep_the_server_from_starting() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("127.0.0.1"), authority.issue("localhost"));
    let directory = tempfile::tempdir().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for (certificate, key, complaint) in [
        (text(&first.certificate), String::new(), "http.tls_key is needed beside http.tls_certificate"),
        (String::new(), text(&first.key), "http.tls_certificate is needed beside http.tls_key"),
        (text(&first.certificate), text(&second.key), "(http.tls_key) is not the key of the certificate"),
        (text(&first.key), text(&first.key), "(http.tls_certificate) has no certificate"),
        (text(&first.certificate), text(&first.certificate), "(http.tls_key) has no private key"),
        ("nothing.crt".to_owned(), text(&first.key), "nothing.crt (http.tls_certificate) cannot be read"),
    ] {
        let mut command = terrace(&crate::support::root(), &["serve"]);
        command.env("TERRACE_HTTP__LISTEN", "127.0.0.1:0").env("TERRACE_DATABASE__URL", sqlite_url(directory.path()));
        command.env("TERRACE_HTTP__TLS_CERTIFICATE", certificate).env("TERRACE_HTTP__TLS_KEY", key);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(complaint), "{complaint}: {told}");
    }
}

#[tokio::test]
async fn http_2_is_served_and_one_connection_has_no_more_than_its_share() {
    let authority = Authority::new();
    let server = encrypted(&authority.issue("127.0.0.1"));
    let stream = connect(server.address, &authority, "h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let url = |path: &str| format!("https://127.0.0.1{path}");
    let mut begin = async |method: &str, path: &str, last: bool| {
        let request = http::Request::builder().method(method).uri(url(path)).header("content-type", "application/json");
        std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
        client.send_request(request.body(()).unwrap(), last).unwrap()
    };
    let (created, mut body) = begin("POST", "/api/items", false).await;
    body.send_data(Bytes::from(item("A", "a").to_string()), true).unwrap();
    assert_eq!(created.await.unwrap().status(), 201);
    let (read, _) = begin("GET", "/api/items/A", true).await;
    let read = read.await.unwrap();
    assert_eq!((read.status().as_u16(), read.headers()["x-cache"].to_str().unwrap()), (200, "MISS"));
    assert_eq!(read.headers()["strict-transport-security"], "max-age=31536000");

    // Bodies that never come: each keeps its request waiting.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(begin("POST", "/api/items", false).await);
    }
    let (refused, _) = begin("GET", "/api/items/A", true).await;
    let refused = tokio::time::timeout(DEADLINE, refused).await.unwrap().unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    // When one is over, another one has its place.
    let (response, mut body) = waiting.pop().unwrap();
    body.send_data(Bytes::from(item("B", "b").to_string()), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 201);
    let (served, _) = begin("GET", "/api/items/A", true).await;
    assert_eq!(served.await.unwrap().headers()["x-cache"], "HIT");
    drop(waiting);
    driver.abort();
}
