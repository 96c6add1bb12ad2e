-- A day of samples as the daemon stores them: a minute of all entities at a time, an entity's samples side by side.
--
-- Load follows the time of day, each entity a little apart, with noise on it. One VM in ten idles, one in twenty is at
-- its limit, the last host too. Cells are NULL where a source publishes nothing: latency without disk operations, a
-- guest without network, power of some VMs. Seeded, so that a second run draws the same numbers.

SELECT setseed(0.42);

CREATE TEMP TABLE day_vm AS
SELECT vm_id, host_id, vcpu_count, memory_mib * 1024 AS memory_kib, power_state, platform.name AS platform,
       vm_id % 10 = 3 AS idles,
       vm_id % 20 = 5 AS is_busy,
       vm_id % 7 = 2 AS is_without_network,
       0.1 + 0.5 * (vm_id * 37 % 100) / 100.0 AS level,
       2 * pi() * (vm_id * 13 % 100) / 400.0 AS phase
FROM virt_vm
JOIN virt_platform AS platform USING (platform_id)
WHERE NOT is_template;

CREATE TEMP TABLE day_host AS
SELECT host_id, core_count * cpu_mhz AS capacity_mhz, memory_mib * 1024 AS memory_kib, platform.name AS platform,
       host_id = (SELECT max(host_id) FROM virt_host) AS is_busy,
       0.2 + 0.3 * (host_id * 37 % 100) / 100.0 AS level,
       2 * pi() * (host_id * 13 % 100) / 400.0 AS phase
FROM virt_host
JOIN virt_platform AS platform USING (platform_id);

-- What is missing: half an hour of every fiftieth VM, twenty minutes of one vCenter, and whoever was switched off at
-- noon of this day.
CREATE TEMP TABLE day_hole AS
SELECT vm_id, NULL::integer AS host_id, until - INTERVAL '1 hour' * (hours * 0.5) AS from_time,
       NULL::timestamptz AS to_time, 'powered_off' AS reason
FROM day, day_vm
WHERE power_state = 'off'
UNION ALL
SELECT vm_id, NULL, until - INTERVAL '5 hours', until - INTERVAL '4 hours 30 minutes', 'not_published'
FROM day, day_vm
WHERE vm_id % 50 = 1
UNION ALL
SELECT vm_id, NULL, until - INTERVAL '3 hours', until - INTERVAL '2 hours 40 minutes', 'expired'
FROM day, day_vm
WHERE platform = 'paris' AND power_state = 'on'
UNION ALL
SELECT NULL, host_id, until - INTERVAL '3 hours', until - INTERVAL '2 hours 40 minutes', 'expired'
FROM day, day_host
WHERE platform = 'paris';

DO $$
DECLARE
    start_of_hour timestamptz;
BEGIN
    FOR start_of_hour IN
        SELECT generate_series(until - INTERVAL '1 hour' * hours, until - INTERVAL '1 hour', INTERVAL '1 hour')
        FROM day
    LOOP
        INSERT INTO virt_vm_metrics (
            vm_id, collected_at, interval_seconds, host_id, vcpu_count, cpu_usage_percent, cpu_usage_mhz,
            cpu_demand_mhz, cpu_ready_percent, cpu_costop_percent, cpu_latency_percent, memory_usage_percent,
            memory_consumed_kib, memory_active_kib, memory_granted_kib, memory_overhead_kib, memory_shared_kib,
            memory_balloon_kib, memory_compressed_kib, memory_swapped_kib, memory_swap_in_kibps,
            memory_swap_out_kibps, memory_latency_percent, disk_read_iops, disk_read_kibps, disk_write_iops,
            disk_write_kibps, disk_read_latency_ms, disk_write_latency_ms, disk_max_latency_ms, network_rx_kibps,
            network_tx_kibps, network_rx_packets_per_second, network_tx_packets_per_second,
            network_rx_dropped_per_second, network_tx_dropped_per_second, power_watts, uptime_seconds)
        SELECT vm_id, collected_at, 20, host_id, vcpu_count, round(100 * cpu) / 100, vcpu_count * 20 * cpu,
               vcpu_count * 21 * cpu, round(1000 * (ready * noise)) / 1000, round(1000 * (ready / 4 * noise)) / 1000,
               round(100 * (ready * 1.2)) / 100, round(100 * (memory * 100)) / 100, memory_kib * (0.5 + memory / 2),
               memory_kib * memory, memory_kib, 60000 + vcpu_count * 12000, memory_kib * 0.05, 0, 0, 0, 0, 0, 0,
               iops * 0.4, iops * 9, iops * 0.6, iops * 15,
               CASE WHEN iops >= 2 THEN round(100 * (0.4 + ready / 2 + noise)) / 100 END,
               CASE WHEN iops >= 2 THEN round(100 * (0.8 + ready / 2 + noise)) / 100 END,
               CASE WHEN iops >= 2 THEN 2 + 8 * noise * noise END,
               network * 3, network * 5, network * 2.5, network * 4, network * 0, network * 0,
               CASE WHEN vm_id % 3 > 0 THEN 2 + cpu / 10 * vcpu_count END,
               extract(epoch FROM collected_at - start_of_hour) + 86400 * (1 + vm_id % 60)
        FROM (
            SELECT vm.*,
                   CASE WHEN idles THEN 0.3 + 0.5 * noise
                        WHEN is_busy THEN 88 + 11 * noise
                        ELSE least(100, 100 * level * wave * (0.7 + 0.6 * noise)) END AS cpu,
                   CASE WHEN is_busy THEN 4 + 10 * noise * noise ELSE 0.05 + 0.8 * noise * noise END AS ready,
                   CASE WHEN idles THEN 0.03 ELSE 0.2 + 0.5 * level * wave + 0.05 * noise END AS memory,
                   CASE WHEN idles THEN 1.2 * noise ELSE 400 * level * wave * noise END AS iops,
                   CASE WHEN is_without_network THEN NULL WHEN idles THEN noise
                        ELSE 500 * level * wave * noise END AS network
            FROM (SELECT vm.*, minute + INTERVAL '20 seconds' * n AS collected_at, random() AS noise,
                         0.6 + 0.4 * sin(2 * pi() * extract(epoch FROM minute) / 86400 - 2 + phase) AS wave
                  FROM generate_series(start_of_hour, start_of_hour + INTERVAL '59 minutes', '1 minute') AS minute,
                       day_vm AS vm, generate_series(1, 3) AS n
                  ORDER BY minute, vm_id, n) AS vm
        ) AS sample
        WHERE NOT EXISTS (
            SELECT FROM day_hole AS hole
            WHERE hole.vm_id = sample.vm_id AND sample.collected_at > hole.from_time
              AND sample.collected_at < coalesce(hole.to_time, 'infinity'));

        INSERT INTO virt_host_metrics (
            host_id, collected_at, interval_seconds, cpu_usage_percent, cpu_utilization_percent, cpu_usage_mhz,
            cpu_demand_mhz, cpu_capacity_mhz, cpu_ready_percent, cpu_costop_percent, cpu_latency_percent,
            memory_usage_percent, memory_consumed_kib, memory_active_kib, memory_granted_kib, memory_capacity_kib,
            memory_overhead_kib, memory_shared_kib, memory_balloon_kib, memory_compressed_kib, memory_swap_used_kib,
            memory_swap_in_kibps, memory_swap_out_kibps, memory_latency_percent, disk_read_iops, disk_read_kibps,
            disk_write_iops, disk_write_kibps, disk_read_latency_ms, disk_write_latency_ms, disk_max_latency_ms,
            network_rx_kibps, network_tx_kibps, network_rx_packets_per_second, network_tx_packets_per_second,
            network_rx_dropped_per_second, network_tx_dropped_per_second, network_rx_errors_per_second,
            network_tx_errors_per_second, power_watts, uptime_seconds)
        SELECT host_id, collected_at, 20, round(100 * (cpu * 100)) / 100, round(100 * (cpu * 95)) / 100,
               capacity_mhz * cpu, capacity_mhz * cpu * 1.05, capacity_mhz, round(1000 * (cpu * 3 * noise)) / 1000,
               round(1000 * (cpu * noise)) / 1000, round(100 * (cpu * 2)) / 100, round(100 * (memory * 100)) / 100,
               memory_kib * memory, memory_kib * memory / 3, memory_kib * memory, memory_kib, memory_kib * 0.02,
               memory_kib * 0.05, 0, 0, 0, 0, 0, 0, 8000 * cpu * noise, 90000 * cpu * noise, 12000 * cpu * noise,
               150000 * cpu * noise, round(100 * (0.5 + noise)) / 100, round(100 * (0.9 + noise)) / 100,
               3 + 10 * noise * noise, 30000 * cpu * noise, 50000 * cpu * noise, 25000 * cpu * noise,
               40000 * cpu * noise, 0, 0, 0, 0, 250 + 400 * cpu,
               extract(epoch FROM collected_at - start_of_hour) + 86400 * (5 + host_id % 80)
        FROM (
            SELECT host.*,
                   CASE WHEN is_busy THEN 0.9 + 0.08 * noise ELSE level * wave * (0.9 + 0.2 * noise) END AS cpu,
                   CASE WHEN is_busy THEN 0.93 ELSE 0.3 + 0.6 * level + 0.02 * noise END AS memory
            FROM (SELECT host.*, minute + INTERVAL '20 seconds' * n AS collected_at, random() AS noise,
                         0.8 + 0.3 * sin(2 * pi() * extract(epoch FROM minute) / 86400 - 2 + phase) AS wave
                  FROM generate_series(start_of_hour, start_of_hour + INTERVAL '59 minutes', '1 minute') AS minute,
                       day_host AS host, generate_series(1, 3) AS n
                  ORDER BY minute, host_id, n) AS host
        ) AS sample
        WHERE NOT EXISTS (
            SELECT FROM day_hole AS hole
            WHERE hole.host_id = sample.host_id AND sample.collected_at > hole.from_time
              AND sample.collected_at < hole.to_time);
    END LOOP;
END
$$;

-- Capacity at each sync, five minutes apart. The first datastore goes from 60 to 97 percent within the day, the others
-- are between 30 and 80 and grow by less than a percent a day.
INSERT INTO virt_datastore_metrics (datastore_id, collected_at, capacity_bytes, free_bytes, uncommitted_bytes)
SELECT datastore_id, collected_at, capacity_bytes,
       capacity_bytes * (1 - CASE WHEN moref = 'datastore-1' THEN 0.97 - 0.37 * age
                                  ELSE 0.3 + 0.5 * (datastore_id * 37 % 100) / 100.0 - 0.005 * age END),
       uncommitted_bytes
FROM (
    SELECT datastore.*, collected_at,
           extract(epoch FROM until - collected_at)::double precision / (hours * 3600) AS age
    FROM day,
         generate_series(until - INTERVAL '1 hour' * hours, until, INTERVAL '5 minutes') AS collected_at,
         virt_datastore AS datastore
    WHERE is_accessible
    ORDER BY collected_at, datastore_id
) AS sync;
UPDATE virt_datastore AS datastore
SET free_bytes = newest.free_bytes
FROM (SELECT DISTINCT ON (datastore_id) datastore_id, free_bytes
      FROM virt_datastore_metrics
      ORDER BY datastore_id, collected_at DESC) AS newest
WHERE newest.datastore_id = datastore.datastore_id;

INSERT INTO virt_collection_gap (from_time, to_time, platform_id, entity_id, entity_kind, state, reason, attempts,
                                 asked_at, explained_at)
SELECT from_time, to_time, coalesce(vm.platform_id, host.platform_id), coalesce(vm.vm_id, host.host_id),
       CASE WHEN vm.vm_id IS NULL THEN 'host' ELSE 'vm' END, 'explained', reason, 1, from_time, from_time
FROM day_hole AS hole
LEFT JOIN virt_vm AS vm ON vm.vm_id = hole.vm_id
LEFT JOIN virt_host AS host ON host.host_id = hole.host_id;
-- What is yet to be asked for: one VM that has been silent for minutes.
INSERT INTO virt_collection_gap (from_time, to_time, platform_id, entity_id, entity_kind, state)
SELECT until - INTERVAL '80 minutes', until - INTERVAL '70 minutes', platform_id, vm_id, 'vm', 'open'
FROM day, virt_vm
WHERE vm_id = 2;
DELETE FROM virt_vm_metrics
USING day
WHERE vm_id = 2 AND collected_at > until - INTERVAL '80 minutes' AND collected_at < until - INTERVAL '70 minutes';
