//! The property paths of each type and their values.
//!
//! Only what collectors read is here. A path that is missing here is an InvalidProperty fault, as a
//! misspelt one is on a real server.

use std::fmt::Write as _;

use super::collect::Scope;
use super::details;
use super::objects::{FolderKind, Obj, pool_of};
use super::tasks;
use crate::counters;
use crate::grid;
use crate::soap::{element, escape, moref};
use crate::spec::PlatformKind;
use crate::truth::{EntityRecord, datastore_uuid};
use crate::world::{HostDetails, HostLink, PowerState, State, VmDetails};

/// Whether something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    Unset,
}

pub(super) enum Value {
    Unset,
    Text(String),
    Enum(&'static str, &'static str),
    Status(String),
    Int(i32),
    Long(i64),
    Short(i16),
    Bool(bool),
    Time(i64),
    Ref(Obj),
    /// A reference where anything may stand.
    AnyRef(Obj),
    Refs(Vec<Obj>),
    Strings(Vec<String>),
    /// A data object of this type, by its inner XML.
    Data(&'static str, String),
    /// The same, where one of another type may stand.
    Sub(&'static str, String),
    /// An array of this type with nothing in it; unlike an unset property it is there.
    Empty(&'static str),
    /// Roles by number, of which those of vSphere itself are negative.
    Roles(&'static [i32]),
}

/// The role of the one account that there is.
const READ_ONLY: i32 = -2;

const ENTITY: &[&str] = &["name", "parent", "overallStatus", "customValue"];

const VM: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "resourcePool",
    "datastore",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "runtime.bootTime",
    "runtime.consolidationNeeded",
    "runtime.maxCpuUsage",
    "runtime.maxMemoryUsage",
    "summary.runtime.powerState",
    "summary.runtime.connectionState",
    "summary.runtime.host",
    "summary.runtime.bootTime",
    "summary.config.name",
    "summary.config.template",
    "summary.config.vmPathName",
    "summary.config.memorySizeMB",
    "summary.config.numCpu",
    "summary.config.numEthernetCards",
    "summary.config.numVirtualDisks",
    "summary.config.uuid",
    "summary.config.instanceUuid",
    "summary.config.guestId",
    "summary.config.guestFullName",
    "summary.config.annotation",
    "config.name",
    "config.uuid",
    "config.instanceUuid",
    "config.template",
    "config.guestId",
    "config.guestFullName",
    "config.version",
    "config.hardware.numCPU",
    "config.hardware.memoryMB",
    "config.hardware.numCoresPerSocket",
    "config.hardware.device",
    "guest.hostName",
    "guest.guestId",
    "guest.guestFullName",
    "guest.ipAddress",
    "guest.net",
    "guest.toolsRunningStatus",
    "guest.toolsVersionStatus2",
    "snapshot",
    "summary.storage.committed",
    "summary.storage.uncommitted",
    "summary.customValue",
    "disabledMethod",
    "recentTask",
    "runtime.question",
];

const HOST: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "vm",
    "datastore",
    "runtime.connectionState",
    "runtime.powerState",
    "runtime.inMaintenanceMode",
    "runtime.bootTime",
    "summary.runtime.connectionState",
    "summary.runtime.powerState",
    "summary.runtime.inMaintenanceMode",
    "summary.runtime.bootTime",
    "summary.hardware.vendor",
    "summary.hardware.model",
    "summary.hardware.uuid",
    "summary.hardware.memorySize",
    "summary.hardware.cpuModel",
    "summary.hardware.cpuMhz",
    "summary.hardware.numCpuPkgs",
    "summary.hardware.numCpuCores",
    "summary.hardware.numCpuThreads",
    "summary.hardware.numNics",
    "summary.hardware.numHBAs",
    "summary.config.name",
    "summary.config.product.name",
    "summary.config.product.fullName",
    "summary.config.product.vendor",
    "summary.config.product.version",
    "summary.config.product.build",
    "summary.config.product.osType",
    "summary.config.product.productLineId",
    "summary.config.product.apiType",
    "summary.config.product.apiVersion",
    "summary.customValue",
    "hardware.systemInfo.uuid",
    "config.virtualNicManagerInfo.netConfig",
];

const FOLDER: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "effectiveRole",
    "childType",
    "childEntity",
];

const DATACENTER: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "vmFolder",
    "hostFolder",
    "datastoreFolder",
    "networkFolder",
];

const COMPUTE: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "host",
    "datastore",
    "resourcePool",
    "summary.totalCpu",
    "summary.totalMemory",
    "summary.numCpuCores",
    "summary.numCpuThreads",
    "summary.effectiveCpu",
    "summary.effectiveMemory",
    "summary.numHosts",
    "summary.numEffectiveHosts",
];

/// What a cluster has beyond a compute resource.
const CLUSTER: &[&str] = &[
    "configuration.dasConfig.enabled",
    "configuration.drsConfig.enabled",
];

const OPAQUE: &[&str] = &["name", "parent", "overallStatus", "customValue", "summary"];

const PORTGROUP: &[&str] = &["name", "parent", "overallStatus", "customValue", "key"];

const POOL: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "owner",
    "vm",
    "resourcePool",
];

const DATASTORE: &[&str] = &[
    "name",
    "parent",
    "overallStatus",
    "customValue",
    "summary.name",
    "summary.url",
    "summary.type",
    "summary.capacity",
    "summary.freeSpace",
    "summary.accessible",
    "summary.maintenanceMode",
    "summary.multipleHostAccess",
    "summary.uncommitted",
    "info",
    "host",
];

/// Data objects that can be asked for whole: type, path, data type, children.
const COMPOSITES: &[(&str, &str, &str, &[&str])] = &[
    (
        "HostSystem",
        "summary.hardware",
        "HostHardwareSummary",
        &[
            "vendor",
            "model",
            "uuid",
            "memorySize",
            "cpuModel",
            "cpuMhz",
            "numCpuPkgs",
            "numCpuCores",
            "numCpuThreads",
            "numNics",
            "numHBAs",
        ],
    ),
    (
        "HostSystem",
        "summary.config.product",
        "AboutInfo",
        &[
            "name",
            "fullName",
            "vendor",
            "version",
            "build",
            "osType",
            "productLineId",
            "apiType",
            "apiVersion",
        ],
    ),
    (
        "HostSystem",
        "runtime",
        "HostRuntimeInfo",
        &["connectionState", "powerState", "inMaintenanceMode", "bootTime"],
    ),
    (
        "VirtualMachine",
        "runtime",
        "VirtualMachineRuntimeInfo",
        &[
            "host",
            "connectionState",
            "powerState",
            "bootTime",
            "question",
            "maxCpuUsage",
            "maxMemoryUsage",
            "consolidationNeeded",
        ],
    ),
    (
        "VirtualMachine",
        "summary.config",
        "VirtualMachineConfigSummary",
        &[
            "name",
            "template",
            "vmPathName",
            "memorySizeMB",
            "numCpu",
            "numEthernetCards",
            "numVirtualDisks",
            "uuid",
            "instanceUuid",
            "guestId",
            "guestFullName",
            "annotation",
        ],
    ),
    ("Task", "info", "TaskInfo", tasks::INFO),
];

/// Task collectors of one session.
pub(crate) const MAX_COLLECTORS: usize = 32;

/// Every guest says so.
const GUEST_ID: &str = "otherGuest64";

/// Whether a type has a path; `None` = no such type.
pub(super) fn has(kind: &str, path: &str) -> Option<bool> {
    let more = if kind == "ClusterComputeResource" {
        CLUSTER
    } else {
        &[]
    };
    Some(of_type(kind)?.contains(&path) || more.contains(&path))
}

/// The paths of a type; `None` = no such type.
pub(super) fn of_type(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "VirtualMachine" => VM,
        "HostSystem" => HOST,
        "Folder" => FOLDER,
        "Datacenter" => DATACENTER,
        "ComputeResource" | "ClusterComputeResource" => COMPUTE,
        "ResourcePool" | "VirtualApp" => POOL,
        "Datastore" => DATASTORE,
        "ManagedEntity"
        | "Network"
        | "StoragePod"
        | "DistributedVirtualSwitch"
        | "VmwareDistributedVirtualSwitch" => ENTITY,
        "DistributedVirtualPortgroup" => PORTGROUP,
        "OpaqueNetwork" => OPAQUE,
        "CustomFieldsManager" => &["field"],
        "Task" => tasks::TASK,
        "TaskManager" => &["recentTask", "maxCollector"],
        "VirtualMachineSnapshot" => &["vm", "childSnapshot"],
        "PerformanceManager" => &["perfCounter", "historicalInterval"],
        "SessionManager" => &["currentSession"],
        "ServiceInstance" => &["serverClock"],
        "ContainerView" => &["view", "type", "recursive"],
        "PropertyCollector" | "ViewManager" | "OptionManager" => &[],
        _ => return None,
    })
}

/// What `all` means for a type; empty = it has too much for that here.
pub(super) fn whole(kind: &str) -> &'static [&'static str] {
    match kind {
        "Task" => &["info"],
        _ => &[],
    }
}

pub(super) fn is_composite(kind: &str, path: &str) -> bool {
    COMPOSITES.iter().any(|row| row.0 == kind && row.1 == path)
}

/// Writes a property's `val`.
pub(super) fn write(out: &mut String, scope: &Scope<'_>, object: &Obj, path: &str) -> Outcome {
    let kind = object.kind(scope.state);
    match (object, path) {
        (Obj::PerfManager, "perfCounter") => {
            counter_table(out, scope.state);
            return Outcome::Written;
        }
        (Obj::PerfManager, "historicalInterval") => {
            intervals(out, scope.state);
            return Outcome::Written;
        }
        (Obj::SessionManager, "currentSession") => {
            let Some(session) = scope.session else {
                return Outcome::Unset;
            };
            out.push_str("<val xsi:type=\"UserSession\">");
            crate::methods::user_session(out, session);
            out.push_str("</val>");
            return Outcome::Written;
        }
        _ => {}
    }
    if let Some(outcome) = details::write(out, scope, object, path) {
        return outcome;
    }
    if let Some((_, _, data, children)) = COMPOSITES.iter().find(|r| r.0 == kind && r.1 == path) {
        out.push_str("<val xsi:type=\"");
        out.push_str(data);
        out.push_str("\">");
        for child in *children {
            let value = value(scope, object, &format!("{path}.{child}"));
            plain(out, scope.state, child, value);
        }
        out.push_str("</val>");
        return Outcome::Written;
    }
    typed(out, scope.state, value(scope, object, path))
}

/// `<val>` with its data type.
fn typed(out: &mut String, state: &State, value: Value) -> Outcome {
    let scalar = |out: &mut String, kind: &str, text: &str| {
        out.push_str("<val xsi:type=\"");
        out.push_str(kind);
        out.push_str("\">");
        escape(out, text);
        out.push_str("</val>");
    };
    match value {
        Value::Unset => return Outcome::Unset,
        Value::Text(text) => scalar(out, "xsd:string", &text),
        Value::Enum(kind, text) => scalar(out, kind, text),
        Value::Status(text) => scalar(out, "ManagedEntityStatus", &text),
        Value::Int(number) => scalar(out, "xsd:int", &number.to_string()),
        Value::Long(number) => scalar(out, "xsd:long", &number.to_string()),
        Value::Short(number) => scalar(out, "xsd:short", &number.to_string()),
        Value::Bool(flag) => scalar(out, "xsd:boolean", if flag { "true" } else { "false" }),
        Value::Time(micros) => {
            let mut text = String::new();
            grid::push_micros(&mut text, micros);
            scalar(out, "xsd:dateTime", &text);
        }
        Value::Ref(object) | Value::AnyRef(object) => {
            out.push_str("<val type=\"");
            out.push_str(object.kind(state));
            out.push_str("\" xsi:type=\"ManagedObjectReference\">");
            escape(out, &object.moref(state));
            out.push_str("</val>");
        }
        Value::Refs(objects) => {
            out.push_str("<val xsi:type=\"ArrayOfManagedObjectReference\">");
            for object in objects {
                out.push_str("<ManagedObjectReference type=\"");
                out.push_str(object.kind(state));
                out.push_str("\" xsi:type=\"ManagedObjectReference\">");
                escape(out, &object.moref(state));
                out.push_str("</ManagedObjectReference>");
            }
            out.push_str("</val>");
        }
        Value::Strings(texts) => {
            out.push_str("<val xsi:type=\"ArrayOfString\">");
            for text in texts {
                element(out, "string", &text);
            }
            out.push_str("</val>");
        }
        Value::Data(kind, inner) | Value::Sub(kind, inner) => data(out, "val", kind, &inner),
        Value::Empty(array) => scalar(out, array, ""),
        Value::Roles(roles) => {
            out.push_str("<val xsi:type=\"ArrayOfInt\">");
            for role in roles {
                element(out, "int", &role.to_string());
            }
            out.push_str("</val>");
        }
    }
    Outcome::Written
}

fn data(out: &mut String, name: &str, kind: &str, inner: &str) {
    out.push_str(&format!("<{name} xsi:type=\"{kind}\">{inner}</{name}>"));
}

/// A child of a data object: no data type, absent when unset.
pub(super) fn plain(out: &mut String, state: &State, name: &str, value: Value) {
    match value {
        Value::Unset => {}
        Value::Text(text) | Value::Status(text) => element(out, name, &text),
        Value::Enum(_, text) => element(out, name, text),
        Value::Int(number) => element(out, name, &number.to_string()),
        Value::Long(number) => element(out, name, &number.to_string()),
        Value::Short(number) => element(out, name, &number.to_string()),
        Value::Bool(flag) => element(out, name, if flag { "true" } else { "false" }),
        Value::Time(micros) => {
            let mut text = String::new();
            grid::push_micros(&mut text, micros);
            element(out, name, &text);
        }
        Value::Ref(object) => moref(out, name, object.kind(state), &object.moref(state)),
        Value::Refs(objects) => {
            for object in objects {
                moref(out, name, object.kind(state), &object.moref(state));
            }
        }
        Value::AnyRef(object) => {
            out.push_str(&format!(
                "<{name} type=\"{}\" xsi:type=\"ManagedObjectReference\">",
                object.kind(state)
            ));
            escape(out, &object.moref(state));
            out.push_str(&format!("</{name}>"));
        }
        Value::Strings(texts) => {
            for text in texts {
                element(out, name, &text);
            }
        }
        Value::Data(_, inner) => out.push_str(&format!("<{name}>{inner}</{name}>")),
        Value::Sub(kind, inner) => data(out, name, kind, &inner),
        // In a structure an empty array is no element at all.
        Value::Empty(_) | Value::Roles(_) => {}
    }
}

fn value(scope: &Scope<'_>, object: &Obj, path: &str) -> Value {
    let state = scope.state;
    match path {
        "parent" => return object.parent(state).map_or(Value::Unset, Value::Ref),
        "overallStatus" => {
            let status = match object {
                Obj::Host(index) | Obj::Vm(index) => state.status.get(index).map(String::as_str),
                _ => None,
            };
            return Value::Status(status.unwrap_or("green").to_owned());
        }
        // What a VM has is written by `details`.
        "customValue" | "summary.customValue" => return Value::Empty("ArrayOfCustomFieldValue"),
        "effectiveRole" => return Value::Roles(&[READ_ONLY]),
        _ => {}
    }
    match object {
        Obj::Vm(index) => match (state.vm(*index), state.truth.entities.get(*index)) {
            (Some(vm), Some(record)) => vm_value(scope, *index, vm, record, path),
            _ => Value::Unset,
        },
        Obj::Host(index) => match (state.host(*index), state.truth.entities.get(*index)) {
            (Some(host), Some(record)) => host_value(state, object, host, record, path),
            _ => Value::Unset,
        },
        Obj::Folder(kind) => folder_value(state, object, *kind, path),
        Obj::Datacenter => match path {
            "name" => Value::Text(datacenter_name(state)),
            _ => single(state, object, path),
        },
        Obj::Cluster(number) => cluster_value(state, object, *number, path),
        Obj::Pool(_) => match path {
            "name" => Value::Text("Resources".to_owned()),
            "owner" => single(state, object, path),
            _ => object.follow(state, path).map_or(Value::Unset, Value::Refs),
        },
        Obj::Datastore(number) => datastore_value(state, *number, path),

        Obj::Task(number) => match path.strip_prefix("info.") {
            Some(name) => tasks::field(state, *number, name),
            None => Value::Unset,
        },
        Obj::TaskManager => match path {
            "maxCollector" => int(u32::try_from(MAX_COLLECTORS).unwrap_or(u32::MAX)),
            _ => object.follow(state, path).map_or(Value::Unset, Value::Refs),
        },
        Obj::Snapshot(..) => match path {
            "vm" => single(state, object, path),
            _ => object.follow(state, path).map_or(Value::Unset, Value::Refs),
        },
        Obj::ServiceInstance if path == "serverClock" => Value::Time(scope.reading.now),
        Obj::View(view) => match path {
            "recursive" => Value::Bool(view.recursive),
            "view" => object.follow(state, path).map_or(Value::Unset, Value::Refs),
            _ => Value::Unset,
        },
        _ => Value::Unset,
    }
}

fn single(state: &State, object: &Obj, path: &str) -> Value {
    let mut objects = object.follow(state, path).unwrap_or_default();
    objects.pop().map_or(Value::Unset, Value::Ref)
}

fn datacenter_name(state: &State) -> String {
    match state.kind() {
        PlatformKind::Vcenter => "DC-1".to_owned(),
        PlatformKind::Esxi => "ha-datacenter".to_owned(),
    }
}

pub(super) fn int(number: u32) -> Value {
    Value::Int(i32::try_from(number).unwrap_or(i32::MAX))
}

fn vm_value(scope: &Scope<'_>, index: usize, vm: &VmDetails, record: &EntityRecord, path: &str) -> Value {
    let state = scope.state;
    let running = vm.power == PowerState::PoweredOn;
    let tools = running && record.profile.tools && vm.guest_up;
    let host = state.host(vm.host);
    let reachable = host.is_some_and(|host| host.link == HostLink::Connected);
    match path {
        "name" | "summary.config.name" | "config.name" => Value::Text(record.name.clone()),
        "resourcePool" => pool_of(state, index).map_or(Value::Unset, Value::Ref),
        "disabledMethod" => Value::Strings(details::disabled_methods(vm, record)),
        "runtime.question" => vm.question.as_ref().map_or(Value::Unset, |question| {
            Value::Data("VirtualMachineQuestionInfo", details::question(index, question))
        }),
        "datastore" | "recentTask" => Obj::Vm(index)
            .follow(state, path)
            .map_or(Value::Unset, Value::Refs),
        "runtime.powerState" | "summary.runtime.powerState" => {
            Value::Enum("VirtualMachinePowerState", vm.power.name())
        }
        "runtime.connectionState" | "summary.runtime.connectionState" => Value::Enum(
            "VirtualMachineConnectionState",
            if reachable { "connected" } else { "disconnected" },
        ),
        "runtime.host" | "summary.runtime.host" => Value::Ref(Obj::Host(vm.host)),
        "runtime.bootTime" | "summary.runtime.bootTime" => {
            if running {
                Value::Time(vm.booted_at * grid::MICROS)
            } else {
                Value::Unset
            }
        }
        "runtime.consolidationNeeded" => Value::Bool(false),
        "runtime.maxCpuUsage" if running => int(vm.vcpus * record.profile.mhz),
        "runtime.maxMemoryUsage" if running => Value::Int(vm.memory_mb),
        "summary.config.template" | "config.template" => Value::Bool(record.template),
        "summary.config.vmPathName" => {
            let store = record.profile.datastores.first().copied().unwrap_or(0);
            Value::Text(format!("[{}] {}/disk.vmx", datastore_name(store), record.moref))
        }
        "summary.config.memorySizeMB" | "config.hardware.memoryMB" => Value::Int(vm.memory_mb),
        "summary.config.numCpu" | "config.hardware.numCPU" => int(vm.vcpus),
        "config.hardware.numCoresPerSocket" => Value::Int(1),
        "summary.config.numEthernetCards" => int(record.profile.nics),
        "summary.config.numVirtualDisks" => int(record.profile.disks),
        "summary.config.uuid" | "config.uuid" => Value::Text(vm.uuid.clone()),
        "summary.config.instanceUuid" | "config.instanceUuid" => Value::Text(vm.instance_uuid.clone()),
        "summary.config.guestId" | "config.guestId" => Value::Text(GUEST_ID.to_owned()),
        "summary.config.guestFullName" | "config.guestFullName" => Value::Text(vm.guest.to_owned()),
        "summary.config.annotation" => Value::Text(String::new()),
        "config.version" => Value::Text("vmx-20".to_owned()),
        "guest.hostName" if tools => Value::Text(format!("{}.guest.example.com", record.moref)),
        "guest.guestId" if tools => Value::Text(GUEST_ID.to_owned()),
        "guest.guestFullName" if tools => Value::Text(vm.guest.to_owned()),
        "guest.ipAddress" if tools => Value::Text(details::address(index, 0)),
        "guest.toolsVersionStatus2" => Value::Text(
            if record.profile.tools {
                "guestToolsCurrent"
            } else {
                "guestToolsNotInstalled"
            }
            .to_owned(),
        ),
        "summary.storage.committed" => {
            Value::Long(details::disk_bytes(vm) / 2 * i64::from(record.profile.disks))
        }
        "summary.storage.uncommitted" => {
            Value::Long(details::disk_bytes(vm) / 2 * i64::from(record.profile.disks))
        }
        "guest.toolsRunningStatus" => Value::Text(
            if tools {
                "guestToolsRunning"
            } else {
                "guestToolsNotRunning"
            }
            .to_owned(),
        ),
        _ => Value::Unset,
    }
}

fn host_value(state: &State, object: &Obj, host: &HostDetails, record: &EntityRecord, path: &str) -> Value {
    let connected = host.link == HostLink::Connected;
    let path = path
        .strip_prefix("summary.runtime.")
        .map_or_else(|| path.to_owned(), |rest| format!("runtime.{rest}"));
    match &*path {
        "name" | "summary.config.name" => Value::Text(record.name.clone()),
        "vm" | "datastore" => object.follow(state, &path).map_or(Value::Unset, Value::Refs),
        "runtime.connectionState" => Value::Enum("HostSystemConnectionState", host.link.name()),
        "runtime.powerState" => Value::Enum(
            "HostSystemPowerState",
            if connected { "poweredOn" } else { "unknown" },
        ),
        "runtime.inMaintenanceMode" => Value::Bool(host.maintenance),
        "runtime.bootTime" if connected => Value::Time(host.booted_at * grid::MICROS),
        "summary.hardware.vendor" => Value::Text("Synthetic Inc.".to_owned()),
        "summary.hardware.model" => Value::Text(host.model.to_owned()),
        "summary.hardware.uuid" | "hardware.systemInfo.uuid" => Value::Text(host.uuid.clone()),
        "summary.hardware.memorySize" => Value::Long(host.memory_bytes),
        "summary.hardware.cpuModel" => Value::Text("Synthetic(R) Platinum(R) 8480+ CPU & more".to_owned()),
        "summary.hardware.cpuMhz" => Value::Int(host.cpu_mhz),
        "summary.hardware.numCpuPkgs" => Value::Short(host.packages),
        "summary.hardware.numCpuCores" => Value::Short(host.cores),
        "summary.hardware.numCpuThreads" => Value::Short(i16::try_from(host.threads).unwrap_or(i16::MAX)),
        "summary.hardware.numNics" => int(record.profile.nics),
        "summary.hardware.numHBAs" => int(record.profile.adapters),
        "summary.config.product.name" => Value::Text("VMware ESXi".to_owned()),
        "summary.config.product.fullName" => Value::Text("VMware ESXi 8.0.3 build-24022510".to_owned()),
        "summary.config.product.vendor" => Value::Text("VMware, Inc.".to_owned()),
        "summary.config.product.version" => Value::Text("8.0.3".to_owned()),
        "summary.config.product.build" => Value::Text("24022510".to_owned()),
        "summary.config.product.osType" => Value::Text("vmnix-x86".to_owned()),
        "summary.config.product.productLineId" => Value::Text("embeddedEsx".to_owned()),
        "summary.config.product.apiType" => Value::Text("HostAgent".to_owned()),
        "summary.config.product.apiVersion" => Value::Text("8.0.3.0".to_owned()),
        _ => Value::Unset,
    }
}

fn folder_value(state: &State, object: &Obj, kind: FolderKind, path: &str) -> Value {
    match path {
        "name" => Value::Text(
            match (kind, state.kind()) {
                (FolderKind::Root, PlatformKind::Vcenter) => "Datacenters",
                (FolderKind::Root, PlatformKind::Esxi) => "ha-folder-root",
                (FolderKind::Vm, _) => "vm",
                (FolderKind::Host, _) => "host",
                (FolderKind::Datastore, _) => "datastore",
                (FolderKind::Network, _) => "network",
            }
            .to_owned(),
        ),
        "childEntity" => object.follow(state, path).map_or(Value::Unset, Value::Refs),
        _ => Value::Unset,
    }
}

fn cluster_value(state: &State, object: &Obj, number: usize, path: &str) -> Value {
    let members = || {
        let hosts = object.follow(state, "host").unwrap_or_default();
        hosts.into_iter().filter_map(|host| match host {
            Obj::Host(index) => state.host(index),
            _ => None,
        })
    };
    let effective = || members().filter(|h| h.link == HostLink::Connected && !h.maintenance);
    let count = |n: usize| Value::Int(i32::try_from(n).unwrap_or(i32::MAX));
    match path {
        "name" => Value::Text(state.names.cluster_name(number)),
        "resourcePool" => single(state, object, path),
        "host" | "datastore" => object.follow(state, path).map_or(Value::Unset, Value::Refs),
        "summary.totalCpu" => Value::Int(members().map(|h| h.cpu_mhz * i32::from(h.cores)).sum()),
        "summary.effectiveCpu" => Value::Int(effective().map(|h| h.cpu_mhz * i32::from(h.cores)).sum()),
        "summary.totalMemory" => Value::Long(members().map(|h| h.memory_bytes).sum()),
        // MB, unlike its sibling.
        "summary.effectiveMemory" => Value::Long(effective().map(|h| h.memory_bytes / 1024 / 1024).sum()),
        "summary.numCpuCores" => Value::Short(members().map(|h| h.cores).sum()),
        "summary.numCpuThreads" => {
            let threads: u16 = members().map(|h| h.threads).sum();
            Value::Short(i16::try_from(threads).unwrap_or(i16::MAX))
        }
        "configuration.drsConfig.enabled" => Value::Bool(number.is_multiple_of(2)),
        "configuration.dasConfig.enabled" => Value::Bool(true),
        "summary.numHosts" => count(members().count()),
        "summary.numEffectiveHosts" => count(effective().count()),
        _ => Value::Unset,
    }
}

pub(super) fn datastore_name(number: u32) -> String {
    format!("datastore-{:02}", number + 1)
}

pub(super) fn datastore_url(state: &State, number: u32) -> String {
    format!("ds:///vmfs/volumes/{}/", datastore_uuid(state.truth.seed, number))
}

/// Bytes.
pub(super) fn datastore_capacity(number: u32) -> i64 {
    (10 + i64::from(number % 5) * 7) << 40
}

fn datastore_value(state: &State, number: usize, path: &str) -> Value {
    let number = u32::try_from(number).unwrap_or_default();
    let capacity = datastore_capacity(number);
    match path {
        "name" | "summary.name" => Value::Text(datastore_name(number)),
        "summary.url" => Value::Text(datastore_url(state, number)),
        "summary.type" => Value::Text("VMFS".to_owned()),
        "summary.capacity" => Value::Long(capacity),
        "summary.freeSpace" => Value::Long(capacity / 3),
        "summary.uncommitted" => Value::Long(capacity / 2),
        "summary.maintenanceMode" => Value::Text("normal".to_owned()),
        "summary.accessible" | "summary.multipleHostAccess" => Value::Bool(true),
        _ => Value::Unset,
    }
}

fn counter_table(out: &mut String, state: &State) {
    let description = |out: &mut String, name: &str, key: &str| {
        out.push('<');
        out.push_str(name);
        out.push('>');
        element(out, "label", key);
        element(out, "summary", key);
        element(out, "key", key);
        out.push_str("</");
        out.push_str(name);
        out.push('>');
    };
    out.push_str("<val xsi:type=\"ArrayOfPerfCounterInfo\">");
    for (index, counter) in counters::all().iter().enumerate() {
        out.push_str("<PerfCounterInfo xsi:type=\"PerfCounterInfo\">");
        element(out, "key", &state.numbering.key(index).to_string());
        description(out, "nameInfo", counter.name);
        description(out, "groupInfo", counter.group);
        description(out, "unitInfo", counter.unit);
        element(out, "rollupType", counter.rollup.name());
        element(out, "statsType", counter.stats.name());
        // An ESXi host has no levels.
        if state.kind() == PlatformKind::Vcenter {
            element(out, "level", &counter.level.to_string());
            element(out, "perDeviceLevel", &counter.device_level.to_string());
        }
        out.push_str("</PerfCounterInfo>\n");
    }
    out.push_str("</val>");
}

fn intervals(out: &mut String, state: &State) {
    let names = ["Past day", "Past week", "Past month", "Past year"];
    let list: &[(i64, i64)] = match state.kind() {
        PlatformKind::Vcenter => &grid::ROLLUPS,
        PlatformKind::Esxi => &grid::ESXI_ROLLUPS,
    };
    out.push_str("<val xsi:type=\"ArrayOfPerfInterval\">");
    for (number, ((period, length), name)) in list.iter().zip(names).enumerate() {
        out.push_str("<PerfInterval xsi:type=\"PerfInterval\">");
        element(out, "key", &(number + 1).to_string());
        element(out, "samplingPeriod", &period.to_string());
        match state.kind() {
            PlatformKind::Vcenter => element(out, "name", name),
            PlatformKind::Esxi => element(out, "name", "PastDay"),
        }
        element(out, "length", &length.to_string());
        if state.kind() == PlatformKind::Vcenter {
            // Writing to a String cannot fail.
            write!(out, "<level>{}</level>", state.truth.statistics_level.max(1)).unwrap_or_default();
        }
        let enabled = state.truth.retention(*period).is_some();
        element(out, "enabled", if enabled { "true" } else { "false" });
        out.push_str("</PerfInterval>");
    }
    out.push_str("</val>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::spec::{ClockMode, Spec};
    use crate::world::World;

    #[test]
    fn every_listed_path_is_served() {
        let clock = Clock::new(ClockMode::Frozen {
            at: 1_800_000_000_000_000,
        });
        let world = World::new(&Spec::default(), clock.clone());
        let state = world.read();
        let scope = Scope {
            state: &state,
            reading: clock.read(),
            session: None,
            effects: &crate::rules::Effects::default(),
        };
        let vm = state.find(crate::EntityKind::Vm, "vm-10001").expect("vm");
        let objects = [
            Obj::Vm(vm),
            Obj::Host(0),
            Obj::Datacenter,
            Obj::Cluster(0),
            Obj::Pool(0),
            Obj::Datastore(0),
        ];
        for object in objects {
            let kind = object.kind(&state);
            for path in of_type(kind).expect("type") {
                let mut out = String::new();
                let outcome = write(&mut out, &scope, &object, path);
                if matches!(*path, "snapshot" | "runtime.question") {
                    continue; // There is none yet.
                }
                assert_eq!(outcome, Outcome::Written, "{kind} {path}");
            }
            for (_, path, _, _) in COMPOSITES.iter().filter(|row| row.0 == kind) {
                let mut out = String::new();
                write(&mut out, &scope, &object, path);
                assert!(out.len() > 60, "{kind} {path} {out}");
            }
        }
    }
}
