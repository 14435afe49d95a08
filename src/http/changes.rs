//! The change log of a collection: a page of it, or the live feed as server-sent events (the WHATWG's HTML, 9.2). Parse, call,
//! shape. What may be asked, and who is shown what, is decided in `records`.

use std::future::ready;
use std::sync::Arc;

use actix_web::body::{BodyStream, BoxBody};
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};

use super::negotiation;
use super::reads::Read;
use super::routes::CollectionRoutes;
use crate::auth::Accounts;
use crate::error::{Error, Result};
use crate::model::Caller;
use crate::records::{ChangesRequest, FeedEnd, FeedItem, FeedItems, Recheck};

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks proxies of nginx's kind not to hold events back.
static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How long a client waits before it comes back, in milliseconds, and what it is told first of all.
const RETRY: &str = "retry: 1000\n\n";

/// Answers `GET path/_changes`.
pub(super) async fn list_changes(read: Read<'_>, routes: &CollectionRoutes, recheck: Recheck) -> Result<HttpResponse> {
    match ChangesRequest::parse(read.request.query_string())? {
        ChangesRequest::List(filter, limit) => {
            negotiation::require_json(read.request.headers())?;
            let page = read.records.changes(&routes.resource, read.caller, filter, limit).await?;
            Ok(answer("application/json", BoxBody::new(page)))
        }
        ChangesRequest::Live(filter) => {
            negotiation::require_event_stream(read.request.headers())?;
            let last = last_event_id(read.request.headers())?;
            let items = read.records.follow_changes(&routes.resource, read.caller, filter, last, recheck).await?;
            let is_head = *read.request.method() == Method::HEAD;
            Ok(events(if is_head { BoxBody::new(()) } else { BoxBody::new(BodyStream::new(events_of(items))) }))
        }
    }
}

/// Asks again who sends the credential of this request: keys are revoked and tokens expire while a feed goes on.
pub(super) fn recheck(accounts: &Arc<Accounts>, request: &HttpRequest, caller: &Caller) -> Recheck {
    let (address, known) = (caller.address, caller.clone());
    let Some(field) = request.headers().get(AUTHORIZATION).cloned() else {
        return Box::new(move || ready(Ok(known.clone())).boxed());
    };
    let accounts = Arc::clone(accounts);
    Box::new(move || {
        let (accounts, field) = (Arc::clone(&accounts), field.clone());
        async move {
            let principal = match accounts.recognize(field.as_bytes())? {
                Some(principal) => principal,
                None => accounts.look_up(field.as_bytes()).await?,
            };
            Ok(Caller { principal, address })
        }
        .boxed()
    })
}

/// The place of a client that comes back. An empty one is that of a client which has had no event yet.
fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::bad_request("invalid_last_event_id", "Last-Event-ID is no visible text."))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

fn answer(content_type: &'static str, body: BoxBody) -> HttpResponse {
    let mut response = HttpResponse::with_body(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn events(body: BoxBody) -> HttpResponse {
    let mut response = answer("text/event-stream", body);
    response.headers_mut().insert(X_ACCEL_BUFFERING.clone(), HeaderValue::from_static("no"));
    response
}

fn events_of(items: FeedItems) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    enum State {
        Begin(FeedItems),
        Going(FeedItems),
        Over,
    }
    stream::unfold(State::Begin(items), async |state| match state {
        State::Begin(items) => Some((Ok(Bytes::from_static(RETRY.as_bytes())), State::Going(items))),
        State::Going(mut items) => match items.next().await {
            Ok(item) => Some((Ok(event(&item).into()), State::Going(items))),
            Err(end) => Some((Ok(last_event(end).into()), State::Over)),
        },
        State::Over => None,
    })
}

/// An event. One without data is none for the client's program, but it takes its id along when it comes back.
fn event(item: &FeedItem) -> String {
    match item {
        FeedItem::Change { place, data } => format!("id: {place}\nevent: change\ndata: {data}\n\n"),
        FeedItem::Alive { place } => format!(": still here\nid: {place}\n\n"),
    }
}

/// It has no id: the client comes back to where it was.
fn last_event(end: FeedEnd) -> String {
    let detail = match end {
        FeedEnd::Stopping => "The server stops. Come back: another one goes on from Last-Event-ID.",
        FeedEnd::TooSlow => "Events were not taken in time. Come back: the feed goes on from Last-Event-ID.",
        FeedEnd::Forbidden => "This is no longer yours to read.",
        FeedEnd::Unchecked => {
            "Whether this is yours to read cannot be found out. Come back: the feed goes on from Last-Event-ID."
        }
        FeedEnd::Gone => "The change log no longer has what comes next. Read the records anew, and follow without Last-Event-ID.",
        FeedEnd::Left => "The client hung up.",
    };
    let data = serde_json::json!({"reason": end.as_str(), "detail": detail});
    format!("event: end\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_blocks_of_lines_and_the_last_one_has_no_id() {
        let change = FeedItem::Change { place: "1.2".to_owned(), data: r#"{"a":1}"#.to_owned() };
        assert_eq!(event(&change), "id: 1.2\nevent: change\ndata: {\"a\":1}\n\n");
        assert_eq!(event(&FeedItem::Alive { place: "1.2".to_owned() }), ": still here\nid: 1.2\n\n");
        for end in [FeedEnd::Stopping, FeedEnd::TooSlow, FeedEnd::Forbidden, FeedEnd::Unchecked, FeedEnd::Gone, FeedEnd::Left] {
            let text = last_event(end);
            assert!(text.starts_with("event: end\ndata: {\"reason\":") && text.ends_with("}\n\n"), "{text}");
            assert!(!text.contains("id:"), "{text}");
        }
    }
}
