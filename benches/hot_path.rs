//! The paths of a read, without sockets: a hit through the whole router, a miss of a record, a miss of a page, and the
//! way from a query string to a key.
//!
//! `cargo bench --bench hot_path`

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here ends the bench"
)]

mod support;

use std::hint::black_box;
use std::time::Duration;

use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::{App as ActixApp, test};
use criterion::{Criterion, criterion_group, criterion_main};
use terrace::app::App;
use terrace::config::Settings;
use terrace::http::{Front, Readiness, SecondTier, layer};
use terrace::limits::{BurstLimit, Quotas};
use terrace::model::{Caller, Freshness, RecordId};
use terrace::records::{ImportMode, Outcome, canonical_query};
use terrace::telemetry::Telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: usize = 2_000;

criterion_group!(benches, hits, misses, canonicalisation);
criterion_main!(benches);

/// The sample collections and `RECORDS` metrics.
async fn installation(directory: &std::path::Path, max_ttl: Duration) -> (Settings, App) {
    let mut settings = support::settings(directory);
    settings.cache.max_ttl = max_ttl;
    let app = App::open(settings.clone()).await.unwrap();
    app.migrate().await.unwrap();
    let metrics = app.records().resource("metrics").unwrap();
    for batch in support::corpus::metrics(1, RECORDS).collect::<Vec<_>>().chunks(1_000) {
        app.records().import(metrics, &Caller::OPERATOR, batch.to_vec(), ImportMode::Create).await.unwrap();
    }
    (settings, app)
}

fn hits(criterion: &mut Criterion) {
    let system = actix_web::rt::System::new();
    let directory = tempfile::TempDir::new().unwrap();
    let (settings, app) = system.block_on(installation(directory.path(), Duration::from_secs(3600)));
    let telemetry = Telemetry::new().unwrap();
    let burst = BurstLimit::new(&settings.limits).unwrap();
    let quotas = Quotas::new(&telemetry).unwrap();
    let resources = app.records().declared().clone();
    let front = Front::new(&settings, resources, telemetry, Readiness::new(|| SecondTier::Off), burst, quotas).unwrap();
    front.open(app.records().clone(), app.accounts().clone());
    let router = ActixApp::new().wrap(layer()).configure(|application| front.configure(application));
    let service = system.block_on(test::init_service(router));
    let get = |path: &str| {
        let request = test::TestRequest::with_uri(path).method(Method::GET).to_request();
        let response = system.block_on(service.call(request)).unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response
    };
    let record = format!("/api/v1/metrics/{}", support::corpus::metric_id(7));
    let mut group = criterion.benchmark_group("hit");
    for (name, path) in [
        ("record", record.as_str()),
        ("list of 50", "/api/v1/metrics?page=1&limit=50"),
        ("filtered list", "/api/v1/metrics?category=operational&sort=name"),
    ] {
        drop(get(path));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(get(path))));
    }
}

/// Entries expire as they are made, so each read is a whole miss: guards, flight, store, count, body, insertion.
fn misses(criterion: &mut Criterion) {
    let system = actix_web::rt::System::new();
    let directory = tempfile::TempDir::new().unwrap();
    let (_, app) = system.block_on(installation(directory.path(), Duration::from_nanos(1)));
    let (records, metrics) = (app.records(), app.records().resource("metrics").unwrap());
    let id = RecordId::parse(&support::corpus::metric_id(9)).unwrap();
    let mut group = criterion.benchmark_group("miss");
    group.bench_function("record", |bencher| {
        bencher.iter(|| {
            let answer = system.block_on(records.record(metrics, &Caller::ANONYMOUS, &id, "", &Freshness::ANY)).unwrap();
            assert_eq!(black_box(answer.outcome()), Outcome::Miss);
        });
    });
    for (name, raw) in [
        ("list of 50", "limit=50"),
        ("list of 50, no count", "count=none"),
        ("filtered list", "owner=team-07"),
        ("search", "q=refund+latency"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let answer = system.block_on(records.list(metrics, &Caller::ANONYMOUS, raw, &Freshness::ANY)).unwrap();
                assert_eq!(black_box(answer.outcome()), Outcome::Miss);
            });
        });
    }
}

fn canonicalisation(criterion: &mut Criterion) {
    let system = actix_web::rt::System::new();
    let directory = tempfile::TempDir::new().unwrap();
    let app = system.block_on(App::open(support::settings(directory.path()))).unwrap();
    let collection = app.records().resource("metrics").unwrap().collection();
    let mut group = criterion.benchmark_group("canonicalisation");
    for (name, raw) in [
        ("empty", ""),
        ("page", "page=2&limit=50"),
        ("filters and sort", "category=operational&filter[tier][lte]=2&sort=-updated_at,name&limit=20"),
        ("search", "q=%22open+connections%22+-deprecated+or+latency&prefix=true"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| canonical_query(black_box(collection), black_box(raw)).unwrap()));
    }
}
