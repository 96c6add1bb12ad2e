//! The schemas of the document: what answers and bodies hold.
//!
//! Those of the inventory come from the lists of fields that also make the SQL and the JSON.

use serde_json::{Map, Value, json};

use super::examples;
use crate::api::listing::LARGEST_PAGE;
use crate::api::routes::actions::{LONGEST_DESCRIPTION, LONGEST_NAME};
use crate::api::routes::platforms::{LONGEST_PASSWORD, LONGEST_PEM};
use crate::model::columns::{Column, Instances, SqlType};
use crate::model::ids::EntityKind;
use crate::model::operation::{Action, Code, State};
use crate::registrar::LONGEST_TEXT;
use crate::store::reading::{
    Cluster, Datastore, Disk, Field, Host, Kind, Nic, Platform, Record, Snapshot, Vm,
};

/// Words that a field holds and no others: the field, alone or with its schema in front, and the words.
const WORDS: &[(&str, &[&str])] = &[
    ("power_state", &["on", "off", "suspended", "unknown"]),
    ("source", &["config", "registry"]),
    ("Platform.type", &["vcenter", "esxi"]),
    (
        "Platform.status",
        &["disconnected", "connected", "error", "maintenance"],
    ),
    (
        "class",
        &["unreachable", "tls", "auth", "permission", "timeout", "identity"],
    ),
    ("trust", &["system", "ca", "thumbprint", "off", "config"]),
];

/// Longest name of a platform; more than vSphere allows for the name of an object.
const PLATFORM_NAME: &str = "^[A-Za-z0-9._-]{1,63}$";

/// A text without control characters.
pub(super) const PLAIN_TEXT: &str = r"^[^\x00-\x1F\x7F-\x9F]+$";

/// A pattern of inventory paths: names with slashes in between, of which `**` stands for any number.
const INVENTORY_PATTERN: &str = concat!(
    r"^(/|\*\*/)(\*\*|\*|\*?[^/*\x00-\x1F\x7F-\x9F]+(\*[^/*\x00-\x1F\x7F-\x9F]+)*\*?)",
    r"(/(\*\*|\*|\*?[^/*\x00-\x1F\x7F-\x9F]+(\*[^/*\x00-\x1F\x7F-\x9F]+)*\*?))*$|^\*\*$"
);

/// `$ref` to a schema.
pub(super) fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// All of them, by name.
pub(super) fn all() -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| drop(all.insert(name.to_owned(), schema));
    add("Problem", problem());

    add(
        "Platform",
        record::<Platform>(
            "Platform",
            "A vCenter or ESXi host that is collected. Its password is never shown.",
            &[],
        ),
    );
    add("NewPlatform", new_platform());
    add("PlatformChange", platform_change());
    add("Credentials", credentials());
    add("Maintenance", maintenance());
    add("Trial", trial());
    add("TrialTaken", trial_taken());
    add("TrialResult", trial_result());
    add("KeptPlatform", kept_platform());

    add(
        "Host",
        record::<Host>(
            "Host",
            "An ESXi host.",
            &[("metrics", metrics_or_null("HostMetrics"))],
        ),
    );
    add("HostMetrics", metrics(EntityKind::Host));
    add(
        "Vm",
        record::<Vm>(
            "Vm",
            "A virtual machine or template.",
            &[("metrics", metrics_or_null("VmMetrics"))],
        ),
    );
    let parts = |name: &str, about: &str| json!({ "type": "array", "description": about, "items": of(name) });
    add(
        "VmDetails",
        record::<Vm>(
            "VmDetails",
            "A virtual machine or template, with its disks and network adapters.",
            &[
                ("metrics", metrics_or_null("VmMetrics")),
                ("disks", parts("Disk", "Virtual disks.")),
                ("nics", parts("Nic", "Virtual network adapters.")),
            ],
        ),
    );
    add("VmMetrics", metrics(EntityKind::Vm));
    add("Disk", record::<Disk>("Disk", "A virtual disk.", &[]));
    add("Nic", record::<Nic>("Nic", "A virtual network adapter.", &[]));
    let children = json!({ "type": "array", "description": "Snapshots that were made on top of it, oldest first.",
                           "items": of("Snapshot") });
    add(
        "Snapshot",
        record::<Snapshot>(
            "Snapshot",
            "A snapshot, and those on top of it.",
            &[("children", children)],
        ),
    );
    add(
        "Datastore",
        record::<Datastore>(
            "Datastore",
            "A datastore. Its sizes stay as they were last while it is not accessible.",
            &[],
        ),
    );
    add("Cluster", record::<Cluster>("Cluster", "A cluster.", &[]));
    for (name, of) in [
        ("PlatformPage", "Platform"),
        ("HostPage", "Host"),
        ("VmPage", "Vm"),
        ("DatastorePage", "Datastore"),
        ("ClusterPage", "Cluster"),
    ] {
        add(name, page(of));
    }
    add("Confirmation", confirmation());
    add("NewSnapshot", new_snapshot());
    add("Operation", operation());
    add("OperationPage", page("Operation"));
    add("AuditEntry", audit_entry());
    add("AuditPage", page("AuditEntry"));
    add("Nothing", object("Nothing is needed.", &[]));
    add(
        "Document",
        json!({ "type": "object", "description": "An OpenAPI document.", "required": ["openapi", "info", "paths"] }),
    );
    add(
        "Health",
        object(
            "All is well.",
            &[(
                "status",
                true,
                json!({ "type": "string", "const": "ok", "description": "Always ok." }),
            )],
        ),
    );
    add(
        "SnapshotTree",
        object(
            "The snapshots of a VM, as it is known since the last change that the platform told of.",
            &[(
                "items",
                true,
                json!({ "type": "array", "description": "Roots, oldest first.", "items": of("Snapshot") }),
            )],
        ),
    );
    for (name, schema) in &mut all {
        if let (Some(schema), Some(example)) = (schema.as_object_mut(), examples::of(name)) {
            schema.insert("examples".to_owned(), json!([example]));
        }
    }
    all
}

/// An object with these properties, of which some are required, and no others.
pub(super) fn object(about: &str, properties: &[(&str, bool, Value)]) -> Value {
    let required: Vec<&str> = properties
        .iter()
        .filter(|(_, required, _)| *required)
        .map(|(name, ..)| *name)
        .collect();
    let shown: Map<String, Value> = properties
        .iter()
        .map(|(name, _, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut object =
        json!({ "type": "object", "description": about, "properties": shown, "additionalProperties": false });
    if let (Some(object), false) = (object.as_object_mut(), required.is_empty()) {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

/// A page of a list.
pub(super) fn page(of_what: &str) -> Value {
    object(
        "A page of a list.",
        &[
            (
                "items",
                true,
                json!({ "type": "array", "maxItems": LARGEST_PAGE, "items": of(of_what) }),
            ),
            (
                "next_cursor",
                true,
                json!({ "type": ["string", "null"],
                        "description": "Goes into the query parameter `cursor` of the next page; null where this is the last one." }),
            ),
        ],
    )
}

fn record<T: Record>(name: &str, about: &str, more: &[(&'static str, Value)]) -> Value {
    let fields = T::FIELDS
        .iter()
        .map(|field| (field.name, true, of_field(name, field)));
    let more = more.iter().map(|(name, schema)| (*name, true, schema.clone()));
    object(about, &fields.chain(more).collect::<Vec<_>>())
}

fn of_field(record: &str, field: &Field) -> Value {
    let base = match field.kind {
        Kind::Integer => json!({ "type": "integer", "format": "int32" }),
        Kind::Long => json!({ "type": "integer", "format": "int64" }),
        Kind::Real => json!({ "type": "number" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Integers => json!({ "type": "array", "items": { "type": "integer", "format": "int32" } }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Attributes => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
    };
    let mut schema = base.as_object().cloned().unwrap_or_default();
    schema.insert("description".to_owned(), json!(field.about));
    let full = format!("{record}.{}", field.name);
    let words = WORDS
        .iter()
        .find(|(name, _)| *name == field.name || *name == full);
    if let Some((_, words)) = words {
        let mut words: Vec<Value> = words.iter().map(|word| json!(word)).collect();
        if field.nullable {
            words.push(Value::Null);
        }
        schema.insert("enum".to_owned(), json!(words));
    }
    if field.nullable {
        let kind = schema.get("type").cloned().unwrap_or_default();
        schema.insert("type".to_owned(), json!([kind, "null"]));
    }
    Value::Object(schema)
}

fn metrics_or_null(name: &str) -> Value {
    json!({ "description": "The newest sample; null where none is younger than 15 minutes, or none was asked for.",
            "anyOf": [of(name), { "type": "null" }] })
}

fn metrics(kind: EntityKind) -> Value {
    let head = [
        (
            "collected_at",
            true,
            json!({ "type": "string", "format": "date-time", "description": "End of its interval, in the clock of the platform." }),
        ),
        (
            "interval_seconds",
            true,
            json!({ "type": "integer", "minimum": 1, "description": "Length of its interval: 20 for a sample, 300 for a roll-up of vCenter." }),
        ),
    ];
    let columns = Column::of(kind).iter().map(|column| {
        let kind = match column.sql_type {
            SqlType::BigInt | SqlType::Integer => "integer",
            SqlType::Real => "number",
        };
        let instances = match column.instances {
            Instances::Aggregate => "aggregate",
            Instances::Sum => "sum over its instances",
            Instances::MeanWeightedBy(_) => "mean over its instances, weighted by their operations",
        };
        let about = format!("{}, {instances}; null where there is no data.", column.counter);
        (
            column.name,
            true,
            json!({ "type": [kind, "null"], "description": about }),
        )
    });
    object(
        "A sample: the columns of the metrics table, under their names, which carry the unit.",
        &head.into_iter().chain(columns).collect::<Vec<_>>(),
    )
}

fn problem() -> Value {
    object(
        "Whatever is not a success (RFC 9457).",
        &[
            (
                "type",
                true,
                json!({ "type": "string", "format": "uri-reference", "description": "Always about:blank; the kind of problem is in `code`." }),
            ),
            (
                "title",
                true,
                json!({ "type": "string", "description": "The status in words." }),
            ),
            (
                "status",
                true,
                json!({ "type": "integer", "minimum": 400, "maximum": 599, "description": "The status." }),
            ),
            (
                "code",
                true,
                json!({ "type": "string", "pattern": "^[a-z][a-z_]*$", "description": "Kind of problem, one word, for programs." }),
            ),
            (
                "detail",
                true,
                json!({ "type": "string", "description": "What is wrong and what would be right, for people." }),
            ),
            (
                "request_id",
                true,
                json!({ "type": "string", "description": "The request, as in the logs, in the audit log and in the header `X-Request-Id`." }),
            ),
        ],
    )
}

fn plain(about: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_TEXT, "pattern": PLAIN_TEXT, "description": about })
}

fn address() -> Vec<(&'static str, Value)> {
    let lists = |pattern: &str, about: &str| {
        json!({ "type": "array", "maxItems": 1000, "description": about,
                "items": { "type": "string", "minLength": 1, "maxLength": LONGEST_TEXT, "pattern": pattern } })
    };
    vec![
        (
            "host",
            json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_TEXT, "pattern": r"^[^/@?# \x00-\x1F\x7F-\x9F]+$", "description": "Host name or address; no scheme, port or path." }),
        ),
        (
            "user",
            plain(
                "Account; Read-only on the root folder, propagating, is enough for collecting. Actions need their own privileges.",
            ),
        ),
        (
            "type",
            json!({ "type": "string", "enum": ["vcenter", "esxi"], "description": "What kind of server it is." }),
        ),
        (
            "port",
            json!({ "type": "integer", "minimum": 1, "maximum": 65535, "description": "TCP port." }),
        ),
        (
            "tls_verify",
            json!({ "type": "boolean", "description": "true: what the collector's system trusts. false: any certificate, so that whoever stands in between reads the password. Not together with ca_pem or thumbprint." }),
        ),
        (
            "ca_pem",
            json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_PEM, "pattern": r"^[^\x00]*$", "description": "Trust what these authorities have signed: certificates as PEM text. Not together with tls_verify or thumbprint." }),
        ),
        (
            "thumbprint",
            json!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$", "description": "Trust the one certificate with this SHA-256 thumbprint, with or without colons. Not together with tls_verify or ca_pem." }),
        ),
        (
            "datacenters",
            lists(
                r"^[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
                "Names of the datacenters that it contributes; empty for all.",
            ),
        ),
        (
            "include",
            lists(
                INVENTORY_PATTERN,
                "Patterns of inventory paths of which a host or VM must match one, such as /Berlin/vm/Production/**; empty for all.",
            ),
        ),
        (
            "exclude",
            lists(
                INVENTORY_PATTERN,
                "Patterns of inventory paths of which a host or VM must match none.",
            ),
        ),
        (
            "active",
            json!({ "type": "boolean", "description": "false: kept, but nobody connects to it." }),
        ),
        (
            "untested",
            json!({ "type": "boolean", "default": false, "description": "Keep it although it was not tried." }),
        ),
    ]
}

fn password() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_PASSWORD, "pattern": PLAIN_TEXT, "writeOnly": true, "format": "password",
            "description": "Password of the account; sealed, and never shown again." })
}

fn new_platform() -> Value {
    let mut properties: Vec<(&str, bool, Value)> = vec![
        (
            "name",
            true,
            json!({ "type": "string", "pattern": PLATFORM_NAME, "description": "Its name in tables, metrics and logs; unique." }),
        ),
        ("password", true, password()),
    ];
    properties.extend(
        address()
            .into_iter()
            .map(|(name, schema)| (name, matches!(name, "host" | "user"), schema)),
    );
    object(
        "A platform to add. Absent: type vcenter, port 443, trusting what the collector's system trusts, everything of it, active.",
        &properties,
    )
}

fn platform_change() -> Value {
    let mut properties: Vec<(&str, bool, Value)> = vec![
        (
            "revision",
            false,
            json!({ "type": "integer", "format": "int64", "description": "Change it only if it is still in this revision." }),
        ),
        ("password", false, password()),
    ];
    properties.extend(address().into_iter().map(|(name, schema)| (name, false, schema)));
    object(
        "What is to be another value than it is; what is absent stays.",
        &properties,
    )
}

fn credentials() -> Value {
    object(
        "A new password, and a new account where one is given.",
        &[
            ("password", true, password()),
            ("user", false, plain("Account; absent: as it is.")),
            (
                "untested",
                false,
                json!({ "type": "boolean", "default": false, "description": "Keep it although it was not tried." }),
            ),
        ],
    )
}

fn maintenance() -> Value {
    object(
        "Whether the platform is paused.",
        &[(
            "enabled",
            true,
            json!({ "type": "boolean", "description": "true: no polling and no session until it is false again; a pause of up to 50 minutes is filled afterwards." }),
        )],
    )
}

fn trial() -> Value {
    let count = |about: &str| json!({ "type": "integer", "minimum": 0, "description": about });
    let text = |about: &str| json!({ "type": "string", "description": about });
    let texts = |about: &str| json!({ "type": "array", "items": { "type": "string" }, "description": about });
    object(
        "What a trial found.",
        &[
            ("server", true, text("Product, version and build.")),
            ("version", true, text("Version of the server.")),
            ("build", true, text("Build of the server.")),
            ("api_type", true, text("What the server says it is.")),
            ("api_version", true, text("Version of its API.")),
            ("identity", true, text("Its identity.")),
            (
                "clock_skew_ms",
                true,
                json!({ "type": "integer", "description": "Its clock minus ours, in milliseconds." }),
            ),
            ("roles", true, texts("What the account is on the root folder.")),
            ("hosts", true, count("Hosts that the account sees.")),
            (
                "vms",
                true,
                count("VMs that the account sees, templates included."),
            ),
            ("vms_powered_on", true, count("Those of them that run.")),
            ("taken", true, or_null("TrialTaken")),
            (
                "unusable_counters",
                true,
                texts("Counters that the server cannot give; their columns stay null."),
            ),
            (
                "warnings",
                true,
                texts("What to know although the trial went well."),
            ),
        ],
    )
}

fn trial_taken() -> Value {
    let count = |about: &str| json!({ "type": "integer", "minimum": 0, "description": about });
    object(
        "What the filter of the platform takes; null where it has none.",
        &[
            ("hosts", true, count("Hosts that it takes.")),
            ("vms", true, count("VMs that it takes.")),
        ],
    )
}

fn or_null(name: &str) -> Value {
    json!({ "anyOf": [of(name), { "type": "null" }] })
}

fn trial_result() -> Value {
    object(
        "How a trial went. One that failed is an answer like any other.",
        &[
            (
                "ok",
                true,
                json!({ "type": "boolean", "description": "It can be collected." }),
            ),
            (
                "class",
                true,
                json!({ "type": ["string", "null"], "enum": ["unreachable", "tls", "auth", "permission", "timeout", "identity", null], "description": "Kind of error; null where there is none." }),
            ),
            (
                "reason",
                true,
                json!({ "type": ["string", "null"], "description": "What is wrong and what to do." }),
            ),
            ("trial", true, or_null("Trial")),
        ],
    )
}

fn kept_platform() -> Value {
    object(
        "The platform as it is kept now, and what its trial found.",
        &[
            ("platform", true, of("Platform")),
            ("trial", true, or_null("Trial")),
            (
                "also_collected_by",
                true,
                json!({ "type": "array", "items": { "type": "string" }, "description": "Other platforms that are the same server: its objects and samples are stored more than once." }),
            ),
        ],
    )
}

fn confirmation() -> Value {
    object(
        "Confirms what loses something.",
        &[(
            "confirm",
            false,
            json!({ "type": ["string", "null"], "description": "The exact name of the VM or platform. Needed for what loses something." }),
        )],
    )
}

fn new_snapshot() -> Value {
    object(
        "A snapshot to take.",
        &[
            (
                "name",
                true,
                json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "pattern": r"^[^\x00-\x1F\x7F-\x9F\uFFFE\uFFFF]+$", "description": "Its name; snapshots may share one." }),
            ),
            (
                "description",
                false,
                json!({ "type": "string", "maxLength": LONGEST_DESCRIPTION, "pattern": r"^[^\x00-\x09\x0B-\x1F\x7F-\x9F\uFFFE\uFFFF]*$", "default": "", "description": "What it is for; may have several lines. The id of the operation is put behind it." }),
            ),
            (
                "memory",
                false,
                json!({ "type": "boolean", "default": false, "description": "With the memory of a running VM." }),
            ),
            (
                "quiesce",
                false,
                json!({ "type": "boolean", "default": false, "description": "With the guest's file systems at rest, by VMware Tools." }),
            ),
        ],
    )
}

/// Not as an enumeration: another version may have more.
fn codes() -> String {
    let codes = Code::ALL.map(|code| format!("{}: {}", code.as_str(), code.meaning()));
    format!(
        "Kind of failure or doubt, one word; null for a success. {}.",
        codes.join("; ")
    )
}

fn operation() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let text_or_null = |about: &str| json!({ "type": ["string", "null"], "description": about });
    let time =
        |about: &str| json!({ "type": ["string", "null"], "format": "date-time", "description": about });
    let key = |about: &str| json!({ "type": "integer", "format": "int32", "description": about });
    let result = json!({
        "type": ["object", "null"],
        "description": "What came of one that succeeded.",
        "properties": {
            "already": { "type": "boolean", "description": "There was nothing to do: the VM was in that state already. Absent: there was." },
            "snapshot": { "type": "string", "description": "The moref of the new snapshot." },
            "note": { "type": "string", "description": "What else there is to know." },
        },
        "additionalProperties": false,
    });
    let states: Vec<&str> = State::ALL.into_iter().map(State::as_str).collect();
    object(
        "An action from its acceptance to its end.",
        &[
            (
                "id",
                true,
                json!({ "type": "string", "format": "uuid", "description": "Its id; stands in the description of a snapshot that it takes." }),
            ),
            ("platform_id", true, key("The platform.")),
            ("platform", true, text("Name of the platform.")),
            ("vm_id", true, key("The VM.")),
            ("vm_moref", true, text("Its managed object reference.")),
            ("vm_name", true, text_or_null("Its name when this was asked for.")),
            (
                "action",
                true,
                json!({ "type": "string", "enum": Action::NAMES, "description": "What is to be done." }),
            ),
            (
                "arguments",
                true,
                json!({ "type": "object", "description": "How." }),
            ),
            (
                "state",
                true,
                json!({ "type": "string", "enum": states, "description": "queued: no collector has taken it up. running: one is at it. succeeded, failed: its end. unknown: it was sent, and nothing tells what became of it; look at the VM before you ask again." }),
            ),
            (
                "progress",
                true,
                json!({ "type": ["integer", "null"], "minimum": 0, "maximum": 100, "description": "In percent, where the platform tells; then 100 when it has succeeded." }),
            ),
            ("task", true, text_or_null("The platform's task.")),
            ("result", true, result),
            ("code", true, text_or_null(&codes())),
            (
                "detail",
                true,
                text_or_null("Why, in plain words; while it runs, what it waits for."),
            ),
            ("requested_by", true, text("Name of the token that asked for it.")),
            ("request_id", true, text("The request that asked for it.")),
            (
                "created_at",
                true,
                json!({ "type": "string", "format": "date-time", "description": "When it was asked for." }),
            ),
            ("started_at", true, time("When a collector took it up.")),
            (
                "sent_at",
                true,
                time(
                    "When it was about to be sent to the platform; null where it never was, so that nothing was done.",
                ),
            ),
            ("ended_at", true, time("When its end was found out.")),
        ],
    )
}

fn audit_entry() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let text_or_null = |about: &str| json!({ "type": ["string", "null"], "description": about });
    object(
        "An entry of the audit log.",
        &[
            (
                "id",
                true,
                json!({ "type": "integer", "format": "int64", "description": "In order of writing." }),
            ),
            (
                "at",
                true,
                json!({ "type": "string", "format": "date-time", "description": "When, by the clock of the database." }),
            ),
            (
                "entry",
                true,
                json!({ "type": "string", "enum": ["intent", "outcome", "denied"], "description": "intent: before anything is done. outcome: after. denied: nothing was done." }),
            ),
            (
                "actor",
                true,
                text("Name of the token; empty where none was recognised."),
            ),
            (
                "client",
                true,
                text_or_null(
                    "Address that the request came from; null for an outcome that a collector found out.",
                ),
            ),
            ("request_id", true, text("The request.")),
            ("action", true, text("What was asked for.")),
            ("platform", true, text_or_null("Name of the platform.")),
            (
                "target",
                true,
                text_or_null("moref of the VM; the path of a request that was denied."),
            ),
            (
                "target_name",
                true,
                text_or_null("Name of the VM at that moment."),
            ),
            (
                "operation_id",
                true,
                json!({ "type": ["string", "null"], "format": "uuid", "description": "The operation." }),
            ),
            (
                "outcome",
                true,
                json!({ "type": ["string", "null"], "enum": ["ok", "denied", "error", "unknown", null], "description": "How it ended; null for an intent." }),
            ),
            ("code", true, text_or_null("Kind of failure, one word.")),
            ("detail", true, text_or_null("Why, in plain words.")),
            (
                "before",
                true,
                json!({ "description": "What was there before, where that helps to explain." }),
            ),
            (
                "after",
                true,
                json!({ "description": "What was asked for, or what is there after." }),
            ),
        ],
    )
}
