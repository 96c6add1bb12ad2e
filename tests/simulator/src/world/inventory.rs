//! Builds the world that exists at the start: datacenter, clusters, hosts, datastores, VMs.
//!
//! Owns: morefs, names, identities and sizes, all derived from seed and number. Never changes
//! anything after the start, except that a new VM is made here too.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use super::{HostLink, PowerState, Snapshot, State, Tasks};
use crate::clock::{self, Clock};
use crate::counters::Numbering;
use crate::grid;
use crate::spec::{PlatformKind, Spec};
use crate::truth::{EntityKind, EntityRecord, Profile, Run, Truth};
use crate::value::{below, mix};

/// What the log does not need to know about an entity.
#[derive(Debug)]
pub(crate) enum Details {
    Host(HostDetails),
    Vm(VmDetails),
}

/// A host's properties.
#[derive(Debug)]
pub(crate) struct HostDetails {
    pub(crate) cluster: usize,
    pub(crate) link: HostLink,
    pub(crate) maintenance: bool,
    pub(crate) booted_at: i64,
    pub(crate) uuid: String,
    pub(crate) packages: i16,
    pub(crate) cores: i16,
    pub(crate) threads: u16,
    pub(crate) cpu_mhz: i32,
    pub(crate) memory_bytes: i64,
    pub(crate) model: &'static str,
}

/// A VM's properties.
#[derive(Debug)]
pub(crate) struct VmDetails {
    /// Index of its host.
    pub(crate) host: usize,
    pub(crate) cluster: usize,
    pub(crate) power: PowerState,
    pub(crate) booted_at: i64,
    pub(crate) vcpus: u32,
    pub(crate) memory_mb: i32,
    pub(crate) uuid: String,
    pub(crate) instance_uuid: String,
    pub(crate) guest: &'static str,
    /// A guest that has tools runs them: it is not just starting.
    pub(crate) guest_up: bool,
    pub(crate) question: Option<Question>,
    /// Methods that someone disabled.
    pub(crate) disabled: Vec<String>,
    pub(crate) snapshots: Vec<Snapshot>,
    /// Snapshots that there ever were.
    pub(crate) snapshots_made: usize,
}

/// What a VM asks before it goes on.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    /// What can be answered; the last one is the default.
    pub(crate) choices: &'static [&'static str],
}

impl Question {
    /// A question with a text of its own, or the best-known one.
    pub(crate) fn new(text: Option<String>) -> Self {
        let usual = "This virtual machine might have been moved or copied.";
        Self {
            text: text.unwrap_or_else(|| usual.to_owned()),
            choices: &["Cancel", "I Moved It", "I Copied It"],
        }
    }
}

/// MoRefs of everything that is not a host or VM. Real ones differ between vCenter and ESXi.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) kind: PlatformKind,
    pub(crate) root_folder: &'static str,
    pub(crate) datacenter: &'static str,
    pub(crate) vm_folder: &'static str,
    pub(crate) host_folder: &'static str,
    pub(crate) datastore_folder: &'static str,
    pub(crate) network_folder: &'static str,
    pub(crate) property_collector: &'static str,
    pub(crate) view_manager: &'static str,
    pub(crate) session_manager: &'static str,
    pub(crate) perf_manager: &'static str,
    pub(crate) setting: &'static str,
    pub(crate) task_manager: &'static str,
    pub(crate) clusters: usize,
    pub(crate) datastores: usize,
}

impl Names {
    fn new(spec: &Spec, clusters: usize, datastores: usize) -> Self {
        match spec.kind {
            PlatformKind::Vcenter => Self {
                kind: spec.kind,
                root_folder: "group-d1",
                datacenter: "datacenter-3",
                vm_folder: "group-v4",
                host_folder: "group-h5",
                datastore_folder: "group-s6",
                network_folder: "group-n7",
                property_collector: "propertyCollector",
                view_manager: "ViewManager",
                session_manager: "SessionManager",
                perf_manager: "PerfMgr",
                setting: "VpxSettings",
                task_manager: "TaskManager",
                clusters,
                datastores,
            },
            PlatformKind::Esxi => Self {
                kind: spec.kind,
                root_folder: "ha-folder-root",
                datacenter: "ha-datacenter",
                vm_folder: "ha-folder-vm",
                host_folder: "ha-folder-host",
                datastore_folder: "ha-folder-datastore",
                network_folder: "ha-folder-network",
                property_collector: "ha-property-collector",
                view_manager: "ViewManager",
                session_manager: "ha-sessionmgr",
                perf_manager: "ha-perfmgr",
                setting: "HostAgentSettings",
                task_manager: "ha-taskmgr",
                clusters,
                datastores,
            },
        }
    }

    /// MoRef and type of a compute resource.
    pub(crate) fn cluster(&self, number: usize) -> String {
        match self.kind {
            PlatformKind::Vcenter => format!("domain-c{}", 100 + number),
            PlatformKind::Esxi => "ha-compute-res".to_owned(),
        }
    }

    pub(crate) fn cluster_name(&self, number: usize) -> String {
        match self.kind {
            PlatformKind::Vcenter => format!("cluster-{:02}", number + 1),
            PlatformKind::Esxi => "localhost.example.com".to_owned(),
        }
    }

    pub(crate) fn cluster_type(&self) -> &'static str {
        match self.kind {
            PlatformKind::Vcenter => "ClusterComputeResource",
            PlatformKind::Esxi => "ComputeResource",
        }
    }

    pub(crate) fn pool(&self, number: usize) -> String {
        match self.kind {
            PlatformKind::Vcenter => format!("resgroup-{}", 100 + number),
            PlatformKind::Esxi => "ha-root-pool".to_owned(),
        }
    }

    pub(crate) fn datastore(&self, number: usize, seed: u64) -> String {
        match self.kind {
            PlatformKind::Vcenter => format!("datastore-{}", 10 + number),
            // On ESXi the MoRef of a VMFS datastore is its UUID.
            PlatformKind::Esxi => {
                let number = u32::try_from(number).unwrap_or_default();
                crate::truth::datastore_uuid(seed, number)
            }
        }
    }
}

/// A UUID-shaped identity.
pub(crate) fn uuid(seed: u64, what: u64, number: usize) -> String {
    let number = u64::try_from(number).unwrap_or_default();
    let a = mix(mix(seed ^ what.rotate_left(32)) ^ number);
    let b = mix(a);
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xFFFF,
        a & 0xFFF,
        0x8000 | (b >> 50),
        b & 0xFFFF_FFFF_FFFF
    )
}

/// The world at the start.
pub(super) fn build(spec: &Spec, clock: &Clock) -> State {
    let horizon = clock.horizon();
    let born = horizon - clock::micros(spec.history);
    let hosts = match spec.kind {
        PlatformKind::Vcenter => spec.hosts.max(1),
        PlatformKind::Esxi => 1,
    };
    let clusters = match spec.kind {
        PlatformKind::Vcenter => spec.clusters.clamp(1, hosts),
        PlatformKind::Esxi => 1,
    };
    let datastores = spec.datastores.max(1);
    let mut entities = Vec::with_capacity(hosts + spec.vms + spec.templates);
    let mut details = Vec::with_capacity(hosts + spec.vms + spec.templates);
    for number in 0..hosts {
        let (record, host) = self::host(spec, number, number % clusters, datastores, born);
        entities.push(record);
        details.push(Details::Host(host));
    }
    let off = spec.powered_off.unwrap_or(spec.vms / 20).min(spec.vms);
    for number in 0..spec.vms + spec.templates {
        let host = number % hosts;
        let template = number >= spec.vms;
        let (mut record, mut vm) = vm(spec, number, host, host % clusters, template, born);
        // Spread evenly, and exactly as many as asked for.
        let is_off = template || (number + 1) * off / spec.vms > number * off / spec.vms;
        if is_off {
            vm.power = PowerState::PoweredOff;
        } else if let Some(on) = entities.get(host) {
            vm.booted_at = grid::seconds(born);
            record.runs.push(Run {
                first_stamp: grid::first_whole_interval(born),
                last_stamp: None,
                host: on.moref.clone(),
                vcpus: vm.vcpus,
                booted_at: vm.booted_at,
            });
        }
        entities.push(record);
        details.push(Details::Vm(vm));
    }
    let live: HashMap<String, usize> = entities
        .iter()
        .enumerate()
        .map(|(index, record)| (record.moref.clone(), index))
        .collect();
    let identity = match spec.kind {
        PlatformKind::Vcenter => uuid(spec.seed, 1, 0),
        PlatformKind::Esxi => uuid(spec.seed, 2, 0),
    };
    State {
        truth: Truth {
            seed: spec.seed,
            kind: spec.kind,
            identity,
            now: horizon,
            horizon,
            publish_delay: clock::micros(spec.publish_delay),
            hosts_ahead: spec.hosts_ahead,
            rollup_delay: clock::micros(spec.rollup_delay),
            statistics_level: spec.statistics_level,
            clock_steps: Vec::new(),
            not_lived: Vec::new(),
            late: Vec::new(),
            withheld: Vec::new(),
            entities,
            index: OnceLock::new(),
        },
        details,
        live,
        names: Names::new(spec, clusters, datastores),
        numbering: Numbering::new(spec.kind, 0),
        epoch: 0,
        loaded: 100,
        version: 0,
        status: HashMap::new(),
        fields: Vec::new(),
        attributes: BTreeMap::new(),
        tasks: Tasks::default(),
        agenda: Vec::new(),
        next_vm: spec.vms + spec.templates,
        spec: spec.clone(),
    }
}

fn host(
    spec: &Spec,
    number: usize,
    cluster: usize,
    datastores: usize,
    born: i64,
) -> (EntityRecord, HostDetails) {
    let moref = match spec.kind {
        PlatformKind::Vcenter => format!("host-{}", 1001 + number),
        PlatformKind::Esxi => "ha-host".to_owned(),
    };
    // Sizes from a small blade to 8 TiB, whose KiB do not fit 32 bits.
    let (packages, cores, gib, model) = match number % 4 {
        0 => (2, 32, 512, "Synthetic R740"),
        1 => (2, 56, 1536, "Synthetic R760"),
        2 => (4, 112, 8192, "Synthetic X880"),
        _ => (1, 16, 192, "Synthetic B200"),
    };
    let threads: u16 = u16::try_from(cores * 2).unwrap_or(1);
    let cpu_mhz = 2100 + 100 * i32::try_from(number % 9).unwrap_or_default();
    let booted_at = grid::seconds(born);
    let record = EntityRecord {
        kind: EntityKind::Host,
        name: spec.host_name.replace("{n}", &format!("{:03}", number + 1)),
        template: false,
        profile: Profile {
            // Two threads share a core.
            mhz: cpu_mhz.unsigned_abs() / 2,
            memory_kib: gib * 1024 * 1024,
            nics: 4,
            disks: 2,
            adapters: 3,
            datastores: (0..u32::try_from(datastores.min(8)).unwrap_or(1)).collect(),
            tools: true,
            block_storage: true,
        },
        runs: vec![Run {
            first_stamp: grid::first_whole_interval(born),
            last_stamp: None,
            host: moref.clone(),
            vcpus: u32::from(threads),
            booted_at,
        }],
        ring_resets: Vec::new(),
        unreachable: Vec::new(),
        late: Vec::new(),
        withheld: Vec::new(),
        created_at: born,
        removed_at: None,
        moref,
    };
    let details = HostDetails {
        cluster,
        link: HostLink::Connected,
        maintenance: false,
        booted_at,
        uuid: uuid(spec.seed, 2, number),
        packages,
        cores,
        threads,
        cpu_mhz,
        memory_bytes: gib * 1024 * 1024 * 1024,
        model,
    };
    (record, details)
}

/// A VM without a run.
pub(super) fn vm(
    spec: &Spec,
    number: usize,
    host: usize,
    cluster: usize,
    template: bool,
    created_at: i64,
) -> (EntityRecord, VmDetails) {
    const VCPUS: [u32; 8] = [1, 2, 4, 2, 8, 1, 16, 4];
    const GIB: [i32; 8] = [2, 4, 16, 8, 64, 1, 256, 32];
    const GUESTS: [&str; 4] = [
        "Debian GNU/Linux 12 (64-bit)",
        "Microsoft Windows Server 2022 (64-bit)",
        "Red Hat Enterprise Linux 9 (64-bit)",
        "Ubuntu Linux (64-bit)",
    ];
    let pick = mix(spec.seed ^ 0x5EED ^ u64::try_from(number).unwrap_or_default());
    let size = usize::try_from(below(pick, 8)).unwrap_or_default();
    let vcpus = VCPUS.get(size).copied().unwrap_or(1);
    let memory_mb = GIB.get(size).copied().unwrap_or(1) * 1024;
    let stores = i64::try_from(spec.datastores.clamp(1, 8)).unwrap_or(1);
    let datastore = u32::try_from(below(pick >> 16, stores)).unwrap_or_default();
    let moref = match spec.kind {
        PlatformKind::Vcenter => format!("vm-{}", 10_001 + number),
        PlatformKind::Esxi => format!("{}", 1 + number),
    };
    let plain = spec.vm_name.replace("{n}", &format!("{:05}", number + 1));
    let name = match (template, number % 25) {
        (true, _) => format!("template-{:03}", number + 1),
        // Some names have characters that vSphere escapes.
        (_, 7) => format!("app%2f{plain}"),
        (_, 18) => format!("{plain} (100%25)"),
        _ => plain,
    };
    let record = EntityRecord {
        kind: EntityKind::Vm,
        moref,
        name,
        template,
        profile: Profile {
            mhz: 2400,
            memory_kib: i64::from(memory_mb) * 1024,
            nics: spec.nics_per_vm,
            disks: spec.disks_per_vm,
            adapters: 0,
            datastores: vec![datastore],
            tools: number % 8 != 3,
            block_storage: number % 10 != 6,
        },
        runs: Vec::new(),
        ring_resets: Vec::new(),
        unreachable: Vec::new(),
        late: Vec::new(),
        withheld: Vec::new(),
        created_at,
        removed_at: None,
    };
    let guest = usize::try_from(below(pick >> 32, 4)).unwrap_or_default();
    let details = VmDetails {
        host,
        cluster,
        power: if template {
            PowerState::PoweredOff
        } else {
            PowerState::PoweredOn
        },
        booted_at: grid::seconds(created_at),
        vcpus,
        memory_mb,
        uuid: uuid(spec.seed, 3, number),
        instance_uuid: uuid(spec.seed, 4, number),
        guest: GUESTS.get(guest).copied().unwrap_or_default(),
        guest_up: true,
        question: None,
        disabled: Vec::new(),
        snapshots: Vec::new(),
        snapshots_made: 0,
    };
    (record, details)
}
