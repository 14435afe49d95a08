//! What callers and quotas cost: a record hit with a valid API key, or an access token, and a quota shared over Redis,
//! against the same hit by nobody without a quota: requests per second and server CPU per request, as ratios of
//! neighbouring runs.
//!
//! `scripts/with-servers cargo bench --bench guarded` (arguments: seconds per run, runs per server)

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::time::Duration;

use secrecy::ExposeSecret as _;
use support::load::{costed, run};
use support::process::{self, Process};
use support::{in_turn, median};
use terrace::app::App;
use terrace::auth::KeyRequest;
use terrace::config::LogSettings;
use terrace::model::{Caller, Role};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 16;
const PATH: &str = "/api/v1/metrics/NET-REVENUE";
/// Never used up, and so much at a time that the instance leases as it would from any large quota.
const QUOTA: &str = "100000000/15m";
const PASSWORD: &str = "correct horse battery staple";

fn main() {
    match process::role().as_deref() {
        Some(role) => server(role),
        None => compare(),
    }
}

/// Terrace with Redis on one worker thread; `guarded` with a quota. Writes the `Authorization` fields of a key and a token
/// to the file that it is told.
fn server(role: &str) {
    let directory = tempfile::TempDir::new().unwrap();
    let mut settings = support::settings(directory.path());
    settings.http.workers = 1;
    settings.redis.url = std::env::var("TEST_REDIS").expect("run it as: scripts/with-servers cargo bench --bench guarded");
    settings.redis.prefix = format!("bench-{}", std::process::id());
    if role == "guarded" {
        settings.limits.api = Some(QUOTA.parse().unwrap());
    }
    terrace::telemetry::logs::init(&LogSettings::default()).unwrap();
    actix_web::rt::System::new().block_on(async {
        let app = App::open(settings).await.unwrap();
        let accounts = app.accounts().clone();
        let running = app.serve().await.unwrap();
        let key = accounts.create_key(KeyRequest::new("bench", Role::Viewer), &Caller::OPERATOR).await.unwrap();
        accounts.add_user("bench@example.com", PASSWORD.to_owned().into(), Role::Viewer, &Caller::OPERATOR).await.unwrap();
        let tokens = accounts.login("bench@example.com", PASSWORD.to_owned().into(), None).await.unwrap();
        let fields =
            [key.text.expose_secret(), tokens.access.expose_secret()].map(|text| format!("authorization: Bearer {text}\r\n"));
        std::fs::write(std::env::args().nth(1).unwrap(), fields.concat()).unwrap();
        let address = running.addresses()[0];
        tokio::task::spawn_blocking(move || process::serve_until_parent_ends(address)).await.unwrap();
        running.stop().await.unwrap();
    });
}

fn compare() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let seconds = Duration::from_secs(arguments.next().unwrap_or(2));
    let runs = arguments.next().unwrap_or(7);
    let start = |role| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let process = Process::start(role, &[file.path().to_str().unwrap()]);
        let fields = std::fs::read_to_string(file.path()).unwrap();
        let fields: Vec<String> = fields.split_inclusive("\r\n").map(str::to_owned).collect();
        (process, fields)
    };
    let (plain, plain_fields) = start("plain");
    let (guarded, fields) = start("guarded");
    println!("{CONNECTIONS} connections, {runs} runs of {seconds:?} each, in turn; servers, Redis and client on one machine\n");
    println!("{:<34}{:>12}{:>12}{:>14}{:>14}", "a record hit with", "guarded/s", "plain/s", "requests", "CPU/request");
    for (name, server, headers) in [
        ("nothing (the noise)", &plain, ""),
        ("a quota, by address", &guarded, ""),
        ("an API key", &plain, plain_fields[0].as_str()),
        ("an access token", &plain, plain_fields[1].as_str()),
        ("an API key and a quota", &guarded, fields[0].as_str()),
        ("an access token and a quota", &guarded, fields[1].as_str()),
    ] {
        row(name, [(server, headers), (&plain, "")], seconds, runs);
    }
}

fn row(name: &str, servers: [(&Process, &str); 2], seconds: Duration, runs: u64) {
    for (server, headers) in servers {
        run(server.address, PATH, headers, CONNECTIONS, Duration::from_millis(300));
    }
    let (mut rates, mut costs, mut speeds) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for number in 0..runs {
        let [(guarded, guarded_cost), (plain, plain_cost)] =
            in_turn(servers, number as usize, |(server, headers)| costed(server, PATH, headers, CONNECTIONS, seconds));
        rates.push(guarded.per_second() / plain.per_second());
        costs.push(guarded_cost / plain_cost);
        speeds[0].push(guarded.per_second());
        speeds[1].push(plain.per_second());
    }
    let [guarded, plain] = speeds.map(median);
    println!("{name:<34}{guarded:>12.0}{plain:>12.0}{:>14.3}{:>14.3}", median(rates), median(costs));
}
