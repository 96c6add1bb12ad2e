-- Who there is: two vCenters and an ESXi host of its own, and what they have. Settings day.vms and day.hours say how
-- many VMs and how long; a host for ten VMs, a datastore for twenty-five.
--
-- Everything follows from the numbers of things, and all times are before day.until, the newest stamp.

CREATE TEMP TABLE day AS
SELECT current_setting('day.vms')::integer AS vms,
       greatest(4, current_setting('day.vms')::integer / 10) AS hosts,
       greatest(2, current_setting('day.vms')::integer / 160) AS clusters,
       greatest(3, current_setting('day.vms')::integer / 25) AS datastores,
       current_setting('day.hours')::integer AS hours,
       to_timestamp(floor(extract(epoch FROM clock_timestamp()) / 20) * 20) AS until;

-- The first is `connected`, the last in trouble: a collector page that shows only good news shows nothing.
INSERT INTO virt_platform (name, type, host, port, identity, status, status_class, status_reason, version, build,
                           api_type, last_success_at, user_name, synced_at)
SELECT name, type, name || '.example.com', 443, md5(name)::uuid::text, status, class, reason, '8.0.3', '24022515',
       api_type, clock_timestamp(), 'virt-collector@vsphere.local', clock_timestamp() - INTERVAL '2 minutes'
FROM (VALUES (1, 'berlin', 'vcenter', 'connected', NULL, NULL, 'VirtualCenter'),
             (2, 'paris', 'vcenter', 'connected', NULL, NULL, 'VirtualCenter'),
             (3, 'edge', 'esxi', 'error', 'timeout', 'no answer within 30 s', 'HostAgent'))
     AS platform (n, name, type, status, class, reason, api_type)
ORDER BY n;

INSERT INTO virt_datacenter (platform_id, moref, name, first_seen_at)
SELECT platform_id, 'datacenter-2', initcap(name), clock_timestamp() - INTERVAL '90 days'
FROM virt_platform
ORDER BY platform_id;

-- Two clusters in three are the first vCenter's.
INSERT INTO virt_cluster (platform_id, moref, name, overall_status, datacenter_id, drs_enabled, ha_enabled,
                          first_seen_at)
SELECT platform_id, 'domain-c' || n, format('cluster-%s', n), CASE WHEN n % 5 = 0 THEN 'yellow' ELSE 'green' END,
       datacenter_id, true, true, clock_timestamp() - INTERVAL '90 days'
FROM day, generate_series(1, clusters) AS n
JOIN virt_platform ON name = CASE WHEN n % 3 = 2 THEN 'paris' ELSE 'berlin' END
JOIN virt_datacenter USING (platform_id)
ORDER BY n;

-- The last host is a platform by itself and in no cluster.
INSERT INTO virt_host (platform_id, moref, name, hardware_uuid, power_state, is_connected, in_maintenance,
                       thread_count, first_seen_at, overall_status, connection_state, management_ip, vendor, model,
                       cpu_model, socket_count, core_count, cpu_mhz, memory_mib, version, build, booted_at,
                       cluster_id, datacenter_id)
SELECT coalesce(cluster.platform_id, edge.platform_id), 'host-' || n, format('esx-%s.example.com', n),
       md5('host' || n)::uuid::text, 'on', true, n % 50 = 49, 128, clock_timestamp() - INTERVAL '90 days',
       CASE WHEN n % 20 = 0 THEN 'red' WHEN n % 20 = 10 THEN 'yellow' ELSE 'green' END, 'connected',
       format('10.%s.%s.%s', n / 62500, n / 250 % 250, n % 250 + 1), 'Dell Inc.', 'PowerEdge R760',
       'Intel(R) Xeon(R) Gold 6438Y+', 2, 64, 2000, 1048576, '8.0.3', '24022510',
       clock_timestamp() - INTERVAL '1 day' * (5 + n % 80), cluster.cluster_id,
       coalesce(cluster.datacenter_id, edge_datacenter.datacenter_id)
FROM day
CROSS JOIN generate_series(1, hosts) AS n
JOIN virt_platform AS edge ON edge.name = 'edge'
JOIN virt_datacenter AS edge_datacenter ON edge_datacenter.platform_id = edge.platform_id
LEFT JOIN virt_cluster AS cluster
    ON n < hosts AND cluster.moref = 'domain-c' || 1 + (n - 1) * clusters / (hosts - 1)
ORDER BY n;

UPDATE virt_cluster AS cluster
SET host_count = sums.hosts, effective_host_count = sums.hosts, total_cpu_mhz = sums.mhz,
    effective_cpu_mhz = sums.mhz, total_memory_mib = sums.mib, effective_memory_mib = sums.mib
FROM (SELECT cluster_id, count(*) AS hosts, sum(core_count * cpu_mhz) AS mhz, sum(memory_mib) AS mib
      FROM virt_host
      GROUP BY cluster_id) AS sums
WHERE sums.cluster_id = cluster.cluster_id;

INSERT INTO virt_resource_pool (platform_id, moref, name, cluster_id, first_seen_at)
SELECT platform_id, 'resgroup-' || cluster_id, 'Resources', cluster_id, first_seen_at
FROM virt_cluster
ORDER BY cluster_id;

-- One in twenty is switched off, one in a hundred is a template.
INSERT INTO virt_vm (platform_id, moref, name, instance_uuid, bios_uuid, power_state, is_connected, host_id,
                     host_since, vcpu_count, memory_mib, is_template, first_seen_at, overall_status,
                     connection_state, guest_id, guest_os, guest_host_name, ip_address, tools_running,
                     tools_version, booted_at, resource_pool_id, datacenter_id, folder_path, consolidation_needed,
                     committed_bytes, uncommitted_bytes)
SELECT host.platform_id, 'vm-' || n, format('%s-%s', (ARRAY['web', 'app', 'db', 'cache', 'build'])[1 + n % 5], n),
       md5('vm' || n)::uuid::text, md5('bios' || n)::uuid::text,
       CASE WHEN n % 20 = 7 OR n % 100 = 50 THEN 'off' ELSE 'on' END, true, host.host_id,
       clock_timestamp() - INTERVAL '1 hour' * (1 + n % 500), (ARRAY[1, 2, 4, 8])[1 + n % 4],
       (ARRAY[2048, 4096, 8192, 16384])[1 + n % 4], n % 100 = 50, clock_timestamp() - INTERVAL '80 days',
       CASE WHEN n % 40 = 0 THEN 'yellow' ELSE 'green' END, 'connected', 'debian12_64Guest',
       'Debian GNU/Linux 12 (64-bit)', format('vm-%s.example.com', n),
       format('10.100.%s.%s', n / 250, n % 250 + 1), 'guestToolsRunning', '12352',
       clock_timestamp() - INTERVAL '1 day' * (1 + n % 60), pool.resource_pool_id, host.datacenter_id, '/vm/apps',
       n % 200 = 3, (20 + n % 200) * 1073741824::bigint, (n % 100) * 1073741824::bigint
FROM day
CROSS JOIN generate_series(1, vms) AS n
JOIN virt_host AS host ON host.moref = 'host-' || 1 + (n - 1) % hosts
LEFT JOIN virt_resource_pool AS pool ON pool.cluster_id = host.cluster_id
ORDER BY n;

INSERT INTO virt_vm_placement (vm_id, host_id, from_time)
SELECT vm_id, host_id, host_since FROM virt_vm;

INSERT INTO virt_vm_disk (vm_id, disk_key, label, capacity_bytes, file, is_thin, first_seen_at)
SELECT vm_id, 1999 + n, 'Hard disk ' || n, (20 + vm_id % 200) * 1073741824::bigint,
       format('[store-%s] %s/%s_%s.vmdk', 1 + vm_id % datastores, name, name, n), vm_id % 3 > 0, first_seen_at
FROM day, virt_vm, generate_series(1, 2) AS n;

INSERT INTO virt_vm_nic (vm_id, nic_key, label, type, mac, network, is_connected, ip_addresses, first_seen_at)
SELECT vm_id, 4000, 'Network adapter 1', 'vmxnet3', '00:50:56:' || to_char(vm_id, 'FM00"00:00"'), 'VM Network',
       power_state = 'on', ARRAY[ip_address], first_seen_at
FROM virt_vm;

-- One VM in twenty has a snapshot, from a day to months old; one in a hundred has two more below.
INSERT INTO virt_vm_snapshot (vm_id, moref, parent_moref, name, description, created_at, power_state, is_quiesced,
                              is_current, first_seen_at)
SELECT vm_id, format('snapshot-%s-%s', vm_id, n), CASE WHEN n > 1 THEN format('snapshot-%s-%s', vm_id, n - 1) END,
       CASE n WHEN 1 THEN 'before the upgrade' ELSE 'step ' || n END, 'ticket ' || 4000 + vm_id,
       clock_timestamp() - INTERVAL '1 day' * (1 + vm_id % 90) + INTERVAL '1 hour' * n, 'on', false,
       n = CASE WHEN vm_id % 100 = 15 THEN 3 ELSE 1 END, clock_timestamp() - INTERVAL '1 hour'
FROM virt_vm, generate_series(1, 3) AS n
WHERE vm_id % 20 = 15 AND (n = 1 OR vm_id % 100 = 15);

-- The first fills up, see samples.sql; the last cannot be reached.
INSERT INTO virt_datastore (platform_id, moref, name, type, url, overall_status, datacenter_id, capacity_bytes,
                            free_bytes, uncommitted_bytes, is_accessible, maintenance_mode, host_ids, first_seen_at)
SELECT platform.platform_id, 'datastore-' || n, 'store-' || n, CASE WHEN n % 4 = 0 THEN 'NFS' ELSE 'VMFS' END,
       format('ds:///vmfs/volumes/%s/', md5('store' || n)), 'green', datacenter_id,
       (8 + n % 4 * 8) * 1099511627776, (4 + n % 4 * 4) * 1099511627776, (1 + n % 3) * 1099511627776,
       n < datastores, 'normal',
       ARRAY(SELECT host_id FROM virt_host WHERE platform_id = platform.platform_id),
       clock_timestamp() - INTERVAL '90 days'
FROM day
CROSS JOIN generate_series(1, datastores) AS n
JOIN virt_platform AS platform
    ON platform.name = CASE WHEN n = 2 THEN 'edge' WHEN n % 3 = 2 THEN 'paris' ELSE 'berlin' END
JOIN virt_datacenter USING (platform_id)
ORDER BY n;

-- Two collectors, of which the first has two platforms, and the third platform has nobody at the moment.
INSERT INTO virt_collector (owner, host_name, platforms, until)
SELECT owner, owner || '.example.com', ARRAY['berlin', 'paris', 'edge'], clock_timestamp() + INTERVAL '1 day'
FROM unnest(ARRAY['collector-1', 'collector-2']) AS owner;
INSERT INTO virt_platform_lease (platform_id, owner, epoch, until)
SELECT platform_id, CASE WHEN name = 'edge' THEN 'collector-2' ELSE 'collector-1' END, 3,
       clock_timestamp() + CASE WHEN name = 'edge' THEN INTERVAL '-1 minute' ELSE INTERVAL '1 day' END
FROM virt_platform;
