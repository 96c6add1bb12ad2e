//! Which words a problem may have, by status: for the document, and for the table of the README.

use serde_json::{Value, json};

use super::schemas;

/// A word of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The status that it comes with.
    pub status: u16,
    /// The word.
    pub code: &'static str,
    /// When it is said, and what to do.
    pub about: &'static str,
}

const fn code(status: u16, code: &'static str, about: &'static str) -> Code {
    Code { status, code, about }
}

/// All of them.
pub const CODES: &[Code] = &[
    code(
        400,
        "bad_path",
        "a part of the path is not what it must be, such as a key that is no number",
    ),
    code(
        400,
        "bad_query",
        "a parameter is unknown, stands twice, or has a value that makes no sense",
    ),
    code(
        400,
        "bad_cursor",
        "the cursor is not `next_cursor` of a page of this list",
    ),
    code(
        400,
        "bad_body",
        "the body is not the JSON object that it must be; the detail says where",
    ),
    code(
        400,
        "bad_idempotency_key",
        "`Idempotency-Key` is empty, too long, stands twice, or has characters that are not visible ASCII",
    ),
    code(400, "unexpected_body", "a GET request came with a body"),
    code(400, "bad_host", "the header `Host` is missing or stands twice"),
    code(
        401,
        "unauthenticated",
        "there is no token, or it is wrong, expired or revoked; nobody is told which",
    ),
    code(
        403,
        "forbidden",
        "the role of the token does not have this right, or the new platform is not one of the token's",
    ),
    code(
        404,
        "not_found",
        "there is none, or it is on a platform outside of the token's; nobody is told which",
    ),
    code(404, "no_such_route", "there is nothing at this path"),
    code(
        405,
        "method_not_allowed",
        "this method is not for this path; `Allow` names those that are",
    ),
    code(
        406,
        "not_acceptable",
        "`Accept` takes no JSON, and answers are JSON",
    ),
    code(408, "body_too_slow", "the body did not come in time"),
    code(
        409,
        "vm_busy",
        "the VM has another operation that has not ended; wait for it",
    ),
    code(
        409,
        "platform_paused",
        "the platform is inactive or in maintenance, so that nobody carries the action out",
    ),
    code(
        409,
        "provisioned",
        "the platform stands in config.toml and is changed there alone",
    ),
    code(409, "name_taken", "there is a platform of this name"),
    code(
        409,
        "changed_meanwhile",
        "somebody else changed the platform; look at it and try again",
    ),
    code(
        409,
        "not_here",
        "the platform's password is in the configuration of another collector",
    ),
    code(
        409,
        "no_password",
        "the stored password is missing or cannot be opened; set it anew",
    ),
    code(413, "body_too_long", "the body is longer than 64 KiB"),
    code(
        415,
        "not_json",
        "the body is not `application/json`, or is compressed",
    ),
    code(
        422,
        "not_confirmed",
        "`confirm` is missing, or is not the exact name of the VM or platform; nothing was done",
    ),
    code(
        422,
        "idempotency_key_reused",
        "the `Idempotency-Key` was used for another request; take a new one for each action",
    ),
    code(
        422,
        "contradiction",
        "`confirm` is one thing in the query and another in the body",
    ),
    code(
        422,
        "nothing_to_change",
        "the body of a change has nothing that is to be another value",
    ),
    code(422, "bad_value", "a text is too long or holds control characters"),
    code(
        422,
        "password_needed",
        "the password would go to another server, or on a way that is trusted otherwise; give it anew",
    ),
    code(
        422,
        "trial_failed",
        "the platform could not be collected like this, so nothing was kept; the detail says why",
    ),
    code(422, "bad_trust", "the certificates of `ca_pem` cannot be used"),
    code(
        422,
        "trust_ambiguous",
        "more than one of `tls_verify`, `ca_pem` and `thumbprint` is given",
    ),
    code(
        429,
        "rate_limited",
        "this token or address asks too often; `Retry-After` says when to come back",
    ),
    code(
        429,
        "platform_busy",
        "the platform has as many open operations as it may have",
    ),
    code(
        500,
        "internal",
        "a defect of virt-collector; its log has the details under the request's id",
    ),
    code(
        503,
        "database_unavailable",
        "the database cannot be used just now",
    ),
    code(
        503,
        "outcome_unknown",
        "the database was lost while this was written; look, or send it again under the same `Idempotency-Key`",
    ),
    code(
        503,
        "keys_unavailable",
        "the key ring cannot be read; `virt-collector key verify` says why",
    ),
    code(
        503,
        "overloaded",
        "more is asked for at once than can be answered",
    ),
    code(
        503,
        "too_slow",
        "there was no answer in time; what was asked for may still be done",
    ),
    code(
        503,
        "stopping",
        "the service is stopping; what was asked for may still be done",
    ),
];

/// The answer of a status to a route: those words that the route may say. Words of the status that stand in `never`
/// are left out.
pub(super) fn answer(status: u16, only: &[&str]) -> Value {
    let words: Vec<&Code> = CODES
        .iter()
        .filter(|code| code.status == status && (only.is_empty() || only.contains(&code.code)))
        .collect();
    let about: Vec<String> = words
        .iter()
        .map(|code| format!("- `{}`: {}.", code.code, code.about))
        .collect();
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
    let more = match status {
        401 => Some("WWW-Authenticate"),
        429 | 503 => Some("Retry-After"),
        _ => None,
    };
    if let (Some(headers), Some(more)) = (headers.as_object_mut(), more) {
        let header = json!({ "$ref": format!("#/components/headers/{more}") });
        headers.insert(more.to_owned(), header);
    }
    let codes: Vec<&str> = words.iter().map(|code| code.code).collect();
    let mut content = json!({
        "schema": { "allOf": [schemas::of("Problem"), {
            "properties": { "status": { "const": status }, "code": { "enum": codes } },
        }] },
    });
    if let (Some(content), Some(first)) = (content.as_object_mut(), words.first()) {
        let title = axum::http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default();
        content.insert(
            "example".to_owned(),
            json!({
                "type": "about:blank", "title": title, "status": status, "code": first.code,
                "detail": format!("In plain words: {}.", first.about),
                "request_id": "01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f",
            }),
        );
    }
    json!({
        "description": about.join("\n"),
        "headers": headers,
        "content": { "application/problem+json": content },
    })
}
