//! The description holds together, for every collection that is shipped.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use terrace::catalog::Catalog;
use terrace::config::CollectionsSettings;
use terrace::http::openapi;

use crate::support;

fn described(directory: &str) -> (Catalog, Value) {
    let root = support::root().join("config").join(directory);
    let settings =
        CollectionsSettings { dir: root.join("collections"), views_dir: root.join("views"), samples_dir: root.join("samples") };
    let catalog = Catalog::load(&settings, terrace::records::check_list).unwrap();
    let collections: Vec<_> = catalog.collections().iter().map(|declared| Arc::clone(&declared.collection)).collect();
    let document = openapi::document(&collections, catalog.views());
    (catalog, document)
}

const SHIPPED: [&str; 5] =
    ["", "examples/projects-issues", "examples/workflows-templates", "examples/regions-simulations", "examples/tasks"];

fn visit<'a>(value: &'a Value, see: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            see(name, member);
            visit(member, see);
        }),
        Value::Array(elements) => elements.iter().for_each(|element| visit(element, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_resolves() {
    for directory in SHIPPED {
        let (_, document) = described(directory);
        let mut count = 0;
        visit(&document, &mut |name, value| {
            if let (Some(target), "$ref") = (value.as_str(), name) {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{target}");
                count += 1;
            }
        });
        assert!(count > 100, "{count}");
    }
}

#[test]
fn operation_ids_are_unique_and_each_operation_can_fail_only_in_described_ways() {
    for directory in SHIPPED {
        let (_, document) = described(directory);
        let mut ids = HashSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id), "{id}");
                assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path}");
                let is_data = operation["responses"].get("400").is_some();
                assert_eq!(operation["responses"].get("429").is_some(), is_data, "{method} {path}: limits.burst");
                let mut names = HashSet::new();
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let parameter = match parameter["$ref"].as_str() {
                        Some(target) => document.pointer(target.trim_start_matches('#')).unwrap(),
                        None => parameter,
                    };
                    let key = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
                    assert!(names.insert(key), "{method} {path} {key:?}");
                }
            }
        }
    }
}

#[test]
fn every_collection_and_view_is_described() {
    for directory in SHIPPED {
        let (catalog, document) = described(directory);
        let methods = |path: &str| {
            let members = document["paths"][path].as_object().unwrap_or_else(|| panic!("{path}"));
            members.keys().filter(|name| *name != "parameters").cloned().collect::<Vec<_>>()
        };
        assert!(!catalog.collections().is_empty());
        for declared in catalog.collections() {
            let path = &declared.collection.path;
            assert_eq!(methods(path), ["get", "head", "post"]);
            assert_eq!(methods(&format!("{path}/{{id}}")), ["get", "head", "put", "patch", "delete"]);
            assert_eq!(methods(&format!("{path}/_batch")), ["post"]);
            assert_eq!(methods(&format!("{path}/_stats")), ["get", "head"]);
        }
        for view in catalog.views() {
            assert_eq!(methods(&view.path), ["get", "head"]);
        }
    }
}

#[test]
fn every_shipped_collection_has_a_valid_example() {
    for directory in SHIPPED {
        let (catalog, document) = described(directory);
        for declared in catalog.collections() {
            let name = declared.collection.name.as_str();
            let schema = &document["components"]["schemas"][format!("{name}.document")];
            let example = &schema["examples"][0];
            assert!(example.is_object(), "{name}");
            assert!(declared.violations(example).is_empty(), "{name}: {example}");
            let record = &document["components"]["schemas"][format!("{name}.record")]["examples"][0];
            assert_eq!(record["version"], 1, "{name}");
            assert!(record[declared.collection.id_field()].is_string(), "{name}");
        }
    }
}

#[test]
fn filters_and_sorts_name_what_is_allowed() {
    let (_, document) = described("");
    let parameters = document["paths"]["/api/v1/metrics"]["get"]["parameters"].as_array().unwrap();
    let named = |name: &str| parameters.iter().find(|parameter| parameter["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(named("tier")["schema"]["type"], "integer");
    assert_eq!(named("tags")["schema"]["type"], "array");
    assert!(named("sort")["description"].as_str().unwrap().contains("updated_at"));
    assert!(named("filter")["schema"]["properties"]["tier"]["properties"]["gte"].is_object());
    assert!(named("include")["schema"]["items"]["enum"].as_array().unwrap().contains(&json!("domain_id")));
    assert!(named("q")["description"].as_str().unwrap().contains("`name` (A)"));
}
