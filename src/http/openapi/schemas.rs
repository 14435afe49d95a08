//! Schemas: the documents of each collection as clients send them and as the server answers them, pages, batches,
//! statistics and problems.

use serde_json::{Map, Value, json};

use super::access::{describe_access, require};
use super::{component, component_name, examples};
use crate::model::{Collection, IdRule, ServerFields, View};
use crate::records::MAX_OPERATIONS;

/// The schemas of one collection.
pub(super) fn collection(collection: &Collection) -> Map<String, Value> {
    let name = |part| component_name(collection.name.as_str(), part);
    Map::from_iter([
        (name("document"), document(collection)),
        (name("replacement"), replacement(collection)),
        (name("record"), record(collection)),
        (name("shown"), shown(collection)),
        (name("patch"), patch(collection)),
        (name("page"), page(collection)),
        (name("batch"), batch(collection)),
    ])
}

/// The schemas that do not depend on what is declared.
pub(super) fn common() -> Map<String, Value> {
    let schemas = [
        ("Pagination", pagination()),
        ("Statistics", statistics()),
        ("BatchResults", batch_results()),
        ("Changes", changes()),
        ("Problem", problem()),
        ("Health", health()),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// The schema of a view.
pub(super) fn view(view: &View) -> (String, Value) {
    let parts: Map<String, Value> =
        view.parts.iter().map(|part| (part.key.clone(), component("schemas", "Statistics"))).collect();
    let keys: Vec<&str> = view.parts.iter().map(|part| part.key.as_str()).collect();
    let data = json!({"type": "object", "required": keys, "properties": parts});
    let schema = json!({"type": "object", "required": ["data"], "properties": {"data": data}});
    (component_name("view", view.name.as_str()), schema)
}

fn pagination() -> Value {
    json!({
        "type": "object",
        "required": ["limit", "hasNext", "hasPrev"],
        "properties": {
            "page": {"type": "integer", "description": "Absent with a cursor."},
            "limit": {"type": "integer"},
            "total": {"type": "integer", "description": "How many records were found; absent with count=none."},
            "pages": {"type": "integer", "description": "Absent with count=none or a cursor."},
            "hasNext": {"type": "boolean"},
            "hasPrev": {"type": "boolean"},
            "nextCursor": {"type": ["string", "null"], "description": "Only with a cursor; null on the last page."},
        },
        "examples": [{"page": 1, "limit": 50, "total": 538, "pages": 11, "hasNext": true, "hasPrev": false}],
    })
}

fn statistics() -> Value {
    json!({
        "type": "object",
        "required": ["total", "by"],
        "properties": {
            "total": {"type": "integer", "description": "How many records there are."},
            "by": {"type": "object", "description": "The counted fields.", "additionalProperties": {
                "type": "object",
                "required": ["distinct", "values"],
                "properties": {
                    "distinct": {"type": "integer", "description": "How many distinct values there are."},
                    "values": {"type": "array", "description": "The most frequent first.", "items": {
                        "type": "object",
                        "required": ["value", "count"],
                        "properties": {
                            "value": {"type": ["string", "number", "boolean", "null"]},
                            "count": {"type": "integer"},
                        },
                    }},
                },
            }},
        },
        "examples": [{"total": 40, "by": {"category": {"distinct": 2, "values": [
            {"value": "operational", "count": 31}, {"value": "strategic", "count": 9},
        ]}}}],
    })
}

fn health() -> Value {
    json!({
        "type": "object",
        "required": ["status", "database", "redis", "version"],
        "properties": {
            "status": {"type": "string", "enum": ["healthy", "unhealthy"]},
            "database": {"type": "object", "properties": {
                "status": {"type": "string", "enum": ["up", "down"]},
                "reason": {"type": "string"},
            }},
            "redis": {"type": "object", "required": ["status"], "properties": {
                "status": {"type": "string", "enum": ["off", "up", "down"], "description": "`down` leaves `status` as it is: everything is answered without Redis."},
                "version": {"type": "string"},
                "reason": {"type": "string", "description": "Why it is down, or what it refuses although it is up."},
            }},
            "cache": {"type": "object", "properties": {
                "enabled": {"type": "boolean"},
                "entries": {"type": "integer"},
                "size_bytes": {"type": "integer"},
                "capacity_bytes": {"type": "integer"},
            }},
            "version": {"type": "string"},
        },
    })
}

fn changes() -> Value {
    let document = |what: &str| json!({"type": ["object", "null"], "description": what});
    let change = json!({
        "type": "object",
        "required": ["position", "id", "operation", "version", "actor", "origin", "at", "before", "after"],
        "properties": {
            "position": {"type": "string", "description": "Its place in the log, as `Consistency-Token` has it."},
            "id": {"type": "string", "description": "The record."},
            "operation": {"type": "string", "enum": ["create", "update", "delete"]},
            "version": {"type": "integer", "description": "The record's version afterwards; for a deletion, the one that was deleted."},
            "actor": {"type": "string", "description": "Who did it: `user:ID`, `key:PREFIX`, `anonymous`, `operator`, or `postgres:ROLE`."},
            "origin": {"type": ["string", "null"], "description": "The client's address; null if it did not come over a network."},
            "at": {"type": "string", "format": "date-time"},
            "before": document("The document before; null for a creation."),
            "after": document("The document after; null for a deletion."),
            "redacted": {"type": "array", "items": {"type": "string"}, "description": "Members that were left out of the documents."},
        },
    });
    let pagination = json!({
        "type": "object",
        "required": ["limit", "hasNext"],
        "properties": {
            "limit": {"type": "integer"},
            "hasNext": {"type": "boolean"},
            "nextCursor": {"type": "string", "description": "Absent on the last page."},
        },
    });
    json!({
        "type": "object",
        "required": ["data", "pagination"],
        "properties": {"data": {"type": "array", "items": change, "description": "The newest first."}, "pagination": pagination},
        "examples": [{"data": [{
            "position": "1042-1042", "id": "NET-REVENUE", "operation": "update", "version": 2, "actor": "key:k3x9", "origin": "192.0.2.7",
            "at": "2026-01-31T09:30:00.000000Z", "before": {"tier": 1}, "after": {"tier": 2}, "redacted": ["owner"],
        }], "pagination": {"limit": 50, "hasNext": false}}],
    })
}

fn batch_results() -> Value {
    json!({
        "type": "object",
        "required": ["results"],
        "properties": {"results": {"type": "array", "description": "One per operation, in their order.", "items": {
            "type": "object",
            "required": ["status", "id"],
            "properties": {
                "status": {"type": "string", "enum": ["created", "updated", "unchanged", "deleted"]},
                "id": {"type": "string"},
                "etag": {"type": "string"},
                "data": {"type": "object", "description": "The document as stored, if `Prefer` asks for it."},
            },
        }}},
        "examples": [{"results": [{"status": "created", "id": "a", "etag": "\"5d41402abc4b2a76\""}]}],
    })
}

fn problem() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "`urn:terrace:problem:` and the code."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": text("What is wrong with this request, for people."),
            "code": text("A stable name of the kind of failure, for programs."),
            "request_id": text("The server's log has this request under it."),
            "errors": {"type": "array", "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "format": "json-pointer", "description": "Where in the body (RFC 6901)."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            }},
            "parameter": text("The query parameter at fault."),
            "allowed": {"type": "array", "items": {"type": "string"}, "description": "What could be used instead."},
            "current_etag": text("After a 412: the entity tag of the stored record."),
        },
    })
}

/// What clients send: the declared schema. Whose a record is may be left out.
fn document(collection: &Collection) -> Value {
    let mut schema = declared(collection);
    let Some(members) = schema.as_object_mut() else { return schema };
    if let Some(owner) = &collection.access.owner_field {
        require(members, |name| name != owner);
    }
    if let Some(example) = members.get_mut("examples").and_then(|examples| examples.get_mut(0)).and_then(Value::as_object_mut) {
        // An example for all: without what only some may set.
        let access = &collection.access;
        let locked: Vec<&str> = access.locked_for(None).chain(access.owner_field.as_deref()).collect();
        example.retain(|name, _| !locked.contains(&name.as_str()));
    }
    schema
}

/// The declared schema, with its internal references moved to where it now is.
fn declared(collection: &Collection) -> Value {
    let mut schema = collection.schema.clone();
    if let Some(members) = schema.as_object_mut() {
        members.shift_remove("$schema");
        members.shift_remove("$id");
        members.entry("type").or_insert_with(|| json!("object"));
        if let Some(description) = &collection.description {
            members.entry("description").or_insert_with(|| json!(description));
        }
        describe_access(collection, members);
    }
    move_references(&mut schema, &component_name(collection.name.as_str(), "document"));
    if let (Some(example), Some(members)) = (examples::document(collection), schema.as_object_mut()) {
        members.insert("examples".to_owned(), json!([example]));
    }
    schema
}

/// A document whose id is said beside it, in the path or in the operation of a batch, and so may be left out.
fn replacement(collection: &Collection) -> Value {
    let mut schema = document(collection);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name.as_str() != Some(collection.id_field()));
    }
    schema
}

fn move_references(schema: &mut Value, component: &str) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(target) if name == "$ref" && target.starts_with('#') => {
                        *target = format!("#/components/schemas/{component}{}", target.trim_start_matches('#'));
                    }
                    other => move_references(other, component),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| move_references(element, component)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A record as the server answers it: the document with the server's own members, and what a request can add.
fn record(collection: &Collection) -> Value {
    let mut schema = declared(collection);
    let Some(members) = schema.as_object_mut() else { return schema };
    members.shift_remove("$defs");
    // What is hidden from some is not in their answers.
    require(members, |name| !collection.access.hidden_from(None).any(|hidden| hidden == name));
    let mut required = strings(members.get("required"));
    let mut properties = members.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, property) in server_members(collection) {
        if !required.contains(&name) {
            required.push(name.clone());
        }
        properties.insert(name, property);
    }
    properties.extend(added_members(collection));
    members.insert("properties".to_owned(), Value::Object(properties));
    members.insert("required".to_owned(), json!(required));
    match examples::record(collection) {
        Some(example) => members.insert("examples".to_owned(), json!([example])),
        None => members.shift_remove("examples"),
    };
    schema
}

/// What a read shows of a record: all of it, or the members that `fields` names.
fn shown(collection: &Collection) -> Value {
    let whole = component("schemas", &component_name(collection.name.as_str(), "record"));
    let members = record(collection).get("properties").cloned().unwrap_or_default();
    let some = json!({
        "type": "object",
        "description": "Some members of a record: those that `fields` names.",
        "properties": members,
    });
    json!({"anyOf": [whole, some]})
}

fn server_members(collection: &Collection) -> Vec<(String, Value)> {
    let time = |what: &str| json!({"type": "string", "format": "date-time", "readOnly": true, "description": what});
    let version = json!({"type": "integer", "minimum": 1, "readOnly": true, "description": "Counts the writes, from 1."});
    let mut members = Vec::new();
    if collection.id == IdRule::Generated {
        let id = json!({"type": "string", "readOnly": true, "description": "A UUIDv7, or the id it was put under."});
        members.push((collection.id_field().to_owned(), id));
    }
    members.push((ServerFields::VERSION.to_owned(), version));
    members.push((ServerFields::CREATED_AT.to_owned(), time("When the record was created.")));
    members.push((ServerFields::UPDATED_AT.to_owned(), time("When the record was last written.")));
    members
}

fn added_members(collection: &Collection) -> Vec<(String, Value)> {
    let mut members = Vec::new();
    if !collection.references.is_empty() {
        let embedded = |(field, target): (&String, &crate::model::CollectionName)| {
            let record = component("schemas", &component_name(target.as_str(), "record"));
            (field.clone(), json!({"anyOf": [record, {"type": "null"}]}))
        };
        let properties: Map<String, Value> = collection.references.iter().map(embedded).collect();
        members.push(("_include".to_owned(), json!({"type": "object", "readOnly": true, "properties": properties})));
    }
    if !collection.search.is_empty() {
        let snippets = json!({"type": "object", "readOnly": true, "additionalProperties": {"type": "string"}});
        members.push(("_highlight".to_owned(), snippets));
    }
    members
}

/// A merge patch: any member, and null to remove it.
fn patch(collection: &Collection) -> Value {
    let document = document(collection);
    let nullable = |(name, schema): (&String, &Value)| (name.clone(), json!({"anyOf": [schema, {"type": "null"}]}));
    let properties = document.get("properties").and_then(Value::as_object);
    let properties: Map<String, Value> = properties.into_iter().flatten().map(nullable).collect();
    json!({
        "type": "object",
        "description": "RFC 7396: members replace those of the record, null removes them; the result must be a valid document.",
        "properties": properties,
    })
}

fn page(collection: &Collection) -> Value {
    let shown = component("schemas", &component_name(collection.name.as_str(), "shown"));
    json!({
        "type": "object",
        "required": ["data", "pagination"],
        "properties": {
            "data": {"type": "array", "items": shown},
            "pagination": component("schemas", "Pagination"),
        },
    })
}

fn batch(collection: &Collection) -> Value {
    let part = |part| component("schemas", &component_name(collection.name.as_str(), part));
    let operation = |operations: Value, required: Value, data: Option<Value>| {
        let mut properties = Map::from_iter([
            ("op".to_owned(), operations),
            ("id".to_owned(), json!({"type": "string", "minLength": 1, "maxLength": 255})),
            ("if_match".to_owned(), json!({"type": "string", "description": "The entity tag the record must have."})),
        ]);
        properties.extend(data.map(|data| ("data".to_owned(), data)));
        json!({"type": "object", "required": required, "properties": properties})
    };
    let operations = [
        operation(json!({"enum": ["create", "upsert"]}), json!(["op", "data"]), Some(part("replacement"))),
        operation(json!({"const": "update"}), json!(["op", "id", "data"]), Some(part("replacement"))),
        operation(json!({"const": "patch"}), json!(["op", "id", "data"]), Some(part("patch"))),
        operation(json!({"const": "delete"}), json!(["op", "id"]), None),
    ];
    json!({
        "type": "object",
        "required": ["operations"],
        "properties": {"operations": {
            "type": "array", "minItems": 1, "maxItems": MAX_OPERATIONS, "items": {"oneOf": operations},
        }},
    })
}

pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let elements = value.and_then(Value::as_array).into_iter().flatten();
    elements.filter_map(Value::as_str).map(str::to_owned).collect()
}
