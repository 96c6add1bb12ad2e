//! Which property stands in which column.
//!
//! Owns: the columns of every table of the inventory. States, relations and what the guest reports go when the
//! server has nothing; identities, hardware and sizes stay: the server has no word of them while an object is out
//! of reach.

use std::borrow::Cow;
use std::collections::HashMap;

use super::rows::{Column, Derived, Reading, Values};
use super::{Placed, clean};
use crate::model::ids::{MoRef, VmId};
use crate::model::inventory::{
    Cluster, Datacenter, Datastore, Disk, Host, Inventory, Nic, ResourcePool, Snapshot, Vm,
};
use crate::units::Stamp;

/// Tables of objects that have a reference within their platform.
pub(in crate::store) const OBJECTS: [&str; 6] = [
    "virt_vm",
    "virt_host",
    "virt_datastore",
    "virt_resource_pool",
    "virt_cluster",
    "virt_datacenter",
];

/// Tables of what belongs to a VM.
pub(in crate::store) const PARTS: [&str; 3] = ["virt_vm_disk", "virt_vm_nic", "virt_vm_snapshot"];

type Keys = HashMap<MoRef, i32>;

/// The references in a reading, by table.
pub(super) fn present(inventory: &Inventory) -> [(&'static str, Vec<&str>); 6] {
    let [vm, host, datastore, pool, cluster, datacenter] = OBJECTS;
    [
        (vm, inventory.vms.iter().map(|one| one.moref.as_str()).collect()),
        (
            host,
            inventory.hosts.iter().map(|one| one.moref.as_str()).collect(),
        ),
        (
            datastore,
            inventory
                .datastores
                .iter()
                .map(|one| one.moref.as_str())
                .collect(),
        ),
        (
            pool,
            inventory.pools.iter().map(|one| one.moref.as_str()).collect(),
        ),
        (
            cluster,
            inventory.clusters.iter().map(|one| one.moref.as_str()).collect(),
        ),
        (
            datacenter,
            inventory
                .datacenters
                .iter()
                .map(|one| one.moref.as_str())
                .collect(),
        ),
    ]
}

fn texts<'a, T: 'a>(
    all: impl IntoIterator<Item = &'a T>,
    get: impl Fn(&'a T) -> Option<&'a str>,
) -> Values<'a> {
    Values::Text(all.into_iter().map(|one| clean(get(one))).collect())
}

fn ints<'a, T: 'a>(all: impl IntoIterator<Item = &'a T>, get: impl Fn(&'a T) -> Option<i32>) -> Values<'a> {
    Values::Int(all.into_iter().map(get).collect())
}

fn longs<'a, T: 'a>(all: impl IntoIterator<Item = &'a T>, get: impl Fn(&'a T) -> Option<i64>) -> Values<'a> {
    Values::Long(all.into_iter().map(get).collect())
}

fn flags<'a, T: 'a>(all: impl IntoIterator<Item = &'a T>, get: impl Fn(&'a T) -> Option<bool>) -> Values<'a> {
    Values::Flag(all.into_iter().map(get).collect())
}

fn times<'a, T: 'a>(
    all: impl IntoIterator<Item = &'a T>,
    get: impl Fn(&'a T) -> Option<Stamp>,
) -> Values<'a> {
    Values::Time(all.into_iter().map(get).collect())
}

fn key_of(keys: &Keys, moref: Option<&MoRef>) -> Option<i32> {
    keys.get(moref?).copied()
}

const fn reading<'a>(table: &'static str, columns: Vec<Column<'a>>) -> Reading<'a> {
    Reading {
        table,
        columns,
        derived: None,
        of_platform: true,
    }
}

pub(super) fn datacenters(all: &[Datacenter]) -> Reading<'_> {
    reading(
        "virt_datacenter",
        vec![
            Column::key("moref", texts(all, |one| Some(one.moref.as_str()))),
            Column::kept("name", texts(all, |one| one.name.as_deref())),
        ],
    )
}

pub(super) fn clusters<'a>(all: &'a [Cluster], datacenters: &Keys) -> Reading<'a> {
    reading(
        "virt_cluster",
        vec![
            Column::key("moref", texts(all, |one| Some(one.moref.as_str()))),
            Column::kept("name", texts(all, |one| one.name.as_deref())),
            Column::new("overall_status", texts(all, |one| one.status.as_deref())),
            Column::new(
                "datacenter_id",
                ints(all, |one| key_of(datacenters, one.datacenter.as_ref())),
            ),
            Column::kept("total_cpu_mhz", ints(all, |one| one.total_cpu_mhz)),
            Column::kept("effective_cpu_mhz", ints(all, |one| one.effective_cpu_mhz)),
            Column::kept("total_memory_mib", longs(all, |one| one.total_memory_mib)),
            Column::kept("effective_memory_mib", longs(all, |one| one.effective_memory_mib)),
            Column::kept("host_count", ints(all, |one| one.hosts)),
            Column::kept("effective_host_count", ints(all, |one| one.effective_hosts)),
            Column::kept("drs_enabled", flags(all, |one| one.drs)),
            Column::kept("ha_enabled", flags(all, |one| one.ha)),
        ],
    )
}

pub(super) fn pools<'a>(all: &'a [ResourcePool], clusters: &Keys, pools: &Keys) -> Reading<'a> {
    reading(
        "virt_resource_pool",
        vec![
            Column::key("moref", texts(all, |one| Some(one.moref.as_str()))),
            Column::kept("name", texts(all, |one| one.name.as_deref())),
            Column::new(
                "cluster_id",
                ints(all, |one| key_of(clusters, one.cluster.as_ref())),
            ),
            Column::new("parent_id", ints(all, |one| key_of(pools, one.parent.as_ref()))),
        ],
    )
}

pub(super) fn datastores<'a>(all: &'a [Datastore], datacenters: &Keys, hosts: &Keys) -> Reading<'a> {
    let mounted = |one: &Datastore| {
        let mut keys: Vec<i32> = one
            .hosts
            .iter()
            .filter_map(|host| hosts.get(host).copied())
            .collect();
        keys.sort_unstable();
        let keys: Vec<String> = keys.iter().map(i32::to_string).collect();
        Some(Cow::Owned(format!("{{{}}}", keys.join(","))))
    };
    reading(
        "virt_datastore",
        vec![
            Column::key("moref", texts(all, |one| Some(one.moref.as_str()))),
            Column::kept("name", texts(all, |one| one.name.as_deref())),
            Column::kept("type", texts(all, |one| one.kind.as_deref())),
            Column::kept("url", texts(all, |one| one.url.as_deref())),
            Column::new("overall_status", texts(all, |one| one.status.as_deref())),
            Column::new(
                "datacenter_id",
                ints(all, |one| key_of(datacenters, one.datacenter.as_ref())),
            ),
            Column::kept("capacity_bytes", longs(all, |one| one.capacity_bytes)),
            Column::kept("free_bytes", longs(all, |one| one.free_bytes)),
            Column::kept("uncommitted_bytes", longs(all, |one| one.uncommitted_bytes)),
            Column::new("is_accessible", flags(all, |one| one.accessible)),
            Column::new("maintenance_mode", texts(all, |one| one.maintenance.as_deref())),
            Column::new("host_ids", Values::Text(all.iter().map(mounted).collect())).cast("::integer[]"),
        ],
    )
}

pub(super) fn hosts<'a>(all: &[&'a Host], clusters: &Keys, datacenters: &Keys) -> Reading<'a> {
    let all = || all.iter().copied();
    reading(
        "virt_host",
        vec![
            Column::key("moref", texts(all(), |one| Some(one.moref.as_str()))),
            Column::kept("name", texts(all(), |one| one.name.as_deref())),
            Column::kept("hardware_uuid", texts(all(), |one| one.uuid.as_deref())),
            Column::new("power_state", texts(all(), |one| Some(one.power.as_str()))),
            Column::new("is_connected", flags(all(), |one| Some(one.connected))),
            Column::new("in_maintenance", flags(all(), |one| Some(one.maintenance))),
            Column::kept("thread_count", ints(all(), |one| one.threads.map(i32::from))),
            Column::new(
                "overall_status",
                texts(all(), |one| one.details.status.as_deref()),
            ),
            Column::new(
                "connection_state",
                texts(all(), |one| one.details.connection.as_deref()),
            ),
            Column::kept(
                "management_ip",
                texts(all(), |one| one.details.management_ip.as_deref()),
            ),
            Column::kept("vendor", texts(all(), |one| one.details.vendor.as_deref())),
            Column::kept("model", texts(all(), |one| one.details.model.as_deref())),
            Column::kept("cpu_model", texts(all(), |one| one.details.cpu_model.as_deref())),
            Column::kept("socket_count", ints(all(), |one| one.details.sockets)),
            Column::kept("core_count", ints(all(), |one| one.details.cores)),
            Column::kept("cpu_mhz", ints(all(), |one| one.details.cpu_mhz)),
            Column::kept("memory_mib", longs(all(), |one| one.details.memory_mib)),
            Column::kept("version", texts(all(), |one| one.details.version.as_deref())),
            Column::kept("build", texts(all(), |one| one.details.build.as_deref())),
            Column::kept("booted_at", times(all(), |one| one.details.booted_at)),
            Column::new(
                "cluster_id",
                ints(all(), |one| key_of(clusters, one.details.cluster.as_ref())),
            ),
            Column::new(
                "datacenter_id",
                ints(all(), |one| key_of(datacenters, one.details.datacenter.as_ref())),
            ),
        ],
    )
}

/// A VM that was gone may have run elsewhere meanwhile, so its placement starts anew.
const HOST_SINCE: Derived = Derived {
    name: "host_since",
    on_update: "CASE WHEN seen.host_id IS NULL THEN NULL \
                WHEN seen.host_id = stored.host_id AND stored.removed_at IS NULL THEN stored.host_since \
                ELSE $2 END",
    on_insert: "CASE WHEN seen.host_id IS NOT NULL THEN $2 END",
};

pub(super) fn vms<'a>(all: &[&'a Vm], hosts: &Keys, datacenters: &Keys, pools: &Keys) -> Reading<'a> {
    let all = || all.iter().copied();
    let columns = vec![
        Column::key("moref", texts(all(), |one| Some(one.moref.as_str()))),
        Column::kept("name", texts(all(), |one| one.name.as_deref())),
        Column::kept("instance_uuid", texts(all(), |one| one.instance_uuid.as_deref())),
        Column::kept("bios_uuid", texts(all(), |one| one.bios_uuid.as_deref())),
        Column::new("power_state", texts(all(), |one| Some(one.power.as_str()))),
        Column::new("is_connected", flags(all(), |one| Some(one.connected))),
        Column::new("host_id", ints(all(), |one| key_of(hosts, one.host.as_ref()))),
        Column::kept("vcpu_count", ints(all(), |one| one.vcpus.map(i32::from))),
        Column::kept("memory_mib", longs(all(), |one| one.memory_mib)),
        Column::new("is_template", flags(all(), |one| Some(one.template))),
        Column::new(
            "overall_status",
            texts(all(), |one| one.details.status.as_deref()),
        ),
        Column::new(
            "connection_state",
            texts(all(), |one| one.details.connection.as_deref()),
        ),
        Column::kept("guest_id", texts(all(), |one| one.details.guest_id.as_deref())),
        Column::kept("guest_os", texts(all(), |one| one.details.guest_os.as_deref())),
        Column::new(
            "guest_os_reported",
            texts(all(), |one| one.details.guest_os_reported.as_deref()),
        ),
        Column::new(
            "guest_host_name",
            texts(all(), |one| one.details.guest_host_name.as_deref()),
        ),
        Column::new(
            "ip_address",
            texts(all(), |one| one.details.ip_address.as_deref()),
        ),
        Column::new(
            "tools_running",
            texts(all(), |one| one.details.tools_running.as_deref()),
        ),
        Column::new(
            "tools_version",
            texts(all(), |one| one.details.tools_version.as_deref()),
        ),
        Column::new("booted_at", times(all(), |one| one.details.booted_at)),
        Column::new(
            "resource_pool_id",
            ints(all(), |one| key_of(pools, one.details.pool.as_ref())),
        ),
        Column::new(
            "datacenter_id",
            ints(all(), |one| key_of(datacenters, one.details.datacenter.as_ref())),
        ),
        Column::new("folder_path", texts(all(), |one| one.details.folder.as_deref())),
        Column::new(
            "consolidation_needed",
            flags(all(), |one| one.details.consolidation_needed),
        ),
        Column::kept("committed_bytes", longs(all(), |one| one.details.committed_bytes)),
        Column::kept(
            "uncommitted_bytes",
            longs(all(), |one| one.details.uncommitted_bytes),
        ),
        Column::kept(
            "annotation",
            texts(all(), |one| one.details.annotation.as_deref()),
        ),
        Column::new("custom_attributes", attributes(all())).cast("::jsonb"),
    ];
    Reading {
        derived: Some(HOST_SINCE),
        ..reading("virt_vm", columns)
    }
}

/// As JSON; NULL for none.
fn attributes<'a>(vms: impl Iterator<Item = &'a Vm>) -> Values<'a> {
    let json = |vm: &Vm| {
        let all = vm.details.attributes.iter();
        let all = all.map(|(name, value)| (name.replace('\0', ""), value.replace('\0', "").into()));
        let all: serde_json::Map<_, _> = all.collect();
        (!all.is_empty()).then(|| Cow::Owned(serde_json::Value::Object(all).to_string()))
    };
    Values::Text(vms.map(json).collect())
}

/// A reading of one table of parts.
pub(super) struct Parts<'a> {
    pub(super) reading: Reading<'a>,
    /// The VMs that it is complete for.
    pub(super) owners: Vec<i32>,
    /// The parts that there are: VM and key.
    pub(super) present: (Vec<i32>, Values<'a>),
    /// Notes the others of those VMs as gone.
    pub(super) remove: &'static str,
}

const REMOVE_DISKS: &str = "\
UPDATE virt_vm_disk AS stored SET removed_at = $2
WHERE vm_id = ANY($3) AND removed_at IS NULL AND NOT EXISTS (
    SELECT FROM unnest($4, $5) AS seen (vm_id, disk_key)
    WHERE seen.vm_id = stored.vm_id AND seen.disk_key = stored.disk_key)";

const REMOVE_NICS: &str = "\
UPDATE virt_vm_nic AS stored SET removed_at = $2
WHERE vm_id = ANY($3) AND removed_at IS NULL AND NOT EXISTS (
    SELECT FROM unnest($4, $5) AS seen (vm_id, nic_key)
    WHERE seen.vm_id = stored.vm_id AND seen.nic_key = stored.nic_key)";

const REMOVE_SNAPSHOTS: &str = "\
UPDATE virt_vm_snapshot AS stored SET removed_at = $2
WHERE vm_id = ANY($3) AND removed_at IS NULL AND NOT EXISTS (
    SELECT FROM unnest($4, $5) AS seen (vm_id, moref)
    WHERE seen.vm_id = stored.vm_id AND seen.moref = stored.moref)";

/// Disks, adapters and snapshots of VMs that have keys.
pub(super) fn parts<'a>(vms: &[&'a Vm], placed: &HashMap<MoRef, Placed>) -> [Parts<'a>; 3] {
    let known: Vec<(VmId, &'a Vm)> = vms
        .iter()
        .filter_map(|vm| Some((placed.get(&vm.moref)?.0, *vm)))
        .collect();
    let (owners, all) = flat(&known, |vm| vm.details.disks.as_deref());
    let disks = Parts {
        reading: disks(&all),
        owners,
        present: (owners_of(&all), Values::Int(column(&all, |one| Some(one.key)))),
        remove: REMOVE_DISKS,
    };
    let (owners, all) = flat(&known, |vm| vm.details.nics.as_deref());
    let nics = Parts {
        reading: nics(&all),
        owners,
        present: (owners_of(&all), Values::Int(column(&all, |one| Some(one.key)))),
        remove: REMOVE_NICS,
    };
    let (owners, all) = flat(&known, |vm| vm.details.snapshots.as_deref());
    let morefs = all.iter().map(|(_, one)| Some(Cow::Borrowed(one.moref.as_str())));
    let snapshots = Parts {
        reading: snapshots(&all),
        owners,
        present: (owners_of(&all), Values::Text(morefs.collect())),
        remove: REMOVE_SNAPSHOTS,
    };
    [disks, nics, snapshots]
}

type Owned<'a, T> = Vec<(VmId, &'a T)>;

/// The VMs that tell of their parts, and the parts.
fn flat<'a, T>(
    vms: &[(VmId, &'a Vm)],
    parts: impl Fn(&'a Vm) -> Option<&'a [T]>,
) -> (Vec<i32>, Owned<'a, T>) {
    let (mut owners, mut all) = (Vec::new(), Vec::new());
    for (id, vm) in vms {
        if let Some(parts) = parts(vm) {
            owners.push(id.0);
            all.extend(parts.iter().map(|part| (*id, part)));
        }
    }
    (owners, all)
}

fn owners_of<T>(all: &Owned<'_, T>) -> Vec<i32> {
    all.iter().map(|(id, _)| id.0).collect()
}

fn part<'a>(table: &'static str, columns: Vec<Column<'a>>) -> Reading<'a> {
    Reading {
        of_platform: false,
        ..reading(table, columns)
    }
}

fn owner<T>(all: &Owned<'_, T>) -> Column<'static> {
    Column::key(
        "vm_id",
        Values::Int(all.iter().map(|(id, _)| Some(id.0)).collect()),
    )
}

fn column<'a, T, V>(all: &Owned<'a, T>, get: impl Fn(&'a T) -> Option<V>) -> Vec<Option<V>> {
    all.iter().map(|(_, one)| get(one)).collect()
}

fn text_column<'a, T>(all: &Owned<'a, T>, get: impl Fn(&'a T) -> Option<&'a str>) -> Values<'a> {
    Values::Text(column(all, |one| clean(get(one))))
}

fn disks<'a>(all: &Owned<'a, Disk>) -> Reading<'a> {
    part(
        "virt_vm_disk",
        vec![
            owner(all),
            Column::key("disk_key", Values::Int(column(all, |one| Some(one.key)))),
            Column::new("label", text_column(all, |one| one.label.as_deref())),
            Column::new(
                "capacity_bytes",
                Values::Long(column(all, |one| one.capacity_bytes)),
            ),
            Column::new("file", text_column(all, |one| one.file.as_deref())),
            Column::new("is_thin", Values::Flag(column(all, |one| one.thin))),
        ],
    )
}

fn nics<'a>(all: &Owned<'a, Nic>) -> Reading<'a> {
    part(
        "virt_vm_nic",
        vec![
            owner(all),
            Column::key("nic_key", Values::Int(column(all, |one| Some(one.key)))),
            Column::new("label", text_column(all, |one| one.label.as_deref())),
            Column::new("type", text_column(all, |one| Some(one.kind.as_str()))),
            Column::new("mac", text_column(all, |one| one.mac.as_deref())),
            Column::new("network", text_column(all, |one| one.network.as_deref())),
            Column::new("is_connected", Values::Flag(column(all, |one| one.connected))),
            Column::new(
                "ip_addresses",
                Values::Text(column(all, |one| Some(Cow::Owned(array(&one.addresses))))),
            )
            .cast("::text[]"),
        ],
    )
}

fn snapshots<'a>(all: &Owned<'a, Snapshot>) -> Reading<'a> {
    part(
        "virt_vm_snapshot",
        vec![
            owner(all),
            Column::key("moref", text_column(all, |one| Some(one.moref.as_str()))),
            Column::new(
                "parent_moref",
                text_column(all, |one| one.parent.as_ref().map(MoRef::as_str)),
            ),
            Column::new("name", text_column(all, |one| one.name.as_deref())),
            Column::new("description", text_column(all, |one| one.description.as_deref())),
            Column::new("created_at", Values::Time(column(all, |one| one.created_at))),
            Column::new("power_state", text_column(all, |one| Some(one.power.as_str()))),
            Column::new("is_quiesced", Values::Flag(column(all, |one| one.quiesced))),
            Column::new("is_current", Values::Flag(column(all, |one| Some(one.current)))),
        ],
    )
}

/// An array of texts as PostgreSQL reads one.
fn array(texts: &[String]) -> String {
    let quoted: Vec<String> = texts
        .iter()
        .map(|text| {
            let text = text.replace('\0', "").replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{text}\"")
        })
        .collect();
    format!("{{{}}}", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_guest_calls_itself_is_one_element_of_an_array() {
        let odd = [
            "a\"b".to_owned(),
            "c\\".to_owned(),
            "},{".to_owned(),
            String::new(),
        ];
        assert_eq!(array(&odd), r#"{"a\"b","c\\","},{",""}"#);
    }
}
