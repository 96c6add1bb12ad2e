//! What is read of each kind of object, and how a property becomes a value.
//!
//! Owns: the paths, those that the server tells of and those that it does not; [`Item`], an object as the server
//! shows it, relations still as references.
//!
//! Only leaf paths are asked for where there are any: `config` of one VM may be a megabyte. A device list comes
//! whole, because nothing below it can be named.

use std::sync::Arc;

use super::discovery::{clean, is_true, name, new_host, new_vm, power, set_host, set_vm, some_text};
use crate::model::ids::MoRef;
use crate::model::inventory::{Cluster, Datastore, Disk, Host, HostDetails, Snapshot, Vm, VmDetails};
use crate::soap::Object;
use crate::soap::methods::properties::Wanted;
use crate::soap::xml;
use crate::soap::xml::Reader;

/// A view over everything that is kept. Base classes stand for their subclasses on real servers; vcsim wants both.
pub(super) const TYPES: [&str; 10] = [
    "ClusterComputeResource",
    "ComputeResource",
    "Datacenter",
    "Datastore",
    "DistributedVirtualPortgroup",
    "Folder",
    "HostSystem",
    "OpaqueNetwork",
    "ResourcePool",
    "VirtualMachine",
];

/// The names of custom attributes.
pub(super) const FIELDS: Wanted = Wanted {
    kind: "CustomFieldsManager",
    paths: &["field"],
};

/// Only read where somebody wants some of them: back-up tools keep their diaries in them.
const ATTRIBUTES: &str = "customValue";

/// Properties whose changes the server tells, with or without custom attributes of VMs.
pub(super) fn tracked(attributes: bool) -> Vec<Wanted> {
    let without = |wanted: Wanted| Wanted {
        paths: wanted.paths.strip_prefix(&[ATTRIBUTES]).unwrap_or(wanted.paths),
        ..wanted
    };
    TRACKED
        .into_iter()
        .map(|wanted| if attributes { wanted } else { without(wanted) })
        .collect()
}

const TRACKED: [Wanted; 10] = [
    Wanted {
        kind: "ClusterComputeResource",
        paths: &[
            "name",
            "parent",
            "configuration.dasConfig.enabled",
            "configuration.drsConfig.enabled",
        ],
    },
    Wanted {
        kind: "ComputeResource",
        paths: &["name", "parent"],
    },
    Wanted {
        kind: "Datacenter",
        paths: &["name", "parent"],
    },
    Wanted {
        kind: "Datastore",
        paths: &[
            "name",
            "parent",
            "host",
            "summary.accessible",
            "summary.maintenanceMode",
            "summary.type",
            "summary.url",
        ],
    },
    Wanted {
        kind: "DistributedVirtualPortgroup",
        paths: &["name", "key"],
    },
    Wanted {
        kind: "Folder",
        paths: &["name", "parent"],
    },
    Wanted {
        kind: "HostSystem",
        paths: &[
            "name",
            "parent",
            "config.virtualNicManagerInfo.netConfig",
            "runtime.bootTime",
            "runtime.connectionState",
            "runtime.inMaintenanceMode",
            "runtime.powerState",
            "summary.config.product.build",
            "summary.config.product.version",
            "summary.hardware.cpuMhz",
            "summary.hardware.cpuModel",
            "summary.hardware.memorySize",
            "summary.hardware.model",
            "summary.hardware.numCpuCores",
            "summary.hardware.numCpuPkgs",
            "summary.hardware.numCpuThreads",
            "summary.hardware.uuid",
            "summary.hardware.vendor",
        ],
    },
    Wanted {
        kind: "OpaqueNetwork",
        // Its id stands in the summary, but not in the type that summaries are declared as: no path leads to it.
        paths: &["name", "summary"],
    },
    Wanted {
        kind: "ResourcePool",
        paths: &["name", "parent"],
    },
    Wanted {
        kind: "VirtualMachine",
        paths: &[
            ATTRIBUTES,
            "name",
            "parent",
            "resourcePool",
            "config.hardware.device",
            "guest.guestFullName",
            "guest.hostName",
            "guest.ipAddress",
            "guest.net",
            "guest.toolsRunningStatus",
            "guest.toolsVersionStatus2",
            "runtime.bootTime",
            "runtime.connectionState",
            "runtime.consolidationNeeded",
            "runtime.host",
            "runtime.powerState",
            "snapshot",
            "summary.config.annotation",
            "summary.config.guestFullName",
            "summary.config.guestId",
            "summary.config.instanceUuid",
            "summary.config.memorySizeMB",
            "summary.config.numCpu",
            "summary.config.template",
            "summary.config.uuid",
        ],
    },
];

/// Properties that may change without a word, or so often that being told of each change would be a burden. The
/// states of hosts and the sizes of VMs are in both lists: what depends on them is worth a second look.
pub(super) const SILENT: [Wanted; 5] = [
    Wanted {
        kind: "ClusterComputeResource",
        paths: &[
            "overallStatus",
            "summary.effectiveCpu",
            "summary.effectiveMemory",
            "summary.numEffectiveHosts",
            "summary.numHosts",
            "summary.totalCpu",
            "summary.totalMemory",
        ],
    },
    Wanted {
        kind: "Datacenter",
        paths: &["name"],
    },
    Wanted {
        kind: "Datastore",
        paths: &[
            "overallStatus",
            "summary.accessible",
            "summary.capacity",
            "summary.freeSpace",
            "summary.uncommitted",
        ],
    },
    Wanted {
        kind: "HostSystem",
        paths: &[
            "overallStatus",
            "runtime.connectionState",
            "runtime.inMaintenanceMode",
            "runtime.powerState",
        ],
    },
    Wanted {
        kind: "VirtualMachine",
        paths: &[
            "overallStatus",
            "summary.config.memorySizeMB",
            "summary.config.numCpu",
            "summary.storage.committed",
            "summary.storage.uncommitted",
        ],
    },
];

/// An object as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Display name.
    pub name: Option<String>,
    /// What it is in.
    pub parent: Option<MoRef>,
    /// What it is.
    pub body: Body,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A folder.
    Folder,
    /// A datacenter.
    Datacenter,
    /// A cluster, or the frame around a host on its own.
    Compute {
        /// A cluster.
        is_cluster: bool,
        /// What is read of it.
        cluster: Box<Cluster>,
    },
    /// A resource pool.
    Pool,
    /// A datastore.
    Datastore(Box<Datastore>),
    /// A distributed port group or opaque network, with the key or id that adapters name it by.
    Network(Option<String>),
    /// The names of custom attributes, by key.
    Fields(Vec<(i32, String)>),
    /// A host.
    Host(Box<Host>),
    /// A VM or template.
    Vm(Box<Machine>),
}

/// A VM with what its adapters refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// All but the adapters.
    pub vm: Vm,
    /// Adapters; `None` where the server does not tell.
    pub nics: Option<Vec<Adapter>>,
    /// What the guest says of its networks.
    pub guest_nets: Vec<GuestNet>,
    /// Values of custom attributes, by key.
    pub attributes: Vec<(i32, String)>,
}

/// A network adapter as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapter {
    /// Unique within the VM.
    pub key: i32,
    /// `Network adapter 1`.
    pub label: Option<String>,
    /// `vmxnet3`.
    pub kind: String,
    /// MAC address.
    pub mac: Option<String>,
    /// It is connected.
    pub connected: Option<bool>,
    /// Name of a standard network.
    pub network: Option<String>,
    /// Key of a distributed port group, or id of an opaque network.
    pub key_of_network: Option<String>,
}

/// An interface as the guest reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestNet {
    /// Key of the adapter; -1 for an interface that only the guest knows.
    pub key: i32,
    /// Its addresses.
    pub addresses: Vec<String>,
}

impl Item {
    /// An object without any property yet; `None` if its kind is not kept.
    pub(super) fn new(object: &Object) -> Option<Self> {
        let moref = object.moref.clone();
        let body = match &*object.kind {
            "Folder" => Body::Folder,
            "Datacenter" => Body::Datacenter,
            "ClusterComputeResource" | "ComputeResource" => Body::Compute {
                is_cluster: object.kind == "ClusterComputeResource",
                cluster: Box::new(new_cluster(moref)),
            },
            "ResourcePool" | "VirtualApp" => Body::Pool,
            "Datastore" => Body::Datastore(Box::new(new_datastore(moref))),
            "DistributedVirtualPortgroup" | "OpaqueNetwork" => Body::Network(None),
            "CustomFieldsManager" => Body::Fields(Vec::new()),
            "HostSystem" => Body::Host(Box::new(new_host(moref))),
            "VirtualMachine" => Body::Vm(Box::new(Machine {
                vm: new_vm(moref),
                nics: None,
                guest_nets: Vec::new(),
                attributes: Vec::new(),
            })),
            _ => return None,
        };
        Some(Self {
            name: None,
            parent: None,
            body,
        })
    }

    /// Takes a property's value; `xml` stands inside `<val>` and leaves it.
    pub(super) fn set(&mut self, path: &str, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        match (&mut self.body, path) {
            (Body::Vm(machine), "config.hardware.device") => devices(machine, xml),
            (Body::Vm(machine), "guest.net") => {
                machine.guest_nets = guest_nets(xml)?;
                Ok(())
            }
            (Body::Vm(machine), ATTRIBUTES) => {
                machine.attributes = keyed(xml, "value", long_text)?;
                Ok(())
            }
            (Body::Fields(fields), "field") => {
                *fields = keyed(xml, "name", clean)?;
                Ok(())
            }
            (Body::Network(key), "summary") => within(xml, |field, xml| {
                if field == "opaqueNetworkId" {
                    *key = some_text(&xml.loose_text()?);
                    return Ok(true);
                }
                Ok(false)
            }),
            (Body::Vm(machine), "snapshot") => {
                let snapshots = snapshots(xml)?;
                Arc::make_mut(&mut machine.vm.details).snapshots = Some(snapshots);
                Ok(())
            }
            (Body::Host(host), "config.virtualNicManagerInfo.netConfig") => {
                let address = management_ip(xml)?;
                Arc::make_mut(&mut host.details).management_ip = address;
                Ok(())
            }
            (Body::Datastore(datastore), "host") => {
                datastore.hosts = mounts(xml)?;
                Ok(())
            }
            _ => {
                let value = xml.loose_text()?;
                self.assign(path, Some(&value));
                Ok(())
            }
        }
    }

    /// Takes a property's value away.
    pub(super) fn unset(&mut self, path: &str) {
        match (&mut self.body, path) {
            (Body::Vm(machine), "config.hardware.device") => {
                machine.nics = None;
                Arc::make_mut(&mut machine.vm.details).disks = None;
            }
            (Body::Vm(machine), "guest.net") => machine.guest_nets.clear(),
            (Body::Vm(machine), ATTRIBUTES) => machine.attributes.clear(),
            (Body::Fields(fields), "field") => fields.clear(),
            (Body::Vm(machine), "snapshot") => {
                Arc::make_mut(&mut machine.vm.details).snapshots = Some(Vec::new());
            }
            (Body::Datastore(datastore), "host") => datastore.hosts.clear(),
            _ => self.assign(path, None),
        }
    }

    fn assign(&mut self, path: &str, value: Option<&str>) {
        match path {
            "name" => self.name = value.map(name),
            "parent" => {
                self.parent = value.filter(|value| !value.is_empty()).map(MoRef::new);
            }
            _ => {}
        }
        match &mut self.body {
            Body::Host(host) => {
                set_host(host, path, value.unwrap_or_default());
                // The setters of a first reading know no value that goes away.
                if path == "name" {
                    host.name = value.map(name);
                }
                set_host_details(Arc::make_mut(&mut host.details), path, value);
            }
            Body::Vm(machine) => {
                set_vm(&mut machine.vm, path, value.unwrap_or_default());
                if path == "name" {
                    machine.vm.name = value.map(name);
                }
                set_vm_details(Arc::make_mut(&mut machine.vm.details), path, value);
            }
            Body::Compute { cluster, .. } => set_cluster(cluster, path, value),
            Body::Datastore(datastore) => set_datastore(datastore, path, value),
            Body::Network(key) if path == "key" => *key = text(value),
            Body::Folder | Body::Datacenter | Body::Pool | Body::Network(_) | Body::Fields(_) => {}
        }
    }
}

fn text(value: Option<&str>) -> Option<String> {
    value.and_then(some_text)
}

fn number<T: std::str::FromStr>(value: Option<&str>) -> Option<T> {
    value.and_then(|value| value.trim().parse().ok())
}

fn flag(value: Option<&str>) -> Option<bool> {
    value.map(is_true)
}

/// Bytes as MiB.
fn mebibytes(value: Option<&str>) -> Option<i64> {
    number::<i64>(value).map(|bytes| bytes / (1024 * 1024))
}

fn set_host_details(host: &mut HostDetails, path: &str, value: Option<&str>) {
    match path {
        "overallStatus" => host.status = text(value),
        "runtime.bootTime" => host.booted_at = number(value),
        "runtime.connectionState" => host.connection = text(value),
        "config.virtualNicManagerInfo.netConfig" => host.management_ip = None,
        "summary.config.product.build" => host.build = text(value),
        "summary.config.product.version" => host.version = text(value),
        "summary.hardware.cpuMhz" => host.cpu_mhz = number(value),
        "summary.hardware.cpuModel" => host.cpu_model = text(value),
        "summary.hardware.memorySize" => host.memory_mib = mebibytes(value),
        "summary.hardware.model" => host.model = text(value),
        "summary.hardware.numCpuCores" => host.cores = number(value),
        "summary.hardware.numCpuPkgs" => host.sockets = number(value),
        "summary.hardware.vendor" => host.vendor = text(value),
        _ => {}
    }
}

fn set_vm_details(vm: &mut VmDetails, path: &str, value: Option<&str>) {
    match path {
        "guest.guestFullName" => vm.guest_os_reported = text(value),
        "guest.hostName" => vm.guest_host_name = text(value),
        "guest.ipAddress" => vm.ip_address = text(value),
        "guest.toolsRunningStatus" => vm.tools_running = text(value),
        "guest.toolsVersionStatus2" => vm.tools_version = text(value),
        "overallStatus" => vm.status = text(value),
        "resourcePool" => vm.pool = value.filter(|value| !value.is_empty()).map(MoRef::new),
        "runtime.bootTime" => vm.booted_at = number(value),
        "runtime.connectionState" => vm.connection = text(value),
        "runtime.consolidationNeeded" => vm.consolidation_needed = flag(value),
        "summary.config.annotation" => vm.annotation = value.map(long_text),
        "summary.config.guestFullName" => vm.guest_os = text(value),
        "summary.config.guestId" => vm.guest_id = text(value),
        "summary.storage.committed" => vm.committed_bytes = number(value),
        "summary.storage.uncommitted" => vm.uncommitted_bytes = number(value),
        _ => {}
    }
}

fn set_cluster(cluster: &mut Cluster, path: &str, value: Option<&str>) {
    match path {
        "name" => cluster.name = value.map(name),
        "overallStatus" => cluster.status = text(value),
        "configuration.dasConfig.enabled" => cluster.ha = flag(value),
        "configuration.drsConfig.enabled" => cluster.drs = flag(value),
        "summary.effectiveCpu" => cluster.effective_cpu_mhz = number(value),
        // MB, unlike its sibling.
        "summary.effectiveMemory" => cluster.effective_memory_mib = number(value),
        "summary.numEffectiveHosts" => cluster.effective_hosts = number(value),
        "summary.numHosts" => cluster.hosts = number(value),
        "summary.totalCpu" => cluster.total_cpu_mhz = number(value),
        "summary.totalMemory" => cluster.total_memory_mib = mebibytes(value),
        _ => {}
    }
}

fn set_datastore(datastore: &mut Datastore, path: &str, value: Option<&str>) {
    match path {
        "name" => datastore.name = value.map(name),
        "overallStatus" => datastore.status = text(value),
        "summary.accessible" => datastore.accessible = flag(value),
        "summary.capacity" => datastore.capacity_bytes = number(value),
        "summary.freeSpace" => datastore.free_bytes = number(value),
        "summary.maintenanceMode" => datastore.maintenance = text(value),
        "summary.type" => datastore.kind = text(value),
        "summary.uncommitted" => datastore.uncommitted_bytes = number(value),
        "summary.url" => datastore.url = text(value),
        _ => {}
    }
}

const fn new_cluster(moref: MoRef) -> Cluster {
    Cluster {
        moref,
        name: None,
        status: None,
        datacenter: None,
        total_cpu_mhz: None,
        effective_cpu_mhz: None,
        total_memory_mib: None,
        effective_memory_mib: None,
        hosts: None,
        effective_hosts: None,
        drs: None,
        ha: None,
    }
}

const fn new_datastore(moref: MoRef) -> Datastore {
    Datastore {
        moref,
        name: None,
        status: None,
        kind: None,
        url: None,
        datacenter: None,
        capacity_bytes: None,
        free_bytes: None,
        uncommitted_bytes: None,
        accessible: None,
        maintenance: None,
        hosts: Vec::new(),
    }
}

/// Notes may have lines, and are longer than names.
fn long_text(value: &str) -> String {
    const CHARACTERS: usize = 4096;
    value
        .chars()
        .take(CHARACTERS)
        .map(|character| match character {
            '\n' | '\t' => character,
            other if other.is_control() => char::REPLACEMENT_CHARACTER,
            other => other,
        })
        .collect()
}

/// What a device may be; disks and adapters are kept.
#[derive(Debug, Default)]
struct Device {
    key: i32,
    label: Option<String>,
    bytes: Option<i64>,
    kib: Option<i64>,
    mac: Option<String>,
    connected: Option<bool>,
    file: Option<String>,
    thin: Option<bool>,
    network: Option<String>,
    key_of_network: Option<String>,
}

/// The type of adapter in a device's type: `vmxnet3` of `VirtualVmxnet3`.
fn adapter(kind: &str) -> Option<String> {
    matches!(
        kind,
        "VirtualE1000"
            | "VirtualE1000e"
            | "VirtualEthernetCard"
            | "VirtualPCNet32"
            | "VirtualSriovEthernetCard"
            | "VirtualVmxnet"
            | "VirtualVmxnet2"
            | "VirtualVmxnet3"
            | "VirtualVmxnet3Vrdma"
    )
    .then(|| kind.trim_start_matches("Virtual").to_lowercase())
}

fn devices(machine: &mut Machine, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
    let (mut disks, mut nics) = (Vec::new(), Vec::new());
    while let Some(element) = xml.next_child()? {
        let kind = element.xsi_type().unwrap_or_default().into_owned();
        let nic = adapter(&kind);
        if kind != "VirtualDisk" && nic.is_none() {
            xml.skip()?;
            continue;
        }
        let device = device(xml)?;
        match nic {
            Some(kind) => nics.push(Adapter {
                key: device.key,
                label: device.label,
                kind,
                mac: device.mac,
                connected: device.connected,
                network: device.network,
                key_of_network: device.key_of_network,
            }),
            None => disks.push(Disk {
                key: device.key,
                label: device.label,
                capacity_bytes: device.bytes.or(device.kib.map(|kib| kib.saturating_mul(1024))),
                file: device.file,
                thin: device.thin,
            }),
        }
    }
    machine.nics = Some(nics);
    Arc::make_mut(&mut machine.vm.details).disks = Some(disks);
    Ok(())
}

fn device(xml: &mut Reader<'_>) -> Result<Device, xml::Error> {
    let mut device = Device::default();
    while let Some(field) = xml.next_child()? {
        match field.name() {
            "key" => device.key = number(Some(&xml.loose_text()?)).unwrap_or_default(),
            "deviceInfo" => {
                within(xml, |field, xml| {
                    if field == "label" {
                        device.label = some_text(&xml.loose_text()?);
                        return Ok(true);
                    }
                    Ok(false)
                })?;
            }
            "connectable" => {
                within(xml, |field, xml| {
                    if field == "connected" {
                        device.connected = Some(is_true(&xml.loose_text()?));
                        return Ok(true);
                    }
                    Ok(false)
                })?;
            }
            "macAddress" => device.mac = some_text(&xml.loose_text()?),
            "capacityInBytes" => device.bytes = number(Some(&xml.loose_text()?)),
            "capacityInKB" => device.kib = number(Some(&xml.loose_text()?)),
            "backing" => backing(&mut device, xml)?,
            _ => xml.skip()?,
        }
    }
    Ok(device)
}

fn backing(device: &mut Device, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
    within(xml, |field, xml| {
        match field {
            "fileName" => device.file = some_text(&xml.loose_text()?),
            "thinProvisioned" => device.thin = Some(is_true(&xml.loose_text()?)),
            "deviceName" => device.network = some_text(&xml.loose_text()?),
            "opaqueNetworkId" => device.key_of_network = some_text(&xml.loose_text()?),
            "port" => within(xml, |field, xml| {
                if field == "portgroupKey" {
                    device.key_of_network = some_text(&xml.loose_text()?);
                    return Ok(true);
                }
                Ok(false)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// Visits the fields of a structure; `visit` says whether it has read the field.
fn within<'a>(
    xml: &mut Reader<'a>,
    mut visit: impl FnMut(&str, &mut Reader<'a>) -> Result<bool, xml::Error>,
) -> Result<(), xml::Error> {
    while let Some(field) = xml.next_child()? {
        if !visit(field.name(), xml)? {
            xml.skip()?;
        }
    }
    Ok(())
}

fn guest_nets(xml: &mut Reader<'_>) -> Result<Vec<GuestNet>, xml::Error> {
    let mut nets = Vec::new();
    while let Some(_net) = xml.next_child()? {
        let mut net = GuestNet::default();
        within(xml, |field, xml| {
            match field {
                "deviceConfigId" => net.key = number(Some(&xml.loose_text()?)).unwrap_or(-1),
                "ipAddress" => net.addresses.extend(some_text(&xml.loose_text()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        nets.push(net);
    }
    Ok(nets)
}

/// Of each structure its key and the text of one field.
fn keyed(
    xml: &mut Reader<'_>,
    wanted: &str,
    clean: impl Fn(&str) -> String,
) -> Result<Vec<(i32, String)>, xml::Error> {
    let mut all = Vec::new();
    while let Some(_structure) = xml.next_child()? {
        let (mut key, mut text) = (None, None);
        within(xml, |field, xml| {
            if field == "key" {
                key = number(Some(&xml.loose_text()?));
            } else if field == wanted {
                text = Some(clean(&xml.loose_text()?));
            } else {
                return Ok(false);
            }
            Ok(true)
        })?;
        all.extend(key.zip(text));
    }
    Ok(all)
}

pub(super) fn snapshots(xml: &mut Reader<'_>) -> Result<Vec<Snapshot>, xml::Error> {
    let mut found = Vec::new();
    let mut current = None;
    while let Some(field) = xml.next_child()? {
        match field.name() {
            "currentSnapshot" => current = Some(MoRef::new(xml.loose_text()?)),
            "rootSnapshotList" => snapshot(xml, None, &mut found)?,
            _ => xml.skip()?,
        }
    }
    for snapshot in &mut found {
        snapshot.current = current.as_ref() == Some(&snapshot.moref);
    }
    Ok(found)
}

/// Reads a snapshot and those below it. The reader's bound on depth bounds the recursion.
fn snapshot(
    xml: &mut Reader<'_>,
    parent: Option<&MoRef>,
    found: &mut Vec<Snapshot>,
) -> Result<(), xml::Error> {
    let place = found.len();
    found.push(Snapshot {
        moref: MoRef::new(""),
        parent: parent.cloned(),
        name: None,
        description: None,
        created_at: None,
        power: power(""),
        quiesced: None,
        current: false,
    });
    while let Some(field) = xml.next_child()? {
        if field.name() == "childSnapshotList" {
            // The reference comes before the children.
            let moref = found.get(place).map(|above| above.moref.clone());
            snapshot(xml, moref.as_ref(), found)?;
            continue;
        }
        let Some(this) = found.get_mut(place) else {
            xml.skip()?;
            continue;
        };
        match field.name() {
            "snapshot" => this.moref = MoRef::new(xml.loose_text()?),
            "name" => this.name = Some(name(&xml.loose_text()?)),
            "description" => this.description = Some(long_text(&xml.loose_text()?)),
            "createTime" => this.created_at = xml.loose_text()?.parse().ok(),
            "state" => this.power = power(&xml.loose_text()?),
            "quiesced" => this.quiesced = Some(is_true(&xml.loose_text()?)),
            _ => xml.skip()?,
        }
    }
    Ok(())
}

/// The address of the interface that is selected for management, or of the first one that could be.
fn management_ip(xml: &mut Reader<'_>) -> Result<Option<String>, xml::Error> {
    let mut address = None;
    while let Some(_service) = xml.next_child()? {
        let (mut is_management, mut selected, mut candidates) = (false, None, Vec::new());
        within(xml, |field, xml| {
            match field {
                "nicType" => is_management = xml.loose_text()? == "management",
                "selectedVnic" => {
                    let key = xml.loose_text()?;
                    selected.get_or_insert(key);
                }
                "candidateVnic" => candidates.push(candidate(xml)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if !is_management {
            continue;
        }
        let chosen = candidates
            .iter()
            .find(|(key, address)| address.is_some() && *key == selected)
            .or_else(|| candidates.iter().find(|(_, address)| address.is_some()));
        if let Some((_, found)) = chosen {
            address.clone_from(found);
        }
    }
    Ok(address)
}

/// Key and address of an interface.
fn candidate(xml: &mut Reader<'_>) -> Result<(Option<String>, Option<String>), xml::Error> {
    let (mut key, mut address) = (None, None);
    within(xml, |field, xml| {
        match field {
            "key" => key = Some(xml.loose_text()?),
            "spec" => within(xml, |field, xml| {
                if field != "ip" {
                    return Ok(false);
                }
                within(xml, |field, xml| {
                    if field != "ipAddress" {
                        return Ok(false);
                    }
                    address = some_text(&xml.loose_text()?);
                    Ok(true)
                })?;
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok((key, address))
}

/// Hosts of a datastore.
fn mounts(xml: &mut Reader<'_>) -> Result<Vec<MoRef>, xml::Error> {
    let mut hosts = Vec::new();
    while let Some(_mount) = xml.next_child()? {
        within(xml, |field, xml| {
            if field == "key" {
                hosts.push(MoRef::new(clean(&xml.loose_text()?)));
                return Ok(true);
            }
            Ok(false)
        })?;
    }
    Ok(hosts)
}
