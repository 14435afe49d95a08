//! The API description: OpenAPI 3.1, made from the declared collections and views, with no server needed.
//!
//! The schema of a collection is JSON Schema 2020-12 already, which is what OpenAPI 3.1 uses, so it goes in as declared;
//! only its internal references are moved to their new place.

mod access;
mod admin;
mod auth;
mod changes;
mod examples;
mod parameters;
mod paths;
mod patterns;
mod responses;
mod schemas;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::model::{Collection, View};

/// Describes the API over `collections` and `views`.
pub fn document(collections: &[Arc<Collection>], views: &[Arc<View>]) -> Value {
    let mut paths = Map::new();
    let mut components = schemas::common();
    for collection in collections {
        paths.extend(paths::collection(collection));
        components.extend(schemas::collection(collection));
    }
    paths.extend(views.iter().map(|view| paths::view(view)));
    components.extend(views.iter().map(|view| schemas::view(view)));
    paths.extend(paths::system());
    paths.extend(auth::paths());
    paths.extend(admin::paths());
    components.extend(auth::schemas().into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    components.extend(admin::schemas().into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    let tags = collections
        .iter()
        .map(|collection| tag(collection.name.as_str(), collection.description.as_deref()))
        .chain((!views.is_empty()).then(|| tag("views", Some("Statistics over several collections."))))
        .chain([
            tag("system", Some("Health, metrics and this description.")),
            tag("authentication", Some(AUTHENTICATION)),
            tag("administration", Some(ADMINISTRATION)),
        ]);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Terrace",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Fast, always-fresh reads of JSON collections over REST",
            "description": INTRODUCTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "tags": tags.collect::<Vec<_>>(),
        // Whoever is not public says so; to everything else a credential may be sent.
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "parameters": parameters::common(),
            "headers": responses::headers(),
            "responses": responses::problems(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": BEARER}},
        },
    })
}

const INTRODUCTION: &str = "Every answer to a read has a strong `ETag`: send it as `If-None-Match` and get a 304 without a \
body while nothing has changed, or as `If-Match` on a write and get a 412 if somebody was faster. `X-Cache` says how an \
answer came about; `Cache-Control` of a request says how fresh it must be, and the `Consistency-Token` of a write, sent with \
a read, makes sure that its answer shows the write, from any instance. Failures are RFC 9457 problems with a stable `code` and the `request_id` under which the server's log \
has the rest. A parameter that is unknown, or a field that is not indexed, is a 400 that names what is allowed. \
`OPTIONS` on any path lists its methods.";

const BEARER: &str = "An access token, as login and refresh answer them, or an API key (trk_…). One that does not hold is a 401, also \
where none is needed.";

const AUTHENTICATION: &str = "Sessions of users: an access token for some minutes, and a refresh token for the next one. API keys are made \
on the command line, by `terrace key create`.";

const ADMINISTRATION: &str = "The caches, by hand: what they have, why they answer as they do, and dropping something.";

fn tag(name: &str, description: Option<&str>) -> Value {
    json!({"name": name, "description": description.unwrap_or(name)})
}

/// A reference to a component.
fn component(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// The name of a collection's component: no two collections can have equal ones, as names have no dots.
fn component_name(owner: &str, part: &str) -> String {
    format!("{owner}.{part}")
}
