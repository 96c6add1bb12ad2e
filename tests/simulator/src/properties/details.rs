//! The properties that are structures: devices, networks of the guest, snapshots, mounts.

use super::collect::Scope;
use super::objects::Obj;
use super::paths::{Outcome, datastore_capacity, datastore_name, datastore_url};
use crate::grid;
use crate::soap::{element, moref};
use crate::truth::EntityRecord;
use crate::world::{HostLink, PowerState, Question, State, VmDetails, snapshot_moref};

/// The device keys that vSphere gives out.
const FIRST_NIC: u32 = 4000;
const FIRST_DISK: u32 = 2000;

/// Writes a property's `val`; `None` = it is not one of these.
pub(super) fn write(out: &mut String, scope: &Scope<'_>, object: &Obj, path: &str) -> Option<Outcome> {
    let state = scope.state;
    match (object, path) {
        (Obj::Vm(index), _) => {
            let vm = state.vm(*index)?;
            let record = state.truth.entities.get(*index)?;
            let running = vm.power == PowerState::PoweredOn && record.profile.tools && vm.guest_up;
            match path {
                "config.hardware.device" => devices(out, *index, vm, record),
                "customValue" => attributes(out, state, *index),
                "guest.net" if running => guest_nets(out, *index, record),
                // A guest that tells nothing has no networks; the list itself is there.
                "guest.net" => out.push_str("<val xsi:type=\"ArrayOfGuestNicInfo\"></val>"),
                "snapshot" if !vm.snapshots.is_empty() => snapshots(out, &record.moref, vm),
                "snapshot" => return Some(Outcome::Unset),
                _ => return None,
            }
        }
        (Obj::Host(index), "config.virtualNicManagerInfo.netConfig") => {
            if state.host(*index)?.link != HostLink::Connected {
                return Some(Outcome::Unset);
            }
            management(out, *index);
        }
        (Obj::Fields, "field") => fields(out, state),
        (Obj::Datastore(number), "host") => mounts(out, state, *number),
        (Obj::Datastore(number), "info") => volume(out, state, *number),
        _ => return None,
    }
    Some(Outcome::Written)
}

/// Keys of custom attributes begin here.
const FIRST_FIELD: usize = 101;

fn fields(out: &mut String, state: &State) {
    out.push_str("<val xsi:type=\"ArrayOfCustomFieldDef\">");
    for (place, name) in state.fields.iter().enumerate() {
        out.push_str("<CustomFieldDef>");
        element(out, "key", &(FIRST_FIELD + place).to_string());
        element(out, "name", name);
        element(out, "type", "string");
        element(out, "managedObjectType", "VirtualMachine");
        out.push_str("</CustomFieldDef>");
    }
    out.push_str("</val>");
}

fn attributes(out: &mut String, state: &State, vm: usize) {
    out.push_str("<val xsi:type=\"ArrayOfCustomFieldValue\">");
    for ((_, place), value) in state.attributes.range((vm, 0)..(vm + 1, 0)) {
        out.push_str("<CustomFieldValue xsi:type=\"CustomFieldStringValue\">");
        element(out, "key", &(FIRST_FIELD + place).to_string());
        element(out, "value", value);
        out.push_str("</CustomFieldValue>");
    }
    out.push_str("</val>");
}

/// Capacity of one disk.
pub(super) fn disk_bytes(vm: &VmDetails) -> i64 {
    (i64::from(vm.vcpus) * 20) << 30
}

fn mac(vm: usize, nic: u32) -> String {
    let number = u32::try_from(vm).unwrap_or_default() * 8 + nic;
    let [_, a, b, c] = number.to_be_bytes();
    format!("00:50:56:{a:02x}:{b:02x}:{c:02x}")
}

/// Address of a guest's NIC.
pub(super) fn address(vm: usize, nic: u32) -> String {
    let number = u32::try_from(vm).unwrap_or_default();
    let [_, _, a, b] = number.to_be_bytes();
    format!("10.{nic}.{a}.{b}")
}

fn label(out: &mut String, text: &str) {
    out.push_str("<deviceInfo>");
    element(out, "label", text);
    element(out, "summary", text);
    out.push_str("</deviceInfo>");
}

fn devices(out: &mut String, index: usize, vm: &VmDetails, record: &EntityRecord) {
    out.push_str("<val xsi:type=\"ArrayOfVirtualDevice\">");
    out.push_str("<VirtualDevice xsi:type=\"ParaVirtualSCSIController\"><key>1000</key>");
    label(out, "SCSI controller 0");
    out.push_str("<busNumber>0</busNumber></VirtualDevice>");
    let store = record.profile.datastores.first().copied().unwrap_or(0);
    for disk in 0..record.profile.disks {
        out.push_str("<VirtualDevice xsi:type=\"VirtualDisk\">");
        element(out, "key", &(FIRST_DISK + disk).to_string());
        label(out, &format!("Hard disk {}", disk + 1));
        out.push_str("<backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\">");
        let file = format!("[{}] {}/disk_{disk}.vmdk", datastore_name(store), record.moref);
        element(out, "fileName", &file);
        element(out, "diskMode", "persistent");
        element(
            out,
            "thinProvisioned",
            if disk % 2 == 0 { "true" } else { "false" },
        );
        out.push_str("</backing>");
        element(out, "controllerKey", "1000");
        element(out, "unitNumber", &disk.to_string());
        element(out, "capacityInKB", &(disk_bytes(vm) / 1024).to_string());
        element(out, "capacityInBytes", &disk_bytes(vm).to_string());
        out.push_str("</VirtualDevice>");
    }
    for nic in 0..record.profile.nics {
        out.push_str("<VirtualDevice xsi:type=\"VirtualVmxnet3\">");
        element(out, "key", &(FIRST_NIC + nic).to_string());
        label(out, &format!("Network adapter {}", nic + 1));
        out.push_str("<backing xsi:type=\"VirtualEthernetCardNetworkBackingInfo\">");
        element(out, "deviceName", "VM Network");
        out.push_str("</backing><connectable>");
        element(out, "startConnected", "true");
        element(out, "connected", "true");
        out.push_str("</connectable>");
        element(out, "addressType", "assigned");
        element(out, "macAddress", &mac(index, nic));
        out.push_str("</VirtualDevice>");
    }
    out.push_str("</val>");
}

fn guest_nets(out: &mut String, index: usize, record: &EntityRecord) {
    out.push_str("<val xsi:type=\"ArrayOfGuestNicInfo\">");
    for nic in 0..record.profile.nics {
        out.push_str("<GuestNicInfo>");
        element(out, "network", "VM Network");
        element(out, "ipAddress", &address(index, nic));
        element(out, "ipAddress", &format!("fe80::{index:x}:{nic:x}"));
        element(out, "macAddress", &mac(index, nic));
        element(out, "connected", "true");
        element(out, "deviceConfigId", &(FIRST_NIC + nic).to_string());
        out.push_str("</GuestNicInfo>");
    }
    // An interface that only the guest knows.
    out.push_str("<GuestNicInfo><ipAddress>172.17.0.1</ipAddress><connected>true</connected>");
    out.push_str("<deviceConfigId>-1</deviceConfigId></GuestNicInfo></val>");
}

fn snapshots(out: &mut String, moref_of_vm: &str, vm: &VmDetails) {
    out.push_str("<val xsi:type=\"VirtualMachineSnapshotInfo\">");
    if let Some(current) = vm.snapshots.iter().find(|snapshot| snapshot.current) {
        let value = snapshot_moref(moref_of_vm, current.id);
        moref(out, "currentSnapshot", "VirtualMachineSnapshot", &value);
    }
    level(out, "rootSnapshotList", moref_of_vm, vm, None);
    out.push_str("</val>");
}

fn level(out: &mut String, name: &str, moref_of_vm: &str, vm: &VmDetails, parent: Option<usize>) {
    for snapshot in vm.snapshots.iter().filter(|snapshot| snapshot.parent == parent) {
        out.push_str(&format!("<{name}>"));
        let value = snapshot_moref(moref_of_vm, snapshot.id);
        moref(out, "snapshot", "VirtualMachineSnapshot", &value);
        moref(out, "vm", "VirtualMachine", moref_of_vm);
        element(out, "name", &snapshot.name);
        element(out, "description", &snapshot.description);
        element(out, "id", &snapshot.id.to_string());
        let mut time = String::new();
        grid::push_micros(&mut time, snapshot.created_at);
        element(out, "createTime", &time);
        element(out, "state", snapshot.power);
        element(out, "quiesced", if snapshot.quiesced { "true" } else { "false" });
        level(out, "childSnapshotList", moref_of_vm, vm, Some(snapshot.id));
        element(out, "replaySupported", "false");
        out.push_str(&format!("</{name}>"));
    }
}

/// Methods that make no sense now, and those that someone disabled.
pub(super) fn disabled_methods(vm: &VmDetails, record: &EntityRecord) -> Vec<String> {
    let power: &[&str] = match vm.power {
        _ if record.template => &[
            "PowerOnVM_Task",
            "PowerOffVM_Task",
            "SuspendVM_Task",
            "ResetVM_Task",
            "ShutdownGuest",
            "RebootGuest",
        ],
        PowerState::PoweredOn => &["PowerOnVM_Task"],
        PowerState::PoweredOff => &[
            "PowerOffVM_Task",
            "SuspendVM_Task",
            "ResetVM_Task",
            "ShutdownGuest",
            "RebootGuest",
        ],
        PowerState::Suspended => &["SuspendVM_Task", "ResetVM_Task", "ShutdownGuest", "RebootGuest"],
    };
    let without: &[&str] = if vm.snapshots.is_empty() {
        &["RevertToCurrentSnapshot_Task", "RemoveAllSnapshots_Task"]
    } else {
        &[]
    };
    let usual = power.iter().chain(without).map(|method| (*method).to_owned());
    usual.chain(vm.disabled.iter().cloned()).collect()
}

/// The inner XML of a VirtualMachineQuestionInfo.
pub(super) fn question(vm: usize, question: &Question) -> String {
    let mut out = String::new();
    element(&mut out, "id", &format!("_vmx{vm}"));
    element(&mut out, "text", &question.text);
    out.push_str("<choice>");
    for (key, label) in question.choices.iter().enumerate() {
        out.push_str("<choiceInfo xsi:type=\"ElementDescription\">");
        element(&mut out, "label", label);
        element(&mut out, "summary", label);
        element(&mut out, "key", &key.to_string());
        out.push_str("</choiceInfo>");
    }
    let default = question.choices.len().saturating_sub(1);
    element(&mut out, "defaultIndex", &default.to_string());
    out.push_str("</choice>");
    out
}

fn management(out: &mut String, host: usize) {
    let [_, _, a, b] = u32::try_from(host).unwrap_or_default().to_be_bytes();
    out.push_str("<val xsi:type=\"ArrayOfVirtualNicManagerNetConfig\">");
    for (service, device, net) in [("vmotion", "vmk1", 201), ("management", "vmk0", 200)] {
        out.push_str("<VirtualNicManagerNetConfig>");
        element(out, "nicType", service);
        element(out, "multiSelectAllowed", "true");
        let key = format!("{service}.key-vim.host.VirtualNic-{device}");
        out.push_str("<candidateVnic>");
        element(out, "device", device);
        element(out, "key", &key);
        element(out, "portgroup", "Management Network");
        out.push_str("<spec><ip>");
        element(out, "dhcp", "false");
        element(out, "ipAddress", &format!("10.{net}.{a}.{b}"));
        element(out, "subnetMask", "255.255.0.0");
        out.push_str("</ip></spec></candidateVnic>");
        element(out, "selectedVnic", &key);
        out.push_str("</VirtualNicManagerNetConfig>");
    }
    out.push_str("</val>");
}

fn volume(out: &mut String, state: &State, number: usize) {
    let number = u32::try_from(number).unwrap_or_default();
    out.push_str("<val xsi:type=\"VmfsDatastoreInfo\">");
    element(out, "name", &datastore_name(number));
    element(out, "url", &datastore_url(state, number));
    element(out, "freeSpace", &(datastore_capacity(number) / 3).to_string());
    // The longest file of VMFS 6, 64 TiB.
    element(out, "maxFileSize", &(64_i64 << 40).to_string());
    out.push_str("</val>");
}

fn mounts(out: &mut String, state: &State, number: usize) {
    let number = u32::try_from(number).unwrap_or_default();
    out.push_str("<val xsi:type=\"ArrayOfDatastoreHostMount\">");
    for record in &state.truth.entities {
        let mounted = record.profile.datastores.contains(&number);
        if record.kind != crate::truth::EntityKind::Host || !mounted || record.removed_at.is_some() {
            continue;
        }
        out.push_str("<DatastoreHostMount>");
        moref(out, "key", "HostSystem", &record.moref);
        out.push_str("<mountInfo>");
        element(out, "path", &format!("/vmfs/volumes/{number}"));
        element(out, "accessMode", "readWrite");
        element(out, "mounted", "true");
        element(out, "accessible", "true");
        out.push_str("</mountInfo></DatastoreHostMount>");
    }
    out.push_str("</val>");
}
