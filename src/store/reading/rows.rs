//! What is shown of each kind of object.

use std::collections::BTreeMap;
use std::error::Error;

use tokio_postgres::types::{FromSql, Type, accepts};

use crate::store::reading::record::record;
use crate::units::Stamp;

/// Custom attributes of a VM, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Attributes(pub BTreeMap<String, String>);

impl<'a> FromSql<'a> for Attributes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        // The first byte of binary jsonb is its version.
        match raw.split_first() {
            Some((1, json)) => Ok(Self(serde_json::from_slice(json)?)),
            _ => Err("not a jsonb of version 1".into()),
        }
    }

    accepts!(JSONB);
}

record! {
    /// A platform: all that is known of it but its password.
    Platform: "read platforms",
    from "virt_platform AS platform",
    key id = "platform.platform_id",
    where "($3 IS NULL OR platform.name = $3)
        AND ($4 IS NULL OR strpos(lower(platform.name), lower($4)) > 0)
        AND (platform.removed_at IS NOT NULL) = $9";
    /// Key.
    id: i32 = "platform.platform_id",
    /// Name in configuration, logs and metrics; unique.
    name: String = "platform.name",
    /// What kind of server it is.
    r#type: String = "platform.type",
    /// Host name or address.
    host: String = "platform.host",
    /// TCP port.
    port: i32 = "platform.port",
    /// Account on the platform.
    user: Option<String> = "platform.user_name",
    /// Who keeps it: config.toml, where it is changed, or the registry, which commands and this API change.
    source: String = "platform.source",
    /// How it fares.
    status: String = "platform.status",
    /// Kind of error; null where there is none.
    class: Option<String> = "platform.status_class",
    /// What is wrong and what to do, in one line.
    reason: Option<String> = "platform.status_reason",
    /// Since when status and class are what they are.
    since: Stamp = "platform.status_since",
    /// A person paused it: nobody polls it, no session is open.
    maintenance: bool = "platform.in_maintenance",
    /// False: kept, but nobody connects to it.
    active: bool = "platform.is_active",
    /// Version of the server.
    version: Option<String> = "platform.version",
    /// Build of the server.
    build: Option<String> = "platform.build",
    /// What the server says it is.
    api_type: Option<String> = "platform.api_type",
    /// Identity of the server as of first contact; another one later is an error of class identity.
    identity: Option<String> = "platform.identity",
    /// Which certificate is trusted.
    trust: String = "CASE WHEN NOT platform.tls_verify THEN 'off' WHEN platform.tls_thumbprint IS NOT NULL THEN 'thumbprint' WHEN platform.tls_ca_pem IS NOT NULL THEN 'ca' WHEN platform.source = 'config' THEN 'config' ELSE 'system' END",
    /// SHA-256 of the one certificate that is trusted; null where authorities decide.
    thumbprint: Option<String> = "platform.tls_thumbprint",
    /// Names of the datacenters that it contributes; empty for all.
    datacenters: Vec<String> = "platform.datacenters",
    /// Patterns of inventory paths of which a host or VM must match one; empty for all.
    include: Vec<String> = "platform.include_paths",
    /// Patterns of inventory paths of which a host or VM must match none.
    exclude: Vec<String> = "platform.exclude_paths",
    /// Machine of the collector that has it; null where none has.
    collector: Option<String> = "(SELECT collector.host_name FROM virt_platform_lease AS lease JOIN virt_collector AS collector USING (owner) WHERE lease.platform_id = platform.platform_id AND lease.until > clock_timestamp())",
    /// Hosts that are there.
    hosts: i64 = "(SELECT count(*) FROM virt_host AS host WHERE host.platform_id = platform.platform_id AND host.removed_at IS NULL)",
    /// VMs that are there.
    vms: i64 = "(SELECT count(*) FROM virt_vm AS vm WHERE vm.platform_id = platform.platform_id AND vm.removed_at IS NULL)",
    /// A password is kept for it, here or in config.toml.
    has_password: bool = "platform.source = 'config' OR EXISTS (SELECT FROM virt_platform_credential AS credential WHERE credential.platform_id = platform.platform_id)",
    /// Grows with each change that collectors act on.
    revision: i64 = "platform.revision",
    /// When its inventory was last read and stored.
    synced_at: Option<Stamp> = "platform.synced_at",
    /// When a person last asked for a reading of its inventory.
    sync_asked_at: Option<Stamp> = "platform.sync_asked_at",
    /// When a collector last reported it as connected.
    last_success_at: Option<Stamp> = "platform.last_success_at",
    /// When it was first registered.
    created_at: Stamp = "platform.created_at",
    /// When it was removed; null while it is there.
    removed_at: Option<Stamp> = "platform.removed_at",
}

record! {
    /// An ESXi host.
    Host: "read hosts",
    from "virt_host AS host JOIN virt_platform AS platform USING (platform_id)
          LEFT JOIN virt_cluster AS cluster USING (cluster_id)
          LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = host.datacenter_id",
    key id = "host.host_id",
    where "($3 IS NULL OR host.name = $3) AND ($4 IS NULL OR strpos(lower(host.name), lower($4)) > 0)
        AND ($5 IS NULL OR host.power_state = $5) AND ($6 IS NULL OR host.cluster_id = $6)
        AND ($8 IS NULL OR host.host_id = ANY (
            (SELECT store.host_ids FROM virt_datastore AS store WHERE store.datastore_id = $8)::integer[]))
        AND (host.removed_at IS NOT NULL OR platform.removed_at IS NOT NULL) = $9";
    /// Key.
    id: i32 = "host.host_id",
    /// The platform that shows it.
    platform_id: i32 = "host.platform_id",
    /// Name of the platform.
    platform: String = "platform.name",
    /// Its managed object reference, unique within the platform.
    moref: String = "host.moref",
    /// Display name.
    name: Option<String> = "host.name",
    /// Power state; suspended is stand-by.
    power_state: String = "host.power_state",
    /// It is connected.
    connected: bool = "host.is_connected",
    /// Connection state, in the words of vSphere.
    connection_state: Option<String> = "host.connection_state",
    /// It is in maintenance mode.
    maintenance: bool = "host.in_maintenance",
    /// Overall status, in the words of vSphere.
    overall_status: Option<String> = "host.overall_status",
    /// Its cluster; null for a host on its own.
    cluster_id: Option<i32> = "host.cluster_id",
    /// Name of its cluster.
    cluster: Option<String> = "cluster.name",
    /// Name of its datacenter.
    datacenter: Option<String> = "datacenter.name",
    /// Address of the management interface.
    management_ip: Option<String> = "host.management_ip",
    /// UUID of the hardware.
    hardware_uuid: Option<String> = "host.hardware_uuid",
    /// Maker of the hardware.
    vendor: Option<String> = "host.vendor",
    /// Model of the hardware.
    model: Option<String> = "host.model",
    /// Model of the CPUs.
    cpu_model: Option<String> = "host.cpu_model",
    /// CPU packages.
    socket_count: Option<i32> = "host.socket_count",
    /// CPU cores.
    core_count: Option<i32> = "host.core_count",
    /// Hardware threads.
    thread_count: Option<i32> = "host.thread_count",
    /// Nominal clock of a core, in MHz.
    cpu_mhz: Option<i32> = "host.cpu_mhz",
    /// Installed memory, in MiB.
    memory_mib: Option<i64> = "host.memory_mib",
    /// Version of ESXi.
    version: Option<String> = "host.version",
    /// Build of ESXi.
    build: Option<String> = "host.build",
    /// When it was started.
    booted_at: Option<Stamp> = "host.booted_at",
    /// When it was first seen, in the clock of the platform.
    first_seen_at: Stamp = "host.first_seen_at",
    /// When it was found to be gone, or its platform was removed; null while it is there.
    removed_at: Option<Stamp> = "coalesce(host.removed_at, platform.removed_at)",
}

record! {
    /// A virtual machine or template.
    Vm: "read VMs",
    from "virt_vm AS vm JOIN virt_platform AS platform USING (platform_id)
          LEFT JOIN virt_host AS host ON host.host_id = vm.host_id
          LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id
          LEFT JOIN virt_resource_pool AS pool ON pool.resource_pool_id = vm.resource_pool_id
          LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = vm.datacenter_id",
    key id = "vm.vm_id",
    where "($3 IS NULL OR vm.name = $3) AND ($4 IS NULL OR strpos(lower(vm.name), lower($4)) > 0)
        AND ($5 IS NULL OR vm.power_state = $5) AND ($6 IS NULL OR host.cluster_id = $6)
        AND ($7 IS NULL OR vm.host_id = $7)
        AND ($8 IS NULL OR EXISTS (
            SELECT FROM virt_vm_disk AS disk JOIN virt_datastore AS store ON store.datastore_id = $8
            WHERE disk.vm_id = vm.vm_id AND disk.removed_at IS NULL AND store.platform_id = vm.platform_id
              AND store.datacenter_id IS NOT DISTINCT FROM vm.datacenter_id
              AND starts_with(disk.file, '[' || store.name || '] ')))
        AND (vm.removed_at IS NOT NULL OR platform.removed_at IS NOT NULL) = $9";
    /// Key.
    id: i32 = "vm.vm_id",
    /// The platform that shows it.
    platform_id: i32 = "vm.platform_id",
    /// Name of the platform.
    platform: String = "platform.name",
    /// Its managed object reference, unique within the platform.
    moref: String = "vm.moref",
    /// Display name; what destructive actions ask for as confirmation.
    name: Option<String> = "vm.name",
    /// Power state.
    power_state: String = "vm.power_state",
    /// It is connected.
    connected: bool = "vm.is_connected",
    /// Connection state, in the words of vSphere.
    connection_state: Option<String> = "vm.connection_state",
    /// A template never runs.
    template: bool = "vm.is_template",
    /// Overall status, in the words of vSphere.
    overall_status: Option<String> = "vm.overall_status",
    /// UUID within a vCenter, kept when the VM is registered again.
    instance_uuid: Option<String> = "vm.instance_uuid",
    /// UUID of its BIOS; may be shared by copies.
    bios_uuid: Option<String> = "vm.bios_uuid",
    /// The host that it is on.
    host_id: Option<i32> = "vm.host_id",
    /// Name of the host that it is on.
    host: Option<String> = "host.name",
    /// The cluster of that host.
    cluster_id: Option<i32> = "host.cluster_id",
    /// Name of that cluster.
    cluster: Option<String> = "cluster.name",
    /// Name of its resource pool; templates have none.
    resource_pool: Option<String> = "pool.name",
    /// Name of its datacenter.
    datacenter: Option<String> = "datacenter.name",
    /// Folders above it.
    folder_path: Option<String> = "vm.folder_path",
    /// Virtual CPUs.
    vcpu_count: Option<i32> = "vm.vcpu_count",
    /// Configured memory, in MiB.
    memory_mib: Option<i64> = "vm.memory_mib",
    /// Configured guest OS, as an id.
    guest_id: Option<String> = "vm.guest_id",
    /// Configured guest OS.
    guest_os: Option<String> = "vm.guest_os",
    /// Guest OS that VMware Tools report.
    guest_os_reported: Option<String> = "vm.guest_os_reported",
    /// Name that the guest gives itself.
    guest_host_name: Option<String> = "vm.guest_host_name",
    /// First address of the guest.
    ip_address: Option<String> = "vm.ip_address",
    /// Whether VMware Tools run, in the words of vSphere.
    tools_running: Option<String> = "vm.tools_running",
    /// State of the version of VMware Tools, in the words of vSphere.
    tools_version: Option<String> = "vm.tools_version",
    /// Its disks need consolidation.
    consolidation_needed: Option<bool> = "vm.consolidation_needed",
    /// Storage in use, in bytes.
    committed_bytes: Option<i64> = "vm.committed_bytes",
    /// Storage that it may come to use, in bytes.
    uncommitted_bytes: Option<i64> = "vm.uncommitted_bytes",
    /// Notes.
    annotation: Option<String> = "vm.annotation",
    /// Those of its custom attributes that the configuration allows.
    custom_attributes: Option<Attributes> = "vm.custom_attributes",
    /// When it was powered on; null while it is off.
    booted_at: Option<Stamp> = "vm.booted_at",
    /// When it was first seen, in the clock of the platform.
    first_seen_at: Stamp = "vm.first_seen_at",
    /// When it was found to be gone, or its platform was removed; null while it is there.
    removed_at: Option<Stamp> = "coalesce(vm.removed_at, platform.removed_at)",
}

record! {
    /// A datastore. Its sizes stay as they were last while it is not accessible.
    Datastore: "read datastores",
    from "virt_datastore AS store JOIN virt_platform AS platform USING (platform_id)
          LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = store.datacenter_id",
    key id = "store.datastore_id",
    where "($3 IS NULL OR store.name = $3) AND ($4 IS NULL OR strpos(lower(store.name), lower($4)) > 0)
        AND ($6 IS NULL OR store.host_ids && ARRAY(SELECT host.host_id FROM virt_host AS host WHERE host.cluster_id = $6))
        AND ($7 IS NULL OR $7 = ANY (store.host_ids))
        AND (store.removed_at IS NOT NULL OR platform.removed_at IS NOT NULL) = $9";
    /// Key.
    id: i32 = "store.datastore_id",
    /// The platform that shows it.
    platform_id: i32 = "store.platform_id",
    /// Name of the platform.
    platform: String = "platform.name",
    /// Its managed object reference, unique within the platform.
    moref: String = "store.moref",
    /// Display name.
    name: Option<String> = "store.name",
    /// Kind of file system, such as VMFS, NFS or vsan.
    r#type: Option<String> = "store.type",
    /// Where it is; the last part is its name in samples.
    url: Option<String> = "store.url",
    /// Overall status, in the words of vSphere.
    overall_status: Option<String> = "store.overall_status",
    /// Name of its datacenter.
    datacenter: Option<String> = "datacenter.name",
    /// It can be reached.
    accessible: Option<bool> = "store.is_accessible",
    /// Maintenance mode, in the words of vSphere.
    maintenance_mode: Option<String> = "store.maintenance_mode",
    /// Size, in bytes.
    capacity_bytes: Option<i64> = "store.capacity_bytes",
    /// Free, in bytes.
    free_bytes: Option<i64> = "store.free_bytes",
    /// What thin disks may come to use beyond what they use, in bytes.
    uncommitted_bytes: Option<i64> = "store.uncommitted_bytes",
    /// In use, in bytes.
    used_bytes: Option<i64> = "store.used_bytes",
    /// In use, in percent.
    usage_percent: Option<f32> = "store.usage_percent",
    /// Hosts that mount it.
    host_ids: Option<Vec<i32>> = "store.host_ids",
    /// When it was first seen, in the clock of the platform.
    first_seen_at: Stamp = "store.first_seen_at",
    /// When it was found to be gone, or its platform was removed; null while it is there.
    removed_at: Option<Stamp> = "coalesce(store.removed_at, platform.removed_at)",
}

record! {
    /// A cluster.
    Cluster: "read clusters",
    from "virt_cluster AS cluster JOIN virt_platform AS platform USING (platform_id)
          LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = cluster.datacenter_id",
    key id = "cluster.cluster_id",
    where "($3 IS NULL OR cluster.name = $3) AND ($4 IS NULL OR strpos(lower(cluster.name), lower($4)) > 0)
        AND (cluster.removed_at IS NOT NULL OR platform.removed_at IS NOT NULL) = $9";
    /// Key.
    id: i32 = "cluster.cluster_id",
    /// The platform that shows it.
    platform_id: i32 = "cluster.platform_id",
    /// Name of the platform.
    platform: String = "platform.name",
    /// Its managed object reference, unique within the platform.
    moref: String = "cluster.moref",
    /// Display name.
    name: Option<String> = "cluster.name",
    /// Overall status, in the words of vSphere.
    overall_status: Option<String> = "cluster.overall_status",
    /// Name of its datacenter.
    datacenter: Option<String> = "datacenter.name",
    /// CPU of all hosts, in MHz.
    total_cpu_mhz: Option<i32> = "cluster.total_cpu_mhz",
    /// CPU that VMs can have, in MHz.
    effective_cpu_mhz: Option<i32> = "cluster.effective_cpu_mhz",
    /// Memory of all hosts, in MiB.
    total_memory_mib: Option<i64> = "cluster.total_memory_mib",
    /// Memory that VMs can have, in MiB.
    effective_memory_mib: Option<i64> = "cluster.effective_memory_mib",
    /// Hosts.
    host_count: Option<i32> = "cluster.host_count",
    /// Hosts that VMs can run on.
    effective_host_count: Option<i32> = "cluster.effective_host_count",
    /// Distributed Resource Scheduler is on.
    drs_enabled: Option<bool> = "cluster.drs_enabled",
    /// High Availability is on.
    ha_enabled: Option<bool> = "cluster.ha_enabled",
    /// When it was first seen, in the clock of the platform.
    first_seen_at: Stamp = "cluster.first_seen_at",
    /// When it was found to be gone, or its platform was removed; null while it is there.
    removed_at: Option<Stamp> = "coalesce(cluster.removed_at, platform.removed_at)",
}

record! {
    /// A virtual disk of a VM.
    Disk: "read the disks of a VM",
    from "virt_vm_disk",
    key key = "disk_key",
    where "removed_at IS NULL";
    /// Key of the device, unique within the VM.
    key: i32 = "disk_key",
    /// Label.
    label: Option<String> = "label",
    /// Size, in bytes.
    capacity_bytes: Option<i64> = "capacity_bytes",
    /// Its file, datastore first.
    file: Option<String> = "file",
    /// Thin provisioned; null where the format has no such thing.
    thin: Option<bool> = "is_thin",
}

record! {
    /// A virtual network adapter of a VM.
    Nic: "read the network adapters of a VM",
    from "virt_vm_nic",
    key key = "nic_key",
    where "removed_at IS NULL";
    /// Key of the device, unique within the VM.
    key: i32 = "nic_key",
    /// Label.
    label: Option<String> = "label",
    /// Type of the adapter.
    r#type: Option<String> = "type",
    /// MAC address.
    mac: Option<String> = "mac",
    /// Name of the network or port group.
    network: Option<String> = "network",
    /// It is connected.
    connected: Option<bool> = "is_connected",
    /// Addresses that VMware Tools report.
    ip_addresses: Option<Vec<String>> = "ip_addresses",
}
