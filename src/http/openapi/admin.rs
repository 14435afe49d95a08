//! Operations of the administration. They are described for all, and answered to administrators.

use serde_json::{Value, json};

use super::responses::{header_references, problem_references};
use super::{component, parameters};

const PROBLEMS: [&str; 8] = ["400", "401", "403", "406", "414", "429", "500", "503"];
const WRITE_PROBLEMS: [&str; 12] = ["400", "401", "403", "406", "408", "413", "414", "415", "422", "429", "500", "503"];

/// The paths.
pub(super) fn paths() -> Vec<(String, Value)> {
    vec![
        ("/admin/cache".to_owned(), json!({"get": describe_cache()})),
        ("/admin/cache/invalidate".to_owned(), json!({"post": invalidate_cache()})),
        ("/admin/cache/explain".to_owned(), json!({"get": explain_cache()})),
    ]
}

fn describe_cache() -> Value {
    operation(
        "describe_cache",
        "The state of the caches: tiers, each collection's entries, sizes, hit rates and outcomes, Redis, bus and log.",
        Vec::new(),
        "CacheState",
        &PROBLEMS,
    )
}

fn explain_cache() -> Value {
    let path = json!({
        "name": "path", "in": "query", "required": true, "schema": {"type": "string", "pattern": "^/"},
        "description": "The path of a read with its query string, as a client would send it, percent-encoded.",
        "example": "/api/v1/metrics?category=strategic",
    });
    operation(
        "explain_cache",
        "Whether a request would hit and in which tier; age, guards and generations; who loaded it, and what last killed it.",
        vec![path],
        "CacheExplanation",
        &PROBLEMS,
    )
}

fn invalidate_cache() -> Value {
    let summary = "Drops from all caches of all instances what exactly one member names.";
    let mut operation = operation("invalidate_cache", summary, Vec::new(), "CacheInvalidated", &WRITE_PROBLEMS);
    let schema = component("schemas", "CacheInvalidation");
    let examples = json!({
        "record": {"value": {"record": {"collection": "metrics", "id": "NET-REVENUE"}}},
        "term": {"value": {"term": {"collection": "metrics", "field": "category", "value": "strategic"}}},
        "collection": {"value": {"collection": "metrics"}},
        "records": {"value": {"records": {"collection": "metrics", "pattern": "K8S-*"}}},
        "all": {"value": {"all": true}},
    });
    if let Some(members) = operation.as_object_mut() {
        let content = json!({"application/json": {"schema": schema, "examples": examples}});
        members.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    operation
}

fn operation(id: &str, summary: &str, own: Vec<Value>, answer: &str, problems: &[&str]) -> Value {
    let mut responses = problem_references(problems);
    let content = json!({"application/json": {"schema": component("schemas", answer)}});
    let headers = header_references(&["X-Request-Id", "Cache-Control"]);
    responses.insert("200".to_owned(), json!({"description": "Done.", "headers": headers, "content": content}));
    let all: Vec<Value> = own.into_iter().chain(parameters::references(&["RequestId"])).collect();
    json!({
        "operationId": id, "summary": summary, "tags": ["administration"], "parameters": all, "responses": responses,
        "description": "For the role admin; an API key with scopes needs *:read, or *:write to drop something.",
        "security": [{"bearer": []}],
    })
}

/// The schemas.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("CacheState", state()),
        ("CacheExplanation", explanation()),
        ("CacheInvalidation", invalidation()),
        (
            "CacheInvalidated",
            json!({
                "type": "object", "required": ["invalidated", "reach"],
                "properties": {
                    "invalidated": {"type": "string", "description": "r: a record, t: a term, b: a collection, p: a pattern, * all."},
                    "reach": {
                        "type": "string", "enum": ["alone", "published", "pending", "unlogged"],
                        "description": "alone: no Redis is configured; published: Redis and all instances that listen; \
                                        pending: this instance, and Redis as soon as it answers. Whoever else shares the database \
                                        finds it in the change log. unlogged: the change log could not be written, and only this \
                                        instance and those that listen have dropped it.",
                    },
                },
            }),
        ),
    ]
}

fn state() -> Value {
    let tier = json!({
        "type": "object", "required": ["hits", "misses", "stale"],
        "properties": {
            "entries": {"type": ["integer", "null"]}, "size_bytes": {"type": ["integer", "null"]},
            "hits": {"type": "integer"}, "misses": {"type": "integer"}, "stale": {"type": "integer"},
            "hit_rate": {"type": ["number", "null"]},
        },
    });
    let scope = json!({
        "type": "object", "required": ["kind", "name", "l1", "l2"],
        "properties": {
            "kind": {"type": "string", "enum": ["record", "list", "count", "stats", "view"]}, "name": {"type": "string"},
            "max_lag_ms": {"type": "integer"}, "l1": tier, "l2": tier,
            "loads": {"type": "integer"}, "load_errors": {"type": "integer"}, "bypasses": {"type": "integer"},
        },
    });
    let cache = json!({
        "type": "object", "required": ["instance", "trusted", "l1", "l2", "scopes"],
        "properties": {
            "instance": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "trusted": {"type": "boolean", "description": "Whether what is stored is served at the moment."},
            "l1": {"type": "object"}, "l2": {"type": ["object", "null"]}, "scopes": {"type": "array", "items": scope},
        },
    });
    json!({
        "type": "object", "required": ["cache", "coherence"],
        "properties": {"cache": cache, "coherence": {"type": "object", "required": ["bus", "log"]}},
    })
}

fn explanation() -> Value {
    let guard = json!({
        "type": "object", "required": ["guard", "generation", "captured", "last_move"],
        "properties": {
            "guard": {"type": "string", "description": "r: a record, t: a term, c: a collection."},
            "generation": {"type": ["integer", "null"]}, "captured": {"type": ["integer", "null"]},
            "last_move": {"type": ["object", "null"], "description": "What killed what was stored before, and how long ago."},
        },
    });
    json!({
        "type": "object", "required": ["path", "kind", "would", "key", "entry", "guards"],
        "properties": {
            "path": {"type": "string"}, "kind": {"type": "string", "enum": ["record", "list", "stats", "view"]},
            "would": {"type": "string", "enum": ["hit_l1", "hit_l2", "stale", "miss", "bypass"]},
            "key": {"type": "string"}, "entry": {"type": ["object", "null"]}, "guards": {"type": "array", "items": guard},
        },
    })
}

fn invalidation() -> Value {
    let object = |names: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!({"type": "string", "minLength": 1}))).collect();
        json!({"type": "object", "required": names, "properties": properties, "additionalProperties": false})
    };
    let mut term = object(&["collection", "field", "value"]);
    if let Some(value) = term.pointer_mut("/properties/value") {
        *value = json!({"type": ["string", "number", "boolean"]});
    }
    json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "properties": {
            "record": object(&["collection", "id"]), "records": object(&["collection", "pattern"]), "term": term,
            "collection": {"type": "string"}, "all": {"const": true},
        },
    })
}
