//! A hundred thousand records of about 600 bytes: how long they take to import, and the memory of a server that holds
//! them with its L1 full.
//!
//! `cargo bench --bench scale` (argument: number of records). With `--corpus` it only writes the records, as NDJSON.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use support::process::{self, Process};
use terrace::app::App;
use terrace::model::Caller;
use terrace::records::ImportMode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u64 = 2026;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    if let Some("server") = process::role().as_deref() {
        return server(&arguments[0]);
    }
    if arguments.iter().any(|argument| argument == "--corpus") {
        let mut output = std::io::BufWriter::new(std::io::stdout().lock());
        support::corpus::metrics(SEED, count).for_each(|metric| writeln!(output, "{metric}").unwrap());
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    import(directory.path(), count);
    serve(directory.path(), count);
}

fn import(directory: &std::path::Path, count: usize) {
    let metrics: Vec<_> = support::corpus::metrics(SEED, count).collect();
    let bytes: usize = metrics.iter().map(|metric| metric.to_string().len()).sum();
    println!("{count} records of {} bytes on average", bytes / count);
    actix_web::rt::System::new().block_on(async {
        let app = App::open(support::settings(directory)).await.unwrap();
        app.migrate().await.unwrap();
        let resource = app.records().resource("metrics").unwrap();
        let started = Instant::now();
        for batch in metrics.chunks(1_000) {
            let results = app.records().import(resource, &Caller::OPERATOR, batch.to_vec(), ImportMode::Create).await.unwrap();
            assert!(results.iter().all(Result::is_ok));
        }
        let elapsed = started.elapsed();
        println!("import: {:.1} s, {:.0} records/s", elapsed.as_secs_f64(), count as f64 / elapsed.as_secs_f64());
    });
}

/// A server on what has been imported, in a process of its own.
fn server(directory: &str) {
    actix_web::rt::System::new().block_on(async {
        let app = App::open(support::settings(std::path::Path::new(directory))).await.unwrap();
        let running = app.serve().await.unwrap();
        let address = running.addresses()[0];
        tokio::task::spawn_blocking(move || process::serve_until_parent_ends(address)).await.unwrap();
        running.stop().await.unwrap();
    });
}

/// Reads every record, then pages until L1 has evicted, and prints the memory at each point.
fn serve(directory: &std::path::Path, count: usize) {
    let server = Process::start("server", &[directory.to_str().unwrap()]);
    let report = |what: &str| {
        let health: serde_json::Value = serde_json::from_slice(&support::load::fetch(server.address, "/health")).unwrap();
        let cache = &health["cache"];
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        println!(
            "{what}: {} entries, {:.0} MiB of {:.0} MiB by weight; resident {:.0} MiB, at most {:.0} MiB",
            cache["entries"],
            mib(cache["size_bytes"].as_u64().unwrap()),
            mib(cache["capacity_bytes"].as_u64().unwrap()),
            mib(server.memory_kib("VmRSS") * 1024),
            mib(server.memory_kib("VmHWM") * 1024),
        );
    };
    report("started");
    let started = Instant::now();
    support::load::each(
        server.address,
        8,
        (0..count).map(|number| format!("/api/v1/metrics/{}", support::corpus::metric_id(number))),
    );
    println!("read each record once: {:.0}/s", count as f64 / started.elapsed().as_secs_f64());
    report("all records read");
    // Each record is on a page of its owner, its domain, its category and its tier: 4,000 pages, 230 MiB.
    let pages_of = |field: &'static str, values: Vec<String>| {
        let pages = count / values.len() / 100;
        values
            .into_iter()
            .flat_map(move |value| (1..=pages).map(move |page| format!("/api/v1/metrics?{field}={value}&page={page}&limit=100")))
    };
    let numbered = |prefix: &str, count: usize| (0..count).map(|number| format!("{prefix}-{number:02}")).collect();
    let pages = pages_of("owner", numbered("team", 50))
        .chain(pages_of("business_domain", numbered("domain", 28)))
        .chain(pages_of("category", ["operational", "tactical", "strategic"].map(str::to_owned).to_vec()))
        .chain(pages_of("tier", (1..=3).map(|tier| tier.to_string()).collect()));
    support::load::each(server.address, 8, pages);
    report("L1 filled with pages");
    std::thread::sleep(Duration::from_secs(2));
    report("two seconds later");
}
