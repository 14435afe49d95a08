//! Metric definitions made from a seed: the same seed gives the same records. About 600 bytes each.

use serde_json::{Value, json};

pub const SUBJECTS: [&str; 24] = [
    "request",
    "session",
    "invoice",
    "shipment",
    "refund",
    "payment",
    "order",
    "basket",
    "login",
    "query",
    "message",
    "job",
    "cache",
    "queue",
    "page",
    "import",
    "export",
    "search",
    "backup",
    "deployment",
    "ticket",
    "campaign",
    "visit",
    "stock",
];
pub const MEASURES: [&str; 16] = [
    "duration",
    "rate",
    "errors",
    "size",
    "count",
    "share",
    "latency",
    "throughput",
    "age",
    "backlog",
    "retries",
    "timeouts",
    "cost",
    "volume",
    "utilization",
    "saturation",
];
const SCOPES: [&str; 12] = [
    "per region",
    "per customer",
    "in the last hour",
    "by channel",
    "at the edge",
    "in the warehouse",
    "on mobile",
    "on the web",
    "for new users",
    "for partners",
    "at peak",
    "overnight",
];
pub const TAGS: [&str; 20] = [
    "latency",
    "errors",
    "traffic",
    "saturation",
    "cost",
    "quality",
    "growth",
    "retention",
    "board",
    "weekly",
    "daily",
    "alerting",
    "mobile",
    "web",
    "partner",
    "internal",
    "experimental",
    "stable",
    "compliance",
    "finance",
];
pub const CATEGORIES: [&str; 3] = ["operational", "tactical", "strategic"];
const INSTRUMENTS: [&str; 4] = ["counter", "gauge", "histogram", "updowncounter"];
const UNITS: [&str; 8] = ["ms", "s", "%", "1", "By", "EUR", "{request}", "d"];

/// `count` metric definitions.
pub fn metrics(seed: u64, count: usize) -> impl Iterator<Item = Value> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(move |number| metric(&mut random, number))
}

/// The id of a metric of the corpus.
pub fn metric_id(number: usize) -> String {
    format!("METRIC-{number:06}")
}

/// A merge patch of one field of a metric: four of the seven fields are indexed, one of the others is searched.
pub fn patch(random: &mut fastrand::Rng) -> Value {
    match random.u8(0..7) {
        0 => json!({"owner": owner(random)}),
        1 => json!({"business_domain": business_domain(random)}),
        2 => json!({"tier": random.u8(1..=3)}),
        3 => json!({"tags": tags(random)}),
        4 => json!({"unit": format!("{{unit {}}}", random.u16(..))}),
        5 => json!({"note": described(random)}),
        _ => json!({"description": described(random)}),
    }
}

fn described(random: &mut fastrand::Rng) -> String {
    let (subject, measure, scope) = (pick(random, &SUBJECTS), pick(random, &MEASURES), pick(random, &SCOPES));
    sentence(random, subject, measure, scope)
}

fn owner(random: &mut fastrand::Rng) -> String {
    format!("team-{:02}", random.u8(0..50))
}

fn business_domain(random: &mut fastrand::Rng) -> String {
    format!("domain-{:02}", random.u8(0..28))
}

fn tags(random: &mut fastrand::Rng) -> Vec<&'static str> {
    let mut tags: Vec<&str> = (0..random.usize(0..4)).map(|_| pick(random, &TAGS)).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// Owners are 50, business domains 28, so that filters select about 2,000 and 3,500 of 100,000.
fn metric(random: &mut fastrand::Rng, number: usize) -> Value {
    let (subject, measure, scope) = (pick(random, &SUBJECTS), pick(random, &MEASURES), pick(random, &SCOPES));
    let (other, elsewhere) = (pick(random, &SUBJECTS), pick(random, &SCOPES));
    let tags = tags(random);
    json!({
        "metric_id": metric_id(number),
        "name": format!("{subject} {measure} {scope} {number}"),
        "description": sentence(random, subject, measure, scope),
        "note": sentence(random, other, measure, elsewhere),
        "instrument": pick(random, &INSTRUMENTS),
        "unit": pick(random, &UNITS),
        "category": pick(random, &CATEGORIES),
        "tier": random.u8(1..=3),
        "owner": owner(random),
        "business_domain": business_domain(random),
        "tags": tags,
        "deprecated": random.u8(0..10) == 0,
    })
}

fn sentence(random: &mut fastrand::Rng, subject: &str, measure: &str, scope: &str) -> String {
    let (other, contrast) = (pick(random, &SUBJECTS), pick(random, &MEASURES));
    format!(
        "The {measure} of each {subject} {scope}, compared with the {contrast} of the {other} that caused it; read it over a week."
    )
}

fn pick(random: &mut fastrand::Rng, choices: &[&'static str]) -> &'static str {
    choices[random.usize(0..choices.len())]
}
