//! What documents break: the pointers, the codes and the words.

use serde_json::{Value, json};

use super::*;

fn found(schema: &str, document: &Value) -> Vec<(String, String, String)> {
    let catalog = Files::new(&[("c.toml", &format!("name = \"c\"\n{schema}"))]).load().unwrap();
    let violations = catalog.get(&name("c")).unwrap().violations(document);
    violations.into_iter().map(|violation| (violation.pointer, violation.code, violation.detail)).collect()
}

const SCHEMA: &str = r#"
[schema]
required = ["name"]
additionalProperties = false
[schema.properties]
name = { type = "string", minLength = 2 }
tier = { type = "integer", minimum = 1, maximum = 4 }
kind = { enum = ["a", "b"] }
code = { type = "string", pattern = "^[A-Z]+$" }
when = { type = "string", format = "date-time" }
tags = { type = "array", items = { type = "string" }, uniqueItems = true }
meta = { type = "object", additionalProperties = false, properties = { "a/b" = { type = ["string", "null"] } } }
names = { type = "object", propertyNames = { maxLength = 3 } }
"#;

#[test]
fn each_violation_points_at_what_is_wrong_and_says_what_is_allowed() {
    for (document, pointer, code, detail) in [
        (json!({}), "/name", "required", "This property is required."),
        (json!({"name": 5}), "/name", "type", "5 is not of type \"string\"."),
        (json!({"name": "x"}), "/name", "min_length", "\"x\" is shorter than 2 characters."),
        (json!({"name": "xx", "tier": 9}), "/tier", "maximum", "9 is greater than the maximum of 4."),
        (json!({"name": "xx", "kind": "c"}), "/kind", "enum", "\"c\" is not allowed; allowed are \"a\", \"b\"."),
        (json!({"name": "xx", "code": "x"}), "/code", "pattern", "\"x\" does not match the pattern ^[A-Z]+$."),
        (json!({"name": "xx", "when": "now"}), "/when", "format", "\"now\" is not of the format date-time."),
        (json!({"name": "xx", "tags": ["a", 5]}), "/tags/1", "type", "5 is not of type \"string\"."),
        (json!({"name": "xx", "tags": ["a", "a"]}), "/tags", "unique_items", "an array has non-unique elements."),
        (
            json!({"name": "xx", "a~/b": 1}),
            "/a~0~1b",
            "additional_properties",
            "There is no such property; allowed are name, tier, kind, code, when, tags, meta, names.",
        ),
        (json!({"name": "xx", "meta": {"a/b": 5}}), "/meta/a~1b", "type", "5 is not of types \"null\", \"string\"."),
        (
            json!({"name": "xx", "meta": {"c": 5}}),
            "/meta/c",
            "additional_properties",
            "There is no such property; allowed are a/b.",
        ),
        (
            json!({"name": "xx", "names": {"long": 5}}),
            "/names/long",
            "property_names",
            "The name \"long\" is longer than 3 characters.",
        ),
        (json!([]), "", "type", "an array is not of type \"object\"."),
        (json!({"name": "x\0"}), "/name", "nul_character", "Text has no NUL character (\\u0000)."),
        (json!({"name": "xx", "tags": ["\0"]}), "/tags/0", "nul_character", "Text has no NUL character (\\u0000)."),
    ] {
        assert_eq!(found(SCHEMA, &document), [(pointer.to_owned(), code.to_owned(), detail.to_owned())], "{document}");
    }
}

#[test]
fn every_violation_is_told_up_to_a_hundred() {
    let found_three = found(SCHEMA, &json!({"tier": "x", "colour": 1, "size": 2}));
    let mut pointers: Vec<_> = found_three.iter().map(|(pointer, _, _)| pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/colour", "/name", "/size", "/tier"]);
    let bad: Vec<_> = (0..100_000).collect();
    assert_eq!(found(SCHEMA, &json!({"name": "xx", "tags": bad})).len(), 100);
    let unknown: serde_json::Map<_, _> = (0..1000).map(|number| (format!("p{number}"), json!(1))).collect();
    assert_eq!(found(SCHEMA, &Value::Object(unknown)).len(), 100);
}

#[test]
fn long_values_are_shortened_in_messages() {
    let found = found(SCHEMA, &json!({"name": "xx", "kind": "é".repeat(100_000), "tier": "1".repeat(5_000)}));
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|(_, _, detail)| detail.chars().count() < 120 && detail.contains('…')), "{found:?}");
}

#[test]
fn names_with_nul_and_deep_nesting_are_refused() {
    let open = "[schema.properties]\nx = {}";
    assert_eq!(found(open, &json!({"a\0": 1}))[0].1, "nul_character");
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "x": inner }));
    assert_eq!(found(open, &nested(64)), []);
    let deep = found(open, &nested(65));
    assert_eq!((deep.len(), deep[0].1.as_str(), deep[0].0.as_str()), (1, "too_deep", "/x".repeat(64).as_str()));
}

#[test]
fn null_is_a_type_like_others() {
    let schema = "[schema.properties]\nx = { type = [\"string\", \"null\"] }";
    assert_eq!(found(schema, &json!({"x": null})), []);
    assert_eq!(found(schema, &json!({"x": 1})).len(), 1);
}
