//! The operations of a collection's change log.

use serde_json::{Map, Value, json};

use super::paths::access;
use super::responses::{header_references, problem_references};
use super::{component, parameters};
use crate::model::{Collection, DEFAULT_LIMIT, MAX_LIMIT, Verb};

const PROBLEMS: [&str; 10] = ["400", "401", "403", "404", "406", "410", "414", "429", "500", "503"];

const DESCRIPTION: &str = "Who changed what, from where, before and after, from the newest to the oldest. With `?live` the answer is a \
stream of server-sent events (`text/event-stream`) that does not end: an event `change` for each change from now on, whose data \
is a member of `data` here. The second number of `position` rises with each change of a record; events that come together may be \
in another order. Each has an `id`; a client that sends \
the last one as `Last-Event-ID` is told all that came after it, from any instance, and nothing twice. An event `end` says why the \
stream ends. `?live` takes `record`, `actor` and `operation` beside it. Members that `[audit] redact` names are left out and told \
under `redacted`.";

/// The path of the change log of `collection`, and its operations.
pub(super) fn path(collection: &Collection) -> (String, Value) {
    let name = collection.name.as_str();
    let headers = header_references(&["X-Request-Id", "Cache-Control"]);
    let operation = |id: String, summary: &str, content: Option<Value>| {
        let mut found = json!({"description": "Found.", "headers": headers});
        if let (Some(content), Some(members)) = (content, found.as_object_mut()) {
            members.insert("content".to_owned(), content);
        }
        let mut responses = problem_references(&PROBLEMS);
        responses.insert("200".to_owned(), found);
        let mut operation = Map::from_iter([
            ("operationId".to_owned(), json!(id)),
            ("summary".to_owned(), json!(summary)),
            ("tags".to_owned(), json!([name])),
            ("parameters".to_owned(), Value::Array(parameters_of())),
            ("responses".to_owned(), Value::Object(responses)),
        ]);
        operation.extend(access(collection.access.changes, Verb::Read));
        let whom = operation.get("description").and_then(Value::as_str).map(|whom| format!("{whom} ")).unwrap_or_default();
        operation.insert("description".to_owned(), json!(format!("{whom}{DESCRIPTION}")));
        Value::Object(operation)
    };
    let content = json!({
        "application/json": {"schema": component("schemas", "Changes")},
        "text/event-stream": {"schema": {"type": "string"}},
    });
    let operations = json!({
        "get": operation(format!("list_changes_{name}"), "Lists or follows what was changed.", Some(content)),
        "head": operation(format!("head_list_changes_{name}"), "Lists what was changed. Headers only.", None),
    });
    (format!("{}/_changes", collection.path), operations)
}

fn parameters_of() -> Vec<Value> {
    let query = |name: &str, description: String, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    let time = || json!({"type": "string", "format": "date-time"});
    let mut all = vec![
        query("record", "Changes of the record with this id.".to_owned(), json!({"type": "string"})),
        query("actor", "Changes by this actor, for example `user:ID`.".to_owned(), json!({"type": "string"})),
        query(
            "operation",
            "Changes that did this.".to_owned(),
            json!({"type": "string", "enum": ["create", "update", "delete"]}),
        ),
        query("since", "Changes from this time on.".to_owned(), time()),
        query("until", "Changes before this time.".to_owned(), time()),
        query(
            "limit",
            format!(
                "Changes on a page; more than {MAX_LIMIT} is {MAX_LIMIT}. With `operation`, or where they are large, a page may have fewer, and go on."
            ),
            json!({"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT}),
        ),
        query(
            "cursor",
            "Continues after the last change of a page: `pagination.nextCursor`.".to_owned(),
            json!({"type": "string"}),
        ),
    ];
    all.extend(parameters::references(&["LastEventId", "RequestId"]));
    all
}
