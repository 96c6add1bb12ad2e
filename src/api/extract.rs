//! Paths, queries and bodies, refused in plain words where they are not as they must be.
//!
//! The types that are read into deny unknown fields, so that a misspelt one is not silently left out. A route without
//! a query or a body takes [`Nothing`].

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::api::problem::Problem;

/// The longest body.
pub const BODY_BYTES: usize = 64 * 1024;

/// From the end of the header to the end of the body.
pub const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// The longest that a request waits for the end of an action.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest `Idempotency-Key`.
pub const LONGEST_KEY: usize = 255;

/// No parameters, or an empty body.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The parameters of the path.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = |rejection: PathRejection| match rejection.status() {
            StatusCode::BAD_REQUEST => Problem::bad_request(
                "bad_path",
                format!("The path cannot be read: {}", rejection.body_text()),
            ),
            _ => Problem::internal(rejection.body_text()),
        };
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(refuse)
    }
}

/// The parameters behind the question mark.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if !is_encoded_text(query) {
            return Err(Problem::bad_request(
                "bad_query",
                "The query is not UTF-8 text, encoded with a percent sign and two hexadecimal digits.",
            ));
        }
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::bad_request(
                "bad_query",
                format!("The query cannot be read: {}", rejection.body_text()),
            )),
        }
    }
}

/// What a lenient reader would silently replace.
fn is_encoded_text(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let Some(([high, low], behind)) = rest.split_first_chunk::<2>() else {
            return false;
        };
        let digit = |digit: &u8| {
            char::from(*digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return false;
        };
        bytes.push(high << 4 | low);
        rest = behind;
    }
    str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'))
}

/// The body: a JSON object, or nothing, which is an empty object.
#[derive(Debug, Clone)]
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// SHA-256 of method, path, query and body: what makes a request the same as another.
    pub digest: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body).await?;
        let mut digest = Sha256::new();
        for part in [
            parts.method.as_str().as_bytes(),
            parts.uri.path().as_bytes(),
            parts.uri.query().unwrap_or_default().as_bytes(),
            &bytes,
        ] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // A struct can be read from a list, too; nobody means that.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::bad_request(
                "bad_body",
                "The body must be a JSON object.",
            ));
        }
        let value = serde_json::from_slice(text).map_err(|error| {
            Problem::bad_request("bad_body", format!("The body cannot be read: {error}."))
        })?;
        Ok(Self {
            value,
            digest: digest.finalize().into(),
        })
    }
}

/// The bytes of a body, in bounds and in time.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_long = || {
        let detail = format!("The body is longer than {BODY_BYTES} bytes.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", detail).closing()
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES as u64) {
        return Err(too_long());
    }
    let reading = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES).collect());
    let bytes = match reading.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(_)) => {
            return Err(Problem::bad_request(
                "bad_body",
                "The body broke off, or its chunks cannot be read.",
            )
            .closing());
        }
        Err(_elapsed) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                format!("The body was not complete within {} s.", BODY_DEADLINE.as_secs()),
            )
            .closing());
        }
    };
    if !bytes.is_empty() {
        is_json(headers)?;
    }
    Ok(bytes)
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail| {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            detail,
        ))
    };
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return unsupported("Bodies are taken as they are, without a Content-Encoding.");
    }
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|part| {
        part.split_once('=').is_none_or(|(name, value)| {
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    });
    if is_json && is_utf8 {
        Ok(())
    } else {
        unsupported("The body must be JSON, with Content-Type: application/json.")
    }
}

/// What a caller would like (RFC 7240). What cannot be read is left aside, as that says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prefer {
    /// How long to wait for the end; zero where nobody asked to.
    pub wait: Duration,
}

impl Prefer {
    /// Of the header; a wait is cut to [`LONGEST_WAIT`].
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let wait = headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split([',', ';']))
            .filter_map(|preference| preference.trim().split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
            .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u32>().ok())
            .map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.into()));
        Self {
            wait: wait.min(LONGEST_WAIT),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self::of(&parts.headers))
    }
}

/// The header `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let key = value.to_str().ok().filter(|key| {
            values.next().is_none()
                && (1..=LONGEST_KEY).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_graphic())
        });
        match key {
            Some(key) => Ok(Self(Some(key.to_owned()))),
            None => Err(Problem::bad_request(
                "bad_idempotency_key",
                format!(
                    "The header Idempotency-Key must stand once, with 1 to {LONGEST_KEY} visible ASCII characters."
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encoded_text_is_a_query() {
        for good in ["", "a=b&c=%20d+e", "name=%C3%A4", "a=%25"] {
            assert!(is_encoded_text(good), "{good}");
        }
        for bad in ["%", "a=%2", "a=%zz", "a=%FF", "a=%C3", "a=%00", "a=%+1"] {
            assert!(!is_encoded_text(bad), "{bad}");
        }
    }

    #[test]
    fn a_wait_is_read_and_bounded_and_nonsense_is_left_aside() {
        for (prefer, seconds) in [
            ("wait=10", 10),
            ("respond-async, Wait = \"7\"", 7),
            ("wait=9999", 30),
            ("wait=99999999999999", 0),
            ("wait=-1", 0),
            ("wait=soon", 0),
            ("return=minimal", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", prefer.parse().unwrap());
            assert_eq!(Prefer::of(&headers).wait.as_secs(), seconds, "{prefer}");
        }
        assert_eq!(Prefer::of(&HeaderMap::new()), Prefer::default());
    }
}
