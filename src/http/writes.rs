//! Writes: one record, or a batch. Parse, call, shape. What a write means is decided in `records`.

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;

use super::freshness::CONSISTENCY_TOKEN;
use super::reads::no_parameters;
use super::routes::CollectionRoutes;
use super::{body, conditional, identifier, negotiation};
use crate::error::{Error, Result};
use crate::model::{Caller, Position};
use crate::records::{Records, WriteOutcome, Written};

static PREFER: HeaderName = HeaderName::from_static("prefer");
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
    let written = context.records.create(&context.routes.resource, context.caller, document).await?;
    context.shape(written)
}

/// Answers `PUT path/{id}`.
pub(super) async fn replace_record(context: WriteContext<'_>, segment: &str, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    let id = identifier::record_id(segment)?;
    let precondition = conditional::precondition(context.request.headers())?;
    let document = body::object(context.request, payload, context.max_body_bytes, body::JSON).await?;
    let resource = &context.routes.resource;
    let written = context.records.replace(resource, context.caller, id, document, precondition).await?;
    context.shape(written)
}

/// Answers `PATCH path/{id}`.
pub(super) async fn patch_record(context: WriteContext<'_>, segment: &str, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    let id = identifier::record_id(segment)?;
    let precondition = conditional::precondition(context.request.headers())?;
    let patch = body::object(context.request, payload, context.max_body_bytes, body::MERGE_PATCH).await?;
    let resource = &context.routes.resource;
    let written = context.records.patch(resource, context.caller, id, patch, precondition).await?;
    context.shape(written)
}

/// Answers `DELETE path/{id}`.
pub(super) async fn delete_record(context: WriteContext<'_>, segment: &str) -> Result<HttpResponse> {
    context.check()?;
    let id = identifier::record_id(segment)?;
    let precondition = conditional::precondition(context.request.headers())?;
    let written = context.records.delete(&context.routes.resource, context.caller, id, precondition).await?;
    context.shape(written)
}

/// Answers `POST path/_batch`.
pub(super) async fn write_batch(context: WriteContext<'_>, payload: &mut Payload) -> Result<HttpResponse> {
    context.check()?;
    conditional::no_precondition(context.request.headers())?;
    let body = body::json(context.request, payload, context.max_body_bytes, body::JSON).await?;
    let written = context.records.batch(&context.routes.resource, context.caller, body).await?;
    shape_batch(&written, wants_representation(context.request.headers()))
}

impl WriteContext<'_> {
    /// What every write checks before it reads the body: strangers send none.
    fn check(&self) -> Result<()> {
        self.routes.resource.check_writer(&self.caller.principal)?;
        negotiation::require_json(self.request.headers())?;
        no_parameters(self.request)
    }

    fn shape(&self, written: Written) -> Result<HttpResponse> {
        let status = match written.outcome {
            WriteOutcome::Created => StatusCode::CREATED,
            WriteOutcome::Updated | WriteOutcome::Unchanged => StatusCode::OK,
            WriteOutcome::Deleted => StatusCode::NO_CONTENT,
        };
        let document = written.record.filter(|_| status != StatusCode::NO_CONTENT);
        let mut response = match document {
            Some(record) => json_response(status, record.data),
            None => HttpResponse::with_body(status, BoxBody::new(())),
        };
        let headers = response.headers_mut();
        if status == StatusCode::CREATED {
            let path = identifier::record_path(&self.routes.resource.collection().path, &written.id);
            headers.insert(LOCATION, HeaderValue::try_from(path).map_err(Error::internal)?);
        }
        if let Some(etag) = written.etag {
            headers.insert(ETAG, HeaderValue::try_from(etag).map_err(Error::internal)?);
        }
        add_token(headers, written.position)?;
        Ok(response)
    }
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

fn shape_batch(written: &[Written], with_data: bool) -> Result<HttpResponse> {
    let results = written.iter().map(|one| batch_result(one, with_data)).collect::<Result<Vec<_>>>()?;
    let body = serde_json::to_string(&BatchResults { results }).map_err(Error::internal)?;
    let mut response = json_response(StatusCode::OK, body);
    if with_data {
        response.headers_mut().insert(PREFERENCE_APPLIED.clone(), HeaderValue::from_static("return=representation"));
    }
    add_token(response.headers_mut(), written.iter().filter_map(|one| one.position).max())?;
    Ok(response)
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

fn json_response(status: StatusCode, body: String) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The position of the write: a read that sends it back is answered with data at least that new.
fn add_token(headers: &mut HeaderMap, position: Option<Position>) -> Result<()> {
    if let Some(position) = position {
        headers.insert(CONSISTENCY_TOKEN.clone(), HeaderValue::try_from(position.to_string()).map_err(Error::internal)?);
    }
    Ok(())
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
    use crate::model::{Record, RecordId};

    #[test]
    fn a_batch_answers_documents_only_when_they_are_preferred() {
        let id = RecordId::parse("a").unwrap();
        let record = Record { id: id.clone(), version: 1, data: r#"{"b": 1.50, "a": 2}"#.to_owned() };
        let created = Written {
            outcome: WriteOutcome::Created,
            id: id.clone(),
            record: Some(record),
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
            let response = shape_batch(&[created.clone(), deleted.clone()], with_data).unwrap();
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
