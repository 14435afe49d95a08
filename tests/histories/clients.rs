//! Clients: the plans that are drawn at random, and how several of them are carried out at once against real servers.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};

use super::checker::{Answer, Answered, History, Logged, Request};
use super::model::{Members, Operation, Verb};
use crate::support::database::Database;
use crate::support::{DEADLINE, Reply, Server};

pub const THINGS: &str = "/api/things";

/// A collection that takes any document.
pub const THINGS_FILE: &str = r#"
name = "things"
path = "/api/things"
id = "key"
sort = "key"
indexes = ["a"]
[access]
read = "public"
write = "public"
[schema]
required = ["key"]
[schema.properties]
key = { type = "string" }
a = { type = "integer" }
"#;

/// How many records one history is about. Few, so that they are fought over.
const RECORDS: usize = 3;

/// What one client does next.
#[derive(Clone, Debug)]
pub enum Step {
    Read(usize),
    Write(Draft),
    Batch(Vec<Draft>),
}

/// An operation whose record and conditions are known when it is sent.
#[derive(Clone, Debug)]
pub struct Draft {
    record: usize,
    kind: Kind,
    members: Members,
    condition: Condition,
    /// Whether it sets a member to a value that no other one sets. Those that do not may change nothing.
    is_unique: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Create,
    Upsert,
    Patch,
    Delete,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    None,
    /// The tag that any client has seen last.
    LastSeen,
    Exists,
}

fn draft() -> impl Strategy<Value = Draft> {
    let kind = prop_oneof![2 => Just(Kind::Create), 6 => Just(Kind::Upsert), 8 => Just(Kind::Patch), 2 => Just(Kind::Delete)];
    let condition = prop_oneof![8 => Just(Condition::None), 3 => Just(Condition::LastSeen), 1 => Just(Condition::Exists)];
    let member = (prop::sample::select(vec!["a", "b", "c", "x", "y"]), prop::option::weighted(0.8, 0..3_i64));
    (0..RECORDS, kind, prop::collection::vec(member, 0..3), condition, prop::bool::weighted(0.5)).prop_map(
        |(record, kind, chosen, condition, is_unique)| {
            let mut members = Members::new();
            for (name, value) in chosen {
                // In a document, null would be a value; in a patch it removes.
                if value.is_none() && !matches!(kind, Kind::Patch) {
                    continue;
                }
                match name {
                    "x" | "y" => members.entry("inner").or_insert_with(|| json!({}))[name] = json!(value),
                    _ => members.insert(name.to_owned(), json!(value)).map_or((), drop),
                }
            }
            Draft { record, kind, members, condition, is_unique }
        },
    )
}

/// The plans of all clients.
pub fn plans() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        3 => (0..RECORDS).prop_map(Step::Read),
        8 => draft().prop_map(Step::Write),
        3 => prop::collection::vec(draft(), 1..5).prop_map(Step::Batch),
    ];
    prop::collection::vec(prop::collection::vec(step, 4..12), 2..6)
}

/// Carries out plans, one client of its own for each.
pub struct Stage<'a> {
    servers: &'a [Server],
    /// For how long a server may not know what another one wrote.
    lag: Duration,
    /// Before the name of each record, so that histories on one server do not meet.
    prefix: String,
    start: Instant,
    seen: RefCell<HashMap<String, String>>,
    numbers: Cell<i64>,
}

impl<'a> Stage<'a> {
    pub fn new(servers: &'a [Server], name: &str, lag: Duration) -> Self {
        let (seen, numbers) = (RefCell::default(), Cell::new(100));
        Self { servers, lag, prefix: format!("{name}-"), start: Instant::now(), seen, numbers }
    }

    /// The whole history, when all clients are done.
    pub async fn play(&self, plans: &[Vec<Step>]) -> History {
        let clients = plans.iter().enumerate().map(async |(client, plan)| {
            let mut answered = Vec::new();
            for step in plan {
                let request = self.request(step);
                answered.push(self.ask(client, request).await);
            }
            answered
        });
        let answered = futures_util::future::join_all(clients).await.concat();
        let log = self.log();
        let mut last = BTreeMap::new();
        for id in (0..RECORDS).map(|record| self.id(record)) {
            let after = log.iter().rev().find(|row| row.id == id).and_then(|row| row.after.as_ref());
            last.insert(id.clone(), self.last(&id, after).await);
        }
        History { answered, log, last, lag: u64::try_from(self.lag.as_nanos()).unwrap() }
    }

    /// What the servers answer at last: where one may know later than another, that is when they agree with the log.
    async fn last(&self, id: &str, logged: Option<&Value>) -> Option<Value> {
        let deadline = Instant::now() + DEADLINE;
        let mut shown = None;
        for server in self.servers {
            shown = loop {
                let reply = server.get(&format!("{THINGS}/{id}")).await;
                let shown = (reply.status == 200).then(|| reply.json());
                if self.lag.is_zero() || shown.as_ref() == logged {
                    break shown;
                }
                if Instant::now() > deadline {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
        }
        shown
    }

    /// Sends one request.
    pub async fn ask(&self, client: usize, request: Request) -> Answered {
        let number = client % self.servers.len();
        let server = &self.servers[number];
        let began = self.now();
        let reply = match &request {
            Request::Read(id) => server.get(&format!("{THINGS}/{id}")).await,
            Request::Write(operation) => self.write(server, operation).await,
            Request::Batch(operations) => {
                let operations: Vec<Value> = operations.iter().map(in_batch).collect();
                server.post(&format!("{THINGS}/_batch"), &json!({"operations": operations})).await
            }
        };
        let answer = answer(&reply);
        if let (Request::Read(id) | Request::Write(Operation { id, .. }), 200 | 201) = (&request, answer.status) {
            self.seen.borrow_mut().insert(id.clone(), answer.etag.clone());
        }
        Answered { request, server: number, began, ended: self.now(), answer }
    }

    async fn write(&self, server: &Server, operation: &Operation) -> Reply {
        let path = format!("{THINGS}/{}", operation.id);
        let headers: Vec<_> = operation.if_match.iter().map(|tag| ("if-match", tag.as_str())).collect();
        let (method, path, body) = match &operation.verb {
            Verb::Create(members) => (Method::POST, THINGS, Some(members)),
            Verb::Update(_) => unreachable!("only batches have it"),
            Verb::Upsert(members) => (Method::PUT, path.as_str(), Some(members)),
            Verb::Patch(patch) => (Method::PATCH, path.as_str(), Some(patch)),
            Verb::Delete => (Method::DELETE, path.as_str(), None),
        };
        server.send_with(method, path, &headers, body.cloned().map(Value::Object).as_ref()).await
    }

    pub fn id(&self, record: usize) -> String {
        format!("{}{record}", self.prefix)
    }

    fn request(&self, step: &Step) -> Request {
        match step {
            Step::Read(record) => Request::Read(self.id(*record)),
            Step::Write(draft) => {
                let operation = self.operation(draft);
                // POST takes no such condition.
                let is_create = matches!(operation.verb, Verb::Create(_));
                Request::Write(Operation { if_match: operation.if_match.filter(|_| !is_create), ..operation })
            }
            Step::Batch(drafts) => {
                let mut operations: Vec<_> = drafts.iter().map(|draft| self.operation(draft)).collect();
                let mut named = HashSet::new();
                for operation in &mut operations {
                    // The tags of what a batch makes itself are not known to anybody.
                    let is_first = named.insert(operation.id.clone());
                    operation.if_match = operation.if_match.take().filter(|tag| is_first || tag == "*");
                    // Half of the replacements in batches demand that there is something to replace.
                    if let Verb::Upsert(members) = &operation.verb
                        && members.len() % 2 == 0
                    {
                        operation.verb = Verb::Update(members.clone());
                    }
                }
                Request::Batch(operations)
            }
        }
    }

    fn operation(&self, draft: &Draft) -> Operation {
        let id = self.id(draft.record);
        let mut members = draft.members.clone();
        if draft.is_unique {
            members.insert("unique".to_owned(), json!(self.numbers.replace(self.numbers.get() + 1)));
        }
        let whole = |mut members: Members| {
            members.insert("key".to_owned(), json!(id));
            members
        };
        let verb = match draft.kind {
            Kind::Create => Verb::Create(whole(members)),
            Kind::Upsert => Verb::Upsert(whole(members)),
            Kind::Patch => Verb::Patch(members),
            Kind::Delete => Verb::Delete,
        };
        let if_match = match draft.condition {
            Condition::None => None,
            Condition::LastSeen => self.seen.borrow().get(&id).cloned(),
            Condition::Exists => Some("*".to_owned()),
        };
        Operation { id, verb, if_match }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    /// What the change log has of this history.
    pub fn log(&self) -> Vec<Logged> {
        let mut database = Database::of(&self.servers[0]);
        let columns = match &database {
            Database::Sqlite(_) => {
                "json_object('transaction', NULL, 'sequence', position, 'id', id, 'operation', operation, 'version', version, \
                 'before', json(before), 'after', json(after))"
            }
            Database::Postgres(_) => {
                "json_build_object('transaction', transaction::text::bigint, 'sequence', position, 'id', id, 'operation', \
                 operation, 'version', version, 'before', before, 'after', after)::text"
            }
        };
        let own = format!("collection = 'things' AND id LIKE '{}%'", self.prefix);
        let texts = database.texts(&format!("SELECT {columns} AS value FROM changes WHERE {own} ORDER BY position"));
        texts.iter().map(|text| logged(&serde_json::from_str(text).unwrap())).collect()
    }
}

fn logged(row: &Value) -> Logged {
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let document = |name: &str| Some(row[name].clone()).filter(|document| !document.is_null());
    Logged {
        transaction: row["transaction"].as_u64(),
        sequence: row["sequence"].as_i64().unwrap(),
        id: text("id"),
        operation: text("operation"),
        version: row["version"].as_i64().unwrap(),
        before: document("before"),
        after: document("after"),
    }
}

fn answer(reply: &Reply) -> Answer {
    let token = Some(reply.header("consistency-token")).filter(|token| !token.is_empty());
    Answer {
        status: reply.status.as_u16(),
        body: if reply.text.is_empty() { Value::Null } else { reply.json() },
        etag: reply.header("etag").to_owned(),
        token: token.map(|token| token.parse().unwrap()),
        is_hit: reply.cache() == "HIT",
    }
}

fn in_batch(operation: &Operation) -> Value {
    let (verb, data) = match &operation.verb {
        Verb::Create(members) => ("create", Some(members)),
        Verb::Update(members) => ("update", Some(members)),
        Verb::Upsert(members) => ("upsert", Some(members)),
        Verb::Patch(patch) => ("patch", Some(patch)),
        Verb::Delete => ("delete", None),
    };
    let mut sent = json!({"op": verb, "id": operation.id});
    for (name, value) in [("data", data.map(|data| json!(data))), ("if_match", operation.if_match.as_ref().map(|tag| json!(tag)))]
    {
        if let Some(value) = value {
            sent[name] = value;
        }
    }
    sent
}
