//! Each mistake that a file can have, alone: where it is reported, and what the message allows.

use super::*;

/// A good collection, after `head` and with `properties` besides `x` (string), `n` (integer), `tags` and `meta`.
fn collection(head: &str, properties: &str) -> String {
    format!(
        "name = \"c\"\n{head}\n[schema.properties]\nx = {{ type = \"string\" }}\nn = {{ type = \"integer\" }}\n\
         tags = {{ type = \"array\", items = {{ type = \"string\" }} }}\nmeta = {{ type = \"object\" }}\n{properties}"
    )
}

/// The only mistake of one collection file must be at `key` and contain `detail`.
#[track_caller]
fn assert_mistake(text: &str, key: &str, detail: &str) {
    let found = Files::new(&[("c.toml", text)]).mistakes();
    let begins = if key.is_empty() { "collections/c.toml: ".to_owned() } else { format!("collections/c.toml: {key}: ") };
    assert!(found.len() == 1 && found[0].starts_with(&begins) && found[0].contains(detail), "{text}\n{found:#?}");
}

#[track_caller]
fn assert_head(head: &str, key: &str, detail: &str) {
    assert_mistake(&collection(head, ""), key, detail);
}

#[track_caller]
fn assert_property(property: &str, key: &str, detail: &str) {
    assert_mistake(&collection("", property), key, detail);
}

#[test]
fn keys_names_and_types() {
    assert_head("colour = 1", "colour", "allowed are name, description, path,");
    assert_head("description = 5", "description", "an integer, but must be a string");
    assert_head("cache = 5", "cache", "must be a table");
    assert_head("[cache]\nttl = \"1m\"", "cache.ttl", "allowed are record_ttl, list_ttl, negative_ttl, stale_if_error");
    assert_head("[cache]\nlist_ttl = \"soon\"", "cache.list_ttl", "write for example");
    assert_head("[cache]\nlist_ttl = 5", "cache.list_ttl", "must be a string");
    assert_head("[access]\nread = \"all\"", "access.read", "allowed are public, viewer, editor, admin, owner");
    assert_head("[access]\ndelete = \"admin\"", "access.delete", "allowed are read, write");
    assert_mistake("[schema.properties]\nx = { type = \"string\" }", "name", "missing");
    assert_mistake(&collection("", "").replace("\"c\"", "\"C-1\""), "name", "a to z, 0 to 9 and _");
    assert_mistake("name = \"c\"\nname = \"d\"", "line 2", "duplicate key");
    assert_mistake(&collection("", "").replace("\"c\"", "\"terrace_users\""), "name", "begins with terrace_");
    assert_head("path = \"/api/v1/auth/things\"", "path", "everything below /api/v1/auth");
}

#[test]
fn lags_and_warming() {
    assert_head("[cache]\nmax_lag = \"6m\"", "cache.max_lag", "longer than list_ttl, which is 5m");
    assert_head("[cache]\nmax_lag = 5", "cache.max_lag", "must be a string");
    assert_head("[cache]\nwarm = 5", "cache.warm", "must be a table");
    assert_head("[cache.warm]\nrows = 5", "cache.warm.rows", "allowed are records, lists, every");
    assert_head("[cache.warm]\nevery = \"10m\"", "cache.warm.records", "nothing is warmed");
    for records in ["-1", "100001", "1.5", "\"many\""] {
        assert_head(&format!("[cache.warm]\nrecords = {records}"), "cache.warm.records", "whole numbers from 0 to 100000");
    }
    assert_head("[cache.warm]\nrecords = 1\nevery = \"1ms\"", "cache.warm.every", "allowed are durations from 1s");
    assert_head("[cache.warm]\nlists = \"n=1\"", "cache.warm.lists", "must be an array of query strings");
    assert_head("[cache.warm]\nlists = [\"n=1\", 5]", "cache.warm.lists[1]", "an integer");
    assert_head("[cache.warm]\nlists = [\"n=1\", \"?n=1\"]", "cache.warm.lists[1]", "occurs twice");
    assert_head("[cache.warm]\nlists = [\"\", \"colour=red\"]", "cache.warm.lists[1]", "There is no colour. Allowed are x, n.");
}

#[test]
fn paths() {
    assert_head("path = \"api/c\"", "path", "does not begin with /");
    assert_head("path = \"/api/c/\"", "path", "ends with /");
    assert_head("path = \"/api/_c\"", "path", "begins with _");
    assert_head("path = \"/metrics\"", "path", "/health, /metrics, /docs, /openapi.json, /admin");
    assert_head("path = 5", "path", "must be a string");
}

#[test]
fn ids() {
    assert_head("id = \"y\"", "id", "there is no property \"y\"; allowed are n, tags, x");
    assert_head("id = \"n\"", "id", "its type must be \"string\"");
    assert_head("id = \"tags\"", "id", "its type must be \"string\"");
    assert_head("id = \"version\"", "id", "is the server's");
    assert_head("id = \"x\"", "id", "must be in schema.required");
    let nullable =
        "name = \"c\"\nid = \"x\"\n[schema]\nrequired = [\"x\"]\nproperties = { x = { type = [\"string\", \"null\"] } }";
    assert_mistake(nullable, "id", "its type must be \"string\"");
    assert_property("id = { type = \"string\" }", "schema.properties.id", "the server makes the ids");
    assert!(Files::new(&[("c.toml", &nullable.replace("[\"string\", \"null\"]", "\"string\""))]).load().is_ok());
}

#[test]
fn sorts_indexes_searches_and_references() {
    assert_head("sort = \"-y\"", "sort", "allowed are created_at, id, n, tags, updated_at, version, x");
    assert_head("sort = \"meta\"", "sort", "neither a plain value nor an array");
    assert_head("sort = \"tags\"", "sort", "nothing can be sorted by it");
    assert_head("sort = \"x,-x\"", "sort", "occurs twice");
    assert_head("indexes = \"x\"", "indexes", "must be an array");
    assert_head("indexes = [\"x\", 5]", "indexes[1]", "an index is a field");
    assert_head("indexes = [[]]", "indexes[0]", "an index is a field");
    assert_head("indexes = [[\"x\", \"y\"]]", "indexes[0]", "there is no property \"y\"");
    assert_head("indexes = [[\"x\", \"tags\"]]", "indexes[0]", "its index stands alone");
    assert_head("indexes = [[\"x\", \"x\"]]", "indexes[0]", "occurs twice");
    assert_head("indexes = [\"x\", [\"x\"]]", "indexes[1]", "declared twice");
    assert_head("[search]\nn = \"A\"", "search.n", "only strings can");
    assert_head("[search]\ny = \"A\"", "search.y", "there is no property");
    assert_head("[search]\nupdated_at = \"A\"", "search.updated_at", "is the server's");
    assert_head("[search]\nx = \"E\"", "search.x", "allowed are A (most), B, C and D");
    assert_head("[references]\nx = \"d\"", "references.x", "there is no collection \"d\"; allowed are c");
    assert_head("[references]\nx = \"D\"", "references.x", "is not a name");
    assert_head("[references]\nn = \"c\"", "references.n", "only a string, or a string or null, can");
    assert!(Files::new(&[("c.toml", &collection("indexes = [\"x\", [\"updated_at\", \"x\"]]", ""))]).load().is_ok());
}

#[test]
fn schemas() {
    assert_mistake("name = \"c\"", "schema", "missing");
    assert_mistake("name = \"c\"\nschema = 5", "schema", "must be a table");
    assert_mistake("name = \"c\"\n[schema]\ntitle = \"x\"", "schema.properties", "missing or empty");
    assert_mistake("name = \"c\"\n[schema]\ntype = \"array\"\nproperties = { x = {} }", "schema.type", "a record is an object");
    let required = "name = \"c\"\n[schema]\nrequired = [\"version\"]\nproperties = { x = {} }";
    assert_mistake(required, "schema.required", "version is the server's");
    assert_property("version = { type = \"integer\" }", "schema.properties.version", "are the server's");
    assert_property("_y = {}", "schema.properties._y", "reserved");
    assert_property("y = { type = \"text\" }", "schema.properties.y.type", "not JSON Schema 2020-12");
    assert_property("y = { minLength = -1 }", "schema.properties.y.minLength", "not JSON Schema 2020-12");
    assert_property("y = { minimum = inf }", "schema.properties.y.minimum", "is not a number in JSON");
    assert_property("y = { patern = \"x\" }", "schema.properties.y.patern", "no keyword");
    assert_property("y = { pattern = \"(\" }", "schema.properties.y.pattern", "not a regular expression");
    assert_property("y = { pattern = \"(?=x)\" }", "schema.properties.y.pattern", "without look-around");
    assert_property(
        "y = { patternProperties = { \"(\" = {} } }",
        "schema.properties.y.patternProperties.(",
        "regular expression",
    );
    assert_property("y = { \"$ref\" = \"https://example.org/s.json\" }", "schema.properties.y.$ref", "outside of this schema");
    assert_property("y = { \"$ref\" = \"file:///etc/passwd\" }", "schema.properties.y.$ref", "outside of this schema");
    assert_property("y = { anyOf = [{}, { \"$ref\" = \"other.json\" }] }", "schema.properties.y.anyOf[1].$ref", "outside of");
    assert_property("y = { \"$ref\" = \"#/$defs/y\" }", "", "this schema cannot be used");
    assert_property("y = { format = \"e-mail\" }", "", "this schema cannot be used");
    let dialect = "name = \"c\"\n[schema]\n\"$schema\" = \"http://json-schema.org/draft-07/schema#\"\nproperties = { x = {} }";
    assert_mistake(dialect, "schema.$schema", "only https://json-schema.org/draft/2020-12/schema");
    assert!(Files::new(&[("c.toml", &collection("", "pattern = { enum = [\"a\"], x-note = \"b\" }"))]).load().is_ok());
}

#[test]
fn what_files_declare_twice() {
    let other = "name = \"d\"\npath = \"/api/v1/c\"\n[schema.properties]\nx = {}";
    let good = collection("", "");
    let found = Files::new(&[("a.toml", &good), ("b.toml", &good)]).mistakes();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("collections/b.toml: name: collections/a.toml has the name c already"), "{found:?}");
    assert!(found[1].starts_with("collections/b.toml: path: /api/v1/c collides"), "{found:?}");
    for path in ["/api/v1/c", "/api/v1/c/d", "/api/v1"] {
        let found = Files::new(&[("c.toml", &good), ("d.toml", &other.replace("/api/v1/c", path))]).mistakes();
        assert!(found.len() == 1 && found[0].starts_with("collections/d.toml: path: "), "{path}: {found:?}");
    }
    let view = "name = \"v\"\npath = \"/api/v1/c/summary\"\n[parts.all]\ncollection = \"c\"";
    let found = Files::new(&[("c.toml", &good)]).with_view("v.toml", view).mistakes();
    assert!(found.len() == 1 && found[0].starts_with("views/v.toml: path: "), "{found:?}");
}

#[test]
fn views() {
    let good = collection("indexes = [\"x\"]", "");
    for (text, key, detail) in [
        ("colour = 1\n[parts.a]\ncollection = \"c\"", "colour", "allowed are name, description, path, ttl,"),
        ("ttl = \"soon\"\n[parts.a]\ncollection = \"c\"", "ttl", "is not a duration"),
        ("read = \"all\"\n[parts.a]\ncollection = \"c\"", "read", "allowed are public"),
        ("", "parts", "missing"),
        ("[parts]", "parts", "at least one part"),
        ("[parts]\na = 5", "parts.a", "must be a table"),
        ("[parts.a]\nby = [\"x\"]", "parts.a.collection", "missing"),
        ("[parts.a]\ncollection = \"d\"", "parts.a.collection", "there is no collection \"d\"; allowed are c"),
        ("[parts.a]\ncollection = \"c\"\nby = \"x\"", "parts.a.by", "must be an array"),
        ("[parts.a]\ncollection = \"c\"\nby = [\"n\"]", "parts.a.by", "\"n\" has no index in c; allowed are created_at, id,"),
        ("[parts.a]\ncollection = \"c\"\norder = 1", "parts.a.order", "allowed are collection, by, filter"),
        ("[parts.a]\ncollection = \"c\"\nfilter = 5", "parts.a.filter", "must be a table"),
        ("[parts.a]\ncollection = \"c\"\nfilter = { n = 1 }", "parts.a.filter", "Allowed are created_at, id,"),
        ("[parts.a]\ncollection = \"c\"\nfilter = { x = { like = 1 } }", "parts.a.filter", "Allowed are eq, ne,"),
    ] {
        let found = Files::new(&[("c.toml", &good)]).with_view("v.toml", &format!("name = \"v\"\n{text}")).mistakes();
        let begins = format!("views/v.toml: {key}: ");
        assert!(found.len() == 1 && found[0].starts_with(&begins) && found[0].contains(detail), "{text}\n{found:#?}");
    }
}

#[test]
fn directories_and_files_that_cannot_be_read() {
    let files = Files::new(&[]);
    assert!(files.mistakes()[0].contains("holds no *.toml file"));
    fs::remove_dir(files.directory.path().join("collections")).unwrap();
    assert!(files.mistakes()[0].contains("the directory cannot be read"));
    let files = Files::new(&[]);
    fs::write(files.directory.path().join("collections/c.toml"), b"name = \"\xff\"").unwrap();
    assert!(files.mistakes()[0].starts_with("collections/c.toml: the file cannot be read: "));
}
