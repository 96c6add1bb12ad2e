-- The whole inventory: datacenters, clusters, resource pools, datastores; what is known of hosts and VMs; disks,
-- network adapters and snapshots; where VMs ran when; capacity of datastores over time.
--
-- Objects that vanish keep their row, with removed_at. Times of being seen and removed are in the clock of the
-- platform, as in virt_host and virt_vm.

CREATE TABLE virt_datacenter (
    datacenter_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    moref text NOT NULL,
    name text,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    UNIQUE (platform_id, moref)
);
COMMENT ON TABLE virt_datacenter IS 'Datacenters.';
COMMENT ON COLUMN virt_datacenter.datacenter_id IS 'Key.';
COMMENT ON COLUMN virt_datacenter.platform_id IS 'The platform that shows it.';
COMMENT ON COLUMN virt_datacenter.moref IS 'Its managed object reference, unique within the platform.';
COMMENT ON COLUMN virt_datacenter.name IS 'Display name.';
COMMENT ON COLUMN virt_datacenter.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_datacenter.removed_at IS 'When it was found to be gone; NULL while it is there.';

CREATE TABLE virt_cluster (
    cluster_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    moref text NOT NULL,
    name text,
    overall_status text,
    datacenter_id integer REFERENCES virt_datacenter,
    total_cpu_mhz integer,
    effective_cpu_mhz integer,
    total_memory_mib bigint,
    effective_memory_mib bigint,
    host_count integer,
    effective_host_count integer,
    drs_enabled boolean,
    ha_enabled boolean,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    UNIQUE (platform_id, moref)
);
COMMENT ON TABLE virt_cluster IS 'Clusters.';
COMMENT ON COLUMN virt_cluster.cluster_id IS 'Key.';
COMMENT ON COLUMN virt_cluster.platform_id IS 'The platform that shows it.';
COMMENT ON COLUMN virt_cluster.moref IS 'Its managed object reference, unique within the platform.';
COMMENT ON COLUMN virt_cluster.name IS 'Display name.';
COMMENT ON COLUMN virt_cluster.overall_status IS 'overallStatus: green, yellow, red or gray.';
COMMENT ON COLUMN virt_cluster.datacenter_id IS 'Its datacenter.';
COMMENT ON COLUMN virt_cluster.total_cpu_mhz IS 'CPU of all hosts, in MHz.';
COMMENT ON COLUMN virt_cluster.effective_cpu_mhz IS 'CPU that VMs can have, in MHz: without hosts in maintenance or out of reach, and without what ESXi needs.';
COMMENT ON COLUMN virt_cluster.total_memory_mib IS 'Memory of all hosts, in MiB.';
COMMENT ON COLUMN virt_cluster.effective_memory_mib IS 'Memory that VMs can have, in MiB.';
COMMENT ON COLUMN virt_cluster.host_count IS 'Hosts.';
COMMENT ON COLUMN virt_cluster.effective_host_count IS 'Hosts that VMs can run on.';
COMMENT ON COLUMN virt_cluster.drs_enabled IS 'Distributed Resource Scheduler is on.';
COMMENT ON COLUMN virt_cluster.ha_enabled IS 'High Availability is on.';
COMMENT ON COLUMN virt_cluster.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_cluster.removed_at IS 'When it was found to be gone; NULL while it is there.';

CREATE TABLE virt_resource_pool (
    resource_pool_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    moref text NOT NULL,
    name text,
    cluster_id integer REFERENCES virt_cluster,
    parent_id integer REFERENCES virt_resource_pool,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    UNIQUE (platform_id, moref)
);
COMMENT ON TABLE virt_resource_pool IS 'Resource pools and vApps. Each cluster has a root pool named Resources.';
COMMENT ON COLUMN virt_resource_pool.resource_pool_id IS 'Key.';
COMMENT ON COLUMN virt_resource_pool.platform_id IS 'The platform that shows it.';
COMMENT ON COLUMN virt_resource_pool.moref IS 'Its managed object reference, unique within the platform.';
COMMENT ON COLUMN virt_resource_pool.name IS 'Display name.';
COMMENT ON COLUMN virt_resource_pool.cluster_id IS 'Its cluster; NULL below a host on its own.';
COMMENT ON COLUMN virt_resource_pool.parent_id IS 'The pool above it; NULL for a root pool.';
COMMENT ON COLUMN virt_resource_pool.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_resource_pool.removed_at IS 'When it was found to be gone; NULL while it is there.';

CREATE TABLE virt_datastore (
    datastore_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    moref text NOT NULL,
    name text,
    type text,
    url text,
    overall_status text,
    datacenter_id integer REFERENCES virt_datacenter,
    capacity_bytes bigint,
    free_bytes bigint,
    uncommitted_bytes bigint,
    used_bytes bigint GENERATED ALWAYS AS (capacity_bytes - free_bytes) STORED,
    used_gb double precision GENERATED ALWAYS AS ((capacity_bytes - free_bytes) / 1073741824.0::double precision) STORED,
    usage_percent real GENERATED ALWAYS AS (((capacity_bytes - free_bytes) * 100.0 / nullif(capacity_bytes, 0))::real) STORED,
    is_accessible boolean,
    maintenance_mode text,
    host_ids integer[],
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    UNIQUE (platform_id, moref)
);
COMMENT ON TABLE virt_datastore IS 'Datastores. The sizes are valid while the datastore is accessible, and stay as they were last while it is not.';
COMMENT ON COLUMN virt_datastore.datastore_id IS 'Key.';
COMMENT ON COLUMN virt_datastore.platform_id IS 'The platform that shows it.';
COMMENT ON COLUMN virt_datastore.moref IS 'Its managed object reference, unique within the platform.';
COMMENT ON COLUMN virt_datastore.name IS 'Display name.';
COMMENT ON COLUMN virt_datastore.type IS 'summary.type: VMFS, NFS, NFS41, vsan, VVOL, ...';
COMMENT ON COLUMN virt_datastore.url IS 'summary.url; its last part is the name of the datastore in samples.';
COMMENT ON COLUMN virt_datastore.overall_status IS 'overallStatus: green, yellow, red or gray.';
COMMENT ON COLUMN virt_datastore.datacenter_id IS 'Its datacenter.';
COMMENT ON COLUMN virt_datastore.capacity_bytes IS 'Size, in bytes.';
COMMENT ON COLUMN virt_datastore.free_bytes IS 'Free, in bytes.';
COMMENT ON COLUMN virt_datastore.uncommitted_bytes IS 'What thin disks may come to use beyond what they use, in bytes.';
COMMENT ON COLUMN virt_datastore.used_bytes IS 'In use, in bytes.';
COMMENT ON COLUMN virt_datastore.used_gb IS 'In use, in GiB (1,073,741,824 bytes).';
COMMENT ON COLUMN virt_datastore.usage_percent IS 'In use, in percent.';
COMMENT ON COLUMN virt_datastore.is_accessible IS 'It can be reached.';
COMMENT ON COLUMN virt_datastore.maintenance_mode IS 'summary.maintenanceMode: normal, enteringMaintenance or inMaintenance.';
COMMENT ON COLUMN virt_datastore.host_ids IS 'Hosts that mount it: keys of virt_host.';
COMMENT ON COLUMN virt_datastore.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_datastore.removed_at IS 'When it was found to be gone; NULL while it is there.';

ALTER TABLE virt_host
    ADD COLUMN overall_status text,
    ADD COLUMN connection_state text,
    ADD COLUMN management_ip text,
    ADD COLUMN vendor text,
    ADD COLUMN model text,
    ADD COLUMN cpu_model text,
    ADD COLUMN socket_count integer,
    ADD COLUMN core_count integer,
    ADD COLUMN cpu_mhz integer,
    ADD COLUMN memory_mib bigint,
    ADD COLUMN version text,
    ADD COLUMN build text,
    ADD COLUMN booted_at timestamptz,
    ADD COLUMN cluster_id integer REFERENCES virt_cluster,
    ADD COLUMN datacenter_id integer REFERENCES virt_datacenter;
COMMENT ON COLUMN virt_host.overall_status IS 'overallStatus: green, yellow, red or gray.';
COMMENT ON COLUMN virt_host.connection_state IS 'runtime.connectionState.';
COMMENT ON COLUMN virt_host.management_ip IS 'Address of the interface that is selected for management.';
COMMENT ON COLUMN virt_host.vendor IS 'Maker of the hardware.';
COMMENT ON COLUMN virt_host.model IS 'Model of the hardware.';
COMMENT ON COLUMN virt_host.cpu_model IS 'Model of the CPUs.';
COMMENT ON COLUMN virt_host.socket_count IS 'CPU packages.';
COMMENT ON COLUMN virt_host.core_count IS 'CPU cores.';
COMMENT ON COLUMN virt_host.cpu_mhz IS 'Nominal clock of a core, in MHz.';
COMMENT ON COLUMN virt_host.memory_mib IS 'Installed memory, in MiB.';
COMMENT ON COLUMN virt_host.version IS 'Version of ESXi.';
COMMENT ON COLUMN virt_host.build IS 'Build of ESXi.';
COMMENT ON COLUMN virt_host.booted_at IS 'When it was started.';
COMMENT ON COLUMN virt_host.cluster_id IS 'Its cluster; NULL for a host on its own.';
COMMENT ON COLUMN virt_host.datacenter_id IS 'Its datacenter.';

ALTER TABLE virt_vm
    ADD COLUMN overall_status text,
    ADD COLUMN connection_state text,
    ADD COLUMN guest_id text,
    ADD COLUMN guest_os text,
    ADD COLUMN guest_os_reported text,
    ADD COLUMN guest_host_name text,
    ADD COLUMN ip_address text,
    ADD COLUMN tools_running text,
    ADD COLUMN tools_version text,
    ADD COLUMN booted_at timestamptz,
    ADD COLUMN resource_pool_id integer REFERENCES virt_resource_pool,
    ADD COLUMN datacenter_id integer REFERENCES virt_datacenter,
    ADD COLUMN folder_path text,
    ADD COLUMN consolidation_needed boolean,
    ADD COLUMN committed_bytes bigint,
    ADD COLUMN uncommitted_bytes bigint,
    ADD COLUMN annotation text;
COMMENT ON COLUMN virt_vm.overall_status IS 'overallStatus: green, yellow, red or gray.';
COMMENT ON COLUMN virt_vm.connection_state IS 'runtime.connectionState.';
COMMENT ON COLUMN virt_vm.guest_id IS 'Configured guest OS, as an id.';
COMMENT ON COLUMN virt_vm.guest_os IS 'Configured guest OS.';
COMMENT ON COLUMN virt_vm.guest_os_reported IS 'Guest OS that VMware Tools report; NULL while they do not run.';
COMMENT ON COLUMN virt_vm.guest_host_name IS 'Name that the guest gives itself.';
COMMENT ON COLUMN virt_vm.ip_address IS 'First address of the guest.';
COMMENT ON COLUMN virt_vm.tools_running IS 'guest.toolsRunningStatus: guestToolsRunning, guestToolsNotRunning or guestToolsExecutingScripts.';
COMMENT ON COLUMN virt_vm.tools_version IS 'guest.toolsVersionStatus2: guestToolsCurrent, guestToolsNotInstalled, guestToolsSupportedOld, ...';
COMMENT ON COLUMN virt_vm.booted_at IS 'When it was powered on; NULL while it is off.';
COMMENT ON COLUMN virt_vm.resource_pool_id IS 'Its resource pool; templates have none.';
COMMENT ON COLUMN virt_vm.datacenter_id IS 'Its datacenter.';
COMMENT ON COLUMN virt_vm.folder_path IS 'Folders above it, as in /DC-1/Team/Web; without the system folder that vSphere hides.';
COMMENT ON COLUMN virt_vm.consolidation_needed IS 'Its disks need consolidation.';
COMMENT ON COLUMN virt_vm.committed_bytes IS 'Storage in use, in bytes.';
COMMENT ON COLUMN virt_vm.uncommitted_bytes IS 'Storage that it may come to use, in bytes.';
COMMENT ON COLUMN virt_vm.annotation IS 'Notes.';

CREATE TABLE virt_vm_disk (
    vm_id integer NOT NULL REFERENCES virt_vm,
    disk_key integer NOT NULL,
    label text,
    capacity_bytes bigint,
    file text,
    is_thin boolean,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (vm_id, disk_key)
);
COMMENT ON TABLE virt_vm_disk IS 'Virtual disks.';
COMMENT ON COLUMN virt_vm_disk.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_disk.disk_key IS 'Key of the device, unique within the VM.';
COMMENT ON COLUMN virt_vm_disk.label IS 'Label, as in Hard disk 1.';
COMMENT ON COLUMN virt_vm_disk.capacity_bytes IS 'Size, in bytes.';
COMMENT ON COLUMN virt_vm_disk.file IS 'File, as in [datastore] folder/name.vmdk.';
COMMENT ON COLUMN virt_vm_disk.is_thin IS 'Thin provisioned; NULL where the format has no such thing.';
COMMENT ON COLUMN virt_vm_disk.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_vm_disk.removed_at IS 'When it was found to be gone; NULL while it is there.';

CREATE TABLE virt_vm_nic (
    vm_id integer NOT NULL REFERENCES virt_vm,
    nic_key integer NOT NULL,
    label text,
    type text,
    mac text,
    network text,
    is_connected boolean,
    ip_addresses text[],
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (vm_id, nic_key)
);
COMMENT ON TABLE virt_vm_nic IS 'Virtual network adapters.';
COMMENT ON COLUMN virt_vm_nic.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_nic.nic_key IS 'Key of the device, unique within the VM.';
COMMENT ON COLUMN virt_vm_nic.label IS 'Label, as in Network adapter 1.';
COMMENT ON COLUMN virt_vm_nic.type IS 'Type, as in vmxnet3.';
COMMENT ON COLUMN virt_vm_nic.mac IS 'MAC address.';
COMMENT ON COLUMN virt_vm_nic.network IS 'Name of the network or port group.';
COMMENT ON COLUMN virt_vm_nic.is_connected IS 'It is connected.';
COMMENT ON COLUMN virt_vm_nic.ip_addresses IS 'Addresses that VMware Tools report.';
COMMENT ON COLUMN virt_vm_nic.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_vm_nic.removed_at IS 'When it was found to be gone; NULL while it is there.';

CREATE TABLE virt_vm_snapshot (
    vm_id integer NOT NULL REFERENCES virt_vm,
    moref text NOT NULL,
    parent_moref text,
    name text,
    description text,
    created_at timestamptz,
    power_state text NOT NULL,
    is_quiesced boolean,
    is_current boolean NOT NULL,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (vm_id, moref)
);
COMMENT ON TABLE virt_vm_snapshot IS 'Snapshots of VMs.';
COMMENT ON COLUMN virt_vm_snapshot.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_snapshot.moref IS 'Its managed object reference.';
COMMENT ON COLUMN virt_vm_snapshot.parent_moref IS 'The snapshot above it; NULL for a root.';
COMMENT ON COLUMN virt_vm_snapshot.name IS 'Name; not unique.';
COMMENT ON COLUMN virt_vm_snapshot.description IS 'Description.';
COMMENT ON COLUMN virt_vm_snapshot.created_at IS 'When it was taken, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_snapshot.power_state IS 'State of the VM in it: on, off, suspended or unknown.';
COMMENT ON COLUMN virt_vm_snapshot.is_quiesced IS 'File systems of the guest were quiesced.';
COMMENT ON COLUMN virt_vm_snapshot.is_current IS 'The disks of the VM stand on it.';
COMMENT ON COLUMN virt_vm_snapshot.first_seen_at IS 'When it was first seen.';
COMMENT ON COLUMN virt_vm_snapshot.removed_at IS 'When it was found to be gone; NULL while it is there.';

CREATE TABLE virt_vm_placement (
    vm_id integer NOT NULL REFERENCES virt_vm,
    host_id integer NOT NULL REFERENCES virt_host,
    from_time timestamptz NOT NULL,
    to_time timestamptz,
    PRIMARY KEY (vm_id, from_time)
);
CREATE UNIQUE INDEX virt_vm_placement_open ON virt_vm_placement (vm_id) WHERE to_time IS NULL;
CREATE INDEX virt_vm_placement_host ON virt_vm_placement (host_id, from_time);
COMMENT ON TABLE virt_vm_placement IS 'On which host a VM was when, as far as it is known. Between two rows of a VM, nobody knows.';
COMMENT ON COLUMN virt_vm_placement.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_placement.host_id IS 'The host.';
COMMENT ON COLUMN virt_vm_placement.from_time IS 'Since when it is known to be there, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_placement.to_time IS 'When it was found not to be there any more; NULL while it is there.';

-- What is known already.
INSERT INTO virt_vm_placement (vm_id, host_id, from_time, to_time)
SELECT vm_id, host_id, host_since, removed_at
FROM virt_vm
WHERE host_id IS NOT NULL AND host_since IS NOT NULL;

CREATE TABLE virt_datastore_metrics (
    collected_at timestamptz NOT NULL,
    capacity_bytes bigint,
    free_bytes bigint,
    uncommitted_bytes bigint,
    datastore_id integer NOT NULL
);
SELECT create_hypertable('virt_datastore_metrics', 'collected_at',
                         chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);
CREATE UNIQUE INDEX virt_datastore_metrics_key ON virt_datastore_metrics (datastore_id, collected_at);
CREATE INDEX virt_datastore_metrics_time ON virt_datastore_metrics USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE virt_datastore_metrics
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
COMMENT ON TABLE virt_datastore_metrics IS 'Capacity of datastores at each sync.';
COMMENT ON COLUMN virt_datastore_metrics.collected_at IS 'When it was read, in the clock of the platform.';
COMMENT ON COLUMN virt_datastore_metrics.capacity_bytes IS 'Size, in bytes.';
COMMENT ON COLUMN virt_datastore_metrics.free_bytes IS 'Free, in bytes.';
COMMENT ON COLUMN virt_datastore_metrics.uncommitted_bytes IS 'What thin disks may come to use beyond what they use, in bytes.';
COMMENT ON COLUMN virt_datastore_metrics.datastore_id IS 'The datastore.';

CREATE VIEW virt_cluster_metrics AS
SELECT sample.collected_at,
       host.cluster_id,
       count(*) AS hosts,
       sum(sample.cpu_usage_mhz) AS cpu_usage_mhz,
       sum(sample.cpu_capacity_mhz) AS cpu_capacity_mhz,
       sum(sample.memory_consumed_kib) AS memory_consumed_kib,
       sum(sample.memory_capacity_kib) AS memory_capacity_kib,
       sum(sample.network_rx_kibps) AS network_rx_kibps,
       sum(sample.network_tx_kibps) AS network_tx_kibps,
       sum(sample.disk_read_kibps) AS disk_read_kibps,
       sum(sample.disk_write_kibps) AS disk_write_kibps,
       sample.interval_seconds
FROM virt_host_metrics AS sample
JOIN virt_host AS host USING (host_id)
WHERE host.cluster_id IS NOT NULL
GROUP BY host.cluster_id, sample.collected_at, sample.interval_seconds;
COMMENT ON VIEW virt_cluster_metrics IS 'Sums over the hosts that are in a cluster now.';
COMMENT ON COLUMN virt_cluster_metrics.collected_at IS 'End of the interval, in the clock of the platform.';
COMMENT ON COLUMN virt_cluster_metrics.cluster_id IS 'The cluster.';
COMMENT ON COLUMN virt_cluster_metrics.hosts IS 'Hosts that have a sample.';
COMMENT ON COLUMN virt_cluster_metrics.cpu_usage_mhz IS 'Sum over the hosts, in MHz.';
COMMENT ON COLUMN virt_cluster_metrics.cpu_capacity_mhz IS 'Sum over the hosts, in MHz.';
COMMENT ON COLUMN virt_cluster_metrics.memory_consumed_kib IS 'Sum over the hosts, in KiB.';
COMMENT ON COLUMN virt_cluster_metrics.memory_capacity_kib IS 'Sum over the hosts, in KiB.';
COMMENT ON COLUMN virt_cluster_metrics.network_rx_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_metrics.network_tx_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_metrics.disk_read_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_metrics.disk_write_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_metrics.interval_seconds IS 'Length of the interval.';

CREATE VIEW virt_vm_snapshot_tree AS
WITH RECURSIVE tree AS (
    SELECT snapshot.*, snapshot.name AS path, 1 AS depth
    FROM virt_vm_snapshot AS snapshot
    WHERE snapshot.removed_at IS NULL AND snapshot.parent_moref IS NULL
    UNION ALL
    SELECT snapshot.*, tree.path || ' / ' || snapshot.name, tree.depth + 1
    FROM virt_vm_snapshot AS snapshot
    JOIN tree ON tree.vm_id = snapshot.vm_id AND tree.moref = snapshot.parent_moref
    WHERE snapshot.removed_at IS NULL
)
SELECT platform.name AS platform,
       vm.name AS vm,
       tree.path,
       tree.depth,
       tree.is_current,
       tree.created_at,
       clock_timestamp() - tree.created_at AS age,
       tree.vm_id,
       tree.moref
FROM tree
JOIN virt_vm AS vm USING (vm_id)
JOIN virt_platform AS platform USING (platform_id)
WHERE vm.removed_at IS NULL;
COMMENT ON VIEW virt_vm_snapshot_tree IS 'Snapshots that are there, as trees, with their age.';
COMMENT ON COLUMN virt_vm_snapshot_tree.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_vm_snapshot_tree.vm IS 'Name of the VM.';
COMMENT ON COLUMN virt_vm_snapshot_tree.path IS 'Names from the root down.';
COMMENT ON COLUMN virt_vm_snapshot_tree.depth IS '1 for a root.';
COMMENT ON COLUMN virt_vm_snapshot_tree.is_current IS 'The disks of the VM stand on it.';
COMMENT ON COLUMN virt_vm_snapshot_tree.created_at IS 'When it was taken.';
COMMENT ON COLUMN virt_vm_snapshot_tree.age IS 'How old it is.';
COMMENT ON COLUMN virt_vm_snapshot_tree.vm_id IS 'The VM.';
COMMENT ON COLUMN virt_vm_snapshot_tree.moref IS 'Its managed object reference.';

GRANT SELECT, INSERT, UPDATE ON
    virt_datacenter, virt_cluster, virt_resource_pool, virt_datastore, virt_vm_disk, virt_vm_nic, virt_vm_snapshot,
    virt_vm_placement
TO virt_writer;
GRANT SELECT, INSERT ON virt_datastore_metrics TO virt_writer;
