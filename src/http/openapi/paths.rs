//! Operations: one for each route and method, named after its handler's verb and the collection.

use serde_json::{Map, Value, json};

use super::responses::{header_references, problem_references};
use super::{changes, component, component_name, parameters};
use crate::model::{AccessRule, Collection, Verb, View};

/// The headers of every answer to a read.
const READ_HEADERS: [&str; 11] = [
    "X-Request-Id",
    "ETag",
    "Cache-Control",
    "Vary",
    "Content-Encoding",
    "Age",
    "X-Cache",
    "Cache-Status",
    "Link",
    "RateLimit-Policy",
    "RateLimit",
];
/// The headers that lists have beside those.
const PAGE_HEADERS: [&str; 4] = ["X-Total-Count", "X-Page", "X-Per-Page", "X-Total-Pages"];
/// The problems of reads, of writes of one record, and of creations and batches.
const READ_PROBLEMS: [&str; 10] = ["400", "401", "403", "404", "406", "414", "429", "500", "503", "504"];
const WRITE_PROBLEMS: [&str; 15] =
    ["400", "401", "403", "404", "406", "408", "409", "412", "413", "414", "415", "422", "429", "500", "503"];

/// The paths of a collection.
pub(super) fn collection(collection: &Collection) -> Vec<(String, Value)> {
    let path = collection.path.as_str();
    let operations = Operations { collection, name: collection.name.as_str() };
    vec![
        (path.to_owned(), operations.root()),
        (format!("{path}/{{id}}"), operations.record()),
        (format!("{path}/_batch"), operations.batch()),
        (format!("{path}/_stats"), operations.stats()),
        changes::path(collection),
    ]
}

/// The path of a view.
pub(super) fn view(view: &View) -> (String, Value) {
    let name = view.name.as_str();
    let schema = component("schemas", &component_name("view", name));
    let summary = view.description.clone().unwrap_or_else(|| format!("The view {name}."));
    let read = Read {
        id: format!("view_{name}"),
        summary,
        tag: "views",
        parameters: Vec::new(),
        schema,
        page: Page::No,
        rule: view.read,
    };
    (view.path.clone(), Value::Object(read.operations()))
}

/// The paths that are not data.
pub(super) fn system() -> Vec<(String, Value)> {
    let operation = |id: &str, summary: &str, answers: Value| json!({"get": {"operationId": id, "summary": summary, "tags": ["system"], "responses": answers}});
    let content = |media: &str, schema: Value| json!({ media: {"schema": schema} });
    let answer = |description: &str, content: Value| json!({"description": description, "headers": header_references(&["X-Request-Id", "Cache-Control"]), "content": content});
    let health = || content("application/json", component("schemas", "Health"));
    let state_schema = json!({"type": "object", "properties": {"status": {"type": "string"}, "reason": {"type": "string"}}});
    let state = || content("application/json", state_schema.clone());
    let text = content("text/plain", json!({"type": "string"}));
    let object = content("application/json", json!({"type": "object"}));
    vec![
        (
            "/health".to_owned(),
            operation(
                "check_health",
                "Whether the database and Redis answer, and what the cache holds.",
                json!({"200": answer("Everything works.", health()), "503": answer("The database is not open yet, or does not answer; `cache` is there once it is open.", health())}),
            ),
        ),
        (
            "/health/live".to_owned(),
            operation("check_live", "Whether the process answers.", json!({"200": answer("It does.", state())})),
        ),
        (
            "/health/ready".to_owned(),
            operation(
                "check_ready",
                "Whether requests should be sent here.",
                json!({"200": answer("Yes.", state()), "503": answer("Starting, waiting for the database, stopping, or without database.", state())}),
            ),
        ),
        (
            "/metrics".to_owned(),
            operation("scrape_metrics", "Metrics in the Prometheus text format.", json!({"200": answer("Metrics.", text)})),
        ),
        (
            "/openapi.json".to_owned(),
            operation("describe_api", "This description.", json!({"200": answer("OpenAPI 3.1.", object)})),
        ),
    ]
}

/// Whether a read answers pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Yes,
    No,
}

/// A read, from which its GET and HEAD operations follow.
struct Read<'a> {
    id: String,
    summary: String,
    tag: &'a str,
    parameters: Vec<Value>,
    schema: Value,
    page: Page,
    rule: AccessRule,
}

impl Read<'_> {
    fn operations(self) -> Map<String, Value> {
        let mut headers = header_references(&READ_HEADERS);
        if self.page == Page::Yes {
            headers.extend(header_references(&PAGE_HEADERS));
        }
        let content = json!({"application/json": {"schema": self.schema}});
        let operation = |id: String, summary: String, content: Option<Value>| {
            let mut found = json!({"description": "Found.", "headers": headers});
            if let (Some(content), Some(members)) = (content, found.as_object_mut()) {
                members.insert("content".to_owned(), content);
            }
            let mut responses = Map::from_iter([
                ("200".to_owned(), found),
                ("304".to_owned(), json!({"description": "What the client has still holds.", "headers": headers})),
            ]);
            responses.extend(problem_references(&READ_PROBLEMS));
            let mut parameters = self.parameters.clone();
            parameters.extend(parameters::references(&[
                "IfNoneMatch",
                "CacheControl",
                "ConsistencyToken",
                "NoCompression",
                "RequestId",
            ]));
            let mut operation = Map::from_iter([
                ("operationId".to_owned(), json!(id)),
                ("summary".to_owned(), json!(summary)),
                ("tags".to_owned(), json!([self.tag])),
                ("parameters".to_owned(), Value::Array(parameters)),
                ("responses".to_owned(), Value::Object(responses)),
            ]);
            operation.extend(access(self.rule, Verb::Read));
            Value::Object(operation)
        };
        Map::from_iter([
            ("get".to_owned(), operation(self.id.clone(), self.summary.clone(), Some(content))),
            ("head".to_owned(), operation(format!("head_{}", self.id), format!("{} Headers only.", self.summary), None)),
        ])
    }
}

/// Whom an operation is for: nothing to say where that is everybody.
pub(super) fn access(rule: AccessRule, verb: Verb) -> Vec<(String, Value)> {
    let description = match (rule, verb) {
        (AccessRule::Public, _) => return Vec::new(),
        (AccessRule::Viewer, _) => "For viewers, editors and administrators.",
        (AccessRule::Editor, _) => "For editors and administrators.",
        (AccessRule::Admin, _) => "For administrators.",
        (AccessRule::Owner, Verb::Read) => {
            "For everybody known, each of whom finds their own records; those of others are not there. Administrators find all."
        }
        (AccessRule::Owner, Verb::Write) => {
            "For everybody known, each of whom writes their own records, and owns what they create. Administrators write all."
        }
    };
    vec![("description".to_owned(), json!(description)), ("security".to_owned(), json!([{"bearer": []}]))]
}

/// A write.
struct Write<'a> {
    id: String,
    summary: &'a str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(&'a str, Value)>,
}

struct Operations<'a> {
    collection: &'a Collection,
    name: &'a str,
}

impl Operations<'_> {
    fn root(&self) -> Value {
        let list = Read {
            id: format!("list_{}", self.name),
            summary: format!("Lists or searches {}.", self.name),
            tag: self.name,
            parameters: parameters::list(self.collection),
            schema: self.schema("page"),
            page: Page::Yes,
            rule: self.collection.access.read,
        };
        let create = Write {
            id: format!("create_{}", self.name),
            summary: "Creates a record.",
            parameters: Vec::new(),
            body: Some(self.json_body("document")),
            answers: vec![("201", self.written("Created.", &["Location"]))],
        };
        let mut operations = list.operations();
        operations.insert("post".to_owned(), self.write(create));
        Value::Object(operations)
    }

    fn record(&self) -> Value {
        let read = Read {
            id: format!("read_{}", self.name),
            summary: "Reads a record.".to_owned(),
            tag: self.name,
            parameters: parameters::shape(self.collection),
            schema: self.schema("shown"),
            page: Page::No,
            rule: self.collection.access.read,
        };
        let replace = Write {
            id: format!("replace_{}", self.name),
            summary: "Creates or replaces a record.",
            parameters: parameters::references(&["IfMatch", "IfAbsent"]),
            body: Some(self.json_body("replacement")),
            answers: vec![
                ("200", self.written("Replaced, or unchanged.", &[])),
                ("204", self.unshown()),
                ("201", self.written("Created.", &["Location"])),
            ],
        };
        let patch = self.schema("patch");
        let patch = Write {
            id: format!("patch_{}", self.name),
            summary: "Changes members of a record (RFC 7396).",
            parameters: parameters::references(&["IfMatch"]),
            body: Some(json!({"application/merge-patch+json": {"schema": patch}, "application/json": {"schema": patch}})),
            answers: vec![("200", self.written("Changed, or unchanged.", &[])), ("204", self.unshown())],
        };
        let delete = Write {
            id: format!("delete_{}", self.name),
            summary: "Deletes a record.",
            parameters: parameters::references(&["IfMatch"]),
            body: None,
            answers: vec![("204", json!({"description": "Deleted.", "headers": self.write_headers(&[])}))],
        };
        let mut operations = read.operations();
        operations.insert("put".to_owned(), self.write(replace));
        operations.insert("patch".to_owned(), self.write(patch));
        operations.insert("delete".to_owned(), self.write(delete));
        operations.insert("parameters".to_owned(), Value::Array(parameters::references(&["id"])));
        Value::Object(operations)
    }

    fn batch(&self) -> Value {
        let content = json!({"application/json": {"schema": component("schemas", "BatchResults")}});
        let done = json!({
            "description": "All operations are done.",
            "headers": self.write_headers(&["Preference-Applied"]),
            "content": content,
        });
        let batch = Write {
            id: format!("batch_{}", self.name),
            summary: "Runs up to 1,000 writes in one transaction, at most 16 on one record, all or nothing.",
            parameters: parameters::references(&["Prefer"]),
            body: Some(self.json_body("batch")),
            answers: vec![("200", done)],
        };
        json!({"post": self.write(batch)})
    }

    fn stats(&self) -> Value {
        let stats = Read {
            id: format!("count_{}", self.name),
            summary: "The total, and the distinct values of fields with their counts.".to_owned(),
            tag: self.name,
            parameters: parameters::stats(self.collection),
            schema: component("schemas", "Statistics"),
            page: Page::No,
            rule: self.collection.access.read,
        };
        Value::Object(stats.operations())
    }

    fn schema(&self, part: &str) -> Value {
        component("schemas", &component_name(self.name, part))
    }

    fn json_body(&self, part: &str) -> Value {
        json!({"application/json": {"schema": self.schema(part)}})
    }

    fn written(&self, description: &str, headers: &[&str]) -> Value {
        let mut names = vec!["ETag"];
        names.extend(headers);
        let content = json!({"application/json": {"schema": self.schema("record")}});
        json!({"description": description, "headers": self.write_headers(&names), "content": content})
    }

    /// What a key gets that may write and not read.
    fn unshown(&self) -> Value {
        let description = "The same, to an API key whose scopes do not let it read.";
        json!({"description": description, "headers": self.write_headers(&[])})
    }

    fn write_headers(&self, names: &[&str]) -> Map<String, Value> {
        let mut headers =
            header_references(&["X-Request-Id", "Consistency-Token", "Idempotency-Replayed", "RateLimit-Policy", "RateLimit"]);
        headers.extend(header_references(names));
        headers
    }

    fn write(&self, write: Write<'_>) -> Value {
        let mut responses: Map<String, Value> =
            write.answers.into_iter().map(|(status, answer)| (status.to_owned(), answer)).collect();
        responses.extend(problem_references(&WRITE_PROBLEMS));
        let mut parameters = write.parameters;
        parameters.extend(parameters::references(&["IdempotencyKey", "RequestId"]));
        let mut operation = Map::from_iter([
            ("operationId".to_owned(), json!(write.id)),
            ("summary".to_owned(), json!(write.summary)),
            ("tags".to_owned(), json!([self.name])),
            ("parameters".to_owned(), Value::Array(parameters)),
        ]);
        if let Some(content) = write.body {
            operation.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
        }
        operation.insert("responses".to_owned(), Value::Object(responses));
        operation.extend(access(self.collection.access.write, Verb::Write));
        Value::Object(operation)
    }
}
