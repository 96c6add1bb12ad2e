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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::rights::ROUTES;

    /// Every object with `$ref`, and every operation of a link.
    fn walk(value: &Value, found: &mut dyn FnMut(&str, &str)) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    if let Value::String(text) = value {
                        found(name, text);
                    }
                    walk(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document = document();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                documented.insert(format!("{} {path}", method.to_ascii_uppercase()));
            }
        }
        let served: BTreeSet<String> = ROUTES
            .iter()
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert_eq!(documented, served);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_one_name() {
        let document = document();
        let mut operations = Vec::new();
        for methods in document["paths"].as_object().unwrap().values() {
            for operation in methods.as_object().unwrap().values() {
                operations.push(operation["operationId"].as_str().unwrap().to_owned());
                assert!(!operation["summary"].as_str().unwrap().is_empty());
            }
        }
        let unique: BTreeSet<&String> = operations.iter().collect();
        assert_eq!(unique.len(), operations.len());
        let mut references = 0;
        walk(&document["paths"], &mut |name, text| match name {
            "$ref" => {
                references += 1;
                let pointer = text.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{text}");
            }
            "operationId" => assert!(unique.contains(&text.to_owned()), "{text}"),
            _ => {}
        });
        assert!(references > 100);
        walk(&document["components"], &mut |name, text| {
            if name == "$ref" {
                assert!(
                    document.pointer(text.strip_prefix('#').unwrap()).is_some(),
                    "{text}"
                );
            }
        });
    }

    #[test]
    fn every_schema_has_an_example_with_members_that_it_knows() {
        let document = document();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            if matches!(
                name.as_str(),
                "HostMetrics" | "VmMetrics" | "Nothing" | "Document"
            ) {
                continue;
            }
            let example = schema["examples"][0]
                .as_object()
                .unwrap_or_else(|| panic!("{name} has no example"));
            let known: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
            let shown: BTreeSet<&String> = example.keys().collect();
            assert!(shown.is_subset(&known), "{name}: {:?}", shown.difference(&known));
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    example.contains_key(required.as_str().unwrap()),
                    "{name}: {required}"
                );
            }
        }
    }

    /// Words that stand where problems are made.
    fn words_in_the_code() -> BTreeSet<String> {
        fn walk(directory: &std::path::Path, words: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, words);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                for made in [
                    "bad_request(",
                    "conflict(",
                    "unprocessable(",
                    "too_many(",
                    "unavailable(",
                    "Problem::new(",
                ] {
                    for behind in code.split(made).skip(1) {
                        let arguments = behind.split(';').next().unwrap().split("format!").next().unwrap();
                        let word = arguments.split('"').nth(1).unwrap_or_default();
                        let is_word = word.len() > 3
                            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                        if is_word {
                            words.insert(word.to_owned());
                        }
                    }
                }
            }
        }
        let mut words = BTreeSet::new();
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
        walk(&source.join("routes"), &mut words);
        for file in ["auth", "extract", "listing", "server", "context", "problem"] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::copy(
                source.join(file).with_extension("rs"),
                directory.path().join("one.rs"),
            )
            .unwrap();
            walk(directory.path(), &mut words);
        }
        words
    }

    #[test]
    fn every_word_of_a_problem_in_the_code_is_in_the_table() {
        let known: BTreeSet<String> = CODES.iter().map(|code| code.code.to_owned()).collect();
        let said = words_in_the_code();
        assert!(said.len() > 20, "{said:?}");
        let missing: Vec<&String> = said.difference(&known).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(CODES.is_sorted_by_key(|code| code.status));
    }
}
