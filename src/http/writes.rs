//! Writes: one record, or a batch. Parse, call, shape. What a write means is decided in `records`.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::freshness::CONSISTENCY_TOKEN;
use super::idempotency::{self, IDEMPOTENCY_REPLAYED};
use super::negotiation::PREFER;
use super::reads::no_parameters;
use super::routes::CollectionRoutes;
use super::{body, conditional, identifier, negotiation};
use crate::error::{Error, Result};
use crate::model::Caller;
use crate::records::{Idempotent, KeptAnswer, Records, Reply, WriteOutcome, Written};

static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What all writes are given.
pub(super) struct WriteContext<'a> {
    pub(super) records: &'a Records,
    pub(super) routes: &'a CollectionRoutes,
    pub(super) request: &'a HttpRequest,
    pub(super) caller: &'a Caller,
    pub(super) max_body_bytes: usize,
}

/// Answers `POST path`.
pub(super) async fn create_record(context: WriteContext<'_>, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    conditional::no_precondition(context.request.headers())?;
    let document = body::object(context.request, payload, context.max_body_bytes, body::JSON).await?;
    let once = context.once(Some(&document))?;
    let reply = context.records.create(&context.routes.resource, context.caller, document, once).await?;
    context.answer(reply)
}

/// Answers `PUT path/{id}`.
pub(super) async fn replace_record(context: WriteContext<'_>, segment: &str, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    let id = identifier::record_id(segment)?;
    let precondition = conditional::precondition(context.request.headers())?;
    let document = body::object(context.request, payload, context.max_body_bytes, body::JSON).await?;
    let once = context.once(Some(&document))?;
    let resource = &context.routes.resource;
    let reply = context.records.replace(resource, context.caller, id, document, precondition, once).await?;
    context.answer(reply)
}

/// Answers `PATCH path/{id}`.
pub(super) async fn patch_record(context: WriteContext<'_>, segment: &str, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    let id = identifier::record_id(segment)?;
    let precondition = conditional::precondition(context.request.headers())?;
    let patch = body::object(context.request, payload, context.max_body_bytes, body::MERGE_PATCH).await?;
    let once = context.once(Some(&patch))?;
    let resource = &context.routes.resource;
    let reply = context.records.patch(resource, context.caller, id, patch, precondition, once).await?;
    context.answer(reply)
}

/// Answers `DELETE path/{id}`.
pub(super) async fn delete_record(context: WriteContext<'_>, segment: &str) -> Result<HttpResponse> {
    context.check()?;
    let id = identifier::record_id(segment)?;
    let precondition = conditional::precondition(context.request.headers())?;
    let once = context.once(None)?;
    let reply = context.records.delete(&context.routes.resource, context.caller, id, precondition, once).await?;
    context.answer(reply)
}

/// Answers `POST path/_batch`.
pub(super) async fn write_batch(context: WriteContext<'_>, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    conditional::no_precondition(context.request.headers())?;
    let body = body::json(context.request, payload, context.max_body_bytes, body::JSON).await?;
    let with_data = wants_representation(context.request.headers());
    let once = idempotency::requested(context.request, Some(&body), move |written| shape_batch(written, with_data))?;
    match context.records.batch(&context.routes.resource, context.caller, body, once).await? {
        Reply::Done(written) => response(shape_batch(&written, with_data)?),
        Reply::Kept(kept) => replayed(kept),
    }
}

impl WriteContext<'_> {
    /// What every write checks before it reads the body: strangers send none.
    fn check(&self) -> Result<()> {
        self.routes.resource.check_writer(&self.caller.principal)?;
        negotiation::require_json(self.request.headers())?;
        no_parameters(self.request)
    }

    /// What the request asks to be done once.
    fn once(&self, body: Option<&Value>) -> Result<Option<Idempotent>> {
        let resource = Arc::clone(&self.routes.resource);
        idempotency::requested(self.request, body, move |written| match written {
            [only] => Ok(shape(&resource.collection().path, only.clone())),
            _ => Err(Error::internal("a write of one record has another number of results")),
        })
    }

    fn answer(&self, reply: Reply<Written>) -> Result<HttpResponse> {
        match reply {
            Reply::Done(written) => response(shape(&self.routes.resource.collection().path, written)),
            Reply::Kept(kept) => replayed(kept),
        }
    }
}

/// The answer to a write of one record of the collection at `path`.
fn shape(path: &str, written: Written) -> KeptAnswer {
    let status = match written.outcome {
        WriteOutcome::Created => StatusCode::CREATED,
        WriteOutcome::Updated | WriteOutcome::Unchanged if written.record.is_some() => StatusCode::OK,
        // To a key whose scopes let it write and not read.
        WriteOutcome::Updated | WriteOutcome::Unchanged | WriteOutcome::Deleted => StatusCode::NO_CONTENT,
    };
    let mut headers = Vec::new();
    if status == StatusCode::CREATED {
        headers.push((LOCATION.as_str().to_owned(), identifier::record_path(path, &written.id)));
    }
    headers.extend(written.etag.map(|etag| (ETAG.as_str().to_owned(), etag)));
    let document = written.record.filter(|_| status != StatusCode::NO_CONTENT);
    let body = document.map(|record| Arc::unwrap_or_clone(record).data).unwrap_or_default();
    KeptAnswer { status: status.as_u16(), position: written.position, headers, body }
}

/// As it goes out, now or when it is asked for again.
fn response(answer: KeptAnswer) -> Result<HttpResponse> {
    let status = StatusCode::from_u16(answer.status).map_err(Error::internal)?;
    let has_body = !answer.body.is_empty();
    let body = if has_body { BoxBody::new(answer.body) } else { BoxBody::new(()) };
    let mut response = HttpResponse::with_body(status, body);
    let headers = response.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in answer.headers {
        headers
            .insert(HeaderName::try_from(name).map_err(Error::internal)?, HeaderValue::try_from(value).map_err(Error::internal)?);
    }
    if let Some(position) = answer.position {
        // A read that sends it back is answered with data at least that new.
        headers.insert(CONSISTENCY_TOKEN.clone(), HeaderValue::try_from(position.to_string()).map_err(Error::internal)?);
    }
    Ok(response)
}

fn replayed(kept: KeptAnswer) -> Result<HttpResponse> {
    let mut response = response(kept)?;
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED.clone(), HeaderValue::from_static("true"));
    Ok(response)
}

/// One result of a batch.
#[derive(Serialize)]
struct BatchResult<'a> {
    status: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct BatchResults<'a> {
    results: Vec<BatchResult<'a>>,
}

fn shape_batch(written: &[Written], with_data: bool) -> Result<KeptAnswer> {
    let results = written.iter().map(|one| batch_result(one, with_data)).collect::<Result<Vec<_>>>()?;
    let body = serde_json::to_string(&BatchResults { results }).map_err(Error::internal)?;
    let applied = with_data.then(|| (PREFERENCE_APPLIED.as_str().to_owned(), "return=representation".to_owned()));
    let position = written.iter().filter_map(|one| one.position).max();
    Ok(KeptAnswer { status: StatusCode::OK.as_u16(), position, headers: applied.into_iter().collect(), body })
}

fn batch_result(written: &Written, with_data: bool) -> Result<BatchResult<'_>> {
    let status = match written.outcome {
        WriteOutcome::Created => "created",
        WriteOutcome::Updated => "updated",
        WriteOutcome::Unchanged => "unchanged",
        WriteOutcome::Deleted => "deleted",
    };
    // The stored text goes into the answer as it is; it is checked to be JSON, and not built again.
    let data = written.record.as_ref().filter(|_| with_data).map(|record| serde_json::from_str(&record.data));
    let data = data.transpose().map_err(Error::internal)?;
    Ok(BatchResult { status, id: written.id.as_str(), etag: written.etag.as_deref(), data })
}

/// Whether `Prefer` asks for the documents (RFC 7240, 4.2).
fn wants_representation(headers: &HeaderMap) -> bool {
    headers.get_all(&PREFER).any(|value| {
        let mut preferences = value.as_bytes().split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
        preferences.any(|preference| preference.eq_ignore_ascii_case(b"return=representation"))
    })
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody as _;

    use super::*;
    use crate::model::{Position, Record, RecordId};

    #[test]
    fn a_batch_answers_documents_only_when_they_are_preferred() {
        let id = RecordId::parse("a").unwrap();
        let record = Record { id: id.clone(), version: 1, data: r#"{"b": 1.50, "a": 2}"#.to_owned() };
        let created = Written {
            outcome: WriteOutcome::Created,
            id: id.clone(),
            record: Some(record.into()),
            etag: Some("\"e\"".to_owned()),
            position: Some(Position { transaction: 9, sequence: 7 }),
        };
        let deleted = Written {
            outcome: WriteOutcome::Deleted,
            id,
            record: None,
            etag: None,
            position: Some(Position { transaction: 9, sequence: 8 }),
        };
        let text = |with_data| {
            let response = response(shape_batch(&[created.clone(), deleted.clone()], with_data).unwrap()).unwrap();
            assert_eq!(response.headers().get(&CONSISTENCY_TOKEN).unwrap(), "9-8");
            assert_eq!(response.headers().contains_key(&PREFERENCE_APPLIED), with_data);
            String::from_utf8(response.into_body().try_into_bytes().unwrap().to_vec()).unwrap()
        };
        let rest = r#"{"status":"deleted","id":"a"}]}"#;
        assert_eq!(text(false), format!(r#"{{"results":[{{"status":"created","id":"a","etag":"\"e\""}},{rest}"#));
        let data = r#"{"b": 1.50, "a": 2}"#;
        assert_eq!(text(true), format!(r#"{{"results":[{{"status":"created","id":"a","etag":"\"e\"","data":{data}}},{rest}"#));
    }

    #[test]
    fn preferences_are_read() {
        for (value, expected) in [
            ("return=representation", true),
            ("respond-async, Return=Representation; x=y", true),
            ("return=minimal", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER.clone(), HeaderValue::from_static(value));
            assert_eq!(wants_representation(&headers), expected, "{value}");
        }
    }
}
