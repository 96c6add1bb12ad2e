//! Examples of what answers and bodies hold; a test holds them against the schemas.

use serde_json::{Value, json};

const THEN: &str = "2026-03-14T09:26:40Z";

/// The example of a schema.
pub(super) fn of(schema: &str) -> Option<Value> {
    Some(match schema {
        "Problem" => json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "code": "not_found",
            "detail": "There is no VM 17 that this token may see.",
            "request_id": "01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f",
        }),
        "Platform" => json!({
            "id": 1, "name": "berlin", "type": "vcenter", "host": "vcenter.example.com", "port": 443,
            "user": "virt-collector@vsphere.local", "source": "registry", "status": "connected", "class": null,
            "reason": null, "since": THEN, "maintenance": false, "active": true, "version": "8.0.3",
            "build": "24022515", "api_type": "VirtualCenter", "identity": "dbed6e0c-bd88-4ef6-b594-21283e1c677f",
            "trust": "thumbprint", "thumbprint": "5f2a".repeat(16), "datacenters": [], "include": ["/Berlin/**"],
            "exclude": [], "collector": "collector-1", "hosts": 12, "vms": 340, "has_password": true, "revision": 3,
            "synced_at": THEN, "sync_asked_at": null, "last_success_at": THEN, "created_at": THEN, "removed_at": null,
        }),
        "NewPlatform" => json!({
            "name": "berlin", "host": "vcenter.example.com", "user": "virt-collector@vsphere.local",
            "password": "correct horse battery staple", "type": "vcenter", "port": 443,
            "thumbprint": "5f2a".repeat(16), "include": ["/Berlin/**"],
        }),
        "PlatformChange" => json!({
            "host": "vcenter-2.example.com", "password": "correct horse battery staple", "revision": 3,
        }),
        "Credentials" => json!({ "password": "correct horse battery staple" }),
        "Maintenance" => json!({ "enabled": true }),
        "Trial" => trial(),
        "TrialTaken" => json!({ "hosts": 12, "vms": 215 }),
        "TrialResult" => json!({
            "ok": false, "class": "auth", "trial": null,
            "reason": "the account or its password was refused; check both, and that the account is not locked",
        }),
        "Host" => json!({
            "id": 4, "platform_id": 1, "platform": "berlin", "moref": "host-12", "name": "esx01.example.com",
            "power_state": "on", "connected": true, "connection_state": "connected", "maintenance": false,
            "overall_status": "green", "cluster_id": 2, "cluster": "Production", "datacenter": "Berlin",
            "management_ip": "192.0.2.11", "hardware_uuid": "4c4c4544-0042-3510-8031-b4c04f4d3532",
            "vendor": "Dell Inc.", "model": "PowerEdge R760", "cpu_model": "Intel(R) Xeon(R) Gold 6430",
            "socket_count": 2, "core_count": 64, "thread_count": 128, "cpu_mhz": 2100, "memory_mib": 1_048_576,
            "version": "8.0.3", "build": "24022510", "booted_at": THEN, "first_seen_at": THEN, "removed_at": null,
            "metrics": null,
        }),
        "Vm" => vm(),
        "VmDetails" => {
            let mut details = vm();
            if let Some(details) = details.as_object_mut() {
                details.insert("disks".to_owned(), json!([of("Disk")]));
                details.insert("nics".to_owned(), json!([of("Nic")]));
            }
            details
        }
        "Disk" => json!({
            "key": 2000, "label": "Hard disk 1", "capacity_bytes": 42_949_672_960_i64,
            "file": "[ssd-1] web-1/web-1.vmdk", "thin": true,
        }),
        "Nic" => json!({
            "key": 4000, "label": "Network adapter 1", "type": "vmxnet3", "mac": "00:50:56:ab:cd:ef",
            "network": "web", "connected": true, "ip_addresses": ["198.51.100.7"],
        }),
        "Snapshot" => json!({
            "vm": 17, "moref": "snapshot-91", "parent": null, "name": "before the upgrade",
            "description": "asked for by operation 01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f", "created_at": THEN,
            "power_state": "on", "quiesced": false, "current": true, "children": [],
        }),
        "KeptPlatform" => json!({ "platform": of("Platform"), "trial": trial(), "also_collected_by": [] }),
        "SnapshotTree" => json!({ "items": [of("Snapshot")] }),
        "Confirmation" => json!({ "confirm": "web-1" }),
        "NewSnapshot" => {
            json!({ "name": "before the upgrade", "description": "ticket 4711", "memory": false, "quiesce": false })
        }
        "Operation" => json!({
            "id": "01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f", "platform_id": 1, "platform": "berlin", "vm_id": 17,
            "vm_moref": "vm-42", "vm_name": "web-1", "action": "create_snapshot",
            "arguments": { "name": "before the upgrade", "description": "ticket 4711", "memory": false, "quiesce": false },
            "state": "succeeded", "progress": 100, "task": "task-8123", "result": { "snapshot": "snapshot-91" },
            "code": null, "detail": null, "requested_by": "deploy",
            "request_id": "01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3e", "created_at": THEN, "started_at": THEN,
            "sent_at": THEN, "ended_at": THEN,
        }),
        "AuditEntry" => json!({
            "id": 4711, "at": THEN, "entry": "outcome", "actor": "deploy", "client": null,
            "request_id": "01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3e", "action": "create_snapshot", "platform": "berlin",
            "target": "vm-42", "target_name": "web-1", "operation_id": "01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f",
            "outcome": "ok", "code": null, "detail": null, "before": null, "after": { "snapshot": "snapshot-91" },
        }),
        "Health" => json!({ "status": "ok" }),
        "PlatformPage" => page("Platform"),
        "HostPage" => page("Host"),
        "VmPage" => page("Vm"),
        "DatastorePage" => page("Datastore"),
        "ClusterPage" => page("Cluster"),
        "OperationPage" => page("Operation"),
        "AuditPage" => page("AuditEntry"),
        "Datastore" => json!({
            "id": 3, "platform_id": 1, "platform": "berlin", "moref": "datastore-15", "name": "ssd-1", "type": "VMFS",
            "url": "ds:///vmfs/volumes/5f2a7c1e-1b2c3d4e-5f60-b4c04f4d3532/", "overall_status": "green",
            "datacenter": "Berlin", "accessible": true, "maintenance_mode": "normal",
            "capacity_bytes": 1_099_511_627_776_i64, "free_bytes": 274_877_906_944_i64, "uncommitted_bytes": 0,
            "used_bytes": 824_633_720_832_i64, "usage_percent": 75.0, "host_ids": [4, 5], "first_seen_at": THEN,
            "removed_at": null,
        }),
        "Cluster" => json!({
            "id": 2, "platform_id": 1, "platform": "berlin", "moref": "domain-c8", "name": "Production",
            "overall_status": "green", "datacenter": "Berlin", "total_cpu_mhz": 268_800, "effective_cpu_mhz": 250_000,
            "total_memory_mib": 2_097_152, "effective_memory_mib": 2_050_000, "host_count": 2,
            "effective_host_count": 2, "drs_enabled": true, "ha_enabled": true, "first_seen_at": THEN,
            "removed_at": null,
        }),
        _ => return None,
    })
}

fn trial() -> Value {
    json!({
        "server": "VMware vCenter Server 8.0.3 build-24022515", "version": "8.0.3", "build": "24022515",
        "api_type": "VirtualCenter", "api_version": "8.0.3.0", "identity": "dbed6e0c-bd88-4ef6-b594-21283e1c677f",
        "clock_skew_ms": -12, "roles": ["ReadOnly"], "hosts": 12, "vms": 340, "vms_powered_on": 301,
        "taken": of("TrialTaken"), "unusable_counters": [], "warnings": [],
    })
}

fn vm() -> Value {
    json!({
        "id": 17, "platform_id": 1, "platform": "berlin", "moref": "vm-42", "name": "web-1", "power_state": "on",
        "connected": true, "connection_state": "connected", "template": false, "overall_status": "green",
        "instance_uuid": "5021a6c2-4d3e-4f5a-8b6c-7d8e9fa0b1c2", "bios_uuid": "4221a6c2-4d3e-4f5a-8b6c-7d8e9fa0b1c2",
        "host_id": 4, "host": "esx01.example.com", "cluster_id": 2, "cluster": "Production",
        "resource_pool": "Resources", "datacenter": "Berlin", "folder_path": "/Berlin/Web", "vcpu_count": 4,
        "memory_mib": 8192, "guest_id": "debian12_64Guest", "guest_os": "Debian GNU/Linux 12 (64-bit)",
        "guest_os_reported": null, "guest_host_name": "web-1.example.com", "ip_address": "198.51.100.7",
        "tools_running": "guestToolsRunning", "tools_version": "guestToolsCurrent", "consolidation_needed": false,
        "committed_bytes": 21_474_836_480_i64, "uncommitted_bytes": 21_474_836_480_i64, "annotation": null,
        "custom_attributes": { "Owner": "web team" }, "booted_at": THEN, "first_seen_at": THEN, "removed_at": null,
        "metrics": null,
    })
}

fn page(schema: &str) -> Value {
    json!({ "items": [of(schema)], "next_cursor": null })
}
