//! Loading whole directories: what a good one gives, and every mistake with its place.

mod access;
mod documents;
mod mistakes;

use std::fs;
use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::model::{Access, CacheTimes, Direction, Field, IdRule, Index, ScalarType, SearchWeight};

/// The design's own example.
const METRICS: &str = r#"
name = "metrics"
path = "/api/v1/metrics"
id   = "metric_id"
sort = "-updated_at"
indexes = ["category", "tier", "owner", "tags", ["category", "tier"]]

[search]
name = "A"
description = "B"

[cache]
record_ttl = "10m"
list_ttl = "5m"
stale_if_error = "1h"

[access]
read = "public"
write = "public"

[references]
domain_id = "domains"

[schema]
required = ["metric_id", "name", "category"]
additionalProperties = false
[schema.properties.metric_id]
type = "string"
pattern = "^[A-Z0-9-]+$"
[schema.properties]
name = { type = "string" }
description = { type = "string" }
category = { enum = ["business", "operational"] }
tier = { type = "integer", minimum = 1 }
owner = { type = "string" }
domain_id = { type = ["string", "null"] }
[schema.properties.tags]
type = "array"
items = { type = "string" }
"#;

const DOMAINS: &str = r#"
name = "domains"
[schema.properties]
title = { type = "string" }
since = { type = "string", default = 2024-01-31 }
"#;

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(collections: &[(&str, &str)]) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(files.directory.path().join("collections")).unwrap();
        for (name, text) in collections {
            fs::write(files.directory.path().join("collections").join(name), text).unwrap();
        }
        files
    }

    fn with_view(self, name: &str, text: &str) -> Self {
        fs::create_dir_all(self.directory.path().join("views")).unwrap();
        fs::write(self.directory.path().join("views").join(name), text).unwrap();
        self
    }

    fn load(&self) -> Result<Catalog, Vec<Mistake>> {
        let path = self.directory.path();
        let settings = CollectionsSettings {
            dir: path.join("collections"),
            views_dir: path.join("views"),
            samples_dir: path.join("samples"),
        };
        // Stands for the parser of list requests, which belongs to another room.
        Catalog::load(&settings, |_, raw| match raw {
            "colour=red" => Err(Error::parameter("colour", "There is no colour.").with_allowed(["x", "n"])),
            _ => Ok(()),
        })
    }

    /// `file: key: detail`, without the directory.
    fn mistakes(&self) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        self.load().unwrap_err().iter().map(|mistake| mistake.to_string().replace(&directory, "")).collect()
    }
}

fn name(text: &str) -> CollectionName {
    CollectionName::parse(text).unwrap()
}

fn index(fields: &[&str]) -> Index {
    Index { fields: fields.iter().map(|field| (*field).to_owned()).collect() }
}

#[test]
fn the_example_of_the_design_loads() {
    let catalog = Files::new(&[("metrics.toml", METRICS), ("domains.toml", DOMAINS), ("notes.txt", "no toml")]).load().unwrap();
    let names: Vec<_> = catalog.collections().iter().map(|declared| declared.collection.name.to_string()).collect();
    assert_eq!(names, ["domains", "metrics"]);
    let metrics = &catalog.get(&name("metrics")).unwrap().collection;
    assert_eq!(metrics.path, "/api/v1/metrics");
    assert_eq!(metrics.id, IdRule::Natural("metric_id".into()));
    assert_eq!(
        metrics.indexes,
        [
            index(&["category"]),
            index(&["tier"]),
            index(&["owner"]),
            index(&["tags"]),
            index(&["category", "tier"]),
            index(&["domain_id"]),
        ]
    );
    assert_eq!(metrics.fields["tags"], Field { scalar: ScalarType::Text, array: true });
    assert_eq!(metrics.fields["category"], Field { scalar: ScalarType::Text, array: false });
    assert_eq!(metrics.fields["created_at"], Field { scalar: ScalarType::Timestamp, array: false });
    assert_eq!(metrics.search.iter().map(|field| field.weight).collect::<Vec<_>>(), [SearchWeight::A, SearchWeight::B]);
    assert_eq!(metrics.references["domain_id"], name("domains"));
    assert_eq!(catalog.referrers(&name("domains")), [(name("metrics"), "domain_id".to_owned())]);
    assert_eq!(catalog.referrers(&name("metrics")), []);
    let properties: Vec<_> = metrics.schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(properties, ["metric_id", "name", "description", "category", "tier", "owner", "domain_id", "tags"]);
}

#[test]
fn what_a_file_leaves_out_has_a_default() {
    let catalog = Files::new(&[("domains.toml", DOMAINS)]).load().unwrap();
    let domains = &catalog.get(&name("domains")).unwrap().collection;
    assert_eq!(domains.path, "/api/v1/domains");
    assert_eq!(domains.id, IdRule::Generated);
    assert_eq!(domains.fields["id"], Field { scalar: ScalarType::Text, array: false });
    assert_eq!((domains.sort[0].field.as_str(), domains.sort[0].direction), ("updated_at", Direction::Descending));
    assert_eq!(domains.access, Access::PUBLIC);
    let times = CacheTimes {
        record_ttl: Duration::from_secs(600),
        list_ttl: Duration::from_secs(300),
        negative_ttl: Duration::from_secs(30),
        stale_if_error: Duration::from_secs(3600),
        max_lag: Duration::ZERO,
    };
    assert_eq!(domains.cache, times);
    assert_eq!(domains.schema["properties"]["since"]["default"], "2024-01-31");
    assert_eq!(domains.schema["type"], "object");
    assert!(catalog.views().is_empty());
}

#[test]
fn a_view_keeps_the_order_of_its_parts_and_reads_its_filters() {
    let view = r#"
name = "dashboard"
path = "/api/dashboard"
ttl = "30s"
[parts.urgent]
collection = "metrics"
by = ["tier", "category"]
filter = { tier = { lte = 2 }, or = [{ owner = "a" }, { owner = "b" }] }
[parts.all]
collection = "domains"
"#;
    let files = Files::new(&[("metrics.toml", METRICS), ("domains.toml", DOMAINS)]).with_view("dashboard.toml", view);
    let catalog = files.load().unwrap();
    let view = &catalog.views()[0];
    assert_eq!((view.path.as_str(), view.ttl), ("/api/dashboard", Duration::from_secs(30)));
    assert_eq!(view.parts.iter().map(|part| part.key.as_str()).collect::<Vec<_>>(), ["urgent", "all"]);
    assert_eq!(view.parts[0].by, ["tier", "category"]);
    assert!(view.parts[0].filter.is_some() && view.parts[1].filter.is_none());
}

#[test]
fn a_view_is_not_named_like_a_collection_since_scopes_name_both() {
    let view = "name = \"domains\"\npath = \"/api/overview\"\n[parts.all]\ncollection = \"domains\"";
    let found = Files::new(&[("domains.toml", DOMAINS)]).with_view("domains.toml", view).mistakes();
    assert!(
        found.len() == 1 && found[0].starts_with("views/domains.toml: name: collections/domains.toml has the name domains"),
        "{found:?}"
    );
}

#[test]
fn mistakes_of_several_files_are_reported_together() {
    let files = Files::new(&[
        ("a.toml", "name = \"A\"\ncolour = 1\n[schema.properties]\nx = { type = \"strin\" }"),
        ("b.toml", "name = \n"),
        ("c.toml", "name = \"c\"\nsort = \"y\"\n[references]\nx = \"b\"\nz = \"nowhere\"\n[schema.properties]\nx = { type = \"string\" }"),
    ])
    .with_view("v.toml", "name = \"v\"\nttl = 5\n[parts.b]\ncollection = \"b\"\n[parts.d]\ncollection = \"d\"");
    let found: Vec<_> =
        files.mistakes().iter().map(|mistake| mistake.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        found,
        [
            "collections/a.toml: colour",
            "collections/a.toml: name",
            "collections/a.toml: schema.properties.x.type",
            "collections/b.toml: line 1",
            "collections/c.toml: references.z",
            "collections/c.toml: sort",
            "collections/c.toml: references.z",
            "views/v.toml: ttl",
            "views/v.toml: parts.d.collection",
        ]
    );
}
