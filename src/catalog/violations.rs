//! The rules of one collection's documents, compiled once, and what a document breaks of them. What must stay
//! outside: rules that need the database, such as references.

use std::fmt::Write as _;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use crate::error::Violation;

/// How many violations of one document are told. A bad array of 100,000 elements is bad enough after this many.
const MAX_VIOLATIONS: usize = 100;

/// How deep a document may be nested; the document itself is the first level.
const MAX_DEPTH: usize = 64;

/// How much of a client's value, and of a list of what is allowed, a message repeats, in characters.
const MAX_SHOWN_VALUE: usize = 60;
const MAX_SHOWN_LIST: usize = 600;

/// What `document` breaks of `schema`, which `validator` was made from, and of what every database can store.
pub(super) fn violations(validator: &Validator, schema: &Value, document: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut pointer = String::new();
    check_storable(document, &mut pointer, 1, &mut found);
    if found.iter().any(|violation| violation.code == "too_deep") || validator.is_valid(document) {
        return found;
    }
    for error in validator.iter_errors(document).take(MAX_VIOLATIONS) {
        describe(&error, schema, &mut found);
    }
    found.truncate(MAX_VIOLATIONS);
    found
}

/// PostgreSQL cannot store NUL in text, and whoever reads deep nesting recurses as deep.
fn check_storable(value: &Value, pointer: &mut String, depth: usize, found: &mut Vec<Violation>) {
    if found.len() >= MAX_VIOLATIONS {
        return;
    }
    let parent = pointer.len();
    match value {
        Value::String(text) if text.contains('\0') => {
            found.push(Violation::new(pointer.as_str(), "nul_character", "Text has no NUL character (\\u0000)."));
        }
        Value::Array(_) | Value::Object(_) if depth > MAX_DEPTH => {
            let detail = format!("A document is nested at most {MAX_DEPTH} levels deep.");
            found.push(Violation::new(pointer.as_str(), "too_deep", detail));
        }
        Value::Array(elements) => {
            for (position, element) in elements.iter().enumerate() {
                let _ = write!(pointer, "/{position}");
                check_storable(element, pointer, depth + 1, found);
                pointer.truncate(parent);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                pointer.push('/');
                pointer.push_str(&escape(name));
                if name.contains('\0') {
                    found.push(Violation::new(pointer.as_str(), "nul_character", "A name has no NUL character (\\u0000)."));
                }
                check_storable(member, pointer, depth + 1, found);
                pointer.truncate(parent);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// One error of the validator as violations: a missing or unexpected property is pointed at itself, not at its parent.
fn describe(error: &ValidationError<'_>, schema: &Value, found: &mut Vec<Violation>) {
    let pointer = error.instance_path().as_str();
    let member = |name: &str| format!("{pointer}/{}", escape(name));
    let code = snake_case(error.kind().keyword());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            found.push(Violation::new(member(name), code, "This property is required."));
        }
        ValidationErrorKind::AdditionalProperties { unexpected } | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let detail = match properties_beside(error, schema) {
                Some(allowed) => format!("There is no such property; allowed are {}.", shortened(&allowed, MAX_SHOWN_LIST)),
                None => "There is no such property.".to_owned(),
            };
            let names = unexpected.iter().take(MAX_VIOLATIONS);
            found.extend(names.map(|name| Violation::new(member(name), code.as_str(), detail.as_str())));
        }
        ValidationErrorKind::PropertyNames { error: inner } => {
            let name = error_text(inner, &shown(inner.instance()));
            found.push(Violation::new(member(inner.instance().as_str().unwrap_or_default()), code, format!("The name {name}.")));
        }
        ValidationErrorKind::FalseSchema => found.push(Violation::new(pointer, code, "No value is allowed here.")),
        _ => found.push(Violation::new(pointer, code, format!("{}.", error_text(error, &shown(error.instance()))))),
    }
}

/// What is wrong and what is allowed, without the whole of the client's value.
fn error_text(error: &ValidationError<'_>, value: &str) -> String {
    let text = match error.kind() {
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> = options.as_array().into_iter().flatten().map(Value::to_string).collect();
            format!("{value} is not allowed; allowed are {}", options.join(", "))
        }
        ValidationErrorKind::Constant { expected_value } => format!("{value} is not allowed; allowed is {expected_value}"),
        ValidationErrorKind::Pattern { pattern } => format!("{value} does not match the pattern {pattern}"),
        ValidationErrorKind::Format { format } => format!("{value} is not of the format {format}"),
        _ => error.masked_with(value).to_string(),
    };
    shortened(&text, MAX_SHOWN_LIST + MAX_SHOWN_VALUE)
}

/// The properties that the schema around the keyword of `error` declares.
fn properties_beside(error: &ValidationError<'_>, schema: &Value) -> Option<String> {
    let (parent, _keyword) = error.schema_path().as_str().rsplit_once('/')?;
    let properties = schema.pointer(parent)?.get("properties")?.as_object()?;
    Some(properties.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// A client's value, short enough for a message.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::String(text) => Value::from(shortened(text, MAX_SHOWN_VALUE)).to_string(),
        Value::Null | Value::Bool(_) | Value::Number(_) => shortened(&value.to_string(), MAX_SHOWN_VALUE),
    }
}

fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// RFC 6901, section 3.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// `additionalProperties` as `additional_properties`.
fn snake_case(keyword: &str) -> String {
    let mut code = String::with_capacity(keyword.len() + 2);
    for character in keyword.trim_start_matches('$').chars() {
        if character.is_ascii_uppercase() {
            code.push('_');
        }
        code.push(character.to_ascii_lowercase());
    }
    code
}
