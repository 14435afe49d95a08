//! Schemas: from TOML to JSON Schema 2020-12, every mistake found, compiled once.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::section::{Report, Section};
use crate::model::ServerFields;

/// The keywords of JSON Schema 2020-12. A validator ignores what it does not know, and with it a misspelt rule.
const KEYWORDS: &[&str] = &[
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$comment",
    "$defs",
    "prefixItems",
    "items",
    "contains",
    "additionalProperties",
    "properties",
    "patternProperties",
    "dependentSchemas",
    "propertyNames",
    "if",
    "then",
    "else",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "unevaluatedItems",
    "unevaluatedProperties",
    "type",
    "const",
    "enum",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
];

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Reads `[schema]`. `None` when there are no properties to go on with; a schema with mistakes is still returned, so
/// that what refers to its properties can be checked too.
pub(super) fn read(section: &Section<'_>, report: &mut Report) -> Option<(Value, Option<Validator>)> {
    if section.get("schema").is_none() {
        report.add("schema", "this table is missing; it is a JSON Schema (2020-12) with the properties of a record");
    }
    let table = section.section(report, "schema")?;
    let before = report.len();
    let members = table.entries().map(|(key, value)| (key.to_owned(), to_json(value, &table.dotted(key), report)));
    let mut schema: Map<String, Value> = members.collect();
    match schema.get("type") {
        None => {
            schema.insert("type".to_owned(), json!("object"));
        }
        Some(kind) if kind == "object" => {}
        Some(_) => report.add("schema.type", "a record is an object: write \"object\" or leave this key out"),
    }
    let schema = Value::Object(schema);
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|properties| !properties.is_empty()) else {
        report.add("schema.properties", "this table is missing or empty; it declares the properties of a record");
        return None;
    };
    check_properties(&schema, properties, report);
    for error in jsonschema::draft202012::meta::validator().iter_errors(&schema) {
        report.add(dotted(error.instance_path().as_str()), format!("this is not JSON Schema 2020-12: {error}"));
    }
    check_keywords(&schema, "schema", report);
    if report.len() > before {
        return Some((schema, None));
    }
    match options().build(&schema) {
        Ok(validator) => Some((schema, Some(validator))),
        Err(error) => {
            report.add(dotted(error.instance_path().as_str()), format!("this schema cannot be used: {error}"));
            Some((schema, None))
        }
    }
}

/// No network, no files, no regular expression that can run away, and formats that are checked: an unknown one is a
/// mistake, not a comment.
fn options<'i>() -> jsonschema::ValidationOptions<'i> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
}

fn check_properties(schema: &Value, properties: &Map<String, Value>, report: &mut Report) {
    let own = ServerFields::ALL.join(", ");
    for name in properties.keys() {
        let key = format!("schema.properties.{name}");
        if ServerFields::ALL.contains(&name.as_str()) {
            report.add(key, format!("{own} are the server's: every record has them, and the schema leaves them out"));
        } else if name.is_empty() || name.starts_with('_') {
            report.add(key, "names that are empty or begin with _ are reserved");
        } else if name.contains('\0') {
            report.add(key, "a name has no NUL character");
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| ServerFields::ALL.contains(name)) {
        report.add("schema.required", format!("{name} is the server's: {own} are in every record and cannot be required"));
    }
}

/// Walks the places that hold schemas, and only those: a property may be named like a keyword.
fn check_keywords(schema: &Value, key: &str, report: &mut Report) {
    let Some(members) = schema.as_object() else { return };
    for (keyword, value) in members {
        let place = format!("{key}.{keyword}");
        match (keyword.as_str(), value) {
            ("$ref" | "$dynamicRef", Value::String(target)) if !target.starts_with('#') => {
                report
                    .add(place, format!("{target:?} is outside of this schema; only references that begin with # are followed"));
            }
            ("$schema", Value::String(dialect)) if dialect.trim_end_matches('#') != DIALECT => {
                report.add(place, format!("only {DIALECT} is understood"));
            }
            ("pattern", Value::String(pattern)) => check_pattern(pattern, &place, report),
            ("properties" | "$defs" | "patternProperties" | "dependentSchemas", Value::Object(named)) => {
                for (name, schema) in named {
                    let place = format!("{place}.{name}");
                    if keyword == "patternProperties" {
                        check_pattern(name, &place, report);
                    }
                    check_keywords(schema, &place, report);
                }
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(schemas)) => {
                for (position, schema) in schemas.iter().enumerate() {
                    check_keywords(schema, &format!("{place}[{position}]"), report);
                }
            }
            ("const" | "enum" | "default" | "examples" | "dependentRequired", _) => {}
            (known, nested) if KEYWORDS.contains(&known) => check_keywords(nested, &place, report),
            (unknown, _) if unknown.starts_with("x-") => {}
            _ => report.add(place, "this is no keyword of JSON Schema 2020-12; a remark of your own begins with x-"),
        }
    }
}

fn check_pattern(pattern: &str, key: &str, report: &mut Report) {
    if options().build(&json!({ "pattern": pattern })).is_err() {
        let allowed = "without look-around and back-references, which can take for ever";
        report.add(key, format!("{pattern:?} is not a regular expression {allowed}"));
    }
}

/// `/properties/name/type` as `schema.properties.name.type`.
fn dotted(pointer: &str) -> String {
    let segments = pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"));
    std::iter::once("schema".to_owned()).chain(segments).collect::<Vec<_>>().join(".")
}

/// TOML's dates become strings; its infinities and NaN are not JSON.
pub(super) fn to_json(value: &toml::Value, key: &str, report: &mut Report) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number).map(Value::Number).unwrap_or_else(|| {
            report.add(key, format!("{number} is not a number in JSON"));
            // Of the right type, so that this one mistake makes no other.
            Value::from(0)
        }),
        toml::Value::Boolean(flag) => Value::from(*flag),
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(elements) => {
            let elements = elements.iter().enumerate();
            elements.map(|(position, element)| to_json(element, &format!("{key}[{position}]"), report)).collect()
        }
        toml::Value::Table(table) => {
            table.iter().map(|(name, value)| (name.clone(), to_json(value, &format!("{key}.{name}"), report))).collect()
        }
    }
}
