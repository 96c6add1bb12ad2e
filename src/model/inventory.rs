//! Hosts and VMs as a discovery read them. Every property but the reference may be missing on a real server.

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
}

/// One complete reading of a platform's hosts and VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// All hosts.
    pub hosts: Vec<Host>,
    /// All VMs and templates.
    pub vms: Vec<Vm>,
}

impl Inventory {
    /// True without any object: never a reason to remove anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.vms.is_empty()
    }
}

/// A host with its database key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    /// Key.
    pub id: HostId,
    /// As discovered.
    pub host: Host,
}

/// A VM with its database key and placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownVm {
    /// Key.
    pub id: VmId,
    /// As discovered.
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
