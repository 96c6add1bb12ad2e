//! The routes of the document.

use serde_json::{Map, Value, json};

use super::{problems, schemas};
use crate::api::extract::{LONGEST_KEY, LONGEST_WAIT};
use crate::api::listing::{
    CLUSTERS, DATASTORES, HOSTS, LARGEST_PAGE, LONGEST_NAME, List, MOST_PLATFORMS, PAGE, PLATFORMS, VMS,
};
use crate::api::rights::{ROUTES, Right, Role, Route};
use crate::model::operation::State;

/// What the document says of a route beside what the table of rights does.
#[derive(Debug, Default)]
struct Described {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    about: &'static str,
    parameters: Vec<Value>,
    /// Schema of the body, and whether there has to be one.
    body: Option<(&'static str, bool)>,
    /// Status and schema of the success.
    ok: (u16, Option<&'static str>),
    /// Words of problems that not every route has.
    problems: &'static [&'static str],
    /// Where the answer leads: name, operation, its parameters and body as expressions.
    links: &'static [Link],
}

/// Where an answer leads.
#[derive(Debug, Clone, Copy)]
struct Link {
    operation: &'static str,
    /// Name and expression of each parameter.
    parameters: &'static [(&'static str, &'static str)],
    /// Expression of what is to be confirmed.
    confirm: Option<&'static str>,
}

const fn link(operation: &'static str, parameters: &'static [(&'static str, &'static str)]) -> Link {
    Link {
        operation,
        parameters,
        confirm: None,
    }
}

const fn confirmed(operation: &'static str, parameters: &'static [(&'static str, &'static str)]) -> Link {
    Link {
        operation,
        parameters,
        confirm: Some("$response.body#/name"),
    }
}

/// Of a list to its first row.
const FIRST: &[(&str, &str)] = &[("id", "$response.body#/items/0/id")];

/// Of an object to what can be done with it.
const ITSELF: &[(&str, &str)] = &[("id", "$response.body#/id")];

const ACTION_LINKS: &[Link] = &[link("getOperation", ITSELF)];

const VM_LINKS: &[Link] = &[
    link("powerOn", ITSELF),
    confirmed("powerOff", ITSELF),
    confirmed("reset", ITSELF),
    link("suspend", ITSELF),
    link("shutdownGuest", ITSELF),
    link("rebootGuest", ITSELF),
    link("listSnapshots", ITSELF),
    link("createSnapshot", ITSELF),
    confirmed("removeAllSnapshots", ITSELF),
];

const KEPT_LINKS: &[Link] = &[link("getPlatform", &[("id", "$response.body#/platform/id")])];

const PLATFORM_LINKS: &[Link] = &[
    link("testPlatform", ITSELF),
    link("syncPlatform", ITSELF),
    link("pausePlatform", ITSELF),
    link("changePlatform", ITSELF),
    link("setCredentials", ITSELF),
    confirmed("removePlatform", ITSELF),
];

const TREE_LINKS: &[Link] = &[
    link(
        "revertSnapshot",
        &[
            ("id", "$request.path.id"),
            ("moref", "$response.body#/items/0/moref"),
        ],
    ),
    link(
        "removeSnapshot",
        &[
            ("id", "$request.path.id"),
            ("moref", "$response.body#/items/0/moref"),
        ],
    ),
];

/// Words of problems that an action may be answered with.
const ACTION: &[&str] = &[
    "vm_busy",
    "platform_paused",
    "platform_busy",
    "not_confirmed",
    "idempotency_key_reused",
    "bad_idempotency_key",
];

/// As [`ACTION`], of taking a snapshot.
const SNAPSHOT: &[&str] = &[
    "vm_busy",
    "platform_paused",
    "platform_busy",
    "not_confirmed",
    "idempotency_key_reused",
    "bad_idempotency_key",
    "bad_value",
];

/// As [`ACTION`], of removing snapshots.
const REMOVAL: &[&str] = &[
    "vm_busy",
    "platform_paused",
    "platform_busy",
    "not_confirmed",
    "idempotency_key_reused",
    "bad_idempotency_key",
    "contradiction",
];

/// Words that changes of a platform's address have.
const CHANGE: &[&str] = &[
    "nothing_to_change",
    "password_needed",
    "provisioned",
    "changed_meanwhile",
    "no_password",
    "trial_failed",
    "bad_trust",
    "trust_ambiguous",
    "keys_unavailable",
];

/// The paths.
pub(super) fn all() -> Map<String, Value> {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let Some(described) = describe(route.method.as_str(), route.path) else {
            continue;
        };
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(method, operation(route, described));
        }
    }
    paths
}

fn operation(route: &Route, described: Described) -> Value {
    let has_body = described.body.is_some();
    let roles: Vec<&str> = Role::ALL
        .into_iter()
        .filter(|role| role.has(route.right))
        .map(Role::as_str)
        .collect();
    let about = if route.right == Right::Open {
        format!("{} Needs no token.", described.about)
    } else {
        format!("{} For the roles {}.", described.about, roles.join(", "))
    };
    let mut parameters: Vec<Value> = path_parameters(route.path);
    let has_path = !parameters.is_empty();
    parameters.extend(described.parameters.iter().cloned());
    let mut operation = json!({
        "operationId": described.id,
        "tags": [described.tag],
        "summary": described.summary,
        "description": about.trim_start(),
        "parameters": parameters,
        "responses": responses(route, &described, has_path, has_body),
        "security": if route.right == Right::Open { json!([]) } else { json!([{ "token": [] }]) },
    });
    if let (Some((schema, required)), Some(operation)) = (described.body, operation.as_object_mut()) {
        operation.insert(
            "requestBody".to_owned(),
            json!({ "required": required, "content": { "application/json": { "schema": schemas::of(schema) } } }),
        );
    }
    operation
}

fn responses(route: &Route, described: &Described, has_path: bool, has_body: bool) -> Map<String, Value> {
    let mut responses = Map::new();
    let (status, schema) = described.ok;
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
    if let (true, Some(headers)) = (route.right.is_action(), headers.as_object_mut()) {
        for name in ["Location", "Retry-After", "Preference-Applied"] {
            headers.insert(
                name.to_owned(),
                json!({ "$ref": format!("#/components/headers/{name}") }),
            );
        }
    }
    let mut ok = json!({ "description": described.summary, "headers": headers });
    if let (Some(schema), Some(ok)) = (schema, ok.as_object_mut()) {
        let content = json!({ "application/json": { "schema": schemas::of(schema) } });
        ok.insert("content".to_owned(), content);
    }
    if let (false, Some(ok)) = (described.links.is_empty(), ok.as_object_mut()) {
        ok.insert("links".to_owned(), links(described.links));
    }
    responses.insert(status.to_string(), ok);

    let is_open = route.right == Right::Open;
    let mut words = vec![
        "bad_host",
        "bad_query",
        "not_acceptable",
        "rate_limited",
        "internal",
        "overloaded",
        "too_slow",
    ];
    if route.method == axum::http::Method::GET {
        words.push("unexpected_body");
    } else {
        words.extend(["stopping", "outcome_unknown"]);
    }
    if !is_open {
        words.extend([
            "unauthenticated",
            "forbidden",
            "database_unavailable",
            "keys_unavailable",
        ]);
    }
    if has_path {
        words.extend(["bad_path", "not_found"]);
    }
    if described
        .parameters
        .iter()
        .any(|parameter| parameter.get("name") == Some(&json!("cursor")))
    {
        words.push("bad_cursor");
    }
    if has_body {
        words.extend(["bad_body", "body_too_slow", "body_too_long", "not_json"]);
    }
    words.extend(described.problems);
    let mut statuses: Vec<u16> = problems::CODES
        .iter()
        .filter(|code| words.contains(&code.code))
        .map(|code| code.status)
        .collect();
    statuses.dedup();
    for status in statuses {
        responses.insert(status.to_string(), problems::answer(status, &words));
    }
    responses
}

fn links(links: &[Link]) -> Value {
    let links: Map<String, Value> = links
        .iter()
        .map(|link| {
            let parameters: Map<String, Value> = link
                .parameters
                .iter()
                .map(|(name, expression)| ((*name).to_owned(), json!(expression)))
                .collect();
            let mut shown = json!({ "operationId": link.operation, "parameters": parameters });
            if let (Some(confirm), Some(shown)) = (link.confirm, shown.as_object_mut()) {
                shown.insert("requestBody".to_owned(), json!({ "confirm": confirm }));
            }
            (link.operation.to_owned(), shown)
        })
        .collect();
    Value::Object(links)
}

fn path_parameters(path: &str) -> Vec<Value> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let (about, schema, example) = match name {
                "moref" => (
                    "The snapshot, as the tree of snapshots names it.",
                    json!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9._-]+$" }),
                    json!("snapshot-91"),
                ),
                _ if path.contains("/operations/") => (
                    "The operation.",
                    json!({ "type": "string", "format": "uuid" }),
                    json!("01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f"),
                ),
                _ => ("Its key.", key(), json!(1)),
            };
            json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema, "example": example })
        })
        .collect()
}

fn key() -> Value {
    json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": i32::MAX })
}

fn query(name: &str, about: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
}

/// The parameters of a list.
fn of_list(list: List) -> Vec<Value> {
    list.parameters.iter().map(|name| list_parameter(name)).collect()
}

fn list_parameter(name: &str) -> Value {
    let text = json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "pattern": schemas::PLAIN_TEXT });
    match name {
        "platform" => json!({
            "name": "platform", "in": "query", "required": false, "style": "form", "explode": false,
            "description": "Of these platforms: their keys, with commas in between.",
            "schema": { "type": "array", "minItems": 1, "maxItems": MOST_PLATFORMS, "items": key() },
        }),
        "name" => query(name, "With exactly this name.", text),
        "name_contains" => query(name, "With this text in the name, in any case.", text),
        "power_state" => query(
            name,
            "In this state.",
            json!({ "type": "string", "enum": ["on", "off", "suspended", "unknown"] }),
        ),
        "cluster" => query(name, "In the cluster with this key.", key()),
        "host" => query(
            name,
            "On the host with this key; of datastores, mounted by it.",
            key(),
        ),
        "datastore" => query(
            name,
            "With a disk on the datastore with this key; of hosts, with it mounted.",
            key(),
        ),
        "removed" => query(
            name,
            "true: those that are gone. false: those that are there.",
            json!({ "type": "boolean", "default": false }),
        ),
        "metrics" => query(
            name,
            "true: each with its newest sample.",
            json!({ "type": "boolean", "default": false }),
        ),
        "limit" => limit(),
        _ => cursor(),
    }
}

fn limit() -> Value {
    query(
        "limit",
        "Rows of a page at most.",
        json!({ "type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE }),
    )
}

fn cursor() -> Value {
    query(
        "cursor",
        "Where the page begins: `next_cursor` of the page before, as it came.",
        no_nul(),
    )
}

fn confirm() -> Value {
    query(
        "confirm",
        "The exact name, as in the body: not every client can send a body with DELETE.",
        no_nul(),
    )
}

/// A text that PostgreSQL can hold.
fn no_nul() -> Value {
    json!({ "type": "string", "pattern": r"^[^\x00]*$" })
}

fn prefer() -> Value {
    json!({
        "name": "Prefer", "in": "header", "required": false,
        "description": format!("`wait=N`: answer at the end of the operation, or after N seconds, at most {}.", LONGEST_WAIT.as_secs()),
        "schema": { "type": "string" }, "example": "wait=5",
    })
}

/// Headers of actions.
fn of_action(more: Vec<Value>) -> Vec<Value> {
    let key = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The same key, token and request within 24 hours are the same action, done once.",
        "schema": { "type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$" },
    });
    more.into_iter().chain([prefer(), key]).collect()
}

fn power(id: &'static str, summary: &'static str, about: &'static str) -> Described {
    Described {
        id,
        tag: "power",
        summary,
        about,
        parameters: of_action(vec![]),
        body: Some(("Confirmation", false)),
        ok: (202, Some("Operation")),
        problems: ACTION,
        links: ACTION_LINKS,
    }
}

fn listed(
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    list: List,
    page: &'static str,
) -> Described {
    Described {
        id,
        tag,
        summary,
        parameters: of_list(list),
        links: match list.of {
            "platform" => const { &[link("getPlatform", FIRST)] },
            "host" => const { &[link("getHost", FIRST)] },
            "vm" => const { &[link("getVm", FIRST)] },
            "datastore" => const { &[link("getDatastore", FIRST)] },
            _ => const { &[link("getCluster", FIRST)] },
        },
        ok: (200, Some(page)),
        ..Described::default()
    }
}

fn shown(
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    about: &'static str,
    of: &'static str,
) -> Described {
    Described {
        id,
        tag,
        summary,
        about,
        links: match of {
            "VmDetails" => VM_LINKS,
            "Platform" => PLATFORM_LINKS,
            "SnapshotTree" => TREE_LINKS,
            _ => &[],
        },
        ok: (200, Some(of)),
        ..Described::default()
    }
}

fn changed(
    id: &'static str,
    summary: &'static str,
    about: &'static str,
    body: Option<(&'static str, bool)>,
    ok: (u16, Option<&'static str>),
    problems: &'static [&'static str],
) -> Described {
    Described {
        id,
        tag: "platforms",
        summary,
        about,
        parameters: vec![],
        body,
        links: match ok {
            (_, Some("KeptPlatform")) => KEPT_LINKS,
            _ => &[],
        },
        ok,
        problems,
    }
}

fn describe(method: &str, path: &str) -> Option<Described> {
    let below = path.strip_prefix(crate::api::rights::BASE).unwrap_or(path);
    Some(match (method, below) {
        ("GET", "/livez") => shown("livez", "service", "Whether the process answers", "", "Health"),
        ("GET", "/readyz") => Described {
            problems: &["database_unavailable"],
            ..shown(
                "readyz",
                "service",
                "Whether the database can be used",
                "A platform that is down does not make a collector unready.",
                "Health",
            )
        },
        ("GET", "/openapi.json") => shown("document", "service", "This document", "", "Document"),

        ("GET", "/platforms/") => listed(
            "listPlatforms",
            "platforms",
            "Platforms, by key",
            PLATFORMS,
            "PlatformPage",
        ),
        ("POST", "/platforms/") => changed(
            "addPlatform",
            "Adds a platform, after trying it",
            "Logs in and looks around first, for up to 30 seconds; what fails is not kept, and the answer says why. \
             The password is sealed with the collector's key ring. A name that was removed goes on with its objects.",
            Some(("NewPlatform", true)),
            (201, Some("KeptPlatform")),
            &[
                "name_taken",
                "changed_meanwhile",
                "trial_failed",
                "bad_trust",
                "trust_ambiguous",
                "keys_unavailable",
            ],
        ),
        ("GET", "/platforms/{id}/") => shown(
            "getPlatform",
            "platforms",
            "One platform",
            "Also one that was removed.",
            "Platform",
        ),
        ("PATCH", "/platforms/{id}/") => changed(
            "changePlatform",
            "Changes how a platform is reached, and whether it is collected",
            "Tried before it is kept. Another host, port or trust needs the password anew: the stored one is sent nowhere else. With `revision`, only if nobody else changed it since.",
            Some(("PlatformChange", true)),
            (200, Some("KeptPlatform")),
            CHANGE,
        ),
        ("DELETE", "/platforms/{id}/") => Described {
            parameters: vec![confirm()],
            ..changed(
                "removePlatform",
                "Removes a platform and its password",
                "Its objects and samples stay. Needs the platform's exact name in `confirm`.",
                Some(("Confirmation", false)),
                (204, None),
                &["not_confirmed", "provisioned", "changed_meanwhile"],
            )
        },
        ("POST", "/platforms/{id}/test/") => changed(
            "testPlatform",
            "Tries a platform with what is stored",
            "Logs in, looks around and logs out, for up to 30 seconds; changes nothing. A trial that fails is an answer \
             like any other: look at `ok`.",
            Some(("Nothing", false)),
            (200, Some("TrialResult")),
            &["not_here"],
        ),
        ("POST", "/platforms/{id}/sync/") => changed(
            "syncPlatform",
            "Has a platform's inventory read now",
            "The collector that has the platform reads it; when `synced_at` has passed `sync_asked_at`, it is done.",
            Some(("Nothing", false)),
            (202, Some("Platform")),
            &[],
        ),
        ("POST", "/platforms/{id}/maintenance/") => changed(
            "pausePlatform",
            "Pauses a platform, or ends the pause",
            "No polling and no session meanwhile; a pause of up to 50 minutes is filled afterwards. Also for platforms \
             of config.toml.",
            Some(("Maintenance", true)),
            (200, Some("Platform")),
            &["changed_meanwhile"],
        ),
        ("PUT", "/platforms/{id}/credentials/") => changed(
            "setCredentials",
            "Sets a new password, and account where one is given",
            "Tried before it is kept. Nothing ever shows it again.",
            Some(("Credentials", true)),
            (200, Some("KeptPlatform")),
            CHANGE,
        ),

        ("GET", "/hosts/") => listed("listHosts", "inventory", "Hosts, by key", HOSTS, "HostPage"),
        ("GET", "/hosts/{id}/") => shown(
            "getHost",
            "inventory",
            "One host with its newest sample",
            "Also one that is gone.",
            "Host",
        ),
        ("GET", "/vms/") => listed("listVms", "inventory", "VMs, by key", VMS, "VmPage"),
        ("GET", "/vms/{id}/") => shown(
            "getVm",
            "inventory",
            "One VM with its newest sample, disks and network adapters",
            "Also one that is gone.",
            "VmDetails",
        ),
        ("GET", "/datastores/") => listed(
            "listDatastores",
            "inventory",
            "Datastores, by key",
            DATASTORES,
            "DatastorePage",
        ),
        ("GET", "/datastores/{id}/") => shown(
            "getDatastore",
            "inventory",
            "One datastore",
            "Also one that is gone.",
            "Datastore",
        ),
        ("GET", "/clusters/") => listed(
            "listClusters",
            "inventory",
            "Clusters, by key",
            CLUSTERS,
            "ClusterPage",
        ),
        ("GET", "/clusters/{id}/") => shown(
            "getCluster",
            "inventory",
            "One cluster",
            "Also one that is gone.",
            "Cluster",
        ),

        ("POST", "/vms/{id}/power-on/") => power("powerOn", "Powers a VM on", ""),
        ("POST", "/vms/{id}/power-off/") => power(
            "powerOff",
            "Powers a VM off, as by pulling the plug",
            "Needs the VM's exact name in `confirm`.",
        ),
        ("POST", "/vms/{id}/reset/") => power(
            "reset",
            "Resets a VM, as by the button",
            "Needs the VM's exact name in `confirm`.",
        ),
        ("POST", "/vms/{id}/suspend/") => power("suspend", "Suspends a VM", ""),
        ("POST", "/vms/{id}/shutdown-guest/") => power(
            "shutdownGuest",
            "Asks the guest to shut down",
            "Needs VMware Tools; ends when the VM is off.",
        ),
        ("POST", "/vms/{id}/reboot-guest/") => {
            power("rebootGuest", "Asks the guest to reboot", "Needs VMware Tools.")
        }

        ("GET", "/vms/{id}/snapshots/") => shown(
            "listSnapshots",
            "snapshots",
            "The tree of a VM's snapshots",
            "",
            "SnapshotTree",
        ),
        ("POST", "/vms/{id}/snapshots/") => Described {
            id: "createSnapshot",
            tag: "snapshots",
            summary: "Takes a snapshot of a VM",
            about: "The operation's result has its moref.",
            parameters: of_action(vec![]),
            body: Some(("NewSnapshot", true)),
            ok: (202, Some("Operation")),
            problems: SNAPSHOT,
            links: ACTION_LINKS,
        },
        ("DELETE", "/vms/{id}/snapshots/") => Described {
            id: "removeAllSnapshots",
            tag: "snapshots",
            summary: "Removes all snapshots of a VM",
            about: "The VM stays as it is. Needs its exact name in `confirm`.",
            parameters: of_action(vec![confirm()]),
            body: Some(("Confirmation", false)),
            ok: (202, Some("Operation")),
            problems: REMOVAL,
            links: ACTION_LINKS,
        },
        ("POST", "/vms/{id}/snapshots/{moref}/revert/") => Described {
            tag: "snapshots",
            ..power(
                "revertSnapshot",
                "Goes back to a snapshot",
                "What came after it is lost. Needs the VM's exact name in `confirm`.",
            )
        },
        ("DELETE", "/vms/{id}/snapshots/{moref}/") => Described {
            id: "removeSnapshot",
            tag: "snapshots",
            summary: "Removes a snapshot",
            about: "The VM stays as it is. Needs its exact name in `confirm`.",
            parameters: of_action(vec![
                query(
                    "children",
                    "true: those on top of it as well.",
                    json!({ "type": "boolean", "default": false }),
                ),
                confirm(),
            ]),
            body: Some(("Confirmation", false)),
            ok: (202, Some("Operation")),
            problems: REMOVAL,
            links: ACTION_LINKS,
        },

        ("GET", "/operations/") => {
            let states: Vec<&str> = State::ALL.into_iter().map(State::as_str).collect();
            Described {
                id: "listOperations",
                tag: "operations",
                summary: "Operations, newest first",
                parameters: vec![
                    query("platform", "Of the platform with this key.", key()),
                    query("vm", "Of the VM with this key.", key()),
                    query(
                        "state",
                        "In this state.",
                        json!({ "type": "string", "enum": states }),
                    ),
                    limit(),
                    cursor(),
                ],
                links: const { &[link("getOperation", FIRST)] },
                ok: (200, Some("OperationPage")),
                ..Described::default()
            }
        }
        ("GET", "/operations/{id}/") => Described {
            parameters: vec![prefer()],
            ..shown("getOperation", "operations", "One operation", "", "Operation")
        },
        ("GET", "/audit/") => {
            let text = no_nul;
            let time = || json!({ "type": "string", "format": "date-time" });
            Described {
                id: "listAudit",
                tag: "audit",
                summary: "The audit log, newest first",
                about: "With a token that is limited to some platforms, what is about them.",
                parameters: vec![
                    query("platform", "About the platform of this name.", text()),
                    query("actor", "By the token of this name.", text()),
                    query("action", "About this action.", text()),
                    query(
                        "entry",
                        "Of this kind.",
                        json!({ "type": "string", "enum": ["intent", "outcome", "denied"] }),
                    ),
                    query(
                        "operation",
                        "About this operation.",
                        json!({ "type": "string", "format": "uuid" }),
                    ),
                    query("request_id", "About this request.", text()),
                    query("since", "From this time on.", time()),
                    query("until", "Before this time.", time()),
                    limit(),
                    cursor(),
                ],
                ok: (200, Some("AuditPage")),
                ..Described::default()
            }
        }
        _ => return None,
    })
}
