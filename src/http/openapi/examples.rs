//! Example documents, made from a collection's schema: what it gives as examples, else the simplest value that fits. An
//! example that the schema itself refuses is left out.

use serde_json::{Map, Value, json};

use super::patterns;
use crate::model::{Collection, IdRule, ServerFields};

/// Deeper members are left out: an example that goes on for ever explains nothing.
const MAX_DEPTH: usize = 5;

/// A valid document of `collection`, as a client sends it.
pub(super) fn document(collection: &Collection) -> Option<Value> {
    let root = &collection.schema;
    let candidates = [Members::All, Members::Required].map(|members| Maker { root, members }.value("", root, 0));
    let validator = jsonschema::validator_for(root).ok()?;
    candidates.into_iter().find(|example| example.is_object() && validator.is_valid(example))
}

/// The same as the server answers it.
pub(super) fn record(collection: &Collection) -> Option<Value> {
    let Value::Object(members) = document(collection)? else { return None };
    let mut record = Map::new();
    if collection.id == IdRule::Generated {
        record.insert(collection.id_field().to_owned(), json!("0199f3b1-7c1e-7d1a-9b57-2f2f6a3f8a10"));
    }
    record.extend(members);
    record.insert(ServerFields::VERSION.to_owned(), json!(1));
    record.insert(ServerFields::CREATED_AT.to_owned(), json!("2026-01-31T09:30:00.000000Z"));
    record.insert(ServerFields::UPDATED_AT.to_owned(), json!("2026-01-31T09:30:00.000000Z"));
    Some(Value::Object(record))
}

/// Which members an example has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Members {
    All,
    Required,
}

struct Maker<'a> {
    root: &'a Value,
    members: Members,
}

impl Maker<'_> {
    /// A value of `schema`, which belongs to the member `name`.
    fn value(&self, name: &str, schema: &Value, depth: usize) -> Value {
        if let Some(given) = given(schema) {
            return given.clone();
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).filter(|_| depth < MAX_DEPTH) {
            let target = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map_or(Value::Null, |target| self.value(name, target, depth + 1));
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(first) = schema.get(keyword).and_then(Value::as_array).and_then(|schemas| schemas.first())
                && schema.get("properties").is_none()
            {
                return self.value(name, first, depth + 1);
            }
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(name, schema, depth),
            "integer" => json!(number(schema).ceil() as i64),
            "number" => json!(number(schema)),
            "boolean" => json!(false),
            "null" => Value::Null,
            _ => json!(text(name, schema)),
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let mut members = Map::new();
        let required: Vec<&str> = array(schema, "required").filter_map(Value::as_str).collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let wanted = self.members == Members::All && depth < MAX_DEPTH;
            if wanted || required.contains(&name.as_str()) {
                members.insert(name.clone(), self.value(name, property, depth + 1));
            }
        }
        Value::Object(members)
    }

    fn array(&self, name: &str, schema: &Value, depth: usize) -> Value {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_u64);
        let count = bound("minItems").unwrap_or(1).max(1).min(bound("maxItems").unwrap_or(u64::MAX)).min(10);
        match schema.get("items") {
            Some(items) if depth < MAX_DEPTH => (0..count).map(|_| self.value(name, items, depth + 1)).collect(),
            Some(_) | None => json!([]),
        }
    }
}

/// What the schema itself gives.
fn given(schema: &Value) -> Option<&Value> {
    let first = |keyword| schema.get(keyword).and_then(Value::as_array).and_then(|values| values.first());
    first("examples")
        .or_else(|| schema.get("example"))
        .or_else(|| schema.get("const"))
        .or_else(|| schema.get("default"))
        .or_else(|| first("enum"))
}

fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    }
}

fn array<'a>(schema: &'a Value, keyword: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(keyword).and_then(Value::as_array).into_iter().flatten()
}

/// The smallest number of the declared range that is not 0 without need.
fn number(schema: &Value) -> f64 {
    let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
    let step = bound("multipleOf").unwrap_or(1.0);
    let lowest = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|above| above + step)).unwrap_or(step);
    let highest = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|below| below - step)).unwrap_or(f64::MAX);
    ((lowest.max(step.min(highest)) / step).ceil() * step).min(highest)
}

fn text(name: &str, schema: &Value) -> String {
    let length = |keyword| schema.get(keyword).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        return patterns::matching(pattern, length("minLength").unwrap_or(0));
    }
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-31T09:30:00Z",
        Some("date") => "2026-01-31",
        Some("time") => "09:30:00Z",
        Some("duration") => "PT5M",
        Some("email" | "idn-email") => "ada@example.org",
        Some("uuid") => "0199f3b1-7c1e-7d1a-9b57-2f2f6a3f8a10",
        Some("uri" | "iri" | "url") => "https://example.org/",
        Some("hostname" | "idn-hostname") => "example.org",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        Some(_) | None => wording(name),
    };
    let longest = length("maxLength").unwrap_or(usize::MAX);
    let mut text: String = text.chars().take(longest).collect();
    while text.chars().count() < length("minLength").unwrap_or(0).min(1000) {
        text.push('x');
    }
    text
}

/// Something that a member of this name could say.
fn wording(name: &str) -> &'static str {
    const WORDINGS: [(&str, &str); 12] = [
        ("email", "ada@example.org"),
        ("url", "https://example.org/"),
        ("color", "#336699"),
        ("colour", "#336699"),
        ("description", "What it is about, in a sentence."),
        ("summary", "What it is about, in a sentence."),
        ("title", "A good example"),
        ("name", "A good example"),
        ("owner", "ada"),
        ("author", "ada"),
        ("assignee", "ada"),
        ("_id", "example-1"),
    ];
    WORDINGS.iter().find(|(part, _)| name.contains(part)).map_or("example", |(_, wording)| wording)
}
