//! The coverage of the routes: every operation that the API description names is requested here, its answer's status is
//! one that the description promises, and its body keeps to the described schema. An operation without an entry in
//! [`EXERCISED`] fails, so that a new route comes with tests.

use std::collections::BTreeSet;

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Map, Value, json};
use terrace::model::Role;

use crate::support::accounts::PASSWORD;
use crate::support::fixture::item;
use crate::support::{Reply, Server};

/// Which modules hold an operation to its contract. `{}` stands for a collection's path, `{view}` for a view's.
const EXERCISED: [(&str, &str, &str); 33] = [
    ("get", "{}", "rest::lists, rest::pages, rest::filters, search, freshness"),
    ("head", "{}", "rest::records"),
    ("post", "{}", "rest::records, rest::references, hostile::bodies"),
    ("get", "{}/{id}", "rest::records, rest::conditions, freshness"),
    ("head", "{}/{id}", "rest::records"),
    ("put", "{}/{id}", "rest::records, rest::conditions"),
    ("patch", "{}/{id}", "rest::records, rest::conditions"),
    ("delete", "{}/{id}", "rest::records, rest::references"),
    ("post", "{}/_batch", "rest::batch"),
    ("get", "{}/_stats", "rest::statistics"),
    ("head", "{}/_stats", "rest::records"),
    ("get", "{}/_changes", "changes::list, changes::live, changes::random"),
    ("head", "{}/_changes", "changes::live"),
    ("get", "{view}", "rest::statistics, plans"),
    ("head", "{view}", "rest::records"),
    ("get", "/health", "observability, stale"),
    ("get", "/health/live", "observability, stale"),
    ("get", "/health/ready", "observability, stale"),
    ("get", "/metrics", "observability"),
    ("get", "/openapi.json", "coverage"),
    ("get", "/admin/cache", "administration"),
    ("post", "/admin/cache/invalidate", "administration"),
    ("get", "/admin/cache/explain", "administration"),
    ("post", "/api/v1/auth/login", "accounts::sessions"),
    ("post", "/api/v1/auth/refresh", "accounts::sessions"),
    ("post", "/api/v1/auth/logout", "accounts::sessions"),
    ("get", "/api/v1/auth/me", "accounts::keys"),
    // Those that the description leaves out.
    ("get", "/docs", "coverage"),
    ("get", "/docs/{file}", "coverage"),
    ("head", "/health", "coverage"),
    ("head", "/metrics", "coverage"),
    ("head", "/openapi.json", "coverage"),
    ("options", "{}", "rest::methods"),
];

/// The template of a described path, as the table spells it.
fn template(path: &str, collections: &BTreeSet<String>) -> String {
    if path.starts_with("/health")
        || path == "/metrics"
        || path == "/openapi.json"
        || path.starts_with("/admin")
        || path.starts_with("/api/v1/auth/")
    {
        return path.to_owned();
    }
    match collections.iter().find(|collection| path == *collection || path.starts_with(&format!("{collection}/"))) {
        Some(collection) => path.replacen(collection.as_str(), "{}", 1),
        None => "{view}".to_owned(),
    }
}

/// The paths that have records below them.
fn collections(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    paths.keys().filter_map(|path| path.strip_suffix("/{id}")).map(str::to_owned).collect()
}

/// `value` with references into `document` resolved, one level.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => value,
    }
}

/// Checks an answer against the description of its operation.
fn check(document: &Value, operation: &Value, what: &str, reply: &Reply) {
    let status = reply.status.as_u16().to_string();
    let responses = operation["responses"].as_object().unwrap();
    let response =
        responses.get(&status).unwrap_or_else(|| panic!("{what} answers {status}, which is not described: {}", reply.text));
    let response = resolved(document, response);
    for name in response["headers"].as_object().into_iter().flat_map(Map::keys) {
        let optional = [
            "link",
            "content-encoding",
            "x-page",
            "x-total-pages",
            "x-total-count",
            "consistency-token",
            "preference-applied",
            "idempotency-replayed",
            "retry-after",
            "ratelimit",
            "ratelimit-policy",
        ];
        let sent = reply.headers.contains_key(name.as_str());
        assert!(sent || optional.contains(&name.to_lowercase().as_str()), "{what} {status} has no header {name}");
    }
    let content_type = reply.header("content-type").split(';').next().unwrap().to_owned();
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert_eq!(reply.text, "", "{what} {status} has a body that is not described");
        return;
    };
    let media = content.get(&content_type).unwrap_or_else(|| panic!("{what} {status} is {content_type}, which is not described"));
    if content_type.ends_with("json") {
        let body = reply.json();
        let mistakes: Vec<String> = validator(document, &media["schema"])
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(mistakes.is_empty(), "{what} {status}: {mistakes:#?}\n{}", reply.text);
    }
}

/// A validator for a schema that refers into the description.
fn validator(document: &Value, schema: &Value) -> Validator {
    let whole = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "allOf": [schema], "components": document["components"]});
    jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

#[tokio::test]
async fn every_route_has_an_entry_that_says_what_tests_it() {
    let server = Server::start();
    let document = server.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let collections = collections(&document);
    let known: BTreeSet<(&str, &str)> = EXERCISED.iter().map(|(method, path, _)| (*method, *path)).collect();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let template = template(path, &collections);
            assert!(known.contains(&(method.as_str(), template.as_str())), "{method} {path} has no entry");
            described.insert((method.clone(), template));
        }
    }
    for (method, path, modules) in EXERCISED {
        assert!(
            described.contains(&(method.to_owned(), path.to_owned())) || modules.contains("coverage") || method == "options",
            "{method} {path} is gone"
        );
        for module in modules.split(", ") {
            let parts: Vec<&str> = module.split("::").collect();
            let base = crate::support::root().join("tests").join(parts.join("/"));
            assert!(base.with_extension("rs").exists() || base.join("mod.rs").exists(), "there is no module {module}");
        }
    }
}

#[tokio::test]
async fn every_method_that_a_path_takes_is_described() {
    let server = Server::fixture();
    let document = server.get("/openapi.json").await.expect(200);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let system = !path.starts_with("/api/") || path.starts_with("/api/v1/auth/");
        let options = server.send_with(Method::OPTIONS, &path.replace("{id}", "A"), &[], None).await;
        let taken = options.header("allow").to_lowercase();
        let taken = taken.split(", ").filter(|method| *method != "options" && !(system && *method == "head"));
        let described = operations.as_object().unwrap().keys().map(String::as_str).filter(|name| *name != "parameters");
        assert_eq!(taken.collect::<BTreeSet<_>>(), described.collect::<BTreeSet<_>>(), "{path}");
    }
}

/// Method, described path, requested path, body, headers, and the status that must come.
type Planned = (Method, &'static str, &'static str, Option<Value>, &'static [(&'static str, &'static str)], u16);

/// One request for each operation of the fixture, and some that fail: what is asked, and the status that comes.
async fn requests(server: &Server) -> Vec<(&'static str, &'static str, u16, Reply)> {
    let with_reference = json!({"sku": "R", "name": "R", "category": "b", "shelf_id": "nowhere"});
    let batch = json!({"operations": [{"op": "upsert", "data": item("B", "b")}, {"op": "delete", "id": "B"}]});
    let huge = json!({"sku": "H", "name": "x".repeat(1024 * 1024), "category": "a"});
    server.add_user("ada@example.org", Role::Viewer).await;
    let credentials = json!({"email": "ada@example.org", "password": PASSWORD});
    let plan: Vec<Planned> = vec![
        (Method::POST, "/api/items", "/api/items", Some(item("A", "a")), &[], 201),
        (Method::POST, "/api/items", "/api/items", Some(item("A", "a")), &[], 409),
        (Method::POST, "/api/items", "/api/items", Some(json!({"sku": 5})), &[], 422),
        (Method::POST, "/api/items", "/api/items", Some(with_reference), &[], 422),
        (Method::POST, "/api/items", "/api/items", Some(huge), &[], 413),
        (Method::POST, "/api/items", "/api/items?x=1", Some(item("X", "a")), &[], 400),
        (Method::POST, "/api/items", "/api/items", None, &[], 415),
        (Method::POST, "/api/shelves", "/api/shelves", Some(json!({"id": "s", "room": "r", "more": [1, {"a": null}]})), &[], 201),
        (Method::POST, "/api/notes", "/api/notes", Some(json!({"text": "t"})), &[], 201),
        (
            Method::POST,
            "/api/items/_batch",
            "/api/items/_batch",
            Some(batch.clone()),
            &[("prefer", "return=representation")],
            200,
        ),
        (
            Method::POST,
            "/api/items/_batch",
            "/api/items/_batch",
            Some(json!({"operations": [{"op": "delete", "id": "none"}]})),
            &[],
            404,
        ),
        (Method::POST, "/api/items/_batch", "/api/items/_batch", Some(json!({})), &[], 422),
        (
            Method::POST,
            "/api/shelves/_batch",
            "/api/shelves/_batch",
            Some(json!({"operations": [{"op": "create", "data": {"id": "t"}}]})),
            &[],
            200,
        ),
        (
            Method::POST,
            "/api/notes/_batch",
            "/api/notes/_batch",
            Some(json!({"operations": [{"op": "create", "data": {"text": "t"}}]})),
            &[],
            200,
        ),
        (Method::GET, "/api/items/{id}", "/api/items/A", None, &[], 200),
        (Method::GET, "/api/items/{id}", "/api/items/A?include=shelf_id", None, &[], 200),
        (Method::GET, "/api/items/{id}", "/api/items/A", None, &[("if-none-match", "*")], 304),
        (Method::GET, "/api/items/{id}", "/api/items/none", None, &[], 404),
        (Method::GET, "/api/items/{id}", "/api/items/A", None, &[("accept", "text/html")], 406),
        (Method::HEAD, "/api/items/{id}", "/api/items/A", None, &[], 200),
        (Method::PUT, "/api/items/{id}", "/api/items/P", Some(json!({"name": "p", "category": "c"})), &[], 201),
        (Method::PUT, "/api/items/{id}", "/api/items/P", Some(json!({"name": "q", "category": "c"})), &[], 200),
        (
            Method::PUT,
            "/api/items/{id}",
            "/api/items/P",
            Some(json!({"name": "q", "category": "c"})),
            &[("if-match", "\"x\"")],
            412,
        ),
        (Method::PATCH, "/api/items/{id}", "/api/items/P", Some(json!({"shelf_id": "s", "tags": ["x"], "price": 1.5})), &[], 200),
        (Method::DELETE, "/api/items/{id}", "/api/items/A", None, &[], 204),
        (Method::DELETE, "/api/items/{id}", "/api/items/A", None, &[], 404),
        (Method::DELETE, "/api/shelves/{id}", "/api/shelves/s", None, &[], 409),
        (Method::DELETE, "/api/shelves/{id}", "/api/shelves/t", None, &[], 204),
        (Method::GET, "/api/shelves/{id}", "/api/shelves/s", None, &[], 200),
        (Method::HEAD, "/api/shelves/{id}", "/api/shelves/s", None, &[], 200),
        (Method::PUT, "/api/shelves/{id}", "/api/shelves/s", Some(json!({"room": "z"})), &[], 200),
        (Method::PATCH, "/api/shelves/{id}", "/api/shelves/s", Some(json!({"room": "y"})), &[], 200),
        (Method::PUT, "/api/notes/{id}", "/api/notes/n", Some(json!({"text": "z"})), &[], 201),
        (Method::PATCH, "/api/notes/{id}", "/api/notes/n", Some(json!({"kind": "k"})), &[], 200),
        (Method::GET, "/api/notes/{id}", "/api/notes/n", None, &[], 200),
        (Method::HEAD, "/api/notes/{id}", "/api/notes/n", None, &[], 200),
        (Method::GET, "/api/items", "/api/items", None, &[], 200),
        (Method::GET, "/api/items", "/api/items?cursor=&limit=1&include=shelf_id", None, &[], 200),
        (Method::GET, "/api/items", "/api/items?q=q&highlight=true&count=none", None, &[], 200),
        (Method::GET, "/api/items", "/api/items?colour=red", None, &[], 400),
        (Method::HEAD, "/api/items", "/api/items", None, &[], 200),
        (Method::GET, "/api/shelves", "/api/shelves", None, &[], 200),
        (Method::HEAD, "/api/shelves", "/api/shelves", None, &[], 200),
        (Method::GET, "/api/notes", "/api/notes", None, &[], 200),
        (Method::HEAD, "/api/notes", "/api/notes", None, &[], 200),
        (Method::GET, "/api/items/_stats", "/api/items/_stats?by=category,price,tags,active", None, &[], 200),
        (Method::HEAD, "/api/items/_stats", "/api/items/_stats", None, &[], 200),
        (Method::GET, "/api/shelves/_stats", "/api/shelves/_stats?by=room", None, &[], 200),
        (Method::HEAD, "/api/shelves/_stats", "/api/shelves/_stats", None, &[], 200),
        (Method::GET, "/api/notes/_stats", "/api/notes/_stats", None, &[], 200),
        (Method::HEAD, "/api/notes/_stats", "/api/notes/_stats", None, &[], 200),
        (Method::GET, "/api/items/_changes", "/api/items/_changes?limit=3", None, &[], 200),
        (Method::GET, "/api/items/_changes", "/api/items/_changes?page=1", None, &[], 400),
        (Method::GET, "/api/items/_changes", "/api/items/_changes?live", None, &[("accept", "application/json")], 406),
        (Method::HEAD, "/api/items/_changes", "/api/items/_changes", None, &[], 200),
        (Method::GET, "/api/shelves/_changes", "/api/shelves/_changes?record=s", None, &[], 200),
        (Method::HEAD, "/api/shelves/_changes", "/api/shelves/_changes", None, &[], 200),
        (Method::GET, "/api/notes/_changes", "/api/notes/_changes?operation=create", None, &[], 200),
        (Method::HEAD, "/api/notes/_changes", "/api/notes/_changes?operation=create", None, &[], 200),
        (Method::DELETE, "/api/notes/{id}", "/api/notes/n", None, &[], 204),
        (Method::GET, "/api/totals", "/api/totals", None, &[], 200),
        (Method::HEAD, "/api/totals", "/api/totals", None, &[], 200),
        (Method::GET, "/health", "/health", None, &[], 200),
        (Method::GET, "/health/live", "/health/live", None, &[], 200),
        (Method::GET, "/health/ready", "/health/ready", None, &[], 200),
        (Method::GET, "/metrics", "/metrics", None, &[], 200),
        (Method::GET, "/openapi.json", "/openapi.json", None, &[], 200),
        (Method::GET, "/api/items/{id}", "/api/items/B?fields=sku", None, &[("cache-control", "only-if-cached")], 504),
        (Method::POST, "/api/v1/auth/login", "/api/v1/auth/login", Some(credentials), &[], 200),
        (Method::POST, "/api/v1/auth/login", "/api/v1/auth/login", Some(json!({"email": "x", "password": "y"})), &[], 401),
        (Method::POST, "/api/v1/auth/login", "/api/v1/auth/login", Some(json!({})), &[], 422),
        (Method::POST, "/api/v1/auth/refresh", "/api/v1/auth/refresh", Some(json!({"refresh_token": "x"})), &[], 401),
        (Method::POST, "/api/v1/auth/logout", "/api/v1/auth/logout", Some(json!({"refresh_token": "x"})), &[], 204),
        (Method::GET, "/api/v1/auth/me", "/api/v1/auth/me", None, &[], 401),
        (Method::GET, "/admin/cache", "/admin/cache", None, &[], 200),
        (Method::GET, "/admin/cache", "/admin/cache", None, &[("authorization", "Bearer x")], 401),
        (Method::GET, "/admin/cache/explain", "/admin/cache/explain?path=/api/items", None, &[], 200),
        (Method::GET, "/admin/cache/explain", "/admin/cache/explain", None, &[], 400),
        (Method::POST, "/admin/cache/invalidate", "/admin/cache/invalidate", Some(json!({"all": true})), &[], 200),
        (Method::POST, "/admin/cache/invalidate", "/admin/cache/invalidate", Some(json!({})), &[], 422),
    ];
    let mut done = Vec::new();
    for (method, template, path, body, headers, status) in plan {
        let reply = server.send_with(method.clone(), path, headers, body.as_ref()).await;
        let name = match method.as_str() {
            "GET" => "get",
            "HEAD" => "head",
            "POST" => "post",
            "PUT" => "put",
            "PATCH" => "patch",
            _ => "delete",
        };
        done.push((name, template, status, reply));
    }
    done
}

#[tokio::test]
async fn every_described_operation_answers_as_it_is_described() {
    let server = Server::fixture_edited("read = \"public\"\nwrite", "read = \"public\"\nchanges = \"public\"\nwrite", |_| {});
    let document = server.get("/openapi.json").await.expect(200);
    let mut done = BTreeSet::new();
    for (method, path, status, reply) in requests(&server).await {
        let what = format!("{method} {path}");
        assert_eq!(reply.status.as_u16(), status, "{what}: {}", reply.text);
        check(&document, &document["paths"][path][method], &what, &reply);
        done.insert(what);
    }
    let operations = document["paths"].as_object().unwrap().iter().flat_map(|(path, operations)| {
        let methods = operations.as_object().unwrap().keys().filter(|name| *name != "parameters");
        methods.map(move |method| format!("{method} {path}"))
    });
    let missing: Vec<String> = operations.filter(|operation| !done.contains(operation)).collect();
    assert!(missing.is_empty(), "not requested: {missing:#?}");
}

#[tokio::test]
async fn the_description_and_its_page_are_served_without_the_internet() {
    let server = Server::fixture();
    let first = server.get("/openapi.json").await;
    let known = server.get_with("/openapi.json", &[("if-none-match", first.header("etag"))]).await;
    assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""));
    for path in ["/health", "/metrics", "/openapi.json"] {
        let head = server.send_with(Method::HEAD, path, &[], None).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""), "{path}");
    }
    let page = server.get("/docs").await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.header("content-type"));
    let files = page.text.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
    let files: Vec<&str> = files.collect();
    assert!(files.len() >= 2, "{}", page.text);
    for file in files {
        assert!(!file.contains("//"), "{file} comes from elsewhere");
        let reply = server.get(&format!("/docs/{}", file.trim_start_matches("./"))).await;
        assert_eq!(reply.status, 200, "{file}");
        assert!(!reply.text.is_empty(), "{file}");
    }
    server.get("/docs/none.js").await.problem(404, "not_found");
}

#[tokio::test]
async fn the_description_of_every_shipped_collection_is_a_valid_schema() {
    for directory in [
        "config",
        "config/examples/projects-issues",
        "config/examples/workflows-templates",
        "config/examples/regions-simulations",
        "config/examples/tasks",
    ] {
        let server = Server::start_with(|settings| {
            settings.collections.dir = crate::support::root().join(directory).join("collections");
            settings.collections.views_dir = crate::support::root().join(directory).join("views");
            settings.collections.samples_dir = crate::support::root().join("none");
        });
        let document = server.get("/openapi.json").await.expect(200);
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let reference = json!({"$ref": format!("#/components/schemas/{name}")});
            let validator = validator(&document, &reference);
            for example in schema["examples"].as_array().into_iter().flatten() {
                let mistakes: Vec<String> = validator.iter_errors(example).map(|error| error.to_string()).collect();
                assert!(mistakes.is_empty(), "{directory} {name}: {mistakes:?} in {example}");
            }
        }
    }
}
