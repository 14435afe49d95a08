//! A cache hit against a bare actix-web handler that returns the same bytes: requests per second and server CPU per
//! request, as ratios of neighbouring runs.
//!
//! `cargo bench --bench compare` (arguments: seconds per run, runs per server)

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use support::load::{costed, fetch, run};
use support::process::{self, Process};
use support::{in_turn, median};
use terrace::config::LogSettings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 16;

fn main() {
    match process::role().as_deref() {
        Some("terrace") => terrace_server(),
        Some("bare") => bare_server(),
        _ => compare(),
    }
}

/// Terrace as shipped, with metrics and tracing on, on one worker thread.
fn terrace_server() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut settings = support::settings(directory.path());
    settings.http.workers = 1;
    terrace::telemetry::logs::init(&LogSettings::default()).unwrap();
    actix_web::rt::System::new().block_on(async {
        let running = terrace::app::App::open(settings).await.unwrap().serve().await.unwrap();
        let address = running.addresses()[0];
        tokio::task::spawn_blocking(move || process::serve_until_parent_ends(address)).await.unwrap();
        running.stop().await.unwrap();
    });
}

/// A handler that clones shared bytes, and nothing else, on one worker thread.
fn bare_server() {
    let file = std::env::args().nth(1).unwrap();
    let body = bytes::Bytes::from(std::fs::read(file).unwrap());
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(move || {
            let body = body.clone();
            let answer = move || {
                let body = body.clone();
                async move { HttpResponse::Ok().content_type("application/json").body(body) }
            };
            App::new()
                .route("/api/v1/metrics", web::get().to(answer.clone()))
                .route("/api/v1/metrics/{id}", web::get().to(answer))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let server = tokio::spawn(server);
        tokio::task::spawn_blocking(move || process::serve_until_parent_ends(address)).await.unwrap();
        handle.stop(false).await;
        server.await.unwrap().unwrap();
    });
}

fn compare() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = Duration::from_secs(arguments.next().unwrap_or(2));
    let runs = arguments.next().unwrap_or(7);
    println!("{CONNECTIONS} connections, {runs} runs of {seconds:?} each, in turn; server and client on one machine\n");
    println!("{:<34}{:>9}{:>12}{:>12}{:>14}{:>14}", "", "bytes", "terrace/s", "bare/s", "requests", "CPU/request");
    let terrace = Process::start("terrace", &[]);
    for (name, path, headers) in [
        ("record hit", "/api/v1/metrics/NET-REVENUE", ""),
        ("list hit, 50 records", "/api/v1/metrics?page=1&limit=50", ""),
        ("list hit, filtered", "/api/v1/metrics?category=operational&sort=name", ""),
        ("list hit, browser's headers", "/api/v1/metrics?limit=50", BROWSER),
    ] {
        let body = fetch(terrace.address, path);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &body).unwrap();
        let bare = Process::start("bare", &[file.path().to_str().unwrap()]);
        let bare_headers = if headers.is_empty() { "" } else { BROWSER };
        row(name, body.len(), [(&terrace, path, headers), (&bare, path, bare_headers)], seconds, runs);
    }
}

/// `identity`, so that both servers send the same bytes.
const BROWSER: &str = "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    accept: application/json, text/plain, */*\r\naccept-language: en-GB,en;q=0.7,de;q=0.3\r\naccept-encoding: identity\r\n\
    referer: http://127.0.0.1/\r\nsec-fetch-dest: empty\r\nsec-fetch-mode: cors\r\nsec-fetch-site: same-origin\r\n";

fn row(name: &str, bytes: usize, servers: [(&Process, &str, &str); 2], seconds: Duration, runs: u64) {
    for (server, path, headers) in servers {
        run(server.address, path, headers, CONNECTIONS, Duration::from_millis(300));
    }
    let (mut rates, mut costs, mut speeds) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for number in 0..runs {
        let [(terrace, terrace_cost), (bare, bare_cost)] =
            in_turn(servers, number as usize, |(server, path, headers)| costed(server, path, headers, CONNECTIONS, seconds));
        rates.push(terrace.per_second() / bare.per_second());
        costs.push(terrace_cost / bare_cost);
        speeds[0].push(terrace.per_second());
        speeds[1].push(bare.per_second());
    }
    let [terrace, bare] = speeds.map(median);
    println!("{name:<34}{bytes:>9}{terrace:>12.0}{bare:>12.0}{:>14.3}{:>14.3}", median(rates), median(costs));
}
