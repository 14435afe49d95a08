//! Every route × everybody who may ask: one table of the answers. A route that the API description has, and the table has not, fails,
//! so whoever adds one says who may use it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use terrace::auth::KeyRequest;
use terrace::model::Role;

use crate::support::{Reply, Server};

/// Who asks, in the order of the table's columns. All records belong to the fourth but one, who is a viewer as the second is.
const CALLERS: [&str; 7] = ["nobody", "viewer", "owner", "editor", "admin", "admin with *:read", "admin with open:*"];

/// What each gets.
type Answers = [u16; 7];

const ALL: Answers = [200; 7];
const TOLD: Answers = [401; 7];
/// Where everybody may, and a key with scopes for something else may not.
const OPEN_READ: Answers = [200; 7];
const OPEN_WRITE: Answers = [200, 200, 200, 200, 200, 403, 200];
const PUBLIC_READ: Answers = [200, 200, 200, 200, 200, 200, 403];
const VIEWERS: Answers = [401, 200, 200, 200, 200, 200, 403];
const EDITORS: Answers = [401, 403, 403, 200, 200, 403, 403];
const ADMINS: Answers = [401, 403, 403, 403, 200, 200, 403];
/// The change log of the collection that the last one's key is for.
const OPEN_CHANGES: Answers = [401, 403, 403, 403, 200, 200, 200];
const ADMINS_WRITE: Answers = [401, 403, 403, 403, 200, 403, 403];
/// A record of an owner, where others' are not there, and where they may be read.
const OWN_READ: Answers = [401, 404, 200, 404, 200, 200, 403];
const OWN_WRITE: Answers = [401, 404, 200, 404, 200, 403, 403];
const SHOWN_WRITE: Answers = [401, 403, 200, 403, 200, 403, 403];
const KNOWN_CREATE: Answers = [401, 200, 200, 200, 200, 403, 403];

/// The collections, with their rules, and what reading a record or all of them, creating and changing one, and reading the change log comes to.
const COLLECTIONS: [(&str, &str, [Answers; 5]); 5] = [
    ("open", "read = \"public\"\nwrite = \"public\"", [OPEN_READ, OPEN_READ, OPEN_WRITE, OPEN_WRITE, OPEN_CHANGES]),
    ("staff", "read = \"viewer\"\nwrite = \"editor\"", [VIEWERS, VIEWERS, EDITORS, EDITORS, ADMINS]),
    ("own", "read = \"owner\"\nwrite = \"owner\"\nowner_field = \"owner\"", [OWN_READ, VIEWERS, KNOWN_CREATE, OWN_WRITE, ADMINS]),
    (
        "shown",
        "read = \"public\"\nwrite = \"owner\"\nowner_field = \"owner\"",
        [PUBLIC_READ, PUBLIC_READ, KNOWN_CREATE, SHOWN_WRITE, ADMINS],
    ),
    ("closed", "read = \"admin\"", [ADMINS, ADMINS, ADMINS_WRITE, ADMINS_WRITE, ADMINS]),
];

/// The routes of a collection: which of its five answers they give, and the status instead of 200.
const ROUTES: [(&str, &str, usize, u16); 13] = [
    ("get", "{}", 1, 200),
    ("head", "{}", 1, 200),
    ("post", "{}", 2, 201),
    ("get", "{}/{id}", 0, 200),
    ("head", "{}/{id}", 0, 200),
    ("put", "{}/{id}", 3, 200),
    ("patch", "{}/{id}", 3, 200),
    ("delete", "{}/{id}", 3, 204),
    ("post", "{}/_batch", 3, 200),
    ("get", "{}/_stats", 1, 200),
    ("head", "{}/_stats", 1, 200),
    ("get", "{}/_changes", 4, 200),
    ("head", "{}/_changes", 4, 200),
];

/// All other routes.
const OTHERS: [(&str, &str, Answers); 20] = [
    ("get", "/api/sums", PUBLIC_READ),
    ("head", "/api/sums", PUBLIC_READ),
    ("get", "/api/counts", VIEWERS),
    ("head", "/api/counts", VIEWERS),
    ("get", "/admin/cache", ADMINS),
    ("post", "/admin/cache/invalidate", ADMINS_WRITE),
    ("get", "/admin/cache/explain", ADMINS),
    ("get", "/api/v1/auth/me", [401, 200, 200, 200, 200, 200, 200]),
    // Who sends no password and no token gets in nowhere, whoever asks.
    ("post", "/api/v1/auth/login", TOLD),
    ("post", "/api/v1/auth/refresh", TOLD),
    ("post", "/api/v1/auth/logout", [204; 7]),
    ("get", "/health", ALL),
    ("get", "/health/live", ALL),
    ("get", "/health/ready", ALL),
    ("get", "/metrics", ALL),
    ("get", "/openapi.json", ALL),
    // Those that the description leaves out.
    ("get", "/docs", ALL),
    ("get", "/docs/{file}", ALL),
    ("head", "/health", ALL),
    ("head", "/metrics", ALL),
];

/// Those of [`OTHERS`] that no description has.
const UNDESCRIBED: [(&str, &str); 4] = [("get", "/docs"), ("get", "/docs/{file}"), ("head", "/health"), ("head", "/metrics")];

/// A row: the method, the described path, and what each caller gets.
fn table() -> Vec<(&'static str, String, Answers)> {
    let of_collections = COLLECTIONS.iter().flat_map(|(name, _, answers)| {
        ROUTES.iter().map(move |(method, path, answer, status)| {
            let answers = answers[*answer].map(|expected| if expected == 200 { *status } else { expected });
            (*method, path.replacen("{}", &format!("/api/{name}"), 1), answers)
        })
    });
    of_collections.chain(OTHERS.iter().map(|(method, path, answers)| (*method, (*path).to_owned(), *answers))).collect()
}

fn server() -> Server {
    let files = COLLECTIONS.map(|(name, access, _)| {
        let text = format!(
            "name = \"{name}\"\npath = \"/api/{name}\"\nid = \"key\"\n[access]\n{access}\n[schema]\nrequired = [\"key\"]\n\
             [schema.properties]\nkey = {{ type = \"string\" }}\nowner = {{ type = \"string\" }}\ntext = {{ type = \"string\" }}"
        );
        (name, text)
    });
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let view = |name: &str, read: &str, of: &str| {
        format!("name = \"{name}\"\npath = \"/api/{name}\"\nread = \"{read}\"\n[parts.all]\ncollection = \"{of}\"")
    };
    let views = [("sums", view("sums", "public", "open")), ("counts", view("counts", "viewer", "staff"))];
    let views: Vec<(&str, &str)> = views.iter().map(|(name, text)| (*name, text.as_str())).collect();
    Server::with_files(&files, &views, |_| {})
}

/// The `Authorization` of each caller.
async fn callers(server: &Server) -> [Option<String>; 7] {
    server.add_user("viewer@example.org", Role::Viewer).await;
    server.add_user("owner@example.org", Role::Viewer).await;
    let owner = KeyRequest { user: Some("owner@example.org".to_owned()), ..KeyRequest::new("owner", Role::Viewer) };
    [
        None,
        Some(server.token("viewer@example.org").await),
        Some(server.key(owner).await),
        Some(server.key_for(Role::Editor, &[]).await),
        Some(server.key_for(Role::Admin, &[]).await),
        Some(server.key_for(Role::Admin, &["*:read"]).await),
        Some(server.key_for(Role::Admin, &["open:*"]).await),
    ]
}

async fn send(server: &Server, caller: Option<&String>, method: &str, path: &str, body: Option<&Value>) -> Reply {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    match caller {
        Some(authorization) => server.send_as(authorization, method, path, body).await,
        None => {
            let request = server.anonymous_request(method, path);
            Reply::read(if let Some(body) = body { request.json(body) } else { request }).await
        }
    }
}

/// What is asked of a route, for the record `key`.
fn request(method: &str, path: &str, key: &str) -> (String, Option<Value>) {
    let body = match (method, path) {
        ("post", "/admin/cache/invalidate") => Some(json!({"all": true})),
        ("post", "/api/v1/auth/login") => Some(json!({"email": "viewer@example.org", "password": "wrong"})),
        ("post", "/api/v1/auth/refresh" | "/api/v1/auth/logout") => Some(json!({"refresh_token": "wrong"})),
        ("post", path) if path.ends_with("/_batch") => {
            Some(json!({"operations": [{"op": "patch", "id": key, "data": {"text": "new"}}]}))
        }
        ("post", _) => Some(json!({"key": format!("{key}-new")})),
        ("put" | "patch", _) => Some(json!({"text": "new"})),
        _ => None,
    };
    let path = path.replace("{id}", key).replace("{file}", "swagger-ui.css").replace("/explain", "/explain?path=/api/open");
    (path, body)
}

#[tokio::test]
async fn everybody_gets_what_the_table_says() {
    let server = server();
    let callers = callers(&server).await;
    let [_, _, owner, _, admin, ..] = &callers;
    let me = server.get_as(owner.as_ref().unwrap(), "/api/v1/auth/me").await.expect(200);
    let mut wrong = Vec::new();
    for (row, (method, path, answers)) in table().into_iter().enumerate() {
        for (column, (caller, expected)) in callers.iter().zip(answers).enumerate() {
            let key = format!("r{row}-{column}");
            if let Some(collection) = path.strip_suffix("/{id}").or_else(|| path.strip_suffix("/_batch")) {
                let record = json!({"text": "old", "owner": me["subject"]});
                let made = send(&server, admin.as_ref(), "put", &format!("{collection}/{key}"), Some(&record)).await;
                assert_eq!(made.status, 201, "{}", made.text);
            }
            let (asked, body) = request(method, &path, &key);
            let reply = send(&server, caller.as_ref(), method, &asked, body.as_ref()).await;
            if reply.status.as_u16() != expected {
                wrong.push(format!("{} for {}: {} instead of {expected}: {}", path, CALLERS[column], reply.status, reply.text));
            }
            let is_shared = reply.header("cache-control").starts_with("public");
            let private = reply.status == 200
                && method == "get"
                && path.starts_with("/api/")
                && answers != OPEN_READ
                && answers != PUBLIC_READ;
            if private
                && (is_shared
                    || !reply.header("vary").contains("authorization") && !reply.header("cache-control").contains("no-store"))
            {
                wrong.push(format!("{path} may be kept by proxies: {:?}", reply.headers));
            }
            if reply.status == 401 && !reply.header("www-authenticate").starts_with("Bearer") {
                wrong.push(format!("{path} does not say how to become known"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn the_table_has_every_route_and_no_other() {
    let server = server();
    let document = server.get("/openapi.json").await.expect(200);
    let mut described: BTreeSet<(String, String)> = UNDESCRIBED.map(|(method, path)| (method.to_owned(), path.to_owned())).into();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods = operations.as_object().unwrap().keys().filter(|name| *name != "parameters");
        described.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    let rows: Vec<(String, String)> = table().into_iter().map(|(method, path, _)| (method.to_owned(), path)).collect();
    let known: BTreeSet<(String, String)> = rows.iter().cloned().collect();
    assert_eq!(known.len(), rows.len(), "a row stands there twice");
    let missing: Vec<_> = described.difference(&known).collect();
    assert!(missing.is_empty(), "the table does not say who may ask for {missing:?}");
    let gone: Vec<_> = known.difference(&described).collect();
    assert!(gone.is_empty(), "there is no such route: {gone:?}");
}

#[tokio::test]
async fn a_credential_that_does_not_hold_is_refused_where_none_is_needed_and_methods_are_told_to_all() {
    let server = server();
    for path in ["/api/open", "/api/open/none", "/api/open/_stats", "/api/sums", "/api/own", "/admin/cache"] {
        for credential in
            ["Bearer nothing", "Basic dXNlcjpwYXNz", "Bearer trk_0123456789_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""]
        {
            let reply = server.send_as(credential, Method::GET, path, None).await;
            assert_eq!(reply.status, 401, "{path} {credential}: {}", reply.text);
        }
    }
    for path in ["/api/closed", "/api/closed/x", "/api/closed/_batch", "/api/closed/_stats"] {
        let reply = send(&server, None, "options", path, None).await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (204, ""), "{path}");
    }
}

#[tokio::test]
async fn what_is_described_of_access_is_what_the_files_say() {
    let server = server();
    let document = server.get("/openapi.json").await.expect(200);
    let security = |path: &str, method: &str| document["paths"][path][method]["security"].clone();
    let needed = json!([{"bearer": []}]);
    assert_eq!(document["security"], json!([{}, {"bearer": []}]));
    assert_eq!((security("/api/open", "get"), security("/api/open", "post")), (Value::Null, Value::Null));
    assert_eq!((security("/api/shown", "get"), security("/api/shown", "post")), (Value::Null, needed.clone()));
    for (method, path) in
        [("get", "/api/own/{id}"), ("post", "/api/staff/_batch"), ("head", "/api/closed/_stats"), ("get", "/api/counts")]
    {
        assert_eq!(security(path, method), needed, "{method} {path}");
        assert!(document["paths"][path][method]["description"].as_str().unwrap().starts_with("For "), "{method} {path}");
        for status in ["401", "403"] {
            assert!(document["paths"][path][method]["responses"][status].is_object(), "{method} {path} {status}");
        }
    }
}

#[tokio::test]
async fn a_missing_record_of_owners_does_not_tell_what_the_caches_knew() {
    let server = server();
    let callers = callers(&server).await;
    let viewer = callers[1].as_ref().unwrap();
    for _ in 0..2 {
        for path in ["/api/own/none", "/api/own/none?fields=text"] {
            let reply = server.get_as(viewer, path).await;
            reply.problem(404, "not_found");
            for header in ["x-cache", "cache-status", "age"] {
                assert_eq!(reply.header(header), "", "{path}");
            }
        }
        let open = server.get("/api/open/none").await;
        assert!(open.status == 404 && !open.cache().is_empty());
    }
}
