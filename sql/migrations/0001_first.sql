-- The first schema: platforms, hosts, VMs, their 20-second samples, gaps, leases.
-- Runs as virt_owner, in one transaction with its row of virt_schema_migration.

-- Whatever virt_owner makes in this schema from here on can be read by virt_reader.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO virt_reader;

------------------------------------------------------------------------------------------------------------------
-- Bookkeeping
------------------------------------------------------------------------------------------------------------------

CREATE TABLE virt_schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    took_ms bigint NOT NULL
);
COMMENT ON TABLE virt_schema_migration IS 'Steps of the schema that were applied. Written by virt-collector migrate.';
COMMENT ON COLUMN virt_schema_migration.version IS 'Number of the step, from 1 without holes.';
COMMENT ON COLUMN virt_schema_migration.name IS 'What it brought.';
COMMENT ON COLUMN virt_schema_migration.sha256 IS 'Checksum of its text, in hexadecimal.';
COMMENT ON COLUMN virt_schema_migration.applied_at IS 'When it was applied.';
COMMENT ON COLUMN virt_schema_migration.took_ms IS 'How long it took, in milliseconds.';

------------------------------------------------------------------------------------------------------------------
-- Inventory
------------------------------------------------------------------------------------------------------------------

CREATE TABLE virt_platform (
    platform_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    type text NOT NULL CHECK (type IN ('vcenter', 'esxi')),
    host text NOT NULL,
    port integer NOT NULL,
    identity text,
    status text NOT NULL DEFAULT 'disconnected'
        CHECK (status IN ('disconnected', 'connected', 'error', 'maintenance')),
    status_class text
        CHECK (status_class IN ('unreachable', 'tls', 'auth', 'permission', 'timeout', 'identity')),
    status_reason text,
    status_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    version text,
    build text,
    api_type text,
    last_success_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((status = 'error') = (status_class IS NOT NULL))
);
COMMENT ON TABLE virt_platform IS 'vCenters and ESXi hosts that samples are collected from.';
COMMENT ON COLUMN virt_platform.platform_id IS 'Key.';
COMMENT ON COLUMN virt_platform.name IS 'Name in configuration, logs and metrics.';
COMMENT ON COLUMN virt_platform.type IS 'vcenter or esxi.';
COMMENT ON COLUMN virt_platform.host IS 'Host name or address.';
COMMENT ON COLUMN virt_platform.port IS 'TCP port.';
COMMENT ON COLUMN virt_platform.identity IS 'about.instanceUuid of a vCenter, hardware UUID of an ESXi host, as of first contact. Another one later means another server, and nothing is stored for it.';
COMMENT ON COLUMN virt_platform.status IS 'disconnected, connected, error or maintenance.';
COMMENT ON COLUMN virt_platform.status_class IS 'Kind of error: unreachable, tls, auth, permission, timeout or identity.';
COMMENT ON COLUMN virt_platform.status_reason IS 'Why, in one line.';
COMMENT ON COLUMN virt_platform.status_since IS 'Since when status and class are what they are.';
COMMENT ON COLUMN virt_platform.version IS 'about.version of the server.';
COMMENT ON COLUMN virt_platform.build IS 'about.build of the server.';
COMMENT ON COLUMN virt_platform.api_type IS 'about.apiType of the server.';
COMMENT ON COLUMN virt_platform.last_success_at IS 'When a collector last reported it as connected.';
COMMENT ON COLUMN virt_platform.created_at IS 'When it was first registered.';

CREATE TABLE virt_host (
    host_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    moref text NOT NULL,
    name text,
    hardware_uuid text,
    power_state text NOT NULL,
    is_connected boolean NOT NULL,
    in_maintenance boolean NOT NULL,
    thread_count integer,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    UNIQUE (platform_id, moref)
);
COMMENT ON TABLE virt_host IS 'ESXi hosts. One that vanishes keeps its row, with removed_at.';
COMMENT ON COLUMN virt_host.host_id IS 'Key.';
COMMENT ON COLUMN virt_host.platform_id IS 'The platform that shows it.';
COMMENT ON COLUMN virt_host.moref IS 'Its managed object reference, unique within the platform.';
COMMENT ON COLUMN virt_host.name IS 'Display name.';
COMMENT ON COLUMN virt_host.hardware_uuid IS 'hardware.systemInfo.uuid.';
COMMENT ON COLUMN virt_host.power_state IS 'on, off, suspended (stand-by) or unknown.';
COMMENT ON COLUMN virt_host.is_connected IS 'runtime.connectionState is connected.';
COMMENT ON COLUMN virt_host.in_maintenance IS 'runtime.inMaintenanceMode.';
COMMENT ON COLUMN virt_host.thread_count IS 'Hardware threads: the divisor of its ready and co-stop percentages.';
COMMENT ON COLUMN virt_host.first_seen_at IS 'When it was first seen, in the clock of the platform.';
COMMENT ON COLUMN virt_host.removed_at IS 'When it was first missing from a complete reading, in the clock of the platform; NULL while it is there.';

CREATE TABLE virt_vm (
    vm_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    platform_id integer NOT NULL REFERENCES virt_platform,
    moref text NOT NULL,
    name text,
    instance_uuid text,
    bios_uuid text,
    power_state text NOT NULL,
    is_connected boolean NOT NULL,
    host_id integer REFERENCES virt_host,
    host_since timestamptz,
    vcpu_count integer,
    memory_mib bigint,
    is_template boolean NOT NULL,
    first_seen_at timestamptz NOT NULL,
    removed_at timestamptz,
    UNIQUE (platform_id, moref)
);
CREATE INDEX virt_vm_host ON virt_vm (host_id);
COMMENT ON TABLE virt_vm IS 'Virtual machines and templates. One that vanishes keeps its row, with removed_at; one that is registered again is a new row with the same instance_uuid.';
COMMENT ON COLUMN virt_vm.vm_id IS 'Key.';
COMMENT ON COLUMN virt_vm.platform_id IS 'The platform that shows it.';
COMMENT ON COLUMN virt_vm.moref IS 'Its managed object reference, unique within the platform.';
COMMENT ON COLUMN virt_vm.name IS 'Display name.';
COMMENT ON COLUMN virt_vm.instance_uuid IS 'config.instanceUuid: unique within a vCenter, kept when the VM is registered again.';
COMMENT ON COLUMN virt_vm.bios_uuid IS 'config.uuid: may be shared by copies.';
COMMENT ON COLUMN virt_vm.power_state IS 'on, off, suspended or unknown.';
COMMENT ON COLUMN virt_vm.is_connected IS 'runtime.connectionState is connected.';
COMMENT ON COLUMN virt_vm.host_id IS 'The host it is on now; where it was at a sample stands in the sample.';
COMMENT ON COLUMN virt_vm.host_since IS 'Since when it is known to be on that host, in the clock of the platform.';
COMMENT ON COLUMN virt_vm.vcpu_count IS 'Virtual CPUs now.';
COMMENT ON COLUMN virt_vm.memory_mib IS 'Configured memory, in MiB.';
COMMENT ON COLUMN virt_vm.is_template IS 'A template never runs.';
COMMENT ON COLUMN virt_vm.first_seen_at IS 'When it was first seen, in the clock of the platform.';
COMMENT ON COLUMN virt_vm.removed_at IS 'When it was first missing from a complete reading, in the clock of the platform; NULL while it is there.';

------------------------------------------------------------------------------------------------------------------
-- Samples: one row per entity and sample. No data is NULL, never -1 or 0.
--
-- No foreign keys and no triggers: they multiply the cost of COPY, and dropping a chunk would lock the referenced
-- table. The unique index finds an entity's rows and its newest one; BRIN finds a span of time over all entities.
-- 8-byte columns stand first, so that nothing is padded.
------------------------------------------------------------------------------------------------------------------

CREATE TABLE virt_host_metrics (
    collected_at timestamptz NOT NULL,
    memory_active_kib bigint,
    memory_balloon_kib bigint,
    memory_capacity_kib bigint,
    memory_compressed_kib bigint,
    memory_consumed_kib bigint,
    memory_granted_kib bigint,
    memory_overhead_kib bigint,
    memory_shared_kib bigint,
    memory_swap_used_kib bigint,
    host_id integer NOT NULL,
    cpu_capacity_mhz integer,
    cpu_demand_mhz integer,
    cpu_usage_mhz integer,
    disk_max_latency_ms integer,
    disk_read_iops integer,
    disk_read_kibps integer,
    disk_write_iops integer,
    disk_write_kibps integer,
    memory_swap_in_kibps integer,
    memory_swap_out_kibps integer,
    network_rx_kibps integer,
    network_tx_kibps integer,
    power_watts integer,
    uptime_seconds integer,
    cpu_costop_percent real,
    cpu_latency_percent real,
    cpu_ready_percent real,
    cpu_usage_percent real,
    cpu_utilization_percent real,
    disk_read_latency_ms real,
    disk_write_latency_ms real,
    memory_latency_percent real,
    memory_usage_percent real,
    network_rx_dropped_per_second real,
    network_rx_errors_per_second real,
    network_rx_packets_per_second real,
    network_tx_dropped_per_second real,
    network_tx_errors_per_second real,
    network_tx_packets_per_second real,
    interval_seconds smallint NOT NULL
);
COMMENT ON TABLE virt_host_metrics IS 'Samples of hosts.';
COMMENT ON COLUMN virt_host_metrics.collected_at IS 'End of the interval, in the clock of the platform.';
COMMENT ON COLUMN virt_host_metrics.host_id IS 'The host.';
COMMENT ON COLUMN virt_host_metrics.interval_seconds IS 'Length of the interval: 20 for a sample, 300 for a roll-up of vCenter.';
COMMENT ON COLUMN virt_host_metrics.memory_active_kib IS 'KiB (1,024 bytes). mem.active.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_balloon_kib IS 'KiB (1,024 bytes). mem.vmmemctl.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_capacity_kib IS 'KiB (1,024 bytes). mem.totalCapacity.average, aggregate; published MB x 1,024; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_compressed_kib IS 'KiB (1,024 bytes). mem.compressed.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_consumed_kib IS 'KiB (1,024 bytes). mem.consumed.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_granted_kib IS 'KiB (1,024 bytes). mem.granted.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_overhead_kib IS 'KiB (1,024 bytes). mem.overhead.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_shared_kib IS 'KiB (1,024 bytes). mem.shared.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_swap_used_kib IS 'KiB (1,024 bytes). mem.swapused.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.cpu_capacity_mhz IS 'MHz. cpu.totalCapacity.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.cpu_demand_mhz IS 'MHz. cpu.demand.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.cpu_usage_mhz IS 'MHz. cpu.usagemhz.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.disk_max_latency_ms IS 'milliseconds. disk.maxTotalLatency.latest, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.disk_read_iops IS 'operations per second. storageAdapter.numberReadAveraged.average, sum over all instances; as published; exact; from datastore.* instead where host_disk is "datastore".';
COMMENT ON COLUMN virt_host_metrics.disk_read_kibps IS 'KiB per second (1,024 bytes). disk.read.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.disk_write_iops IS 'operations per second. storageAdapter.numberWriteAveraged.average, sum over all instances; as published; exact; from datastore.* instead where host_disk is "datastore".';
COMMENT ON COLUMN virt_host_metrics.disk_write_kibps IS 'KiB per second (1,024 bytes). disk.write.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_swap_in_kibps IS 'KiB per second (1,024 bytes). mem.swapinRate.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.memory_swap_out_kibps IS 'KiB per second (1,024 bytes). mem.swapoutRate.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.network_rx_kibps IS 'KiB per second (1,024 bytes). net.bytesRx.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.network_tx_kibps IS 'KiB per second (1,024 bytes). net.bytesTx.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.power_watts IS 'watts. power.power.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.uptime_seconds IS 'seconds. sys.uptime.latest, aggregate; as published; exact.';
COMMENT ON COLUMN virt_host_metrics.cpu_costop_percent IS 'percent. cpu.costop.summation, aggregate; published ms / (interval_seconds x 1,000 x threads) x 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.cpu_latency_percent IS 'percent. cpu.latency.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.cpu_ready_percent IS 'percent. cpu.ready.summation, aggregate; published ms / (interval_seconds x 1,000 x threads) x 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.cpu_usage_percent IS 'percent. cpu.usage.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.cpu_utilization_percent IS 'percent. cpu.utilization.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.disk_read_latency_ms IS 'milliseconds. storageAdapter.totalReadLatency.average, mean over all instances weighted by storageAdapter.numberReadAveraged.average; as published; rounded to 24 bits; from datastore.* instead where host_disk is "datastore".';
COMMENT ON COLUMN virt_host_metrics.disk_write_latency_ms IS 'milliseconds. storageAdapter.totalWriteLatency.average, mean over all instances weighted by storageAdapter.numberWriteAveraged.average; as published; rounded to 24 bits; from datastore.* instead where host_disk is "datastore".';
COMMENT ON COLUMN virt_host_metrics.memory_latency_percent IS 'percent. mem.latency.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.memory_usage_percent IS 'percent. mem.usage.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.network_rx_dropped_per_second IS 'per second. net.droppedRx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.network_rx_errors_per_second IS 'per second. net.errorsRx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.network_rx_packets_per_second IS 'per second. net.packetsRx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.network_tx_dropped_per_second IS 'per second. net.droppedTx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.network_tx_errors_per_second IS 'per second. net.errorsTx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_host_metrics.network_tx_packets_per_second IS 'per second. net.packetsTx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';

CREATE TABLE virt_vm_metrics (
    collected_at timestamptz NOT NULL,
    memory_active_kib bigint,
    memory_balloon_kib bigint,
    memory_compressed_kib bigint,
    memory_consumed_kib bigint,
    memory_granted_kib bigint,
    memory_overhead_kib bigint,
    memory_shared_kib bigint,
    memory_swapped_kib bigint,
    vm_id integer NOT NULL,
    host_id integer,
    cpu_demand_mhz integer,
    cpu_usage_mhz integer,
    disk_max_latency_ms integer,
    disk_read_iops integer,
    disk_read_kibps integer,
    disk_write_iops integer,
    disk_write_kibps integer,
    memory_swap_in_kibps integer,
    memory_swap_out_kibps integer,
    network_rx_kibps integer,
    network_tx_kibps integer,
    power_watts integer,
    uptime_seconds integer,
    cpu_costop_percent real,
    cpu_latency_percent real,
    cpu_ready_percent real,
    cpu_usage_percent real,
    disk_read_latency_ms real,
    disk_write_latency_ms real,
    memory_latency_percent real,
    memory_usage_percent real,
    network_rx_dropped_per_second real,
    network_rx_packets_per_second real,
    network_tx_dropped_per_second real,
    network_tx_packets_per_second real,
    interval_seconds smallint NOT NULL,
    vcpu_count smallint
);
COMMENT ON TABLE virt_vm_metrics IS 'Samples of virtual machines.';
COMMENT ON COLUMN virt_vm_metrics.collected_at IS 'End of the interval, in the clock of the platform.';
COMMENT ON COLUMN virt_vm_metrics.vm_id IS 'The virtual machine.';
COMMENT ON COLUMN virt_vm_metrics.host_id IS 'The host it ran on at collected_at; NULL where that is not known.';
COMMENT ON COLUMN virt_vm_metrics.interval_seconds IS 'Length of the interval: 20 for a sample, 300 for a roll-up of vCenter.';
COMMENT ON COLUMN virt_vm_metrics.vcpu_count IS 'Virtual CPUs: the divisor of ready and co-stop percentages of this row.';
COMMENT ON COLUMN virt_vm_metrics.memory_active_kib IS 'KiB (1,024 bytes). mem.active.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_balloon_kib IS 'KiB (1,024 bytes). mem.vmmemctl.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_compressed_kib IS 'KiB (1,024 bytes). mem.compressed.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_consumed_kib IS 'KiB (1,024 bytes). mem.consumed.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_granted_kib IS 'KiB (1,024 bytes). mem.granted.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_overhead_kib IS 'KiB (1,024 bytes). mem.overhead.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_shared_kib IS 'KiB (1,024 bytes). mem.shared.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_swapped_kib IS 'KiB (1,024 bytes). mem.swapped.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.cpu_demand_mhz IS 'MHz. cpu.demand.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.cpu_usage_mhz IS 'MHz. cpu.usagemhz.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.disk_max_latency_ms IS 'milliseconds. disk.maxTotalLatency.latest, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.disk_read_iops IS 'operations per second. virtualDisk.numberReadAveraged.average, sum over all instances; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.disk_read_kibps IS 'KiB per second (1,024 bytes). virtualDisk.read.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.disk_write_iops IS 'operations per second. virtualDisk.numberWriteAveraged.average, sum over all instances; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.disk_write_kibps IS 'KiB per second (1,024 bytes). virtualDisk.write.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_swap_in_kibps IS 'KiB per second (1,024 bytes). mem.swapinRate.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.memory_swap_out_kibps IS 'KiB per second (1,024 bytes). mem.swapoutRate.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.network_rx_kibps IS 'KiB per second (1,024 bytes). net.bytesRx.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.network_tx_kibps IS 'KiB per second (1,024 bytes). net.bytesTx.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.power_watts IS 'watts. power.power.average, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.uptime_seconds IS 'seconds. sys.uptime.latest, aggregate; as published; exact.';
COMMENT ON COLUMN virt_vm_metrics.cpu_costop_percent IS 'percent. cpu.costop.summation, aggregate; published ms / (interval_seconds x 1,000 x vCPUs) x 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.cpu_latency_percent IS 'percent. cpu.latency.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.cpu_ready_percent IS 'percent. cpu.ready.summation, aggregate; published ms / (interval_seconds x 1,000 x vCPUs) x 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.cpu_usage_percent IS 'percent. cpu.usage.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.disk_read_latency_ms IS 'milliseconds. virtualDisk.totalReadLatency.average, mean over all instances weighted by virtualDisk.numberReadAveraged.average; as published; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.disk_write_latency_ms IS 'milliseconds. virtualDisk.totalWriteLatency.average, mean over all instances weighted by virtualDisk.numberWriteAveraged.average; as published; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.memory_latency_percent IS 'percent. mem.latency.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.memory_usage_percent IS 'percent. mem.usage.average, aggregate; published / 100; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.network_rx_dropped_per_second IS 'per second. net.droppedRx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.network_rx_packets_per_second IS 'per second. net.packetsRx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.network_tx_dropped_per_second IS 'per second. net.droppedTx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';
COMMENT ON COLUMN virt_vm_metrics.network_tx_packets_per_second IS 'per second. net.packetsTx.summation, aggregate; published / interval_seconds; rounded to 24 bits.';

SELECT create_hypertable('virt_host_metrics', 'collected_at',
                         chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);
SELECT create_hypertable('virt_vm_metrics', 'collected_at',
                         chunk_time_interval => INTERVAL '1 day', create_default_indexes => FALSE);

CREATE UNIQUE INDEX virt_host_metrics_key ON virt_host_metrics (host_id, collected_at);
CREATE UNIQUE INDEX virt_vm_metrics_key ON virt_vm_metrics (vm_id, collected_at);
-- Without autosummarize the newest pages have no summary, and they are what dashboards ask for.
CREATE INDEX virt_host_metrics_time ON virt_host_metrics USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX virt_vm_metrics_time ON virt_vm_metrics USING brin (collected_at)
    WITH (pages_per_range = 32, autosummarize = on);

-- Rows are only ever added, so only the insert-driven vacuum comes by; chunks take these settings over.
ALTER TABLE virt_host_metrics
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE virt_vm_metrics
    SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

------------------------------------------------------------------------------------------------------------------
-- Operation
------------------------------------------------------------------------------------------------------------------

CREATE TABLE virt_collection_gap (
    gap_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_time timestamptz NOT NULL,
    to_time timestamptz,
    asked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    explained_at timestamptz,
    platform_id integer NOT NULL REFERENCES virt_platform,
    entity_id integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    is_initial boolean NOT NULL DEFAULT FALSE,
    entity_kind text NOT NULL CHECK (entity_kind IN ('host', 'vm')),
    state text NOT NULL CHECK (state IN ('open', 'explained')),
    reason text CHECK (reason IN (
        'powered_off', 'suspended', 'host_disconnected', 'maintenance', 'removed', 'unreachable', 'no_permission',
        'not_published', 'expired', 'rollup_edge', 'clock_step', 'refused', 'poison')),
    CHECK ((state = 'explained') = (reason IS NOT NULL)),
    CHECK (to_time > from_time)
);
-- The back-fill lane's queue, oldest first.
CREATE INDEX virt_collection_gap_open ON virt_collection_gap (platform_id, from_time) WHERE state = 'open';
CREATE INDEX virt_collection_gap_entity ON virt_collection_gap (entity_kind, entity_id, from_time);
COMMENT ON TABLE virt_collection_gap IS 'Steps between two stored samples of an entity that do not touch: yet to be asked for (open), or why there is nothing (explained).';
COMMENT ON COLUMN virt_collection_gap.gap_id IS 'Key.';
COMMENT ON COLUMN virt_collection_gap.from_time IS 'collected_at of the row before the gap; samples after it are missing.';
COMMENT ON COLUMN virt_collection_gap.to_time IS 'collected_at of the row after the gap; samples before it are missing. NULL while there is none.';
COMMENT ON COLUMN virt_collection_gap.asked_at IS 'When the source was last asked for it.';
COMMENT ON COLUMN virt_collection_gap.created_at IS 'When it was found.';
COMMENT ON COLUMN virt_collection_gap.explained_at IS 'When it was explained.';
COMMENT ON COLUMN virt_collection_gap.platform_id IS 'The platform of the entity.';
COMMENT ON COLUMN virt_collection_gap.entity_id IS 'host_id or vm_id.';
COMMENT ON COLUMN virt_collection_gap.attempts IS 'How often the source was asked for it.';
COMMENT ON COLUMN virt_collection_gap.is_initial IS 'from_time is not a sample but where the memory of the source began at first contact.';
COMMENT ON COLUMN virt_collection_gap.entity_kind IS 'host or vm.';
COMMENT ON COLUMN virt_collection_gap.state IS 'open or explained.';
COMMENT ON COLUMN virt_collection_gap.reason IS 'Why there are no samples; NULL while open.';

CREATE TABLE virt_platform_lease (
    platform_id integer PRIMARY KEY REFERENCES virt_platform,
    owner text NOT NULL,
    epoch bigint NOT NULL,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE virt_platform_lease IS 'Which collector collects a platform. Only the clock of the database counts.';
COMMENT ON COLUMN virt_platform_lease.platform_id IS 'The platform.';
COMMENT ON COLUMN virt_platform_lease.owner IS 'The collector, as in application_name: virt-collector/<owner>/<purpose>.';
COMMENT ON COLUMN virt_platform_lease.epoch IS 'Grows by one with each take-over. A transaction of an older epoch writes nothing.';
COMMENT ON COLUMN virt_platform_lease.until IS 'Good until then, unless renewed.';

------------------------------------------------------------------------------------------------------------------
-- Views
------------------------------------------------------------------------------------------------------------------

CREATE VIEW virt_collection_gap_summary AS
WITH gap AS (
    SELECT *, to_time IS NULL AS is_open_ended
    FROM virt_collection_gap
    WHERE reason IS NULL OR reason NOT IN ('powered_off', 'removed')
), reached AS (
    -- How far the gaps before this one reach: one that starts later begins another outage.
    SELECT *, max(coalesce(to_time, 'infinity')) OVER (
        PARTITION BY platform_id, state, reason, is_open_ended ORDER BY from_time, gap_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached_by_others
    FROM gap
), numbered AS (
    SELECT *, count(*) FILTER (WHERE reached_by_others IS NULL OR from_time >= reached_by_others) OVER (
        PARTITION BY platform_id, state, reason, is_open_ended ORDER BY from_time, gap_id) AS outage
    FROM reached
)
SELECT platform.name AS platform,
       numbered.state,
       numbered.reason,
       min(numbered.from_time) AS from_time,
       CASE WHEN numbered.is_open_ended THEN NULL ELSE max(numbered.to_time) END AS to_time,
       count(DISTINCT numbered.entity_id) FILTER (WHERE numbered.entity_kind = 'host') AS hosts,
       count(DISTINCT numbered.entity_id) FILTER (WHERE numbered.entity_kind = 'vm') AS vms,
       count(*) AS gaps,
       max(numbered.attempts) AS attempts,
       max(numbered.asked_at) AS asked_at
FROM numbered
JOIN virt_platform AS platform USING (platform_id)
GROUP BY platform.name, numbered.state, numbered.reason, numbered.is_open_ended, numbered.outage;
COMMENT ON VIEW virt_collection_gap_summary IS 'Gaps by outage: gaps of a platform with the same reason that overlap are one line, however many entities they touch. Without powered_off and removed.';
COMMENT ON COLUMN virt_collection_gap_summary.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_collection_gap_summary.state IS 'open or explained.';
COMMENT ON COLUMN virt_collection_gap_summary.reason IS 'Why there are no samples; NULL while open.';
COMMENT ON COLUMN virt_collection_gap_summary.from_time IS 'Start of the earliest of the gaps.';
COMMENT ON COLUMN virt_collection_gap_summary.to_time IS 'End of the latest of the gaps; NULL while they have none.';
COMMENT ON COLUMN virt_collection_gap_summary.hosts IS 'Hosts touched.';
COMMENT ON COLUMN virt_collection_gap_summary.vms IS 'Virtual machines touched.';
COMMENT ON COLUMN virt_collection_gap_summary.gaps IS 'Gap rows.';
COMMENT ON COLUMN virt_collection_gap_summary.attempts IS 'How often the source was asked, at most.';
COMMENT ON COLUMN virt_collection_gap_summary.asked_at IS 'When the source was last asked.';

CREATE FUNCTION virt_chain_break(since timestamptz DEFAULT '-infinity', before timestamptz DEFAULT 'infinity')
RETURNS TABLE (
    problem text,
    entity_kind text,
    entity_id integer,
    from_time timestamptz,
    to_time timestamptz,
    gap_rows bigint
)
LANGUAGE sql STABLE
AS $$
WITH pair AS (
    SELECT 'host' AS kind, host_id AS id, collected_at, interval_seconds,
           lag(collected_at) OVER (PARTITION BY host_id ORDER BY collected_at) AS previous
    FROM virt_host_metrics
    WHERE collected_at >= since AND collected_at < before
    UNION ALL
    SELECT 'vm', vm_id, collected_at, interval_seconds,
           lag(collected_at) OVER (PARTITION BY vm_id ORDER BY collected_at)
    FROM virt_vm_metrics
    WHERE collected_at >= since AND collected_at < before
), joint AS (
    -- How far the start of the row's interval lies from the end of the row before, in intervals.
    SELECT kind, id, previous, collected_at,
           extract(epoch FROM collected_at - previous) / greatest(interval_seconds, 1) - 1 AS apart
    FROM pair
    WHERE previous IS NOT NULL
), step AS (
    SELECT joint.kind, joint.id, joint.previous, joint.collected_at, gap.overlapping, gap.spanning
    FROM joint
    CROSS JOIN LATERAL (
        SELECT count(*) AS overlapping,
               count(*) FILTER (WHERE g.from_time <= joint.previous AND g.to_time >= joint.collected_at) AS spanning
        FROM virt_collection_gap AS g
        WHERE g.entity_kind = joint.kind AND g.entity_id = joint.id
          AND g.from_time < joint.collected_at AND coalesce(g.to_time, 'infinity') > joint.previous
    ) AS gap
    WHERE joint.apart > 0.5
)
SELECT 'overlap', kind, id, previous, collected_at, 0::bigint
FROM joint
WHERE apart < -0.5
UNION ALL
SELECT CASE WHEN spanning = 0 THEN 'unexplained' ELSE 'explained more than once' END,
       kind, id, previous, collected_at, overlapping
FROM step
WHERE overlapping <> 1 OR spanning <> 1
UNION ALL
SELECT 'samples inside a gap', g.entity_kind, g.entity_id, g.from_time, g.to_time, 1
FROM virt_collection_gap AS g
WHERE (g.entity_kind = 'host' AND EXISTS (
          SELECT FROM virt_host_metrics AS m
          WHERE m.host_id = g.entity_id AND m.collected_at > g.from_time
            AND m.collected_at < coalesce(g.to_time, 'infinity')
            AND m.collected_at >= since AND m.collected_at < before))
   OR (g.entity_kind = 'vm' AND EXISTS (
          SELECT FROM virt_vm_metrics AS m
          WHERE m.vm_id = g.entity_id AND m.collected_at > g.from_time
            AND m.collected_at < coalesce(g.to_time, 'infinity')
            AND m.collected_at >= since AND m.collected_at < before))
$$;
COMMENT ON FUNCTION virt_chain_break(timestamptz, timestamptz) IS 'Where the chain of samples is broken, between two times: no rows means that every step of more than 1.5 intervals between two samples of an entity is spanned by exactly one gap row, that no intervals overlap, and that no sample lies inside a gap.';

------------------------------------------------------------------------------------------------------------------
-- Grants: exactly what the service does. virt_reader has its SELECT by default privileges, see the top.
------------------------------------------------------------------------------------------------------------------

GRANT SELECT ON virt_schema_migration, virt_collection_gap_summary TO virt_writer;
GRANT SELECT, INSERT, UPDATE ON virt_platform, virt_host, virt_vm, virt_platform_lease TO virt_writer;
GRANT SELECT, INSERT ON virt_host_metrics, virt_vm_metrics TO virt_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON virt_collection_gap TO virt_writer;
