//! What all operations may answer: problems and headers.

use serde_json::{Map, Value, json};

use super::component;

/// A problem that operations share: its component, status, description, code and detail of the example.
struct ProblemResponse {
    name: &'static str,
    status: &'static str,
    description: &'static str,
    code: &'static str,
    title: &'static str,
    detail: &'static str,
    headers: &'static [&'static str],
}

const PROBLEMS: [ProblemResponse; 17] = [
    ProblemResponse {
        name: "BadRequest",
        status: "400",
        description: "A parameter, header, id or body cannot be understood; `allowed` names what can.",
        code: "invalid_parameter",
        title: "The request cannot be understood",
        detail: "\"colour\" is neither a parameter nor an indexed field.",
        headers: &[],
    },
    ProblemResponse {
        name: "Unauthenticated",
        status: "401",
        description: "The resource is not public and nobody says who is asking, or the credential that was sent does not hold.",
        code: "unauthenticated",
        title: "The caller is not known",
        detail: "This is not public: send Authorization: Bearer with an access token or an API key.",
        headers: &["WWW-Authenticate"],
    },
    ProblemResponse {
        name: "Forbidden",
        status: "403",
        description: "The caller is known, and may not do this.",
        code: "forbidden",
        title: "The caller may not do this",
        detail: "This is for the role admin.",
        headers: &[],
    },
    ProblemResponse {
        name: "NotFound",
        status: "404",
        description: "There is no such record or path.",
        code: "not_found",
        title: "There is no such resource",
        detail: "There is no record with this id.",
        headers: &[],
    },
    ProblemResponse {
        name: "NotAcceptable",
        status: "406",
        description: "The `Accept` header excludes JSON.",
        code: "not_acceptable",
        title: "Nothing the client accepts can be sent",
        detail: "This resource is sent as application/json only, which the Accept header excludes.",
        headers: &[],
    },
    ProblemResponse {
        name: "RequestTimeout",
        status: "408",
        description: "The body did not arrive within `http.body_timeout`.",
        code: "body_timeout",
        title: "The request took too long to arrive",
        detail: "The body did not arrive in time (http.body_timeout).",
        headers: &[],
    },
    ProblemResponse {
        name: "Conflict",
        status: "409",
        description: "A record with this id exists, or others refer to the record that would be deleted.",
        code: "already_exists",
        title: "The request contradicts what is stored",
        detail: "A record with this id exists already.",
        headers: &[],
    },
    ProblemResponse {
        name: "Gone",
        status: "410",
        description: "The change log no longer has all that came after `Last-Event-ID`, or it is another database's.",
        code: "changes_gone",
        title: "What is asked for is there no more",
        detail: "The change log no longer has all that came after this event (changes.retention), or it is another database's.",
        headers: &[],
    },
    ProblemResponse {
        name: "PreconditionFailed",
        status: "412",
        description: "The record is in another state than `If-Match` or `If-None-Match` demands.",
        code: "precondition_failed",
        title: "The record is in another state",
        detail: "The record has another entity tag; it was changed since.",
        headers: &["ETag"],
    },
    ProblemResponse {
        name: "PayloadTooLarge",
        status: "413",
        description: "The body is larger than `http.max_body_bytes`, or the records that a batch is about have more than 64 MiB together.",
        code: "payload_too_large",
        title: "The body is too large",
        detail: "A request body has at most 1048576 bytes here (http.max_body_bytes); split a large batch.",
        headers: &[],
    },
    ProblemResponse {
        name: "UriTooLong",
        status: "414",
        description: "The path and its query are longer than 16 KiB.",
        code: "uri_too_long",
        title: "The address is too long",
        detail: "A path and its query have at most 16384 bytes here.",
        headers: &[],
    },
    ProblemResponse {
        name: "UnsupportedMediaType",
        status: "415",
        description: "The body's media type or coding is not taken.",
        code: "unsupported_media_type",
        title: "The body's media type is not taken",
        detail: "The body is \"text/plain\"; send application/json.",
        headers: &[],
    },
    ProblemResponse {
        name: "Invalid",
        status: "422",
        description: "The document breaks rules of its collection, or the record would be larger than `http.max_body_bytes`; `errors` has a JSON pointer for each.",
        code: "validation_failed",
        title: "The document is not valid",
        detail: "The document breaks rules of its collection.",
        headers: &[],
    },
    ProblemResponse {
        name: "TooManyRequests",
        status: "429",
        description: "The caller has used its quota up, or the client sends more than `limits.burst` and `limits.per_second` let it.",
        code: "quota_exceeded",
        title: "Too many requests",
        detail: "The quota \"api\" of this caller, 100/15m, is used up.",
        headers: &["Retry-After", "RateLimit-Policy", "RateLimit"],
    },
    ProblemResponse {
        name: "Internal",
        status: "500",
        description: "The server failed. Its log has the reason under the request id.",
        code: "internal",
        title: "The server failed",
        detail: "The server failed; its log has the reason under this request id.",
        headers: &[],
    },
    ProblemResponse {
        name: "Unavailable",
        status: "503",
        description: "The database is not open yet, does not answer, or is busy, or the server has as much to do as it takes at once (`overloaded`), and there is no stale answer to stand in.",
        code: "unavailable",
        title: "The service is not available at the moment",
        detail: "The database does not answer.",
        headers: &["Retry-After"],
    },
    ProblemResponse {
        name: "NotCached",
        status: "504",
        description: "The request takes only what is cached (`only-if-cached`), and nothing is that it could have.",
        code: "not_cached",
        title: "Nothing suitable is cached",
        detail: "The request takes only what is cached (Cache-Control: only-if-cached), and nothing is that it could have.",
        headers: &[],
    },
];

/// Every header of an answer: its name, what it says, and an example.
const HEADERS: [(&str, &str, &str); 22] = [
    (
        "X-Request-Id",
        "The id of the request, as sent by the client or made by the server.",
        "0199f3b1-7c1e-7d1a-9b57-2f2f6a3f8a10",
    ),
    ("ETag", "The strong entity tag of the representation.", "\"5d41402abc4b2a76\""),
    (
        "Cache-Control",
        "How long clients may keep the answer; they always ask again, and get a cheap 304.",
        "public, max-age=0, stale-if-error=3600",
    ),
    ("Vary", "The request headers that the representation depends on.", "accept-encoding"),
    ("Content-Encoding", "zstd, br, gzip or deflate, if the client takes it and the body has at least 1 KiB.", "zstd"),
    ("Age", "Seconds since the answer was loaded from the database.", "12"),
    (
        "X-Cache",
        "HIT, MISS, BYPASS, or STALE: the database is away, the collection lets lists lag behind for a moment (max_lag), or the request allows it (max-stale).",
        "HIT",
    ),
    ("Cache-Status", "RFC 9211.", "terrace; hit; ttl=588; detail=l1"),
    ("Link", "RFC 8288: first, prev, next, last.", "</api/v1/metrics?page=2>; rel=\"next\""),
    ("X-Total-Count", "How many records were found; absent with count=none.", "538"),
    ("X-Page", "The page; absent with a cursor.", "1"),
    ("X-Per-Page", "Records on a page.", "50"),
    ("X-Total-Pages", "How many pages there are; absent with count=none or a cursor.", "11"),
    ("Location", "The path of the new record.", "/api/v1/metrics/CHECKOUT-CONVERSION"),
    (
        "Consistency-Token",
        "The position of the write in the change log: its transaction and its row. A read that sends it back shows the write, from any instance.",
        "1042-1042",
    ),
    ("Preference-Applied", "RFC 7240.", "return=representation"),
    ("Idempotency-Replayed", "The write was done before, under the same Idempotency-Key; this was its answer.", "true"),
    (
        "WWW-Authenticate",
        "RFC 6750; with an error if a credential was sent.",
        "Bearer realm=\"terrace\", error=\"invalid_token\"",
    ),
    ("Allow", "The methods that the resource takes.", "GET, HEAD, OPTIONS"),
    ("Retry-After", "Seconds after which a retry makes sense.", "1"),
    (
        "RateLimit-Policy",
        "draft-ietf-httpapi-ratelimit-headers: the quota that the request counts against, as so many requests (q) in so many seconds (w). Only where there is one.",
        "\"api\";q=100;w=900",
    ),
    (
        "RateLimit",
        "draft-ietf-httpapi-ratelimit-headers: how many requests are left (r), and in how many seconds the whole quota is there again (t).",
        "\"api\";r=73;t=243",
    ),
];

/// `components.headers`.
pub(super) fn headers() -> Map<String, Value> {
    let header = |(name, description, example): (&str, &str, &str)| {
        (name.to_owned(), json!({"description": description, "schema": {"type": "string"}, "example": example}))
    };
    HEADERS.into_iter().map(header).collect()
}

/// References to the headers of these names.
pub(super) fn header_references(names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), component("headers", name))).collect()
}

/// `components.responses`.
pub(super) fn problems() -> Map<String, Value> {
    let response = |problem: &ProblemResponse| {
        let mut names = vec!["X-Request-Id"];
        names.extend(problem.headers);
        let status: u16 = problem.status.parse().unwrap_or_default();
        let mut example = json!({
            "type": format!("urn:terrace:problem:{}", problem.code),
            "title": problem.title,
            "status": status,
            "detail": problem.detail,
            "code": problem.code,
            "request_id": "0199f3b1-7c1e-7d1a-9b57-2f2f6a3f8a10",
        });
        if let (422, Some(members)) = (status, example.as_object_mut()) {
            let errors = json!([{"pointer": "/name", "code": "required", "detail": "This property is required."}]);
            members.insert("errors".to_owned(), errors);
        }
        let content = json!({"application/problem+json": {"schema": component("schemas", "Problem"), "example": example}});
        let body = json!({"description": problem.description, "headers": header_references(&names), "content": content});
        (problem.name.to_owned(), body)
    };
    PROBLEMS.iter().map(response).collect()
}

/// References to the problems of these statuses, by status.
pub(super) fn problem_references(statuses: &[&str]) -> Map<String, Value> {
    let chosen = PROBLEMS.iter().filter(|problem| statuses.contains(&problem.status));
    chosen.map(|problem| (problem.status.to_owned(), component("responses", problem.name))).collect()
}
