//! Parameters: those that every collection has, and those that follow from a collection's fields and indexes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::component;
use crate::model::{Collection, DEFAULT_LIMIT, Field, MAX_LIMIT, ScalarType};

/// Names that are never a field's: a field of such a name is filtered by `filter[name][eq]=…`.
const RESERVED: [&str; 12] =
    ["page", "limit", "sort", "q", "fields", "filter", "count", "cursor", "prefix", "highlight", "include", "by"];

/// `components.parameters`.
pub(super) fn common() -> Map<String, Value> {
    let mut parameters = Map::new();
    let mut query = |name: &str, description: String, schema: Value| {
        let parameter = json!({"name": name, "in": "query", "description": description, "schema": schema});
        parameters.insert(name.to_owned(), parameter);
    };
    query("page", "The page, from 1.".to_owned(), json!({"type": "integer", "minimum": 1, "default": 1}));
    query(
        "limit",
        format!("Records on a page; more than {MAX_LIMIT} is {MAX_LIMIT}."),
        json!({"type": "integer", "minimum": 1, "default": DEFAULT_LIMIT}),
    );
    query(
        "count",
        "`none` leaves the total out, which saves counting a large result. The default is `exact` for pages and `none` \
         for cursors."
            .to_owned(),
        json!({"type": "string", "enum": ["exact", "none"]}),
    );
    query(
        "cursor",
        "Continues after the last record of a page: empty for the first page, then `pagination.nextCursor`. Takes as long \
         for the last page as for the first, and misses or repeats nothing while records are written. Excludes `page`."
            .to_owned(),
        json!({"type": "string"}),
    );
    query(
        "prefix",
        "Whether the last word of `q` also finds words that begin with it.".to_owned(),
        json!({"type": "boolean", "default": false}),
    );
    query(
        "highlight",
        "Adds `_highlight` to each record: the searched fields that matched, HTML-escaped, with `<mark>` around what was \
         found."
            .to_owned(),
        json!({"type": "boolean", "default": false}),
    );
    parameters.extend(headers());
    parameters.insert("id".to_owned(), id_parameter());
    parameters
}

fn id_parameter() -> Value {
    json!({
        "name": "id", "in": "path", "required": true,
        "description": "The id of the record, percent-encoded once.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    })
}

fn headers() -> Map<String, Value> {
    let header = |key: &str, name: &str, description: &str| {
        let parameter = json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}});
        (key.to_owned(), parameter)
    };
    let mut headers = Map::from_iter([
        header("IfNoneMatch", "If-None-Match", "Entity tags that the client has; if one still holds, the answer is a 304."),
        header("IfMatch", "If-Match", "The entity tag that the stored record must have, or `*`: it must exist."),
        header("IfAbsent", "If-None-Match", "`*`: the record must not exist yet."),
        header(
            "IdempotencyKey",
            "Idempotency-Key",
            "1 to 255 visible characters, a UUID for example. The write is done once: for 24 hours the same request with the same \
             key gets the answer of the first one that succeeded, from any instance; another request with it is a 422.",
        ),
        header("Prefer", "Prefer", "`return=representation` adds the documents as stored to the answer (RFC 7240)."),
        header(
            "CacheControl",
            "Cache-Control",
            "How fresh the answer must be (RFC 9111, 5.2.1): `no-cache`, `no-store`, `max-age`, `min-fresh`, `max-stale`, \
             `only-if-cached`.",
        ),
        header(
            "ConsistencyToken",
            "Consistency-Token",
            "As a write answered it: the answer shows that write, whatever `max_lag` and `max-stale` would allow.",
        ),
        header("LastEventId", "Last-Event-ID", "With `?live`: the id of the last event that the client has."),
        header("NoCompression", "X-No-Compression", "With any value: the body is sent without a content coding."),
        header("RequestId", "X-Request-Id", "The id to log the request under: 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`."),
    ]);
    if let Some(Value::Object(key)) = headers.get_mut("IdempotencyKey") {
        let schema = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~][!-~]*$"});
        key.insert("schema".to_owned(), schema);
    }
    headers
}

/// References to common parameters.
pub(super) fn references(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| component("parameters", name)).collect()
}

/// The parameters of a list.
pub(super) fn list(collection: &Collection) -> Vec<Value> {
    let mut parameters = references(&["page", "limit"]);
    parameters.push(sort(collection));
    if !collection.search.is_empty() {
        parameters.push(search(collection));
        parameters.extend(references(&["prefix", "highlight"]));
    }
    parameters.extend(shape(collection));
    parameters.extend(references(&["count", "cursor"]));
    parameters.extend(filters(collection));
    parameters
}

/// The parameters of one record: which of its members, and what is embedded.
pub(super) fn shape(collection: &Collection) -> Vec<Value> {
    let id = collection.id_field();
    let mut names: Vec<&str> = collection.fields.keys().map(String::as_str).collect();
    let declared = collection.schema.get("properties").and_then(Value::as_object);
    names.extend(declared.into_iter().flat_map(Map::keys).map(String::as_str));
    names.push(id);
    names.sort_unstable();
    names.dedup();
    let mut parameters =
        vec![names_parameter("fields", &format!("Only these members of each record; `{id}` always stays."), &names)];
    if !collection.references.is_empty() {
        let names: Vec<&str> = collection.references.keys().map(String::as_str).collect();
        let description = "Embeds the records that these fields refer to, under `_include`.";
        parameters.push(names_parameter("include", description, &names));
    }
    parameters
}

/// The parameters of statistics.
pub(super) fn stats(collection: &Collection) -> Vec<Value> {
    let names: Vec<&str> = collection.term_fields().into_iter().collect();
    let by = names_parameter("by", "The indexed fields whose distinct values are counted, separated by commas.", &names);
    std::iter::once(by).chain(filters(collection)).collect()
}

fn names_parameter(name: &str, description: &str, allowed: &[&str]) -> Value {
    json!({
        "name": name, "in": "query", "description": description, "style": "form", "explode": false,
        "schema": {"type": "array", "items": {"type": "string", "enum": allowed}},
    })
}

fn sort(collection: &Collection) -> Value {
    let is_scalar = |name: &&str| collection.fields.get(*name).is_some_and(|field| !field.array);
    let allowed: Vec<&str> = collection.leading_fields().into_iter().filter(is_scalar).collect();
    let keys: Vec<Value> = allowed.iter().flat_map(|name| [json!(name), json!(format!("-{name}"))]).collect();
    let default: Vec<String> = collection
        .sort
        .iter()
        .map(|key| match key.direction {
            crate::model::Direction::Ascending => key.field.clone(),
            crate::model::Direction::Descending => format!("-{}", key.field),
        })
        .collect();
    json!({
        "name": "sort", "in": "query", "style": "form", "explode": false,
        "description": format!(
            "Indexed scalar fields, separated by commas, each with `-` before it for largest first: {}. Ties are broken by \
             the id. A search without a sort is ordered by rank.",
            allowed.join(", ")
        ),
        "schema": {"type": "array", "items": {"type": "string", "enum": keys}, "default": default},
    })
}

fn search(collection: &Collection) -> Value {
    let fields: Vec<String> =
        collection.search.iter().map(|search| format!("`{}` ({:?})", search.field, search.weight)).collect();
    json!({
        "name": "q", "in": "query",
        "description": format!(
            "Full-text search: all words, `\"a phrase\"`, `-not`, `or`. Searched, with weights: {}.", fields.join(", ")
        ),
        "schema": {"type": "string", "maxLength": 1000},
    })
}

/// The fields that can be filtered by, and what else the filter must then have.
fn filterable(collection: &Collection) -> Vec<(&str, Field, Option<String>)> {
    let leading = collection.leading_fields();
    let names: BTreeSet<&str> = leading.iter().copied().chain(collection.term_fields()).collect();
    let describe = |name: &'_ str| {
        let index = collection.indexes.iter().find(|index| index.fields.iter().any(|field| field == name))?;
        let before: Vec<&str> = index.fields.iter().map(String::as_str).take_while(|field| *field != name).collect();
        Some(format!("only together with an equality of {}", before.join(" and ")))
    };
    let entry = |name| {
        let (name, field) = collection.fields.get_key_value(name)?;
        let condition = if leading.contains(name.as_str()) { None } else { describe(name) };
        Some((name.as_str(), *field, condition))
    };
    names.into_iter().filter_map(entry).collect()
}

fn filters(collection: &Collection) -> Vec<Value> {
    let fields = filterable(collection);
    let equality = |(name, field, condition): &(&str, Field, Option<String>)| {
        let meaning =
            if field.array { format!("Records whose `{name}` has this element") } else { format!("Records with this `{name}`") };
        let condition = condition.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        let schema = scalar(field.scalar);
        let (schema, explode) = if field.array { (json!({"type": "array", "items": schema}), true) } else { (schema, false) };
        json!({
            "name": name, "in": "query", "style": "form", "explode": explode,
            "description": format!("{meaning}{condition}."), "schema": schema,
        })
    };
    let free = fields.iter().filter(|(name, ..)| !RESERVED.contains(name));
    std::iter::once(filter(&fields)).chain(free.map(equality)).collect()
}

fn filter(fields: &[(&str, Field, Option<String>)]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|(name, field, _)| ((*name).to_owned(), operators(*field))).collect();
    let example = fields.first().map_or("field", |(name, ..)| name);
    json!({
        "name": "filter", "in": "query", "style": "deepObject", "explode": true,
        "description": format!(
            "Tests of indexed fields that must all hold: `filter[{example}][in]=a,b`. The same parameter also takes a tree as \
             JSON: `filter={{\"or\": [{{\"{example}\": {{\"eq\": \"a\"}}}}, {{\"and\": […]}}]}}`."
        ),
        "schema": {"type": "object", "properties": properties, "additionalProperties": false},
    })
}

fn operators(field: Field) -> Value {
    let value = scalar(field.scalar);
    let list = json!({"type": "string", "description": "Values, separated by commas."});
    let mut operators = Map::from_iter([
        ("eq".to_owned(), value.clone()),
        ("ne".to_owned(), value.clone()),
        ("in".to_owned(), list.clone()),
        ("any".to_owned(), list.clone()),
        ("null".to_owned(), json!({"type": "boolean", "description": "Whether the field is missing or null."})),
    ]);
    if field.array {
        operators.insert("all".to_owned(), list);
    } else {
        operators.extend(["gt", "gte", "lt", "lte"].map(|name| (name.to_owned(), value.clone())));
    }
    json!({"type": "object", "properties": operators, "additionalProperties": false})
}

/// The schema of a scalar in a URL.
fn scalar(scalar: ScalarType) -> Value {
    match scalar {
        ScalarType::Text => json!({"type": "string"}),
        ScalarType::Integer => json!({"type": "integer", "format": "int64"}),
        ScalarType::Number => json!({"type": "number"}),
        ScalarType::Boolean => json!({"type": "boolean"}),
        ScalarType::Timestamp => json!({"type": "string", "format": "date-time"}),
    }
}
