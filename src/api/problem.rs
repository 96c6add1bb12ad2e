//! Every answer that is not a success, as `application/problem+json` (RFC 9457).
//!
//! A route returns a [`Problem`]; [`crate::api::server`] gives it the request's id and writes it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::Chain;
use crate::store;
use crate::store::Class;

/// Its content type.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// When to try again where the database is away.
const DATABASE_RETRY: Duration = Duration::from_secs(5);

/// Something other than a success.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log alone.
    cause: Option<String>,
}

/// Its form on the wire.
#[derive(Debug, Serialize)]
struct ProblemBody {
    /// Always `about:blank`: the kind of problem is in `code`.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The status.
    status: u16,
    /// Kind of problem, one word, for programs.
    code: String,
    /// What is wrong and what would be right, for people.
    detail: String,
    /// The request, as in the logs, in the audit log and in the header `x-request-id`.
    request_id: String,
}

/// What an answer carries until its body is written.
#[derive(Debug, Clone)]
pub(super) struct Unwritten(pub(super) Problem);

impl Problem {
    /// A problem of this status, with a word for programs and a sentence for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// 400: the request is not as it must be.
    #[must_use]
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404: there is none, or it is not for this token; nobody can tell which.
    #[must_use]
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("There is no {what} that this token may see."),
        )
    }

    /// 403: the role of the token does not have the right.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 409: it does not go together with what is there.
    #[must_use]
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 422: well-formed, but it cannot be done as asked for.
    #[must_use]
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 429: too often, or too much at a time.
    #[must_use]
    pub fn too_many(code: &'static str, detail: impl Into<String>, after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(after)
    }

    /// 503: for now.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl Into<String>, after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(after)
    }

    /// 500: the daemon is at fault. What happened goes to the log alone.
    #[must_use]
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong in virt-collector; its log has the details under this request's id.",
        )
        .because(cause)
    }

    /// With a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// When to try again, in whole seconds.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// And the connection ends: what is left of the request is not wanted.
    #[must_use]
    pub fn closing(self) -> Self {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// What happened, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Its word.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// What an answer says that nobody put into words.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => (
                "no_such_route",
                "There is nothing at this path; /openapi.json lists what there is.",
            ),
            StatusCode::METHOD_NOT_ALLOWED => (
                "method_not_allowed",
                "This method is not for this path; the header Allow names those that are.",
            ),
            _ => ("refused", "The request cannot be answered."),
        };
        Self::new(status, code, detail)
    }

    /// Body and headers, with the request's id.
    pub(super) fn write(self, request_id: &str) -> Response {
        let body = ProblemBody {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            request_id: request_id.to_owned(),
        };
        // Text and numbers: it can always be written.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.extend(
            self.headers
                .into_iter()
                .map(|(name, value)| (Some(name), value))
                .fold(axum::http::HeaderMap::new(), |mut all, (name, value)| {
                    if let Some(name) = name {
                        all.append(name, value);
                    }
                    all
                }),
        );
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Unwritten(self));
        response
    }
}

/// What the database cannot do just now is 503; what it will never do is a defect.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        // Without a connection nothing is wrong with what was asked.
        let is_away = matches!(error, store::Error::Connect { .. });
        match error.class() {
            Class::Data | Class::Duplicate | Class::Permanent if !is_away => Self::internal(Chain(&error)),
            Class::Unknown => Self::unavailable(
                "outcome_unknown",
                "The connection to the database was lost while this was written: it may have been taken or not. Look, \
                 or send it again under the same Idempotency-Key.",
                DATABASE_RETRY,
            )
            .because(Chain(&error)),
            _ => Self::unavailable(
                "database_unavailable",
                "The database cannot be used just now; nothing is answered without it.",
                DATABASE_RETRY,
            )
            .because(Chain(&error)),
        }
    }
}
