//! The document of the API, OpenAPI 3.1: every route, what it takes and what it answers.
//!
//! | part | one job |
//! |---|---|
//! | `paths` | each route: its sentence, parameters, body, answers |
//! | `problems` | which words a problem may have, by status |
//! | `schemas` | what answers and bodies hold |
//! | `examples` | one example of each |
//!
//! Owns: `/openapi.json`. Never does: routing. The routes and who may use them come from [`crate::api::rights`]; a test
//! holds both against each other.

mod examples;
mod paths;
mod problems;
mod schemas;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};

pub use problems::{CODES, Code};

const ABOUT: &str = "\
Power and snapshot actions on VMs, the platforms that are collected, and the inventory as it is stored.

Every request but the open ones needs a token: `Authorization: Bearer vc_...`. `virt-collector token create` makes one \
with a role and, where wished, limited to some platforms. What lies outside of a token's platforms is answered as if \
it did not exist.

**Paths** end with a slash and work without it as well. **Lists** come in pages: `next_cursor` of one is `cursor` of \
the next. **Times** are RFC 3339 in UTC. What is not a success is `application/problem+json` with a `code` for \
programs and a `detail` for people, and the request's id, which stands in the logs and in the audit log, too.

**Actions** are accepted with 202 and become operations: the collector that has the platform carries them out. \
`Prefer: wait=30` waits for the end; `Location` names the operation to follow. `Idempotency-Key` makes a repeated \
request the same request. An action that may have been sent is never sent again: where nothing tells what became of \
it, its state is `unknown`.";

/// The document.
#[must_use]
pub fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "virt-collector",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "Where this document comes from." }],
        "tags": [
            { "name": "platforms", "description": "vCenters and ESXi hosts that are collected. Those of config.toml are changed there alone." },
            { "name": "inventory", "description": "Hosts, VMs, datastores and clusters as they are stored, with the newest sample of hosts and VMs." },
            { "name": "power", "description": "Power actions on VMs." },
            { "name": "snapshots", "description": "Snapshots of VMs." },
            { "name": "operations", "description": "Actions from their acceptance to their end." },
            { "name": "audit", "description": "Who asked for what, and what came of it." },
            { "name": "service", "description": "The service itself: its health and this document." },
        ],
        "paths": paths::all(),
        "components": {
            "schemas": schemas::all(),
            "headers": {
                "X-Request-Id": { "description": "The request: the caller's own, where it is up to 64 letters, digits, '-', '_', '.' or ':', or else a new one.", "schema": { "type": "string" } },
                "Retry-After": { "description": "Seconds to wait.", "schema": { "type": "integer", "minimum": 1 } },
                "WWW-Authenticate": { "description": "What is needed.", "schema": { "type": "string" } },
                "Location": { "description": "The operation to follow.", "schema": { "type": "string", "format": "uri-reference" } },
                "Preference-Applied": { "description": "How long it was waited for.", "schema": { "type": "string" } },
            },
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "vc_<number>_<43 characters>",
                    "description": "A token of `virt-collector token create`.",
                },
            },
        },
    })
}

/// The document as it is sent.
#[must_use]
pub fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));
    TEXT.clone()
}
