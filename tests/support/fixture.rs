//! A small installation of its own for tests: three collections and a view that together use everything a declaration can say.

use serde_json::{Value, json};

use super::Server;

/// Where the fixture's collections are.
pub const ITEMS: &str = "/api/items";
pub const SHELVES: &str = "/api/shelves";
pub const NOTES: &str = "/api/notes";
pub const TOTALS: &str = "/api/totals";

/// Records with a natural key, every type of field, search, and a reference.
const ITEMS_FILE: &str = r#"
name = "items"
path = "/api/items"
id = "sku"
sort = "-updated_at"
indexes = ["category", "tier", "tags", "price", "active", "name", "shelf_id", "codes", ["owner", "tier"]]

[search]
name = "A"
description = "B"

[cache]
record_ttl = "10m"
list_ttl = "10m"
negative_ttl = "10m"
stale_if_error = "1h"

[access]
read = "public"
write = "public"

[references]
shelf_id = "shelves"

[schema]
required = ["sku", "name", "category"]
additionalProperties = false

[schema.properties]
sku = { type = "string", minLength = 1 }
name = { type = "string", minLength = 1 }
description = { type = "string" }
category = { type = "string", enum = ["a", "b", "c"] }
tier = { type = "integer" }
price = { type = "number", minimum = 0 }
active = { type = "boolean" }
owner = { type = "string" }
tags = { type = "array", items = { type = "string" } }
codes = { type = "array", items = { type = "integer" } }
shelf_id = { type = "string" }
unindexed = { type = "string" }
extra = { type = "object" }
"#;

const SHELVES_FILE: &str = r#"
name = "shelves"
path = "/api/shelves"
id = "id"
sort = "id"
indexes = ["room"]

[cache]
record_ttl = "10m"
list_ttl = "10m"
negative_ttl = "10m"
stale_if_error = "1h"

[access]
read = "public"
write = "public"

[schema]
required = ["id"]
[schema.properties]
id = { type = "string" }
room = { type = "string" }
"#;

/// Records whose ids the server makes.
const NOTES_FILE: &str = r#"
name = "notes"
path = "/api/notes"
sort = "created_at"
indexes = ["kind"]

[cache]
record_ttl = "10m"
list_ttl = "10m"
negative_ttl = "10m"
stale_if_error = "1h"

[access]
read = "public"
write = "public"

[schema]
required = ["text"]
[schema.properties]
text = { type = "string" }
kind = { type = "string" }
"#;

const TOTALS_FILE: &str = r#"
name = "totals"
path = "/api/totals"
ttl = "10m"
stale_if_error = "1h"
read = "public"

[parts.items]
collection = "items"
by = ["category", "tier"]

[parts.shelves]
collection = "shelves"
by = ["room"]
"#;

/// Writes the fixture's declarations to files in `directory`, and makes `settings` have no others.
pub fn declare(settings: &mut terrace::config::Settings, directory: &std::path::Path) {
    let collections = [("items", ITEMS_FILE), ("shelves", SHELVES_FILE), ("notes", NOTES_FILE)];
    super::declare(settings, directory, &collections, &[("totals", TOTALS_FILE)]);
}

/// The same with `from` → `to` in the files of the collections; the directory of those.
pub fn declare_edited(directory: &std::path::Path, edits: &[(&str, &str)]) -> std::path::PathBuf {
    let edited = [ITEMS_FILE, SHELVES_FILE, NOTES_FILE]
        .map(|text| edits.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)));
    let [items, shelves, notes] = &edited;
    let mut settings = super::settings_on(String::new());
    super::declare(&mut settings, directory, &[("items", items), ("shelves", shelves), ("notes", notes)], &[]);
    settings.collections.dir
}

impl Server {
    /// The fixture, empty.
    pub fn fixture() -> Self {
        Self::fixture_with(|_| {})
    }

    /// The fixture, empty, with settings changed by `change`.
    pub fn fixture_with(change: impl FnOnce(&mut terrace::config::Settings)) -> Self {
        let collections = [("items", ITEMS_FILE), ("shelves", SHELVES_FILE), ("notes", NOTES_FILE)];
        Self::with_files(&collections, &[("totals", TOTALS_FILE)], change)
    }

    /// The fixture on the database that a URL names. It listens at once, whether that database is there or not.
    pub fn fixture_on(database_url: String, change: impl FnOnce(&mut terrace::config::Settings)) -> Self {
        let directory = tempfile::TempDir::new().unwrap();
        let mut settings = super::settings_on(database_url);
        declare(&mut settings, directory.path());
        change(&mut settings);
        Self::listen_in(directory, settings)
    }

    /// The fixture with its collections' times replaced by `from` → `to` in their files.
    pub fn fixture_edited(from: &str, to: &str, change: impl FnOnce(&mut terrace::config::Settings)) -> Self {
        let edited = [ITEMS_FILE, SHELVES_FILE, NOTES_FILE].map(|text| text.replace(from, to));
        let [items, shelves, notes] = &edited;
        let collections = [("items", items.as_str()), ("shelves", shelves), ("notes", notes)];
        Self::with_files(&collections, &[("totals", &TOTALS_FILE.replace(from, to))], change)
    }

    /// Creates an item and expects it to be new.
    pub async fn create_item(&self, item: Value) -> super::Reply {
        let reply = self.post(ITEMS, &item).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply
    }

    /// Creates the items in one transaction.
    pub async fn create_items(&self, items: impl IntoIterator<Item = Value>) {
        let operations: Vec<Value> = items.into_iter().map(|item| json!({"op": "create", "data": item})).collect();
        self.post(&format!("{ITEMS}/_batch"), &json!({"operations": operations})).await.expect(200);
    }
}

/// An item with the members that are required.
pub fn item(sku: &str, category: &str) -> Value {
    json!({"sku": sku, "name": format!("Item {sku}"), "category": category})
}

/// The skus of a page, in its order.
pub fn skus(page: &Value) -> Vec<String> {
    members(page, "sku")
}

/// One string member of each record of a page, in its order.
pub fn members(page: &Value, name: &str) -> Vec<String> {
    let records = page["data"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
    records.iter().map(|record| record[name].as_str().unwrap_or_else(|| panic!("no {name}: {record}")).to_owned()).collect()
}
