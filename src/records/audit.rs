//! The change log as people read it: what may be asked of it, and what is shown of a change to whom. `feed` shows the same as it
//! happens.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::query::Parameters;
use super::{Records, Resource};
use crate::auth::authorize_on;
use crate::error::{Error, Result};
use crate::model::{Caller, Collection, DEFAULT_LIMIT, LoggedChange, MAX_LIMIT, Operation, Scalar, ScalarType, Verb};
use crate::store::{ChangeFilter, ChangePlace};

const LIST_PARAMETERS: [&str; 7] = ["record", "actor", "operation", "since", "until", "limit", "cursor"];
const LIVE_PARAMETERS: [&str; 4] = ["live", "record", "actor", "operation"];

/// What a request asks of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangesRequest {
    /// A page of what happened.
    List(ChangeFilter, u32),
    /// What happens from now on, or from the last event on that the client has.
    Live(ChangeFilter),
}

impl ChangesRequest {
    /// Reads a query string.
    pub fn parse(raw: &str) -> Result<Self> {
        let parameters = Parameters::parse(raw)?;
        let text = |name: &str| parameters.single(name)?.map(|value| text(name, value)).transpose();
        let filter = ChangeFilter {
            record: text("record")?,
            actor: text("actor")?,
            operation: parameters.single("operation")?.map(operation).transpose()?,
            ..ChangeFilter::default()
        };
        if let Some(live) = parameters.single("live")? {
            parameters.only(&LIVE_PARAMETERS)?;
            if !matches!(live, "" | "true") {
                return Err(Error::parameter("live", "live is given without a value, or as live=true."));
            }
            return Ok(Self::Live(filter));
        }
        parameters.only(&LIST_PARAMETERS).map_err(|error| error.with_allowed(LIST_PARAMETERS.into_iter().chain(["live"])))?;
        let [since, until] = ["since", "until"].map(|name| time(name, parameters.single(name)?));
        let before = parameters.single("cursor")?.filter(|text| !text.is_empty()).map(decode_cursor).transpose()?;
        let limit = parameters.single("limit")?.map_or(Ok(DEFAULT_LIMIT), limit)?;
        Ok(Self::List(ChangeFilter { since: since?, until: until?, before, ..filter }, limit))
    }
}

/// PostgreSQL has no texts with a zero character, so nothing is called so.
fn text(name: &str, value: &str) -> Result<String> {
    match value.contains('\0') {
        true => Err(Error::parameter(name, format!("{name} has no zero characters."))),
        false => Ok(value.to_owned()),
    }
}

fn operation(text: &str) -> Result<Operation> {
    let allowed = [Operation::Create, Operation::Update, Operation::Delete].map(Operation::as_str);
    Operation::parse(text)
        .ok_or_else(|| Error::parameter("operation", format!("{text:?} is no operation.")).with_allowed(allowed))
}

fn time(name: &str, text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    match ScalarType::Timestamp.parse(text) {
        Some(Scalar::Text(time)) => Ok(Some(time)),
        Some(_) | None => Err(Error::parameter(name, format!("{name} is an RFC 3339 time such as 2026-01-31T09:30:00Z."))),
    }
}

fn limit(text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        Ok(limit) if limit > 0 => Ok(limit.min(MAX_LIMIT)),
        Ok(_) | Err(_) => {
            Err(Error::parameter("limit", format!("limit is a whole number from 1; more than {MAX_LIMIT} is {MAX_LIMIT}.")))
        }
    }
}

fn encode_cursor(place: &ChangePlace) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {}", place.sequence, place.at))
}

fn decode_cursor(text: &str) -> Result<ChangePlace> {
    let invalid = || Error::parameter("cursor", "This is not a cursor that a page of changes has given.");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (sequence, at) = text.split_once(' ').ok_or_else(invalid)?;
    // A text with a zero character cannot be bound.
    if at.contains('\0') {
        return Err(invalid());
    }
    Ok(ChangePlace { at: at.to_owned(), sequence: sequence.parse().map_err(|_| invalid())? })
}

/// What somebody is shown of the changes of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChangeSight {
    /// Nobody is told that these members are there.
    hidden: BTreeSet<String>,
    /// These are left out, and their names told.
    redacted: BTreeSet<String>,
}

impl ChangeSight {
    /// Of this caller. Fails if they may not read the change log.
    pub(super) fn of(collection: &Collection, caller: &Caller) -> Result<Self> {
        authorize_on(&caller.principal, collection.access.changes, Some(&collection.name), Verb::Read)?;
        let hidden: BTreeSet<String> = collection.access.hidden_from(caller.principal.role()).map(str::to_owned).collect();
        let redacted = collection.redact.iter().filter(|name| !hidden.contains(*name)).cloned().collect();
        Ok(Self { hidden, redacted })
    }

    /// The change as a JSON object on one line.
    pub(super) fn show(&self, change: &LoggedChange) -> Result<String> {
        serde_json::to_string(&self.shown(change)?).map_err(Error::internal)
    }

    fn shown<'a>(&'a self, change: &'a LoggedChange) -> Result<Shown<'a>> {
        let mut redacted = BTreeSet::new();
        let before = self.document(change.before.as_deref(), &mut redacted)?;
        let after = self.document(change.after.as_deref(), &mut redacted)?;
        Ok(Shown {
            position: change.position.to_string(),
            id: change.id.as_str(),
            operation: change.operation.as_str(),
            version: change.version,
            actor: &change.actor,
            origin: change.origin.as_deref(),
            at: &change.at,
            before,
            after,
            redacted,
        })
    }

    /// As it is stored where nothing is left out: numbers keep their spelling.
    fn document<'a>(&'a self, text: Option<&str>, redacted: &mut BTreeSet<&'a str>) -> Result<Option<Box<RawValue>>> {
        let Some(text) = text else { return Ok(None) };
        let is_whole = self.hidden.is_empty() && self.redacted.is_empty();
        if is_whole && !text.contains(['\n', '\r']) {
            return serde_json::from_str(text).map(Some).map_err(Error::internal);
        }
        let mut members: Map<String, Value> = serde_json::from_str(text).map_err(Error::internal)?;
        members.retain(|name, _| !self.hidden.contains(name));
        for name in &self.redacted {
            if members.shift_remove(name).is_some() {
                redacted.insert(name);
            }
        }
        serde_json::value::to_raw_value(&members).map(Some).map_err(Error::internal)
    }
}

/// A change as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    position: String,
    id: &'a str,
    operation: &'static str,
    version: i64,
    actor: &'a str,
    origin: Option<&'a str>,
    at: &'a str,
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    redacted: BTreeSet<&'a str>,
}

#[derive(Serialize)]
struct Page<'a> {
    data: Vec<Shown<'a>>,
    pagination: Pagination,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    limit: u32,
    has_next: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Records {
    /// A page of the changes of a collection, as JSON. It is not cached: whoever reads a log wants what is in it now.
    pub async fn changes(&self, resource: &Arc<Resource>, caller: &Caller, filter: ChangeFilter, limit: u32) -> Result<String> {
        let collection = resource.collection();
        let sight = ChangeSight::of(collection, caller)?;
        let list = self.store.changes_list(&collection.name, filter, limit).await?;
        let data = list.changes.iter().map(|change| sight.shown(change)).collect::<Result<_>>()?;
        let next_cursor = list.next.as_ref().map(encode_cursor);
        let page = Page { data, pagination: Pagination { limit, has_next: next_cursor.is_some(), next_cursor } };
        serde_json::to_string(&page).map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_read_and_what_is_wrong_is_named() {
        let parsed =
            ChangesRequest::parse("record=a%20b&actor=user:1&operation=delete&since=2026-01-31T10:30:00%2B01:00&limit=500");
        let filter = ChangeFilter {
            record: Some("a b".to_owned()),
            actor: Some("user:1".to_owned()),
            operation: Some(Operation::Delete),
            since: Some("2026-01-31T09:30:00.000000Z".to_owned()),
            ..ChangeFilter::default()
        };
        assert_eq!(parsed.unwrap(), ChangesRequest::List(filter, MAX_LIMIT));
        let live = ChangeFilter { record: Some("a".to_owned()), ..ChangeFilter::default() };
        assert_eq!(ChangesRequest::parse("live&record=a").unwrap(), ChangesRequest::Live(live));
        for (raw, name) in [
            ("operation=upsert", "operation"),
            ("since=yesterday", "since"),
            ("until=", "until"),
            ("limit=0", "limit"),
            ("limit=-1", "limit"),
            ("cursor=x", "cursor"),
            ("page=2", "page"),
            ("live=no", "live"),
            ("live&since=2026-01-01T00:00:00Z", "since"),
            ("record=a&record=b", "record"),
            ("record=%00", "record"),
            ("live&actor=a%00", "actor"),
        ] {
            let error = ChangesRequest::parse(raw).unwrap_err();
            assert_eq!((error.code(), error.parameter_name()), ("invalid_parameter", Some(name)), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_query_string_is_read_or_refused(raw in ".{0,80}") {
            if let Err(error) = ChangesRequest::parse(&raw) {
                prop_assert_eq!(error.kind(), crate::error::ErrorKind::BadRequest);
            }
        }

        #[test]
        fn a_cursor_reads_what_it_writes(at in "[^\0]{0,40}", sequence: i64) {
            let place = ChangePlace { at, sequence };
            prop_assert_eq!(decode_cursor(&encode_cursor(&place)).unwrap(), place);
        }
    }
}
