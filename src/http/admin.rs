//! Administration of the caches, for administrators: `http::front` has checked that before anything here is called.

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::reads::no_parameters;
use super::routes::{Routes, Target};
use super::system::state;
use super::{body, identifier, negotiation};
use crate::error::{Error, Result};
use crate::model::Caller;
use crate::records::{Question, Records};

/// What a body needs at most: two names and an id or a value.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Answers `GET /admin/cache`.
pub(super) fn describe_cache(records: &Records, request: &HttpRequest) -> Result<HttpResponse> {
    negotiation::require_json(request.headers())?;
    no_parameters(request)?;
    Ok(state(StatusCode::OK, &json!(records.administration())))
}

/// Answers `POST /admin/cache/invalidate`.
pub(super) async fn invalidate_cache(
    records: &Records,
    caller: &Caller,
    request: &HttpRequest,
    payload: &mut Payload,
) -> Result<HttpResponse> {
    negotiation::require_json(request.headers())?;
    no_parameters(request)?;
    let body = body::object(request, payload, MAX_BODY_BYTES, body::JSON).await?;
    Ok(state(StatusCode::OK, &json!(records.invalidate(caller, &body).await?)))
}

/// Answers `GET /admin/cache/explain?path=…`.
pub(super) async fn explain_cache(records: &Records, routes: &Routes, request: &HttpRequest) -> Result<HttpResponse> {
    negotiation::require_json(request.headers())?;
    let path = asked_path(request.query_string())?;
    let (resource, raw) = path.split_once('?').unwrap_or((&path, ""));
    let (target, _) = routes.resolve(resource);
    let (kind, question) = match target {
        Target::Record(routes, segment) => ("record", Question::Record(&routes.resource, identifier::record_id(segment)?, raw)),
        Target::List(routes) => ("list", Question::List(&routes.resource, raw)),
        Target::Stats(routes) => ("stats", Question::Stats(&routes.resource, raw)),
        Target::View(route) if raw.is_empty() => ("view", Question::View(&route.resource)),
        Target::View(_) => return Err(Error::parameter("path", "A view takes no parameters.")),
        Target::Batch(_)
        | Target::Changes(_)
        | Target::System(_)
        | Target::Admin(_)
        | Target::Auth(_)
        | Target::DocsFile(_)
        | Target::Unmatched => {
            let detail =
                format!("{resource:?} is not the path of a record, a list, statistics or a view: nothing else is cached.");
            return Err(Error::parameter("path", detail));
        }
    };
    let mut answer = json!(records.explain(&question).await?);
    if let Value::Object(members) = &mut answer {
        members.insert("path".to_owned(), json!(path));
        members.insert("kind".to_owned(), json!(kind));
    }
    Ok(state(StatusCode::OK, &answer))
}

/// The one parameter, decoded once: what a client would send, which may be escaped itself.
fn asked_path(raw: &str) -> Result<String> {
    let mut parameters = form_urlencoded::parse(raw.as_bytes());
    match (parameters.next(), parameters.next()) {
        (Some((name, path)), None) if name == "path" && path.starts_with('/') => Ok(path.into_owned()),
        (Some((name, _)), _) if name != "path" => {
            Err(Error::parameter(name.as_ref(), format!("{name:?} is not a parameter here.")).with_allowed(["path"]))
        }
        _ => {
            let detail = "path is given once: the path of a read with its query string, percent-encoded, for example \
                          path=/api/v1/metrics%3Fcategory%3Da.";
            Err(Error::parameter("path", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(asked_path("path=/a/50%2525%3Fx%3Da%2526b").unwrap(), "/a/50%25?x=a%26b");
        assert_eq!(asked_path("path=/a?x=1").unwrap(), "/a?x=1");
        for wrong in ["", "path=", "path=a", "path=/a&path=/b", "path=/a&x=1"] {
            assert_eq!(asked_path(wrong).unwrap_err().parameter_name(), Some("path"), "{wrong}");
        }
        assert_eq!(asked_path("paths=/a").unwrap_err().parameter_name(), Some("paths"));
    }
}
