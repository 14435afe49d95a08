//! `_batch`: up to a thousand operations in one transaction, all or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::document;
use super::plan::{Action, BatchError, Draft, combined};
use super::precondition::Precondition;
use super::rights::Rights;
use super::write::{create_draft, document_draft};
use super::{Idempotent, Records, Reply, Resource, Written};
use crate::error::{Error, Result, Violation};
use crate::model::{Caller, RecordId};

/// The most operations in a batch.
pub const MAX_OPERATIONS: usize = 1_000;

/// The most operations of a batch on one record: each is worked out on the whole document.
const MAX_ON_ONE_RECORD: usize = 16;

/// One operation as the client sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"op\": \"delete\", \"id\": \"…\"}")]
struct Requested {
    op: Verb,
    id: Option<String>,
    data: Option<Value>,
    if_match: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Create,
    Update,
    Patch,
    Upsert,
    Delete,
}

impl Records {
    /// Runs the operations of `body`, `{"operations": […]}`. One that cannot be done stops all; every failure is named
    /// by its position.
    pub async fn batch(
        &self,
        resource: &Arc<Resource>,
        caller: &Caller,
        body: Value,
        once: Option<Idempotent>,
    ) -> Result<Reply<Vec<Written>>> {
        let rights = Rights::of(resource, &caller.principal)?;
        let operations = operations(body)?;
        let mut drafts = Vec::with_capacity(operations.len());
        let mut failures = Vec::new();
        let total = operations.len();
        for (index, operation) in operations.into_iter().enumerate() {
            match draft(resource, index, operation) {
                Ok(draft) => drafts.push(draft),
                Err(error) => failures.push(BatchError { index, error }),
            }
        }
        failures.extend(too_many_on_one_record(&drafts));
        if failures.is_empty() {
            self.write_all(resource, (caller, rights), drafts, once).await
        } else {
            Err(combined(total, failures))
        }
    }
}

/// A failure for each draft beyond what a batch may do to one record.
fn too_many_on_one_record(drafts: &[Draft]) -> Vec<BatchError> {
    let mut counts: HashMap<&RecordId, usize> = HashMap::new();
    let beyond = drafts.iter().enumerate().filter(|(_, draft)| {
        let count = counts.entry(&draft.id).or_default();
        *count += 1;
        *count > MAX_ON_ONE_RECORD
    });
    let refused = |(index, draft): (usize, &Draft)| {
        let detail = format!("A batch has at most {MAX_ON_ONE_RECORD} operations on one record.");
        BatchError { index, error: Error::invalid(vec![Violation::new(&draft.pointer, "too_many_on_one_record", detail)]) }
    };
    beyond.map(refused).collect()
}

fn operations(body: Value) -> Result<Vec<Value>> {
    let shape = |detail: String| Error::invalid(vec![Violation::new("/operations", "type", detail)]);
    let Value::Object(mut members) = body else {
        return Err(Error::invalid(vec![Violation::new("", "type", "A batch is a JSON object, {\"operations\": […]}.")]));
    };
    let Some(Value::Array(operations)) = members.remove("operations") else {
        return Err(shape("operations is a required array.".to_owned()));
    };
    if let Some(name) = members.keys().next() {
        return Err(Error::invalid(vec![Violation::of_member(name, "unknown", "A batch has one member, operations.")]));
    }
    match operations.len() {
        1..=MAX_OPERATIONS => Ok(operations),
        count => Err(shape(format!("A batch has 1 to {MAX_OPERATIONS} operations, not {count}."))),
    }
}

fn draft(resource: &Resource, index: usize, operation: Value) -> Result<Draft> {
    let pointer = format!("/operations/{index}");
    let at = |member: &str, code: &str, detail: String| {
        Error::invalid(vec![Violation::new(format!("{pointer}{member}"), code, detail)])
    };
    let requested: Requested = serde_json::from_value(operation).map_err(|error| at("", "operation", format!("{error}.")))?;
    let id = match requested.id.as_deref().map(RecordId::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(detail)) => return Err(at("/id", "invalid_id", detail.to_owned())),
    };
    let precondition = requested.if_match.map_or(Precondition::None, |tag| match tag.as_str() {
        "*" => Precondition::Exists,
        _ => Precondition::Matches(vec![tag]),
    });
    let data = || requested.data.clone().ok_or_else(|| at("/data", "required", "This operation needs data.".to_owned()));
    let needed = || id.clone().ok_or_else(|| at("/id", "required", "This operation needs an id.".to_owned()));
    let document = |action| {
        let drafted = match id.clone() {
            Some(id) => document_draft(resource, id, data()?, pointer.clone(), "/data", action),
            None => create_draft(resource, data()?, pointer.clone(), "/data", action),
        };
        drafted.map_err(|error| below(error, &pointer))
    };
    let plain = |action| {
        Ok(Draft { pointer: pointer.clone(), data_pointer: "/data", id: needed()?, action, precondition: Precondition::None })
    };
    let draft = match requested.op {
        Verb::Create => document(Action::Create),
        Verb::Upsert => document(Action::Upsert),
        Verb::Update => needed().and_then(|_| document(Action::Update)),
        Verb::Patch => document::client_members(data()?)
            .map_err(|error| below(error, &pointer))
            .and_then(|members| plain(Action::Patch(Value::Object(members)))),
        Verb::Delete if requested.data.is_some() => Err(at("/data", "unknown", "A deletion has no data.".to_owned())),
        Verb::Delete => plain(Action::Delete),
    }?;
    Ok(Draft { precondition, ..draft })
}

/// Moves the pointers of a document's violations to the document's place in the batch. What points into the batch
/// already stays.
fn below(error: Error, pointer: &str) -> Error {
    let moved = error.violations().iter().map(|violation| {
        let place = if violation.pointer.starts_with("/operations/") {
            violation.pointer.clone()
        } else {
            format!("{pointer}/data{}", violation.pointer)
        };
        Violation::new(place, violation.code.clone(), violation.detail.clone())
    });
    let moved = moved.collect();
    error.with_violations(moved)
}
