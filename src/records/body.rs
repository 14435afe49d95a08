//! Response bodies and their headers: pages, statistics, views. Records go in as the database's own text.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::cursor;
use super::document::quoted_etag;
use super::spelling;
use crate::cache::{Basis, Content, Presence};
use crate::error::{Error, Result};
use crate::model::{Collection, Paging, Query, RecordId, SortKey, View};
use crate::store::{Row, Stats};

/// What stays readable in a link; brackets and the rest are escaped.
const LINK_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',');

/// Headers of one answer.
type Headers = Vec<(HeaderName, HeaderValue)>;

/// A found answer with this body.
pub(super) fn found(body: impl Into<Vec<u8>>, headers: Headers) -> Result<Content> {
    // Without its spare capacity, which would be kept as long as the entry and is not weighed.
    content(Bytes::from(body.into().into_boxed_slice()), headers)
}

/// A record.
pub(super) fn record(row: Row) -> Result<Content> {
    content(row.data, Headers::new())
}

fn content(body: Bytes, headers: Headers) -> Result<Content> {
    let etag = HeaderValue::try_from(quoted_etag(&body)).map_err(Error::internal)?;
    Ok(Content { presence: Presence::Found, body, etag, headers, basis: Basis::Loaded })
}

/// "There is no such record."
pub(super) fn missing() -> Content {
    let etag = HeaderValue::from_static("\"missing\"");
    Content { presence: Presence::Missing, body: Bytes::new(), etag, headers: Vec::new(), basis: Basis::Loaded }
}

/// A page. `rows` may hold one record more than the page, which then says only that there are more. Links
/// mean the same query.
pub(super) fn page(collection: &Collection, query: &Query, mut rows: Vec<Row>, total: Option<u64>) -> Result<Content> {
    let limit = query.paging.limit();
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let mut links = Links::new(collection, query);
    let mut headers = vec![(HeaderName::from_static("x-per-page"), HeaderValue::from(limit))];
    let pagination = match &query.paging {
        Paging::Page { page, .. } => offset_pagination(*page, limit, total, more, &mut links, &mut headers),
        Paging::Cursor { after, .. } => {
            let next = rows.last().filter(|_| more).and_then(|row| row.cursor.as_deref());
            keyset_pagination(&query.sort, limit, after.is_some(), next, total, &mut links)
        }
    };
    let pagination = serde_json::to_string(&pagination).map_err(Error::internal)?;
    if let Some(total) = total {
        headers.push((HeaderName::from_static("x-total-count"), HeaderValue::from(total)));
    }
    headers.push((LINK, HeaderValue::try_from(links.header).map_err(Error::internal)?));
    found(envelope(&rows, &pagination), headers)
}

/// The ids of the records on a page; `None` if it does not show them.
pub(super) fn shown(collection: &Collection, page: &[u8]) -> Option<Vec<RecordId>> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        data: Vec<HashMap<String, &'a RawValue>>,
    }
    let id = |record: HashMap<String, &RawValue>| {
        let id: String = serde_json::from_str(record.get(collection.id_field())?.get()).ok()?;
        RecordId::parse(&id).ok()
    };
    let page: Page<'_> = serde_json::from_slice(page).ok()?;
    page.data.into_iter().map(id).collect()
}

/// The statistics of a collection.
pub(super) fn stats(stats: &Stats) -> Result<Content> {
    found(stats_json(stats).to_string(), Vec::new())
}

/// A view: the statistics of its parts, in their order.
pub(super) fn view(view: &View, parts: &[Stats]) -> Result<Content> {
    let data: Map<String, Value> =
        view.parts.iter().zip(parts).map(|(part, stats)| (part.key.clone(), stats_json(stats))).collect();
    found(json!({ "data": data }).to_string(), Vec::new())
}

/// Where a page stands, in the body.
#[derive(Serialize)]
#[serde(untagged)]
enum Pagination {
    Offset(OffsetPagination),
    Keyset(KeysetPagination),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OffsetPagination {
    page: u64,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    has_next: bool,
    has_prev: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeysetPagination {
    limit: u32,
    has_next: bool,
    has_prev: bool,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

fn envelope(rows: &[Row], pagination: &str) -> Vec<u8> {
    const PARTS: [&[u8]; 3] = [b"{\"data\":[", b"],\"pagination\":", b"}"];
    let size: usize = PARTS.iter().map(|part| part.len()).chain(rows.iter().map(|row| row.data.len())).sum();
    let mut body = Vec::with_capacity(size + rows.len().saturating_sub(1) + pagination.len());
    let [before, between, behind] = PARTS;
    body.extend_from_slice(before);
    for (position, row) in rows.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&row.data);
    }
    body.extend_from_slice(between);
    body.extend_from_slice(pagination.as_bytes());
    body.extend_from_slice(behind);
    body
}

fn offset_pagination(
    page: u64,
    limit: u32,
    total: Option<u64>,
    more: bool,
    links: &mut Links,
    headers: &mut Headers,
) -> Pagination {
    headers.push((HeaderName::from_static("x-page"), HeaderValue::from(page)));
    let pages = total.map(|total| total.div_ceil(u64::from(limit)));
    if let Some(pages) = pages {
        headers.push((HeaderName::from_static("x-total-pages"), HeaderValue::from(pages)));
    }
    let has_next = pages.map_or(more, |pages| page < pages);
    let has_prev = page > 1;
    links.page("first", 1);
    if has_prev {
        links.page("prev", pages.map_or(page - 1, |pages| (page - 1).min(pages.max(1))));
    }
    if has_next {
        links.page("next", page + 1);
    }
    if let Some(pages) = pages {
        links.page("last", pages.max(1));
    }
    Pagination::Offset(OffsetPagination { page, limit, total, pages, has_next, has_prev })
}

fn keyset_pagination(
    sort: &[SortKey],
    limit: u32,
    continued: bool,
    next: Option<&str>,
    total: Option<u64>,
    links: &mut Links,
) -> Pagination {
    let next_cursor = next.map(|values| cursor::encode(sort, values));
    links.cursor("first", "");
    if let Some(next) = &next_cursor {
        links.cursor("next", next);
    }
    Pagination::Keyset(KeysetPagination { limit, has_next: next_cursor.is_some(), has_prev: continued, next_cursor, total })
}

fn stats_json(stats: &Stats) -> Value {
    let by: Map<String, Value> = stats
        .fields
        .iter()
        .map(|field| {
            let values: Vec<Value> = field
                .values
                .iter()
                .map(|(value, count)| json!({"value": value.as_ref().map(crate::model::Scalar::to_json), "count": count}))
                .collect();
            (field.field.clone(), json!({"distinct": field.distinct, "values": values}))
        })
        .collect();
    json!({"total": stats.total, "by": by})
}

/// Builds the header `Link` (RFC 8288), whose targets keep every other parameter, in one spelling for all requests that share
/// the page.
struct Links {
    base: String,
    header: String,
}

impl Links {
    /// How long a relation is beside its target, and how many there are at most.
    const RELATION: usize = 48;
    const RELATIONS: usize = 4;

    fn new(collection: &Collection, query: &Query) -> Self {
        let mut base = format!("{}?", collection.path);
        for (name, value) in spelling::parameters(collection, query) {
            let (name, value) = (utf8_percent_encode(&name, LINK_VALUE), utf8_percent_encode(&value, LINK_VALUE));
            // Writing to a string does not fail.
            let _ = write!(base, "{name}={value}&");
        }
        let header = String::with_capacity(Self::RELATIONS * (base.len() + Self::RELATION));
        Self { base, header }
    }

    fn page(&mut self, relation: &str, page: u64) {
        self.push(relation, "page", page);
    }

    fn cursor(&mut self, relation: &str, cursor: &str) {
        self.push(relation, "cursor", cursor);
    }

    fn push(&mut self, relation: &str, parameter: &str, value: impl Display) {
        let separator = if self.header.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(self.header, "{separator}<{}{parameter}={value}>; rel=\"{relation}\"", self.base);
    }
}
