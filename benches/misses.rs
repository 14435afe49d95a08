//! What a miss costs a server: a record, and a page of 50, that Terrace loads from PostgreSQL and keeps, against a handler of the same
//! process that sends on what the bare statement through `tokio-postgres` brings, over one connection to which all requests of its
//! thread add theirs. CPU of the server process per request, and requests per second, as ratios of neighbouring runs. That process has
//! one processor; PostgreSQL and the client have another.
//!
//! `scripts/with-servers cargo bench --bench misses` (arguments: requests per run, runs per server)

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use support::process::{self, Process};
use support::processors::{self, Processors};
use support::{in_turn, median};
use terrace::config::LogSettings;
use tokio_postgres::{Client, NoTls, Statement};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u64 = 2026;
const RECORDS: usize = 100_000;

fn main() {
    match process::role() {
        Some(_) => server(),
        None => compare(),
    }
}

/// Terrace and the bare handlers, each on one worker thread. Writes the address of the latter to the file that it is told.
fn server() {
    let directory = tempfile::TempDir::new().unwrap();
    terrace::telemetry::logs::init(&LogSettings::default()).unwrap();
    actix_web::rt::System::new().block_on(async {
        assert!(std::env::var_os("TEST_POSTGRES").is_some(), "run it as: scripts/with-servers cargo bench --bench misses");
        let mut settings = support::installation::settings(directory.path()).await;
        settings.http.workers = 1;
        // Entries expire as they are made.
        settings.cache.max_ttl = Duration::from_nanos(1);
        let url = settings.database.url.clone();
        let app = terrace::app::App::open(settings).await.unwrap();
        app.migrate().await.unwrap();
        support::installation::import(&app, SEED, RECORDS).await;
        let running = app.serve().await.unwrap();

        let bare = HttpServer::new(move || {
            let url = url.clone();
            App::new()
                .data_factory(move || Bare::open(url.clone()))
                .route("/record/{id}", web::get().to(record))
                .route("/page", web::get().to(page))
        });
        let bare = bare.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        std::fs::write(std::env::args().nth(1).unwrap(), bare.addrs()[0].to_string()).unwrap();
        let bare = bare.run();
        let handle = bare.handle();
        let bare = tokio::spawn(bare);
        let address = running.addresses()[0];
        tokio::task::spawn_blocking(move || process::serve_until_parent_ends(address)).await.unwrap();
        handle.stop(false).await;
        bare.await.unwrap().unwrap();
        running.stop().await.unwrap();
    });
}

/// The connection of a worker, with its statements.
struct Bare {
    client: Client,
    record: Statement,
    page: Statement,
}

impl Bare {
    async fn open(url: String) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("SET jit = off").await?;
        let record = "SELECT data::text FROM records WHERE collection = 'metrics' AND id = $1";
        let page = "SELECT data::text FROM records WHERE collection = 'metrics' ORDER BY updated_at DESC, id LIMIT 50";
        let (record, page) = (client.prepare(record).await?, client.prepare(page).await?);
        Ok(Self { client, record, page })
    }
}

async fn record(bare: web::Data<Bare>, id: web::Path<String>) -> HttpResponse {
    let row = bare.client.query_one(&bare.record, &[&*id]).await.unwrap();
    HttpResponse::Ok().content_type("application/json").body(row.get::<_, String>(0))
}

async fn page(bare: web::Data<Bare>) -> HttpResponse {
    let rows = bare.client.query(&bare.page, &[]).await.unwrap();
    let rows: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    HttpResponse::Ok().content_type("application/json").body(format!("[{}]", rows.join(",")))
}

fn compare() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let requests = arguments.next().unwrap_or(6_000);
    let runs = arguments.next().unwrap_or(15);
    let file = tempfile::NamedTempFile::new().unwrap();
    let Processors { first, second } = Processors::allowed();
    let server = Process::start("server", &[file.path().to_str().unwrap()]);
    processors::keep(server.id(), first);
    processors::keep(std::process::id(), second);
    actix_web::rt::System::new().block_on(async {
        let (client, connection) = tokio_postgres::connect(&std::env::var("TEST_POSTGRES").unwrap(), NoTls).await.unwrap();
        tokio::spawn(connection);
        processors::keep_server(&client, second).await;
    });
    let bare: SocketAddr = std::fs::read_to_string(file.path()).unwrap().parse().unwrap();
    println!(
        "{runs} runs of {requests} records or a tenth as many pages, in turn; the server on one processor, PostgreSQL and the client on \
         another\n"
    );
    println!("{:<34}{:>12}{:>12}{:>14}{:>14}", "", "terrace us", "bare us", "CPU/request", "requests");
    let record = |number: usize| support::corpus::metric_id(number * 7_919 % RECORDS);
    let terraces_record = |number| format!("/api/v1/metrics/{}", record(number));
    let bare_record = |number| format!("/record/{}", record(number));
    let terraces_page = |_| "/api/v1/metrics?limit=50&count=none".to_owned();
    let bare_page = |_| "/page".to_owned();
    let records: [Side<'_>; 2] = [(server.address, &terraces_record), (bare, &bare_record)];
    // One after the other: at the same time it would be one load for all.
    let pages: [Side<'_>; 2] = [(server.address, &terraces_page), (bare, &bare_page)];
    row("record miss, one at a time", &server, records, 1, requests, runs);
    row("record miss, 16 at a time", &server, records, 16, requests, runs);
    row("page of 50, no count", &server, pages, 1, requests / 10, runs);
}

/// An address, and the path of each request.
type Side<'a> = (SocketAddr, &'a dyn Fn(usize) -> String);

fn row(name: &str, server: &Process, sides: [Side<'_>; 2], connections: usize, requests: usize, runs: usize) {
    let (mut costs, mut rates, mut times) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for run in 0..=runs {
        let [(ours, our_time), (bare, bare_time)] = in_turn(sides, run, |(address, path)| {
            let paths: Vec<String> = (run * requests..(run + 1) * requests).map(path).collect();
            let started = Instant::now();
            let ((), spent) = server.cpu_during(|| support::load::each(address, connections, paths.into_iter()));
            (spent, started.elapsed().as_secs_f64())
        });
        // The first one warms up.
        if run > 0 {
            costs.push(ours / bare);
            rates.push(bare_time / our_time);
            times[0].push(ours / requests as f64 * 1e6);
            times[1].push(bare / requests as f64 * 1e6);
        }
    }
    let [ours, bare] = times.map(median);
    println!("{name:<34}{ours:>12.1}{bare:>12.1}{:>14.3}{:>14.3}", median(costs), median(rates));
}
