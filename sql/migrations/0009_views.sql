-- Views for people: names beside numbers, the newest sample of everything, and answers to what is asked most.
--
-- What needs a span or a limit is a function with defaults: SELECT * FROM virt_vm_idle(span => '14 days'). Both kinds
-- are plain SQL that the planner takes apart, so that a filter outside them reaches the indexes.

-- People look for names.
CREATE INDEX virt_host_name ON virt_host (name);
CREATE INDEX virt_vm_name ON virt_vm (name);

------------------------------------------------------------------------------------------------------------------
-- Inventory with names
------------------------------------------------------------------------------------------------------------------

CREATE VIEW virt_host_inventory AS
SELECT host.host_id,
       platform.name AS platform,
       datacenter.name AS datacenter,
       cluster.name AS cluster,
       host.name,
       host.power_state,
       host.connection_state,
       host.in_maintenance,
       host.overall_status,
       host.core_count,
       host.thread_count,
       host.core_count * host.cpu_mhz AS cpu_capacity_mhz,
       host.memory_mib,
       host.vendor,
       host.model,
       host.version,
       host.management_ip,
       host.moref,
       host.platform_id,
       host.cluster_id,
       coalesce(host.removed_at, platform.removed_at) AS removed_at
FROM virt_host AS host
JOIN virt_platform AS platform ON platform.platform_id = host.platform_id
LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id
LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = host.datacenter_id;
COMMENT ON VIEW virt_host_inventory IS 'Hosts with the names of what they belong to, those that were removed included.';
COMMENT ON COLUMN virt_host_inventory.host_id IS 'Key.';
COMMENT ON COLUMN virt_host_inventory.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_host_inventory.datacenter IS 'Name of its datacenter.';
COMMENT ON COLUMN virt_host_inventory.cluster IS 'Name of its cluster; NULL for a host outside clusters.';
COMMENT ON COLUMN virt_host_inventory.cpu_capacity_mhz IS 'Cores x MHz.';
COMMENT ON COLUMN virt_host_inventory.removed_at IS 'When it, or its platform, was removed; NULL while it is there.';

CREATE VIEW virt_vm_inventory AS
SELECT vm.vm_id,
       platform.name AS platform,
       datacenter.name AS datacenter,
       cluster.name AS cluster,
       host.name AS host,
       vm.name,
       vm.power_state,
       vm.connection_state,
       vm.overall_status,
       vm.is_template,
       vm.vcpu_count,
       vm.memory_mib,
       vm.committed_bytes,
       vm.guest_os,
       vm.guest_host_name,
       vm.ip_address,
       vm.tools_running,
       vm.folder_path,
       vm.instance_uuid,
       vm.custom_attributes,
       vm.moref,
       vm.platform_id,
       host.cluster_id,
       vm.host_id,
       coalesce(vm.removed_at, platform.removed_at) AS removed_at
FROM virt_vm AS vm
JOIN virt_platform AS platform ON platform.platform_id = vm.platform_id
LEFT JOIN virt_host AS host ON host.host_id = vm.host_id
LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id
LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = vm.datacenter_id;
COMMENT ON VIEW virt_vm_inventory IS 'VMs and templates with the names of what they belong to, those that were removed included.';
COMMENT ON COLUMN virt_vm_inventory.vm_id IS 'Key.';
COMMENT ON COLUMN virt_vm_inventory.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_vm_inventory.datacenter IS 'Name of its datacenter.';
COMMENT ON COLUMN virt_vm_inventory.cluster IS 'Name of the cluster of the host it is on now.';
COMMENT ON COLUMN virt_vm_inventory.host IS 'Name of the host it is on now.';
COMMENT ON COLUMN virt_vm_inventory.cluster_id IS 'The cluster of the host it is on now.';
COMMENT ON COLUMN virt_vm_inventory.removed_at IS 'When it, or its platform, was removed; NULL while it is there.';

------------------------------------------------------------------------------------------------------------------
-- Samples with names
------------------------------------------------------------------------------------------------------------------

CREATE VIEW virt_host_samples AS
SELECT sample.collected_at,
       platform.name AS platform,
       cluster.name AS cluster,
       host.name,
       sample.cpu_capacity_mhz, sample.cpu_costop_percent, sample.cpu_demand_mhz, sample.cpu_latency_percent,
       sample.cpu_ready_percent, sample.cpu_usage_mhz, sample.cpu_usage_percent, sample.cpu_utilization_percent,
       sample.memory_active_kib, sample.memory_balloon_kib, sample.memory_capacity_kib,
       sample.memory_compressed_kib, sample.memory_consumed_kib, sample.memory_granted_kib,
       sample.memory_latency_percent, sample.memory_overhead_kib, sample.memory_shared_kib,
       sample.memory_swap_in_kibps, sample.memory_swap_out_kibps, sample.memory_swap_used_kib,
       sample.memory_usage_percent, sample.disk_max_latency_ms, sample.disk_read_iops, sample.disk_read_kibps,
       sample.disk_read_latency_ms, sample.disk_write_iops, sample.disk_write_kibps,
       sample.disk_write_latency_ms, sample.network_rx_dropped_per_second, sample.network_rx_errors_per_second,
       sample.network_rx_kibps, sample.network_rx_packets_per_second, sample.network_tx_dropped_per_second,
       sample.network_tx_errors_per_second, sample.network_tx_kibps, sample.network_tx_packets_per_second,
       sample.power_watts, sample.uptime_seconds,
       sample.interval_seconds,
       sample.host_id
FROM virt_host_metrics AS sample
JOIN virt_host AS host ON host.host_id = sample.host_id
JOIN virt_platform AS platform ON platform.platform_id = host.platform_id
LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id;
COMMENT ON VIEW virt_host_samples IS 'Samples of hosts with the names of platform, cluster and host. Ask for a span of collected_at.';
COMMENT ON COLUMN virt_host_samples.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_host_samples.cluster IS 'Name of the cluster that the host is in now.';
COMMENT ON COLUMN virt_host_samples.name IS 'Name of the host.';

CREATE VIEW virt_vm_samples AS
SELECT sample.collected_at,
       platform.name AS platform,
       cluster.name AS cluster,
       host.name AS host,
       vm.name,
       sample.cpu_costop_percent, sample.cpu_demand_mhz, sample.cpu_latency_percent, sample.cpu_ready_percent,
       sample.cpu_usage_mhz, sample.cpu_usage_percent, sample.memory_active_kib, sample.memory_balloon_kib,
       sample.memory_compressed_kib, sample.memory_consumed_kib, sample.memory_granted_kib,
       sample.memory_latency_percent, sample.memory_overhead_kib, sample.memory_shared_kib,
       sample.memory_swap_in_kibps, sample.memory_swap_out_kibps, sample.memory_swapped_kib,
       sample.memory_usage_percent, sample.disk_max_latency_ms, sample.disk_read_iops, sample.disk_read_kibps,
       sample.disk_read_latency_ms, sample.disk_write_iops, sample.disk_write_kibps,
       sample.disk_write_latency_ms, sample.network_rx_dropped_per_second, sample.network_rx_kibps,
       sample.network_rx_packets_per_second, sample.network_tx_dropped_per_second, sample.network_tx_kibps,
       sample.network_tx_packets_per_second, sample.power_watts, sample.uptime_seconds,
       sample.interval_seconds,
       sample.vcpu_count,
       sample.vm_id,
       sample.host_id
FROM virt_vm_metrics AS sample
JOIN virt_vm AS vm ON vm.vm_id = sample.vm_id
JOIN virt_platform AS platform ON platform.platform_id = vm.platform_id
LEFT JOIN virt_host AS host ON host.host_id = sample.host_id
LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id;
COMMENT ON VIEW virt_vm_samples IS 'Samples of VMs with the names of platform, cluster, host and VM. Ask for a span of collected_at.';
COMMENT ON COLUMN virt_vm_samples.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_vm_samples.cluster IS 'Name of the cluster that this host is in now.';
COMMENT ON COLUMN virt_vm_samples.host IS 'Name of the host that the VM ran on during the sample.';
COMMENT ON COLUMN virt_vm_samples.name IS 'Name of the VM.';

------------------------------------------------------------------------------------------------------------------
-- The newest sample of everything. One look into the key index per entity; the bound keeps it to one chunk or two.
------------------------------------------------------------------------------------------------------------------

CREATE VIEW virt_host_latest AS
SELECT platform.name AS platform,
       cluster.name AS cluster,
       host.name,
       host.power_state,
       host.connection_state,
       host.in_maintenance,
       sample.collected_at,
       sample.cpu_capacity_mhz, sample.cpu_costop_percent, sample.cpu_demand_mhz, sample.cpu_latency_percent,
       sample.cpu_ready_percent, sample.cpu_usage_mhz, sample.cpu_usage_percent, sample.cpu_utilization_percent,
       sample.memory_active_kib, sample.memory_balloon_kib, sample.memory_capacity_kib,
       sample.memory_compressed_kib, sample.memory_consumed_kib, sample.memory_granted_kib,
       sample.memory_latency_percent, sample.memory_overhead_kib, sample.memory_shared_kib,
       sample.memory_swap_in_kibps, sample.memory_swap_out_kibps, sample.memory_swap_used_kib,
       sample.memory_usage_percent, sample.disk_max_latency_ms, sample.disk_read_iops, sample.disk_read_kibps,
       sample.disk_read_latency_ms, sample.disk_write_iops, sample.disk_write_kibps,
       sample.disk_write_latency_ms, sample.network_rx_dropped_per_second, sample.network_rx_errors_per_second,
       sample.network_rx_kibps, sample.network_rx_packets_per_second, sample.network_tx_dropped_per_second,
       sample.network_tx_errors_per_second, sample.network_tx_kibps, sample.network_tx_packets_per_second,
       sample.power_watts, sample.uptime_seconds,
       sample.interval_seconds,
       host.host_id,
       host.cluster_id,
       host.platform_id
FROM virt_host AS host
JOIN virt_platform AS platform ON platform.platform_id = host.platform_id
LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id
LEFT JOIN LATERAL (
    SELECT *
    FROM virt_host_metrics AS metrics
    WHERE metrics.host_id = host.host_id AND metrics.collected_at > now() - INTERVAL '15 minutes'
    ORDER BY metrics.collected_at DESC
    LIMIT 1
) AS sample ON true
WHERE host.removed_at IS NULL AND platform.removed_at IS NULL;
COMMENT ON VIEW virt_host_latest IS 'Each host that is there, with its newest sample of the last 15 minutes; collected_at and all values are NULL where there is none.';
COMMENT ON COLUMN virt_host_latest.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_host_latest.cluster IS 'Name of its cluster; NULL for a host outside clusters.';
COMMENT ON COLUMN virt_host_latest.name IS 'Name of the host.';

CREATE VIEW virt_vm_latest AS
SELECT platform.name AS platform,
       cluster.name AS cluster,
       host.name AS host,
       vm.name,
       vm.power_state,
       vm.connection_state,
       vm.vcpu_count,
       vm.memory_mib,
       sample.collected_at,
       sample.cpu_costop_percent, sample.cpu_demand_mhz, sample.cpu_latency_percent, sample.cpu_ready_percent,
       sample.cpu_usage_mhz, sample.cpu_usage_percent, sample.memory_active_kib, sample.memory_balloon_kib,
       sample.memory_compressed_kib, sample.memory_consumed_kib, sample.memory_granted_kib,
       sample.memory_latency_percent, sample.memory_overhead_kib, sample.memory_shared_kib,
       sample.memory_swap_in_kibps, sample.memory_swap_out_kibps, sample.memory_swapped_kib,
       sample.memory_usage_percent, sample.disk_max_latency_ms, sample.disk_read_iops, sample.disk_read_kibps,
       sample.disk_read_latency_ms, sample.disk_write_iops, sample.disk_write_kibps,
       sample.disk_write_latency_ms, sample.network_rx_dropped_per_second, sample.network_rx_kibps,
       sample.network_rx_packets_per_second, sample.network_tx_dropped_per_second, sample.network_tx_kibps,
       sample.network_tx_packets_per_second, sample.power_watts, sample.uptime_seconds,
       sample.interval_seconds,
       vm.vm_id,
       vm.host_id,
       host.cluster_id,
       vm.platform_id
FROM virt_vm AS vm
JOIN virt_platform AS platform ON platform.platform_id = vm.platform_id
LEFT JOIN virt_host AS host ON host.host_id = vm.host_id
LEFT JOIN virt_cluster AS cluster ON cluster.cluster_id = host.cluster_id
LEFT JOIN LATERAL (
    SELECT *
    FROM virt_vm_metrics AS metrics
    WHERE metrics.vm_id = vm.vm_id AND metrics.collected_at > now() - INTERVAL '15 minutes'
    ORDER BY metrics.collected_at DESC
    LIMIT 1
) AS sample ON true
WHERE vm.removed_at IS NULL AND NOT vm.is_template AND platform.removed_at IS NULL;
COMMENT ON VIEW virt_vm_latest IS 'Each VM that is there, with its newest sample of the last 15 minutes; collected_at and all values are NULL where there is none, as of a VM that is off. Without templates.';
COMMENT ON COLUMN virt_vm_latest.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_vm_latest.cluster IS 'Name of the cluster of the host it is on now.';
COMMENT ON COLUMN virt_vm_latest.host IS 'Name of the host it is on now.';
COMMENT ON COLUMN virt_vm_latest.name IS 'Name of the VM.';
COMMENT ON COLUMN virt_vm_latest.host_id IS 'The host it is on now.';
COMMENT ON COLUMN virt_vm_latest.cluster_id IS 'The cluster of the host it is on now.';
COMMENT ON COLUMN virt_vm_latest.vcpu_count IS 'Virtual CPUs now.';

------------------------------------------------------------------------------------------------------------------
-- Clusters
------------------------------------------------------------------------------------------------------------------

CREATE VIEW virt_cluster_latest AS
SELECT platform.name AS platform,
       cluster.name,
       coalesce(hosts.hosts, 0) AS hosts,
       coalesce(hosts.hosts_with_sample, 0) AS hosts_with_sample,
       coalesce(vms.vms_on, 0) AS vms_on,
       hosts.collected_at,
       hosts.cpu_usage_mhz,
       hosts.cpu_capacity_mhz,
       hosts.cpu_usage_mhz * 100.0::double precision / nullif(hosts.cpu_capacity_mhz, 0) AS cpu_usage_percent,
       hosts.memory_consumed_kib,
       hosts.memory_capacity_kib,
       hosts.memory_consumed_kib * 100.0::double precision / nullif(hosts.memory_capacity_kib, 0)
           AS memory_usage_percent,
       hosts.network_rx_kibps,
       hosts.network_tx_kibps,
       hosts.disk_read_kibps,
       hosts.disk_write_kibps,
       hosts.power_watts,
       cluster.effective_cpu_mhz,
       cluster.effective_memory_mib,
       cluster.cluster_id,
       cluster.platform_id
FROM virt_cluster AS cluster
JOIN virt_platform AS platform ON platform.platform_id = cluster.platform_id
LEFT JOIN (
    SELECT latest.cluster_id,
           count(*) AS hosts,
           count(latest.collected_at) AS hosts_with_sample,
           min(latest.collected_at) AS collected_at,
           sum(latest.cpu_usage_mhz) AS cpu_usage_mhz,
           sum(coalesce(latest.cpu_capacity_mhz, host.core_count * host.cpu_mhz))
               FILTER (WHERE latest.cpu_usage_mhz IS NOT NULL) AS cpu_capacity_mhz,
           sum(latest.memory_consumed_kib)::bigint AS memory_consumed_kib,
           sum(coalesce(latest.memory_capacity_kib, host.memory_mib * 1024))
               FILTER (WHERE latest.memory_consumed_kib IS NOT NULL)::bigint AS memory_capacity_kib,
           sum(latest.network_rx_kibps) AS network_rx_kibps,
           sum(latest.network_tx_kibps) AS network_tx_kibps,
           sum(latest.disk_read_kibps) AS disk_read_kibps,
           sum(latest.disk_write_kibps) AS disk_write_kibps,
           sum(latest.power_watts) AS power_watts
    FROM virt_host_latest AS latest
    JOIN virt_host AS host ON host.host_id = latest.host_id
    GROUP BY latest.cluster_id
) AS hosts ON hosts.cluster_id = cluster.cluster_id
LEFT JOIN (
    SELECT host.cluster_id, count(*) AS vms_on
    FROM virt_vm AS vm
    JOIN virt_host AS host ON host.host_id = vm.host_id
    WHERE vm.power_state = 'on' AND vm.removed_at IS NULL
    GROUP BY host.cluster_id
) AS vms ON vms.cluster_id = cluster.cluster_id
WHERE cluster.removed_at IS NULL AND platform.removed_at IS NULL;
COMMENT ON VIEW virt_cluster_latest IS 'Each cluster that is there: sums over the newest samples of its hosts, of the last 15 minutes. virt_cluster_history has the past.';
COMMENT ON COLUMN virt_cluster_latest.platform IS 'Name of the platform.';
COMMENT ON COLUMN virt_cluster_latest.name IS 'Name of the cluster.';
COMMENT ON COLUMN virt_cluster_latest.hosts IS 'Hosts in it.';
COMMENT ON COLUMN virt_cluster_latest.hosts_with_sample IS 'Of these, those with a sample: what the sums are of.';
COMMENT ON COLUMN virt_cluster_latest.vms_on IS 'VMs that are on.';
COMMENT ON COLUMN virt_cluster_latest.collected_at IS 'The oldest of the samples.';
COMMENT ON COLUMN virt_cluster_latest.cpu_usage_mhz IS 'Sum over the hosts, in MHz.';
COMMENT ON COLUMN virt_cluster_latest.cpu_capacity_mhz IS 'Sum over the same hosts, in MHz.';
COMMENT ON COLUMN virt_cluster_latest.cpu_usage_percent IS 'Usage of that capacity, in percent.';
COMMENT ON COLUMN virt_cluster_latest.memory_consumed_kib IS 'Sum over the hosts, in KiB.';
COMMENT ON COLUMN virt_cluster_latest.memory_capacity_kib IS 'Sum over the same hosts, in KiB.';
COMMENT ON COLUMN virt_cluster_latest.memory_usage_percent IS 'Consumed of that capacity, in percent.';
COMMENT ON COLUMN virt_cluster_latest.network_rx_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_latest.network_tx_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_latest.disk_read_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_latest.disk_write_kibps IS 'Sum over the hosts, in KiB per second.';
COMMENT ON COLUMN virt_cluster_latest.power_watts IS 'Sum over the hosts, in watts.';

CREATE FUNCTION virt_cluster_history(from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    collected_at timestamptz,
    cluster_id integer,
    interval_seconds integer,
    hosts bigint,
    cpu_usage_mhz double precision,
    cpu_capacity_mhz double precision,
    cpu_usage_percent double precision,
    memory_consumed_kib double precision,
    memory_capacity_kib double precision,
    memory_usage_percent double precision,
    network_rx_kibps double precision,
    network_tx_kibps double precision,
    disk_read_kibps double precision,
    disk_write_kibps double precision,
    power_watts double precision
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT history.collected_at,
       host.cluster_id,
       history.interval_seconds,
       count(*),
       sum(history.cpu_usage_mhz),
       sum((host.core_count * host.cpu_mhz)::double precision) FILTER (WHERE history.cpu_usage_mhz IS NOT NULL),
       sum(history.cpu_usage_mhz) FILTER (WHERE host.core_count * host.cpu_mhz > 0) * 100
           / nullif(sum((host.core_count * host.cpu_mhz)::double precision)
                    FILTER (WHERE history.cpu_usage_mhz IS NOT NULL), 0),
       sum(history.memory_consumed_kib),
       sum(host.memory_mib * 1024.0::double precision) FILTER (WHERE history.memory_consumed_kib IS NOT NULL),
       sum(history.memory_consumed_kib) FILTER (WHERE host.memory_mib > 0) * 100
           / nullif(sum(host.memory_mib * 1024.0::double precision)
                    FILTER (WHERE history.memory_consumed_kib IS NOT NULL), 0),
       sum(history.network_rx_kibps),
       sum(history.network_tx_kibps),
       sum(history.disk_read_kibps),
       sum(history.disk_write_kibps),
       sum(history.power_watts)
FROM virt_host_history(from_time, to_time) AS history
JOIN virt_host AS host ON host.host_id = history.host_id
WHERE host.cluster_id IS NOT NULL
GROUP BY host.cluster_id, history.collected_at, history.interval_seconds
$$;
COMMENT ON FUNCTION virt_cluster_history(timestamptz, timestamptz) IS 'Sums over the hosts that are in a cluster now, between two times, from samples or roll-ups as in virt_host_history. Capacity is that of today''s inventory; usage is percent of it.';

------------------------------------------------------------------------------------------------------------------
-- Questions
------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION virt_vm_by_ready(
    from_time timestamptz DEFAULT now() - INTERVAL '1 hour',
    to_time timestamptz DEFAULT now()
)
RETURNS TABLE (
    platform text,
    cluster text,
    host text,
    name text,
    vcpu_count integer,
    cpu_ready_percent double precision,
    cpu_ready_percent_max real,
    cpu_costop_percent double precision,
    cpu_costop_percent_max real,
    cpu_usage_percent double precision,
    covered_seconds bigint,
    vm_id integer
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT vm.platform, vm.cluster, vm.host, vm.name, vm.vcpu_count,
       total.ready_sum / nullif(total.ready_seconds, 0),
       total.ready_max,
       total.costop_sum / nullif(total.costop_seconds, 0),
       total.costop_max,
       total.usage_sum / nullif(total.usage_seconds, 0),
       total.covered_seconds,
       vm.vm_id
FROM (
    SELECT bucket.vm_id,
           sum(bucket.cpu_ready_percent_sum) AS ready_sum,
           sum(bucket.cpu_ready_percent_seconds) AS ready_seconds,
           max(bucket.cpu_ready_percent_max) AS ready_max,
           sum(bucket.cpu_costop_percent_sum) AS costop_sum,
           sum(bucket.cpu_costop_percent_seconds) AS costop_seconds,
           max(bucket.cpu_costop_percent_max) AS costop_max,
           sum(bucket.cpu_usage_percent_sum) AS usage_sum,
           sum(bucket.cpu_usage_percent_seconds) AS usage_seconds,
           sum(bucket.covered_seconds) AS covered_seconds
    FROM (
        SELECT metrics.vm_id, cpu_ready_percent_sum, cpu_ready_percent_seconds, cpu_ready_percent_max,
               cpu_costop_percent_sum, cpu_costop_percent_seconds, cpu_costop_percent_max,
               cpu_usage_percent_sum, cpu_usage_percent_seconds, covered_seconds
        FROM virt_vm_metrics_5m AS metrics
        WHERE collected_at > from_time AND collected_at <= to_time AND to_time - from_time <= INTERVAL '6 hours'
        UNION ALL
        SELECT metrics.vm_id, cpu_ready_percent_sum, cpu_ready_percent_seconds, cpu_ready_percent_max,
               cpu_costop_percent_sum, cpu_costop_percent_seconds, cpu_costop_percent_max,
               cpu_usage_percent_sum, cpu_usage_percent_seconds, covered_seconds
        FROM virt_vm_metrics_1h AS metrics
        WHERE collected_at > from_time AND collected_at <= to_time AND to_time - from_time > INTERVAL '6 hours'
    ) AS bucket
    GROUP BY bucket.vm_id
) AS total
JOIN virt_vm_inventory AS vm ON vm.vm_id = total.vm_id
WHERE total.ready_seconds > 0
ORDER BY 6 DESC, vm.platform, vm.name
$$;
COMMENT ON FUNCTION virt_vm_by_ready(timestamptz, timestamptz) IS 'VMs by the time that they waited for a CPU, worst first: average and maximum of ready and co-stop between two times, by default the last hour. Spans up to 6 hours come from 5 minutes, longer ones from hours; the running bucket is not in yet.';

CREATE FUNCTION virt_vm_idle(
    span interval DEFAULT '7 days',
    cpu_percent double precision DEFAULT 3,
    network_kibps double precision DEFAULT 20,
    disk_kibps double precision DEFAULT 40,
    at_least interval DEFAULT '1 day'
)
RETURNS TABLE (
    platform text,
    cluster text,
    host text,
    name text,
    vcpu_count integer,
    memory_mib bigint,
    committed_bytes bigint,
    cpu_usage_percent double precision,
    cpu_usage_percent_max real,
    network_kibps double precision,
    disk_kibps double precision,
    covered interval,
    vm_id integer
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT vm.platform, vm.cluster, vm.host, vm.name, vm.vcpu_count, vm.memory_mib, vm.committed_bytes,
       total.cpu, total.cpu_max, total.network, total.disk, total.covered, vm.vm_id
FROM (
    SELECT bucket.vm_id,
           sum(cpu_usage_percent_sum) / nullif(sum(cpu_usage_percent_seconds), 0) AS cpu,
           max(cpu_usage_percent_max) AS cpu_max,
           sum(network_rx_kibps_sum) / nullif(sum(network_rx_kibps_seconds), 0)
               + sum(network_tx_kibps_sum) / nullif(sum(network_tx_kibps_seconds), 0) AS network,
           sum(disk_read_kibps_sum) / nullif(sum(disk_read_kibps_seconds), 0)
               + sum(disk_write_kibps_sum) / nullif(sum(disk_write_kibps_seconds), 0) AS disk,
           make_interval(secs => sum(covered_seconds)) AS covered
    FROM (
        SELECT metrics.vm_id, covered_seconds, cpu_usage_percent_sum, cpu_usage_percent_seconds, cpu_usage_percent_max,
               network_rx_kibps_sum, network_rx_kibps_seconds, network_tx_kibps_sum, network_tx_kibps_seconds,
               disk_read_kibps_sum, disk_read_kibps_seconds, disk_write_kibps_sum, disk_write_kibps_seconds
        FROM virt_vm_metrics_1h AS metrics
        WHERE collected_at > now() - span AND span <= INTERVAL '2 days'
        UNION ALL
        SELECT metrics.vm_id, covered_seconds, cpu_usage_percent_sum, cpu_usage_percent_seconds, cpu_usage_percent_max,
               network_rx_kibps_sum, network_rx_kibps_seconds, network_tx_kibps_sum, network_tx_kibps_seconds,
               disk_read_kibps_sum, disk_read_kibps_seconds, disk_write_kibps_sum, disk_write_kibps_seconds
        FROM virt_vm_metrics_1d AS metrics
        WHERE collected_at > now() - span AND span > INTERVAL '2 days'
    ) AS bucket
    GROUP BY bucket.vm_id
) AS total
JOIN virt_vm_inventory AS vm ON vm.vm_id = total.vm_id
WHERE vm.removed_at IS NULL
  AND vm.power_state = 'on'
  AND total.covered >= at_least
  AND total.cpu <= cpu_percent
  AND coalesce(total.network, 0) <= virt_vm_idle.network_kibps
  AND coalesce(total.disk, 0) <= virt_vm_idle.disk_kibps
ORDER BY vm.memory_mib DESC, vm.platform, vm.name
$$;
COMMENT ON FUNCTION virt_vm_idle(interval, double precision, double precision, double precision, interval) IS 'VMs that are on and do next to nothing, largest first: average CPU, network (received and sent) and disk (read and written) over a span, by default 7 days, are below the limits, and samples cover at least one day of it. Spans up to 2 days come from hours, longer ones from days.';

CREATE FUNCTION virt_vm_snapshot_old(older_than interval DEFAULT '7 days')
RETURNS TABLE (
    platform text,
    cluster text,
    host text,
    name text,
    snapshot text,
    created_at timestamptz,
    age interval,
    is_current boolean,
    vm_id integer
)
LANGUAGE sql STABLE
AS $$
SELECT vm.platform, vm.cluster, vm.host, vm.name, tree.path, tree.created_at, now() - tree.created_at, tree.is_current,
       vm.vm_id
FROM virt_vm_snapshot_tree AS tree
JOIN virt_vm_inventory AS vm ON vm.vm_id = tree.vm_id
WHERE vm.removed_at IS NULL AND tree.created_at < now() - older_than
ORDER BY tree.created_at, vm.platform, vm.name
$$;
COMMENT ON FUNCTION virt_vm_snapshot_old(interval) IS 'Snapshots that are older than a time, by default 7 days, oldest first. snapshot is its path from the root down.';

CREATE FUNCTION virt_datastore_filling(span interval DEFAULT '7 days')
RETURNS TABLE (
    platform text,
    datacenter text,
    name text,
    type text,
    capacity_bytes bigint,
    used_bytes bigint,
    free_bytes bigint,
    usage_percent real,
    uncommitted_bytes bigint,
    growth_bytes_per_day double precision,
    days_until_full double precision,
    observed interval,
    datastore_id integer
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT platform.name, datacenter.name, datastore.name, datastore.type, datastore.capacity_bytes, datastore.used_bytes,
       datastore.free_bytes, datastore.usage_percent, datastore.uncommitted_bytes, trend.growth,
       CASE WHEN trend.growth > 0 THEN datastore.free_bytes / trend.growth END,
       trend.observed,
       datastore.datastore_id
FROM virt_datastore AS datastore
JOIN virt_platform AS platform ON platform.platform_id = datastore.platform_id
LEFT JOIN virt_datacenter AS datacenter ON datacenter.datacenter_id = datastore.datacenter_id
LEFT JOIN (
    SELECT bucket.datastore_id,
           regr_slope(bucket.used, extract(epoch FROM bucket.collected_at - now())::double precision / 86400) AS growth,
           max(bucket.collected_at) - min(bucket.collected_at) AS observed
    FROM (
        SELECT metrics.datastore_id, collected_at, used_bytes_sum / nullif(used_bytes_samples, 0) AS used
        FROM virt_datastore_metrics_1h AS metrics
        WHERE collected_at > now() - span AND span <= INTERVAL '10 days'
        UNION ALL
        SELECT metrics.datastore_id, collected_at, used_bytes_sum / nullif(used_bytes_samples, 0)
        FROM virt_datastore_metrics_1d AS metrics
        WHERE collected_at > now() - span AND span > INTERVAL '10 days'
    ) AS bucket
    GROUP BY bucket.datastore_id
) AS trend ON trend.datastore_id = datastore.datastore_id
WHERE datastore.removed_at IS NULL AND platform.removed_at IS NULL
ORDER BY 11 NULLS LAST, datastore.usage_percent DESC NULLS LAST, platform.name, datastore.name
$$;
COMMENT ON FUNCTION virt_datastore_filling(interval) IS 'Datastores by the days until they are full, soonest first: their size now, and the straight line through what was in use over a span, by default 7 days. days_until_full is NULL where nothing grows, or too little is known: observed says from how long it is.';

CREATE FUNCTION virt_host_near_limit(
    span interval DEFAULT '1 hour',
    cpu_percent double precision DEFAULT 80,
    memory_percent double precision DEFAULT 90,
    ready_percent double precision DEFAULT 5
)
RETURNS TABLE (
    platform text,
    cluster text,
    name text,
    limits text,
    cpu_usage_percent double precision,
    cpu_usage_percent_max real,
    memory_usage_percent double precision,
    memory_usage_percent_max real,
    cpu_ready_percent double precision,
    cpu_ready_percent_max real,
    vms_on bigint,
    host_id integer
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT host.platform, host.cluster, host.name,
       concat_ws(', ', CASE WHEN total.cpu >= cpu_percent THEN 'cpu' END,
                       CASE WHEN total.memory >= memory_percent THEN 'memory' END,
                       CASE WHEN total.ready >= ready_percent THEN 'ready' END),
       total.cpu, total.cpu_max, total.memory, total.memory_max, total.ready, total.ready_max,
       (SELECT count(*) FROM virt_vm AS vm
        WHERE vm.host_id = host.host_id AND vm.power_state = 'on' AND vm.removed_at IS NULL),
       host.host_id
FROM (
    SELECT bucket.host_id,
           sum(cpu_usage_percent_sum) / nullif(sum(cpu_usage_percent_seconds), 0) AS cpu,
           max(cpu_usage_percent_max) AS cpu_max,
           sum(memory_usage_percent_sum) / nullif(sum(memory_usage_percent_seconds), 0) AS memory,
           max(memory_usage_percent_max) AS memory_max,
           sum(cpu_ready_percent_sum) / nullif(sum(cpu_ready_percent_seconds), 0) AS ready,
           max(cpu_ready_percent_max) AS ready_max
    FROM (
        SELECT metrics.host_id, cpu_usage_percent_sum, cpu_usage_percent_seconds, cpu_usage_percent_max,
               memory_usage_percent_sum, memory_usage_percent_seconds, memory_usage_percent_max,
               cpu_ready_percent_sum, cpu_ready_percent_seconds, cpu_ready_percent_max
        FROM virt_host_metrics_5m AS metrics
        WHERE collected_at > now() - span AND span <= INTERVAL '1 day'
        UNION ALL
        SELECT metrics.host_id, cpu_usage_percent_sum, cpu_usage_percent_seconds, cpu_usage_percent_max,
               memory_usage_percent_sum, memory_usage_percent_seconds, memory_usage_percent_max,
               cpu_ready_percent_sum, cpu_ready_percent_seconds, cpu_ready_percent_max
        FROM virt_host_metrics_1h AS metrics
        WHERE collected_at > now() - span AND span > INTERVAL '1 day'
    ) AS bucket
    GROUP BY bucket.host_id
) AS total
JOIN virt_host_inventory AS host ON host.host_id = total.host_id
WHERE host.removed_at IS NULL
  AND (total.cpu >= cpu_percent OR total.memory >= memory_percent OR total.ready >= ready_percent)
ORDER BY greatest(total.cpu / nullif(cpu_percent, 0), total.memory / nullif(memory_percent, 0),
                  total.ready / nullif(ready_percent, 0)) DESC, host.platform, host.name
$$;
COMMENT ON FUNCTION virt_host_near_limit(interval, double precision, double precision, double precision) IS 'Hosts whose average CPU, memory or ready over a span, by default the last hour, reaches a limit; worst first, and limits says which. Ready is the mean per hardware thread. Spans up to a day come from 5 minutes, longer ones from hours.';

CREATE FUNCTION virt_collection_gap_by_day(
    from_time timestamptz DEFAULT now() - INTERVAL '7 days',
    to_time timestamptz DEFAULT now()
)
RETURNS TABLE (
    day date,
    platform text,
    entity_kind text,
    state text,
    reason text,
    gaps bigint,
    entities bigint,
    missing interval
)
LANGUAGE sql STABLE
AS $$
SELECT (midnight.day AT TIME ZONE 'UTC')::date,
       platform.name,
       gap.entity_kind,
       gap.state,
       coalesce(gap.reason, gap.hint),
       count(*),
       count(DISTINCT gap.entity_id),
       sum(least(gap.to_time, virt_collection_gap_by_day.to_time, midnight.day + INTERVAL '24 hours')
           - greatest(gap.from_time, virt_collection_gap_by_day.from_time, midnight.day))
FROM (
    SELECT entity_kind, entity_id, platform_id, state, reason, hint, from_time, coalesce(to_time, now()) AS to_time
    FROM virt_collection_gap
) AS gap
JOIN virt_platform AS platform ON platform.platform_id = gap.platform_id
CROSS JOIN LATERAL generate_series(
    date_trunc('day', greatest(gap.from_time, virt_collection_gap_by_day.from_time), 'UTC'),
    least(gap.to_time, virt_collection_gap_by_day.to_time) - INTERVAL '1 microsecond',
    INTERVAL '24 hours') AS midnight (day)
WHERE gap.to_time > virt_collection_gap_by_day.from_time AND gap.from_time < virt_collection_gap_by_day.to_time
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1 DESC, 2, 3, 4, 5
$$;
COMMENT ON FUNCTION virt_collection_gap_by_day(timestamptz, timestamptz) IS 'Gaps by day (UTC), platform, kind, state and reason between two times, by default the last 7 days: gap rows, entities, and the time that is missing, summed over the entities. A gap over midnight counts on both days; one without an end reaches until now. Powered_off and removed are in.';

------------------------------------------------------------------------------------------------------------------
-- Columns that are those of a table say what the table's say.
------------------------------------------------------------------------------------------------------------------

DO $$
DECLARE
    said record;
BEGIN
    FOR said IN
        SELECT DISTINCT ON (shown.oid, shown_column.attnum)
               shown.relname AS view_name, shown_column.attname AS column_name,
               col_description(source.oid, source_column.attnum) AS comment
        FROM (VALUES
            ('virt_host_inventory', 'virt_host', 1),
            ('virt_vm_inventory', 'virt_vm', 1),
            ('virt_host_samples', 'virt_host_metrics', 1),
            ('virt_vm_samples', 'virt_vm_metrics', 1),
            ('virt_host_latest', 'virt_host_metrics', 1),
            ('virt_host_latest', 'virt_host', 2),
            ('virt_vm_latest', 'virt_vm_metrics', 1),
            ('virt_vm_latest', 'virt_vm', 2),
            ('virt_cluster_latest', 'virt_cluster', 1)
        ) AS pair (view_name, table_name, rank)
        JOIN pg_class AS shown ON shown.oid = pair.view_name::regclass
        JOIN pg_class AS source ON source.oid = pair.table_name::regclass
        JOIN pg_attribute AS shown_column ON shown_column.attrelid = shown.oid AND shown_column.attnum > 0
        JOIN pg_attribute AS source_column
            ON source_column.attrelid = source.oid AND source_column.attname = shown_column.attname
        WHERE col_description(shown.oid, shown_column.attnum) IS NULL
          AND col_description(source.oid, source_column.attnum) IS NOT NULL
        ORDER BY shown.oid, shown_column.attnum, pair.rank
    LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', said.view_name, said.column_name, said.comment);
    END LOOP;
END
$$;
