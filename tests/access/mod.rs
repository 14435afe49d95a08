//! Who sees and writes what. Here callers are made by hand and ask the records directly; what routes do with them is in `matrix`.

mod elsewhere;
mod random;
mod references;
mod shipped;
mod sights;
mod writes;

use std::sync::Arc;

use serde_json::{Value, json};
use terrace::app::App;
use terrace::error::Error;
use terrace::model::{Caller, Freshness, Identity, Principal, RecordId, Role};
use terrace::records::{Answer, Encoding, Outcome, Precondition, Presence, Records, Resource, ViewResource, Written};

use crate::support::Server;

/// For owners, with a member that only administrators see, and one that viewers do not set.
const NOTES: &str = r#"
name = "notes"
id = "key"
sort = "key"
indexes = ["kind", ["salary", "kind"], ["kind", "salary"], "stage"]
[search]
title = "A"
[access]
read = "owner"
write = "owner"
owner_field = "owner"
[access.fields]
salary = { read = "admin" }
stage = { write = "editor" }
[references]
room = "rooms"
parent = "notes"
[schema]
required = ["key", "title"]
additionalProperties = false
[schema.properties]
key = { type = "string" }
title = { type = "string" }
owner = { type = "string" }
kind = { type = "string" }
salary = { type = "integer" }
stage = { type = "string" }
room = { type = "string" }
parent = { type = ["string", "null"] }
"#;

/// For everybody to read and for authors to write, with a reference to what is not for everybody.
const POSTS: &str = r#"
name = "posts"
id = "key"
sort = "key"
indexes = ["kind"]
[access]
read = "public"
write = "owner"
owner_field = "author"
[access.fields]
remark = { read = "editor" }
[references]
note = "notes"
room = "rooms"
[schema]
required = ["key"]
[schema.properties]
key = { type = "string" }
kind = { type = "string" }
author = { type = "string" }
remark = { type = "string" }
note = { type = "string" }
room = { type = "string" }
"#;

/// For viewers, with a member for editors.
const ROOMS: &str = r#"
name = "rooms"
id = "key"
sort = "key"
indexes = ["floor", "code"]
[access]
read = "viewer"
write = "editor"
[access.fields]
code = { read = "editor" }
[schema]
required = ["key"]
[schema.properties]
key = { type = "string" }
floor = { type = "integer" }
code = { type = "string" }
"#;

/// For everybody, and for nobody less than an administrator.
const SIGNS: &str = r#"
name = "signs"
id = "key"
[access]
read = "public"
write = "public"
[references]
safe = "safes"
room = "rooms"
[schema]
required = ["key"]
[schema.properties]
key = { type = "string" }
text = { type = "string" }
safe = { type = "string" }
room = { type = "string" }
"#;

const SAFES: &str = r#"
name = "safes"
id = "key"
[access]
read = "admin"
[schema]
required = ["key"]
[schema.properties]
key = { type = "string" }
"#;

const FLOORS: &str = "name = \"floors\"\nread = \"viewer\"\n[parts.rooms]\ncollection = \"rooms\"\nby = [\"floor\"]";

const SALARIES: &str = "name = \"salaries\"\nread = \"admin\"\n[parts.notes]\ncollection = \"notes\"\nby = [\"salary\"]";

const COLLECTIONS: [(&str, &str); 5] = [("notes", NOTES), ("posts", POSTS), ("rooms", ROOMS), ("safes", SAFES), ("signs", SIGNS)];

/// A server of these collections.
pub fn server() -> Server {
    Server::with_files(&COLLECTIONS, &[("floors", FLOORS), ("salaries", SALARIES)], |_| {})
}

/// What answers, and the files it stands on.
struct House {
    app: App,
    server: Server,
}

/// What somebody is shown: what there is, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Found { text: String, etag: String, headers: Vec<(String, String)> },
    Missing,
    Refused { code: &'static str, detail: String, allowed: Vec<String> },
}

impl House {
    async fn new() -> Self {
        let server = server();
        let app = App::open(server.settings.clone()).await.unwrap();
        Self { app, server }
    }

    fn records(&self) -> &Arc<Records> {
        self.app.records()
    }

    fn resource(&self, name: &str) -> &Arc<Resource> {
        self.records().resource(name).unwrap()
    }

    async fn answer(&self, caller: &Caller, path: &str) -> Result<Answer, Error> {
        answer(self.records(), caller, path).await
    }

    /// What `caller` gets by `notes/a?fields=title`, `notes?kind=x`, `notes/_stats?by=kind` or the name of a view.
    async fn read(&self, caller: &Caller, path: &str) -> Shown {
        shown(self.answer(caller, path).await).await
    }

    /// The record or page, which must be there.
    async fn found(&self, caller: &Caller, path: &str) -> Value {
        match self.read(caller, path).await {
            Shown::Found { text, .. } => serde_json::from_str(&text).unwrap(),
            other @ (Shown::Missing | Shown::Refused { .. }) => panic!("{path}: {other:?}"),
        }
    }

    /// The keys of a page, in its order.
    async fn keys(&self, caller: &Caller, path: &str) -> Vec<String> {
        let page = self.found(caller, path).await;
        page["data"].as_array().unwrap().iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect()
    }

    async fn create(&self, caller: &Caller, collection: &str, document: Value) -> Result<Written, Error> {
        let reply = self.records().create(self.resource(collection), caller, document, None).await?;
        Ok(reply.done().unwrap())
    }

    async fn put(&self, caller: &Caller, collection: &str, key: &str, document: Value) -> Result<Written, Error> {
        self.put_if(caller, (collection, key), document, Precondition::None).await
    }

    async fn put_if(
        &self,
        caller: &Caller,
        at: (&str, &str),
        document: Value,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        let (resource, id) = (self.resource(at.0), RecordId::parse(at.1).unwrap());
        Ok(self.records().replace(resource, caller, id, document, precondition, None).await?.done().unwrap())
    }

    async fn patch(&self, caller: &Caller, collection: &str, key: &str, patch: Value) -> Result<Written, Error> {
        self.patch_if(caller, (collection, key), patch, Precondition::None).await
    }

    async fn patch_if(
        &self,
        caller: &Caller,
        at: (&str, &str),
        patch: Value,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        let (resource, id) = (self.resource(at.0), RecordId::parse(at.1).unwrap());
        Ok(self.records().patch(resource, caller, id, patch, precondition, None).await?.done().unwrap())
    }

    async fn delete(&self, caller: &Caller, collection: &str, key: &str) -> Result<Written, Error> {
        let (resource, id) = (self.resource(collection), RecordId::parse(key).unwrap());
        Ok(self.records().delete(resource, caller, id, Precondition::None, None).await?.done().unwrap())
    }

    async fn batch(&self, caller: &Caller, collection: &str, operations: Value) -> Result<Vec<Written>, Error> {
        let body = json!({"operations": operations});
        Ok(self.records().batch(self.resource(collection), caller, body, None).await?.done().unwrap())
    }
}

async fn answer(records: &Records, caller: &Caller, path: &str) -> Result<Answer, Error> {
    let (place, raw) = path.split_once('?').unwrap_or((path, ""));
    let (name, below) = place.split_once('/').unwrap_or((place, ""));
    let demand = Freshness::ANY;
    let view = records.declared().views().iter().find(|view| view.view().name.as_str() == name);
    if let Some(view) = view {
        let view: &Arc<ViewResource> = view;
        return records.view(view, caller, &demand).await;
    }
    let resource = records.resource(name).unwrap();
    match below {
        "" => records.list(resource, caller, raw, &demand).await,
        "_stats" => records.stats(resource, caller, raw, &demand).await,
        key => records.record(resource, caller, &RecordId::parse(key).unwrap(), raw, &demand).await,
    }
}

async fn shown(answer: Result<Answer, Error>) -> Shown {
    match answer {
        Ok(answer) if answer.presence() == Presence::Missing => Shown::Missing,
        Ok(answer) => {
            let whole = answer.representation(Encoding::Identity).await.unwrap();
            let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            Shown::Found {
                text: String::from_utf8(whole.body.to_vec()).unwrap(),
                etag: whole.etag.to_str().unwrap().to_owned(),
                headers: headers.collect(),
            }
        }
        Err(error) => Shown::Refused { code: error.code(), detail: error.detail().to_owned(), allowed: error.allowed().to_vec() },
    }
}

/// Somebody known.
fn known(subject: &str, role: Role) -> Caller {
    with_scopes(subject, role, None)
}

/// An API key with scopes.
fn with_scopes(subject: &str, role: Role, scopes: Option<&[&str]>) -> Caller {
    let scopes = scopes.map(|scopes| scopes.iter().map(|scope| scope.parse().unwrap()).collect());
    let identity = Identity { actor: format!("user:{subject}"), subject: subject.to_owned(), role, scopes, quota: None };
    Caller { principal: Principal::Known(Arc::new(identity)), address: None }
}

fn is_hit(answer: &Answer) -> bool {
    matches!(answer.outcome(), Outcome::Hit)
}

/// The status-like code of a refusal, and the members it points at.
fn refusal(result: Result<Written, Error>) -> (&'static str, Vec<String>) {
    let error = result.unwrap_err();
    (error.code(), error.violations().iter().map(|violation| violation.pointer.clone()).collect())
}
