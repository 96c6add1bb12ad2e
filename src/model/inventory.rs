//! The inventory as it was read. Every property but the reference may be missing on a real server.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ids::{HostId, MoRef, VmId};
use crate::units::Stamp;

/// `HostSystem` and `VirtualMachine` power states; open, since newer servers may add words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// Running: publishes samples.
    On,
    /// Off.
    Off,
    /// Suspended (VM) or in stand-by (host).
    Suspended,
    /// Unset, or a word of a newer server.
    Unknown,
}

impl PowerState {
    /// The word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Suspended => "suspended",
            Self::Unknown => "unknown",
        }
    }
}

/// A host, as discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its reference.
    pub moref: MoRef,
    /// Display name, `%2f` and friends decoded.
    pub name: Option<String>,
    /// Hardware UUID.
    pub uuid: Option<String>,
    /// Power state.
    pub power: PowerState,
    /// `runtime.connectionState` is `connected`.
    pub connected: bool,
    /// `runtime.inMaintenanceMode`.
    pub maintenance: bool,
    /// Hardware threads, the divisor of ready time.
    pub threads: Option<u16>,
    /// What collection has no need of.
    pub details: Arc<HostDetails>,
}

/// What is shown of a host beyond what collection needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDetails {
    /// `runtime.connectionState`.
    pub connection: Option<String>,
    /// `overallStatus`.
    pub status: Option<String>,
    /// Address of the interface that is selected for management.
    pub management_ip: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// CPU model.
    pub cpu_model: Option<String>,
    /// CPU packages.
    pub sockets: Option<i32>,
    /// CPU cores.
    pub cores: Option<i32>,
    /// Nominal clock of a core.
    pub cpu_mhz: Option<i32>,
    /// Installed memory.
    pub memory_mib: Option<i64>,
    /// Of ESXi.
    pub version: Option<String>,
    /// Of ESXi.
    pub build: Option<String>,
    /// When it was started.
    pub booted_at: Option<Stamp>,
    /// Its cluster; `None` for a host on its own.
    pub cluster: Option<MoRef>,
    /// Its datacenter.
    pub datacenter: Option<MoRef>,
}

/// A VM, as discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its reference.
    pub moref: MoRef,
    /// Display name, `%2f` and friends decoded.
    pub name: Option<String>,
    /// `instanceUuid`: unique within a vCenter.
    pub instance_uuid: Option<String>,
    /// SMBIOS UUID: may be shared by copies.
    pub bios_uuid: Option<String>,
    /// Power state.
    pub power: PowerState,
    /// `runtime.connectionState` is `connected`.
    pub connected: bool,
    /// Where it runs.
    pub host: Option<MoRef>,
    /// Virtual CPUs, the divisor of ready time.
    pub vcpus: Option<u16>,
    /// Configured memory.
    pub memory_mib: Option<i64>,
    /// A template never runs.
    pub template: bool,
    /// What collection has no need of.
    pub details: Arc<VmDetails>,
}

/// What is shown of a VM beyond what collection needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmDetails {
    /// `runtime.connectionState`.
    pub connection: Option<String>,
    /// `overallStatus`.
    pub status: Option<String>,
    /// Configured guest OS, the server's id of it.
    pub guest_id: Option<String>,
    /// Configured guest OS.
    pub guest_os: Option<String>,
    /// Guest OS that VMware Tools report.
    pub guest_os_reported: Option<String>,
    /// Name that the guest gives itself.
    pub guest_host_name: Option<String>,
    /// The guest's first address.
    pub ip_address: Option<String>,
    /// Whether VMware Tools run.
    pub tools_running: Option<String>,
    /// How old VMware Tools are.
    pub tools_version: Option<String>,
    /// When it was powered on.
    pub booted_at: Option<Stamp>,
    /// Its resource pool; templates have none.
    pub pool: Option<MoRef>,
    /// Its datacenter.
    pub datacenter: Option<MoRef>,
    /// Names of the folders above it, from the root.
    pub folder: Option<String>,
    /// Its disks need consolidation.
    pub consolidation_needed: Option<bool>,
    /// Storage in use.
    pub committed_bytes: Option<i64>,
    /// Storage that it may come to use.
    pub uncommitted_bytes: Option<i64>,
    /// Notes.
    pub annotation: Option<String>,
    /// Values of those custom attributes that are asked for, by name.
    pub attributes: BTreeMap<String, String>,
    /// Disks; `None` where the server does not tell.
    pub disks: Option<Vec<Disk>>,
    /// Network adapters; `None` where the server does not tell.
    pub nics: Option<Vec<Nic>>,
    /// Snapshots; `None` where they were not read.
    pub snapshots: Option<Vec<Snapshot>>,
}

/// A virtual disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Unique within the VM.
    pub key: i32,
    /// `Hard disk 1`.
    pub label: Option<String>,
    /// Size.
    pub capacity_bytes: Option<i64>,
    /// `[datastore] folder/name.vmdk`.
    pub file: Option<String>,
    /// Thin provisioned.
    pub thin: Option<bool>,
}

/// A network adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nic {
    /// Unique within the VM.
    pub key: i32,
    /// `Network adapter 1`.
    pub label: Option<String>,
    /// `vmxnet3`.
    pub kind: String,
    /// MAC address.
    pub mac: Option<String>,
    /// Name of the network or port group.
    pub network: Option<String>,
    /// It is connected.
    pub connected: Option<bool>,
    /// Addresses that the guest reports.
    pub addresses: Vec<String>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its reference.
    pub moref: MoRef,
    /// The one above it.
    pub parent: Option<MoRef>,
    /// Name, not unique.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// When it was taken.
    pub created_at: Option<Stamp>,
    /// State of the VM in it.
    pub power: PowerState,
    /// The guest's file systems were quiesced.
    pub quiesced: Option<bool>,
    /// The VM's disks stand on it.
    pub current: bool,
}

/// A datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datacenter {
    /// Its reference.
    pub moref: MoRef,
    /// Display name.
    pub name: Option<String>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its reference.
    pub moref: MoRef,
    /// Display name.
    pub name: Option<String>,
    /// `overallStatus`.
    pub status: Option<String>,
    /// Its datacenter.
    pub datacenter: Option<MoRef>,
    /// CPU of all hosts.
    pub total_cpu_mhz: Option<i32>,
    /// CPU that can be used for VMs.
    pub effective_cpu_mhz: Option<i32>,
    /// Memory of all hosts.
    pub total_memory_mib: Option<i64>,
    /// Memory that can be used for VMs.
    pub effective_memory_mib: Option<i64>,
    /// Hosts.
    pub hosts: Option<i32>,
    /// Hosts that can be used for VMs.
    pub effective_hosts: Option<i32>,
    /// Distributed Resource Scheduler.
    pub drs: Option<bool>,
    /// High Availability.
    pub ha: Option<bool>,
}

/// A resource pool or vApp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePool {
    /// Its reference.
    pub moref: MoRef,
    /// Display name; the root pool of a cluster is `Resources`.
    pub name: Option<String>,
    /// Its cluster; `None` below a host on its own.
    pub cluster: Option<MoRef>,
    /// The pool above it; `None` for a root pool.
    pub parent: Option<MoRef>,
}

/// A datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datastore {
    /// Its reference.
    pub moref: MoRef,
    /// Display name.
    pub name: Option<String>,
    /// `overallStatus`.
    pub status: Option<String>,
    /// `VMFS`, `NFS`, `NFS41`, `vsan`, `VVOL`, ...
    pub kind: Option<String>,
    /// Location; its last part is what samples call it.
    pub url: Option<String>,
    /// Its datacenter.
    pub datacenter: Option<MoRef>,
    /// Size.
    pub capacity_bytes: Option<i64>,
    /// Free.
    pub free_bytes: Option<i64>,
    /// What thin disks may come to use beyond what they use.
    pub uncommitted_bytes: Option<i64>,
    /// It can be reached: the sizes are valid.
    pub accessible: Option<bool>,
    /// `normal`, `enteringMaintenance` or `inMaintenance`.
    pub maintenance: Option<String>,
    /// Hosts that mount it.
    pub hosts: Vec<MoRef>,
}

/// A reading of a platform's objects, complete or of those that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// All datacenters.
    pub datacenters: Vec<Datacenter>,
    /// All clusters.
    pub clusters: Vec<Cluster>,
    /// All resource pools.
    pub pools: Vec<ResourcePool>,
    /// All datastores.
    pub datastores: Vec<Datastore>,
    /// All hosts.
    pub hosts: Vec<Host>,
    /// All VMs and templates.
    pub vms: Vec<Vm>,
    /// The server shows hosts that a filter turned away.
    pub other_hosts: bool,
}

impl Inventory {
    /// True without any object: never a reason to remove anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.vms.is_empty()
    }

    /// False while a server shows no host at all: it is starting, and whatever it lacks may be there in a moment.
    #[must_use]
    pub const fn shows_hosts(&self) -> bool {
        self.other_hosts || !self.hosts.is_empty()
    }
}

/// A host with its database key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    /// Key.
    pub id: HostId,
    /// As discovered. A number of threads that the server does not tell is the stored one.
    pub host: Host,
}

/// A VM with its database key and placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownVm {
    /// Key.
    pub id: VmId,
    /// As discovered. A number of vCPUs that the server does not tell is the stored one.
    pub vm: Vm,
    /// The host it runs on and since when that is known (server clock). Rows before that moment get no host.
    pub placement: Option<(HostId, Stamp)>,
}

/// A platform's inventory as stored: what collection takes its entities from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownInventory {
    /// All hosts present.
    pub hosts: Vec<KnownHost>,
    /// All VMs present.
    pub vms: Vec<KnownVm>,
}
