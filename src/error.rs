//! The one domain error. It owns the kinds of failure and their two messages, one for the client and one for the
//! log; it must not know HTTP status codes (`http::problem` does) or any database driver.

use std::fmt;
use std::time::Duration;

/// What went wrong, as far as a caller must distinguish it. `http::problem` gives each kind its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A parameter, header or body that cannot be understood.
    BadRequest,
    /// The caller is not known, and the resource is not public.
    Unauthenticated,
    /// The caller is known, and may not do this.
    Forbidden,
    /// No such record, collection or route, or not the caller's to see.
    NotFound,
    /// The resource exists and does not take this method. `allowed` names those it takes.
    MethodNotAllowed,
    /// The request's `Accept` leaves nothing that Terrace can send. `allowed` names what it can.
    NotAcceptable,
    /// What was there is there no more, and will not come back.
    Gone,
    /// The write contradicts the stored state: a duplicate id, or a record that others refer to.
    Conflict,
    /// `If-Match` named another state than the stored one.
    PreconditionFailed,
    /// The body is larger than `http.max_body_bytes`.
    PayloadTooLarge,
    /// The address is longer than any that means something here.
    UriTooLong,
    /// The request did not arrive within its time.
    RequestTimeout,
    /// The body is not `application/json` (or `application/merge-patch+json` for PATCH).
    UnsupportedMediaType,
    /// The document was understood and breaks the collection's rules; see `violations`.
    Invalid,
    /// The caller exceeded a rate.
    TooManyRequests,
    /// A server Terrace needs is away; the request may be sent again after `retry_after`.
    Unavailable,
    /// The request takes only what is cached (`only-if-cached`), and nothing is that it could have.
    NotCached,
    /// Anything else. Clients learn nothing but the request id.
    Internal,
}

/// One broken rule of a document, as RFC 9457 `errors` members carry it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// RFC 6901 JSON pointer into the request body, `""` for the whole body.
    pub pointer: String,
    /// A stable, machine-readable name, for example `required` or `type`.
    pub code: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn new(pointer: impl Into<String>, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code: code.into(), detail: detail.into() }
    }

    /// A violation by a member of the body, whose name may be anything (RFC 6901, 3).
    pub fn of_member(name: &str, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(format!("/{}", name.replace('~', "~0").replace('/', "~1")), code, detail)
    }
}

/// The domain error: an external message that a client may read, and an internal one for the log.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    code: &'static str,
    detail: String,
    internal: Option<String>,
    extras: Box<Extras>,
}

/// What only some errors carry, boxed to keep `Result`s small.
#[derive(Clone, Debug, Default)]
struct Extras {
    violations: Vec<Violation>,
    parameter: Option<String>,
    allowed: Vec<String>,
    current_etag: Option<String>,
    retry_after: Option<Duration>,
}

/// `Result` with the domain error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `code` is stable and machine-readable, `detail` is for the client.
    pub fn new(kind: ErrorKind, code: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, code, detail: detail.into(), internal: None, extras: Box::default() }
    }

    /// A request that cannot be understood.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, code, detail)
    }

    /// A query parameter that is unknown or has a value that is not allowed.
    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut error = Self::bad_request("invalid_parameter", detail);
        error.extras.parameter = Some(parameter.into());
        error
    }

    /// No such thing, or not the caller's to see.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, "not_found", detail)
    }

    /// A write that contradicts the stored state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, detail)
    }

    /// A document that breaks the collection's rules.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let mut error = Self::new(ErrorKind::Invalid, "validation_failed", "The document breaks rules of its collection.");
        error.extras.violations = violations;
        error
    }

    /// The record is not in the state that the caller demands; `current_etag` is the stored one, `None` if there is no
    /// record.
    pub fn precondition_failed(detail: impl Into<String>, current_etag: Option<String>) -> Self {
        let mut error = Self::new(ErrorKind::PreconditionFailed, "precondition_failed", detail);
        error.extras.current_etag = current_etag;
        error
    }

    /// A server Terrace needs is away. `internal` goes to the log only.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration, internal: impl fmt::Display) -> Self {
        let mut error = Self::new(ErrorKind::Unavailable, "unavailable", detail).with_internal(internal);
        error.extras.retry_after = Some(retry_after);
        error
    }

    /// Only a cached answer was asked for, and there is none that the request allows.
    pub fn not_cached() -> Self {
        let detail = "The request takes only what is cached (Cache-Control: only-if-cached), and nothing is that it could have.";
        Self::new(ErrorKind::NotCached, "not_cached", detail)
    }

    /// A failure that tells the client nothing. `internal` goes to the log only.
    pub fn internal(internal: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, "internal", "The server failed; its log has the reason under this request id.")
            .with_internal(internal)
    }

    /// Leaves out the stored state's ETag: whoever may not read learns nothing of it.
    #[must_use]
    pub fn without_etag(mut self) -> Self {
        self.extras.current_etag = None;
        self
    }

    /// Adds what only the log may say.
    #[must_use]
    pub fn with_internal(mut self, internal: impl fmt::Display) -> Self {
        self.internal = Some(internal.to_string());
        self
    }

    /// Adds violations, for kinds other than [`ErrorKind::Invalid`] that can point into the body too.
    #[must_use]
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.extras.violations = violations;
        self
    }

    /// Names what the client may use instead (methods, parameters, fields).
    #[must_use]
    pub fn with_allowed(mut self, allowed: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.extras.allowed = allowed.into_iter().map(Into::into).collect();
        self
    }

    /// Says when a retry makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.extras.retry_after = Some(wait);
        self
    }

    /// Names the query parameter at fault.
    #[must_use]
    pub fn with_parameter(mut self, parameter: &str) -> Self {
        self.extras.parameter = Some(parameter.to_owned());
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable, machine-readable name.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What the client may read.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What only the log may say.
    pub fn internal_message(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The broken rules, each with its place in the request body.
    pub fn violations(&self) -> &[Violation] {
        &self.extras.violations
    }

    /// The query parameter at fault.
    pub fn parameter_name(&self) -> Option<&str> {
        self.extras.parameter.as_deref()
    }

    /// What the client may use instead.
    pub fn allowed(&self) -> &[String] {
        &self.extras.allowed
    }

    /// The stored state's ETag, with its quotes, after a failed `If-Match`.
    pub fn current_etag(&self) -> Option<&str> {
        self.extras.current_etag.as_deref()
    }

    /// When a retry makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        self.extras.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.detail)?;
        for violation in &self.extras.violations {
            write!(formatter, "; {} {}", violation.pointer, violation.detail)?;
        }
        match &self.internal {
            Some(internal) => write!(formatter, " [{internal}]"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
