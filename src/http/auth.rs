//! Becoming known: login, refresh and logout, and who one is. Nothing of it is stored by anybody on the way.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::reads::no_parameters;
use super::system::state;
use super::{body, negotiation};
use crate::auth::{Accounts, Tokens, authorize};
use crate::error::{Error, Result, Violation};
use crate::model::{AccessRule, Caller, Principal};

/// What a body needs at most: an address and a password, or a token.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// Answers `POST /api/v1/auth/login`.
pub(super) async fn log_in(
    accounts: &Arc<Accounts>,
    caller: &Caller,
    request: &HttpRequest,
    payload: &mut Payload,
) -> Result<HttpResponse> {
    let [email, password] = members(request, payload, ["email", "password"]).await?;
    Ok(tokens(&accounts.login(email.expose_secret(), password, caller.address).await?))
}

/// Answers `POST /api/v1/auth/refresh`.
pub(super) async fn refresh(
    accounts: &Arc<Accounts>,
    caller: &Caller,
    request: &HttpRequest,
    payload: &mut Payload,
) -> Result<HttpResponse> {
    let [token] = members(request, payload, ["refresh_token"]).await?;
    Ok(tokens(&accounts.refresh(token.expose_secret(), caller.address).await?))
}

/// Answers `POST /api/v1/auth/logout`.
pub(super) async fn log_out(
    accounts: &Arc<Accounts>,
    caller: &Caller,
    request: &HttpRequest,
    payload: &mut Payload,
) -> Result<HttpResponse> {
    let [token] = members(request, payload, ["refresh_token"]).await?;
    accounts.logout(token.expose_secret(), caller.address).await?;
    let mut response = HttpResponse::with_body(StatusCode::NO_CONTENT, BoxBody::new(()));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Answers `GET /api/v1/auth/me`.
pub(super) fn describe_caller(principal: &Principal, request: &HttpRequest) -> Result<HttpResponse> {
    authorize(principal, AccessRule::Viewer)?;
    negotiation::require_json(request.headers())?;
    no_parameters(request)?;
    let Principal::Known(identity) = principal else { return Err(Error::internal("nobody else comes over HTTP")) };
    let scopes = identity.scopes.as_ref().map(|scopes| scopes.iter().map(ToString::to_string).collect::<Vec<_>>());
    let quota = identity.quota.as_ref().map(ToString::to_string);
    let answer = json!({
        "actor": identity.actor, "subject": identity.subject, "role": identity.role.as_str(), "scopes": scopes, "quota": quota,
    });
    Ok(state(StatusCode::OK, &answer))
}

/// As OAuth spells them (RFC 6749, 5.1), with `no-store`.
fn tokens(tokens: &Tokens) -> HttpResponse {
    let answer = json!({
        "access_token": tokens.access.expose_secret(), "token_type": "Bearer", "expires_in": tokens.expires_in.as_secs(),
        "refresh_token": tokens.refresh.expose_secret(),
    });
    state(StatusCode::OK, &answer)
}

/// The members of the body, which are all strings and all required.
async fn members<const COUNT: usize>(
    request: &HttpRequest,
    payload: &mut Payload,
    names: [&'static str; COUNT],
) -> Result<[SecretString; COUNT]> {
    negotiation::require_json(request.headers())?;
    no_parameters(request)?;
    let body = body::object(request, payload, MAX_BODY_BYTES, body::JSON).await?;
    let Value::Object(mut members) = body else { return Err(Error::internal("an object is none")) };
    let mut violations = Vec::new();
    for name in members.keys().filter(|name| !names.contains(&name.as_str())) {
        let detail = format!("This is no member here; allowed are {}.", names.join(", "));
        violations.push(Violation::new(pointer(name), "unknown_member", detail));
    }
    let taken = names.map(|name| text(&mut members, name, &mut violations));
    if violations.is_empty() { Ok(taken) } else { Err(Error::invalid(violations)) }
}

fn text(members: &mut Map<String, Value>, name: &str, violations: &mut Vec<Violation>) -> SecretString {
    match members.remove(name) {
        Some(Value::String(text)) => return text.into(),
        Some(_) => violations.push(Violation::new(pointer(name), "type", format!("{name} is a string."))),
        None => violations.push(Violation::new(pointer(name), "required", format!("{name} is required."))),
    }
    SecretString::default()
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
