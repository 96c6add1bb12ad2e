"""The inventory that virt-collector stores of vcsim, held against what pyvmomi reads from the same server.

Shares nothing with the collector: properties are read by VMware's client, and what a column should hold is said
here once more.

vcsim does not tell of everything that it changes; what it keeps to itself has to be there after the next reading.
"""

import datetime
import re
import sys
import time
import urllib.parse

import rig
from pyVmomi import vim
from rig import finish, rows

# Of the custom attributes only this one is allowed.
ATTRIBUTE = "Owner"
ROOTS = ("group-d1", "ha-folder-root")
CARDS = {
    vim.vm.device.VirtualE1000: "e1000",
    vim.vm.device.VirtualE1000e: "e1000e",
    vim.vm.device.VirtualPCNet32: "pcnet32",
    vim.vm.device.VirtualVmxnet: "vmxnet",
    vim.vm.device.VirtualVmxnet2: "vmxnet2",
    vim.vm.device.VirtualVmxnet3: "vmxnet3",
}


def name(entity):
    """vSphere escapes three characters in names; pyvmomi shows them as they come."""
    return urllib.parse.unquote(entity.name)


def moref(entity):
    return None if entity is None else entity._moId


def instant(value):
    if value is None:
        return None
    if isinstance(value, str):
        # PostgreSQL leaves zeros at the end out.
        value = datetime.datetime.fromisoformat(re.sub(
            r"\.(\d+)", lambda digits: "." + digits.group(1).ljust(6, "0"), value))
    # vcsim sends nanoseconds; pyvmomi and the database keep microseconds, one cut and one rounded.
    return round(value.timestamp(), 3)


def text(value):
    """An empty text and none are the same in SQL."""
    return value or None


def power(value):
    return {"poweredOn": "on", "poweredOff": "off", "suspended": "suspended", "standBy": "suspended"}.get(
        str(value), "unknown")


def above(entity):
    # vcsim answers the parent of the root with something that is no reference.
    while moref(entity) not in ROOTS and entity.parent is not None:
        entity = entity.parent
        yield entity


def first(kind, entity):
    return next((moref(one) for one in above(entity) if isinstance(one, kind)), None)


def folder(vm):
    if vm.parent is None:
        return None
    chain = [one for one in above(vm)][:-1]  # without the root
    names = []
    for place, one in enumerate(chain):
        outer = chain[place + 1] if place + 1 < len(chain) else None
        if not isinstance(outer, vim.Datacenter) or isinstance(one, vim.Datacenter):
            names.append(name(one))
    return "/" + "/".join(reversed(names))


def mib(value):
    return None if value is None else value // (1024 * 1024)


def host(one):
    hardware, runtime, product = one.summary.hardware, one.runtime, one.summary.config.product
    management = None
    manager = one.config.virtualNicManagerInfo if one.config else None
    for service in manager.netConfig if manager else []:
        if service.nicType == "management":
            chosen = [nic for nic in service.candidateVnic if nic.key in service.selectedVnic] or service.candidateVnic
            management = next((nic.spec.ip.ipAddress for nic in chosen if nic.spec.ip), None)
    return {
        "name": name(one), "hardware_uuid": hardware.uuid, "power_state": power(runtime.powerState),
        "connection_state": str(runtime.connectionState), "in_maintenance": runtime.inMaintenanceMode,
        "is_connected": runtime.connectionState == "connected", "overall_status": str(one.overallStatus),
        "management_ip": text(management), "vendor": hardware.vendor, "model": hardware.model,
        "cpu_model": hardware.cpuModel, "socket_count": hardware.numCpuPkgs, "core_count": hardware.numCpuCores,
        "thread_count": hardware.numCpuThreads, "cpu_mhz": hardware.cpuMhz, "memory_mib": mib(hardware.memorySize),
        "version": product.version, "build": product.build, "booted_at": instant(runtime.bootTime),
        "cluster": moref(one.parent) if isinstance(one.parent, vim.ClusterComputeResource) else None,
        "datacenter": first(vim.Datacenter, one),
    }


def attributes(one, fields):
    found = {fields[value.key]: value.value for value in one.customValue}
    return {ATTRIBUTE: found[ATTRIBUTE]} if ATTRIBUTE in found else None


def vm(one, fields):
    config, runtime, guest, storage = one.summary.config, one.runtime, one.guest, one.summary.storage
    return {
        "name": name(one), "instance_uuid": config.instanceUuid, "bios_uuid": config.uuid,
        "power_state": power(runtime.powerState), "connection_state": str(runtime.connectionState),
        "is_connected": runtime.connectionState == "connected", "host": moref(runtime.host),
        "vcpu_count": config.numCpu, "memory_mib": config.memorySizeMB, "is_template": config.template,
        "overall_status": str(one.overallStatus), "guest_id": text(config.guestId),
        "guest_os": text(config.guestFullName), "guest_os_reported": text(guest.guestFullName),
        "guest_host_name": text(guest.hostName), "ip_address": text(guest.ipAddress),
        "tools_running": text(guest.toolsRunningStatus), "tools_version": text(guest.toolsVersionStatus2),
        "booted_at": instant(runtime.bootTime), "pool": moref(one.resourcePool),
        "datacenter": first(vim.Datacenter, one), "folder_path": folder(one),
        "consolidation_needed": runtime.consolidationNeeded,
        "committed_bytes": storage.committed if storage else None,
        "uncommitted_bytes": storage.uncommitted if storage else None,
        "annotation": text(config.annotation), "custom_attributes": attributes(one, fields),
    }


def disks(one):
    devices = one.config.hardware.device if one.config else []
    return {str(device.key): {
        "label": device.deviceInfo.label if device.deviceInfo else None,
        "capacity_bytes": device.capacityInBytes or device.capacityInKB * 1024,
        "file": text(getattr(device.backing, "fileName", None)),
        "is_thin": getattr(device.backing, "thinProvisioned", None),
    } for device in devices if isinstance(device, vim.vm.device.VirtualDisk)}


def nics(one, portgroups):
    found = {}
    for device in one.config.hardware.device if one.config else []:
        if type(device) not in CARDS:
            continue
        backing = device.backing
        port = getattr(backing, "port", None)
        network = portgroups.get(port.portgroupKey) if port else getattr(backing, "deviceName", None)
        addresses = [address for net in (one.guest.net if one.guest else []) if net.deviceConfigId == device.key
                     for address in (net.ipAddress or [])]
        found[str(device.key)] = {
            "label": device.deviceInfo.label if device.deviceInfo else None, "type": CARDS[type(device)],
            "mac": device.macAddress, "network": network,
            "is_connected": device.connectable.connected if device.connectable else None, "ip_addresses": addresses,
        }
    return found


def snapshots(one):
    found, tree = {}, getattr(one, "snapshot", None)

    def walk(nodes, parent):
        for node in nodes:
            found[moref(node.snapshot)] = {
                "parent_moref": parent, "name": urllib.parse.unquote(node.name), "description": text(node.description),
                "created_at": instant(node.createTime), "power_state": power(node.state),
                "is_quiesced": node.quiesced, "is_current": node.snapshot == tree.currentSnapshot,
            }
            walk(node.childSnapshotList, moref(node.snapshot))

    # vcsim has no property where there is no snapshot.
    if tree is not None:
        walk(tree.rootSnapshotList, None)
    return found


def datastore(one):
    summary = one.summary
    return {
        "name": name(one), "type": summary.type, "url": summary.url, "overall_status": str(one.overallStatus),
        "capacity_bytes": summary.capacity, "free_bytes": summary.freeSpace, "uncommitted_bytes": summary.uncommitted,
        "used_bytes": summary.capacity - summary.freeSpace, "is_accessible": summary.accessible,
        "maintenance_mode": text(summary.maintenanceMode), "hosts": sorted(moref(mount.key) for mount in one.host),
        "datacenter": first(vim.Datacenter, one),
    }


def cluster(one):
    summary, configuration = one.summary, one.configuration
    return {
        "name": name(one), "overall_status": str(one.overallStatus), "datacenter": first(vim.Datacenter, one),
        "total_cpu_mhz": summary.totalCpu, "effective_cpu_mhz": summary.effectiveCpu,
        "total_memory_mib": mib(summary.totalMemory), "effective_memory_mib": summary.effectiveMemory,
        "host_count": summary.numHosts, "effective_host_count": summary.numEffectiveHosts,
        "drs_enabled": configuration.drsConfig.enabled if configuration.drsConfig else None,
        "ha_enabled": configuration.dasConfig.enabled if configuration.dasConfig else None,
    }


def pool(one):
    return {
        "name": name(one), "cluster": first(vim.ClusterComputeResource, one),
        "parent": moref(one.parent) if isinstance(one.parent, vim.ResourcePool) else None,
    }


STORED = {
    "datacenter": "SELECT moref, name FROM virt_datacenter WHERE removed_at IS NULL",
    "cluster": "SELECT c.*, d.moref AS datacenter FROM virt_cluster c LEFT JOIN virt_datacenter d USING (datacenter_id) "
               "WHERE c.removed_at IS NULL",
    "pool": "SELECT p.*, c.moref AS cluster, o.moref AS parent FROM virt_resource_pool p "
            "LEFT JOIN virt_cluster c USING (cluster_id) LEFT JOIN virt_resource_pool o "
            "ON o.resource_pool_id = p.parent_id WHERE p.removed_at IS NULL",
    "datastore": "SELECT s.*, d.moref AS datacenter, ARRAY(SELECT h.moref FROM virt_host h WHERE h.host_id = ANY(s.host_ids) "
                 "ORDER BY h.moref COLLATE \"C\") AS hosts FROM virt_datastore s LEFT JOIN virt_datacenter d "
                 "USING (datacenter_id) WHERE s.removed_at IS NULL",
    "host": "SELECT h.*, c.moref AS cluster, d.moref AS datacenter FROM virt_host h LEFT JOIN virt_cluster c "
            "USING (cluster_id) LEFT JOIN virt_datacenter d ON d.datacenter_id = h.datacenter_id "
            "WHERE h.removed_at IS NULL",
    "vm": "SELECT v.*, h.moref AS host, p.moref AS pool, d.moref AS datacenter FROM virt_vm v "
          "LEFT JOIN virt_host h USING (host_id) LEFT JOIN virt_resource_pool p USING (resource_pool_id) "
          "LEFT JOIN virt_datacenter d ON d.datacenter_id = v.datacenter_id WHERE v.removed_at IS NULL",
    "disk": "SELECT v.moref || ' ' || x.disk_key AS moref, x.* FROM virt_vm_disk x JOIN virt_vm v USING (vm_id) "
            "WHERE x.removed_at IS NULL",
    "nic": "SELECT v.moref || ' ' || x.nic_key AS moref, x.* FROM virt_vm_nic x JOIN virt_vm v USING (vm_id) "
           "WHERE x.removed_at IS NULL",
    "snapshot": "SELECT v.moref || ' ' || x.moref AS key, x.* FROM virt_vm_snapshot x JOIN virt_vm v USING (vm_id) "
                "WHERE x.removed_at IS NULL",
}


def offered(content):
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.ManagedEntity], True)
    entities = list(view.view)
    view.Destroy()
    portgroups = {one.key: name(one) for one in entities if isinstance(one, vim.dvs.DistributedVirtualPortgroup)}
    # An ESXi host has none.
    manager = content.customFieldsManager
    fields = {field.key: field.name for field in manager.field} if manager else {}
    found = {kind: {} for kind in STORED}
    for one in entities:
        if isinstance(one, vim.Datacenter):
            found["datacenter"][moref(one)] = {"name": name(one)}
        elif isinstance(one, vim.ClusterComputeResource):
            found["cluster"][moref(one)] = cluster(one)
        elif isinstance(one, vim.ResourcePool):
            found["pool"][moref(one)] = pool(one)
        elif isinstance(one, vim.Datastore):
            found["datastore"][moref(one)] = datastore(one)
        elif isinstance(one, vim.HostSystem):
            found["host"][moref(one)] = host(one)
        elif isinstance(one, vim.VirtualMachine):
            found["vm"][moref(one)] = vm(one, fields)
            for kind, parts in (("disk", disks(one)), ("nic", nics(one, portgroups)), ("snapshot", snapshots(one))):
                for key, part in parts.items():
                    found[kind][f"{moref(one)} {key}"] = part
    return found


def compare(content):
    """How many fields were compared, and those that differ."""
    wanted, differences, compared = offered(content), [], 0
    for kind, sql in STORED.items():
        stored = {row["key"] if kind == "snapshot" else row["moref"]: row for row in rows(sql)}
        for key in sorted(set(stored) ^ set(wanted[kind])):
            differences.append(f"{kind} {key}: only {'stored' if key in stored else 'on the server'}")
        for key in sorted(set(stored) & set(wanted[kind])):
            for field, value in wanted[kind][key].items():
                have = stored[key][field]
                if field in ("booted_at", "created_at"):
                    have = instant(have)
                if field in ("annotation", "description"):
                    have = text(have)
                if field in ("uncommitted_bytes", "consolidation_needed"):
                    # Inside a structure vcsim leaves out what is 0, and pyvmomi takes an unset flag for false.
                    have, value = have or None, value or None
                compared += 1
                if have != value:
                    differences.append(f"{kind} {key} {field}: stored {have!r}, pyvmomi {value!r}")
    return {kind: len(found) for kind, found in wanted.items()}, compared, differences


def run(kind, arguments):
    with rig.Rig(kind, rig.vcsim(*arguments), f'[inventory]\ncustom_attributes = ["{ATTRIBUTE}"]\n') as world:
        def check(when):
            deadline = time.monotonic() + rig.DEADLINE
            while compare(world.content)[2]:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.5)
            objects, compared, differences = compare(world.content)
            for difference in differences[:40]:
                print(difference)
            counted = ", ".join(f"{number} {what}" for what, number in objects.items())
            print(f"{kind}, {when}: {compared} fields compared, {len(differences)} differ ({counted})", flush=True)
            if differences:
                sys.exit(1)

        check("as found")
        machines = world.machines()
        finish(machines[0].Rename_Task("a/b %"))
        finish(machines[0].PowerOffVM_Task())
        for one in ("one", "two"):
            finish(machines[1].CreateSnapshot_Task(one, "why", False, False))
        finish(machines[1].ReconfigVM_Task(vim.vm.ConfigSpec(annotation="notes\nof two lines", numCPUs=2)))
        check("after changes")


def main():
    run("vcenter", ["-dc", "2", "-cluster", "2", "-host", "3", "-pool", "1", "-vm", "3", "-ds", "2", "-folder", "1"])
    run("esxi", ["-esx", "-vm", "3"])


main()
