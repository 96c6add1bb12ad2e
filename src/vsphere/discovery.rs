//! All hosts and VMs of a platform, through a container view.
//!
//! Owns: which properties are read and what is made of them. Never does: assuming that one of them is there. The
//! `config` of a VM is unset while it is created, moved or out of reach, and so is most of what a disconnected
//! host has; objects without a name are objects all the same.
//!
//! Only leaf paths are asked for: `config` of one VM may be a megabyte.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::filter::unescaped;
use crate::model::ids::MoRef;
use crate::model::inventory::Host;
use crate::model::inventory::Inventory;
use crate::model::inventory::PowerState;
use crate::model::inventory::Vm;
use crate::soap::Error;
use crate::soap::Object;
use crate::soap::methods;
use crate::soap::methods::properties;
use crate::soap::methods::properties::Visit;
use crate::soap::methods::properties::Wanted;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::Element;
use crate::soap::xml::Reader;

const HOST: &str = "HostSystem";
const VM: &str = "VirtualMachine";

/// An account has one role, or a few by its groups.
const ROLES_LIMIT: usize = 16;

/// Names of vSphere have up to 80 characters, each up to three when escaped. Longer ones are cut, so that a
/// broken server cannot fill the database.
const NAME_CHARACTERS: usize = 255;

const WANTED: [Wanted; 2] = [
    Wanted {
        kind: HOST,
        paths: &[
            "name",
            "runtime.connectionState",
            "runtime.inMaintenanceMode",
            "runtime.powerState",
            "summary.hardware.numCpuThreads",
            "summary.hardware.uuid",
        ],
    },
    Wanted {
        kind: VM,
        paths: &[
            "name",
            "runtime.connectionState",
            "runtime.host",
            "runtime.powerState",
            "summary.config.instanceUuid",
            "summary.config.memorySizeMB",
            "summary.config.numCpu",
            "summary.config.template",
            "summary.config.uuid",
        ],
    },
];

/// Reads the inventory of hosts and VMs.
pub(crate) async fn discover(session: &Pinned) -> Result<Inventory, Error> {
    let (collected, withheld) = over_view::<Collected>(session, &[HOST, VM], &WANTED).await?;
    if withheld > 0 {
        tracing::debug!(withheld, "the server kept properties back");
    }
    Ok(collected.inventory)
}

/// The host of every VM, from the hosts' own lists: they are a twentieth of the objects, and of the pages. A VM that
/// moves meanwhile may stand in two lists or in none: then nobody knows where it is.
pub(crate) async fn placements(session: &Pinned) -> Result<HashMap<MoRef, MoRef>, Error> {
    let wanted = [Wanted {
        kind: HOST,
        paths: &["vm"],
    }];
    let (lists, _withheld) = over_view::<Lists>(session, &[HOST], &wanted).await?;
    let found = lists.found.into_iter();
    Ok(found.filter_map(|(vm, host)| Some((vm, host?))).collect())
}

/// The VMs of each host, as its property `vm` lists them; `None` for a VM of two hosts.
#[derive(Debug, Default)]
struct Lists {
    host: Option<MoRef>,
    found: HashMap<MoRef, Option<MoRef>>,
}

impl Visit for Lists {
    fn object(&mut self, object: Object) {
        self.host = (object.kind == HOST).then_some(object.moref);
    }

    fn property(&mut self, path: &str, _value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        let Some(host) = self.host.as_ref().filter(|_| path == "vm") else {
            return xml.skip();
        };
        while let Some(vm) = xml.next_child()? {
            let vm = Object::read(&vm, xml)?;
            self.found
                .entry(vm.moref)
                .and_modify(|other| *other = None)
                .or_insert_with(|| Some(host.clone()));
        }
        Ok(())
    }
}

/// What the account is on the root folder. A server that does not say is no failure.
pub(crate) async fn roles(session: &Pinned) -> Result<Vec<String>, Error> {
    let wanted = [Wanted {
        kind: "Folder",
        paths: &["effectiveRole"],
    }];
    let from = properties::From::Object(&session.content().root_folder);
    let (roles, _withheld) = properties::retrieve::<Roles>(session, from, &wanted).await?;
    Ok(roles.names)
}

#[derive(Debug, Default)]
struct Roles {
    names: Vec<String>,
}

impl Visit for Roles {
    fn object(&mut self, _object: Object) {}

    fn property(&mut self, path: &str, _value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        if path != "effectiveRole" {
            return xml.skip();
        }
        while let Some(_role) = xml.next_child()? {
            // Numbers of the system's roles as in the API reference, AuthorizationRole.
            let name = match &*xml.text()? {
                "-1" => "Administrator".to_owned(),
                "-2" => "Read-only".to_owned(),
                "-3" => "View".to_owned(),
                "-4" => "Anonymous".to_owned(),
                "-5" => "No access".to_owned(),
                other => format!("role {}", xml::cut(other)),
            };
            if self.names.len() < ROLES_LIMIT {
                self.names.push(name);
            }
        }
        Ok(())
    }
}

/// The hardware UUID of the only host of an ESXi server.
pub(crate) async fn hardware_uuid(session: &Pinned) -> Result<Option<String>, Error> {
    let wanted = [Wanted {
        kind: HOST,
        paths: &["summary.hardware.uuid"],
    }];
    let (collected, _withheld) = over_view::<Collected>(session, &[HOST], &wanted).await?;
    Ok(collected.inventory.hosts.into_iter().find_map(|host| host.uuid))
}

/// Visits all objects of some types. The view is taken down again whatever happened: views live as long as their
/// session.
async fn over_view<V: Visit + Default>(
    session: &Pinned,
    types: &[&'static str],
    wanted: &[Wanted],
) -> Result<(V, usize), Error> {
    let view = methods::create_container_view(session, &session.content().root_folder, types).await?;
    let result = properties::retrieve(session, properties::From::View(&view), wanted).await;
    if let Err(error) = methods::destroy_view(session, &view).await {
        // It ends with the session at the latest.
        tracing::debug!(error = %crate::error::Chain(&error), "could not destroy a view");
    }
    result
}

#[derive(Debug, Default)]
struct Collected {
    inventory: Inventory,
    kind: Kind,
}

/// The kind of the object whose properties come.
#[derive(Debug, Default, Clone, Copy)]
enum Kind {
    Host,
    Vm,
    #[default]
    Other,
}

impl Visit for Collected {
    fn object(&mut self, object: Object) {
        self.kind = match &*object.kind {
            HOST => {
                self.inventory.hosts.push(new_host(object.moref));
                Kind::Host
            }
            VM => {
                self.inventory.vms.push(new_vm(object.moref));
                Kind::Vm
            }
            _ => Kind::Other,
        };
    }

    fn property(&mut self, path: &str, _value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        let value = xml.loose_text()?;
        match self.kind {
            Kind::Host => {
                if let Some(host) = self.inventory.hosts.last_mut() {
                    set_host(host, path, &value);
                }
            }
            Kind::Vm => {
                if let Some(vm) = self.inventory.vms.last_mut() {
                    set_vm(vm, path, &value);
                }
            }
            Kind::Other => {}
        }
        Ok(())
    }
}

pub(super) fn new_host(moref: MoRef) -> Host {
    Host {
        moref,
        name: None,
        uuid: None,
        power: PowerState::Unknown,
        connected: false,
        maintenance: false,
        threads: None,
        details: Arc::default(),
    }
}

pub(super) fn set_host(host: &mut Host, path: &str, value: &str) {
    match path {
        "name" => host.name = Some(name(value)),
        "runtime.connectionState" => host.connected = value == "connected",
        "runtime.inMaintenanceMode" => host.maintenance = is_true(value),
        "runtime.powerState" => host.power = power(value),
        "summary.hardware.numCpuThreads" => host.threads = value.parse().ok(),
        "summary.hardware.uuid" => host.uuid = some_text(value),
        _ => {}
    }
}

pub(super) fn new_vm(moref: MoRef) -> Vm {
    Vm {
        moref,
        name: None,
        instance_uuid: None,
        bios_uuid: None,
        power: PowerState::Unknown,
        connected: false,
        host: None,
        vcpus: None,
        memory_mib: None,
        template: false,
        details: Arc::default(),
    }
}

pub(super) fn set_vm(vm: &mut Vm, path: &str, value: &str) {
    match path {
        "name" => vm.name = Some(name(value)),
        "runtime.connectionState" => vm.connected = value == "connected",
        "runtime.host" => vm.host = (!value.is_empty()).then(|| MoRef::new(value)),
        "runtime.powerState" => vm.power = power(value),
        "summary.config.instanceUuid" => vm.instance_uuid = some_text(value),
        "summary.config.memorySizeMB" => vm.memory_mib = value.parse().ok(),
        "summary.config.numCpu" => vm.vcpus = value.parse().ok(),
        "summary.config.template" => vm.template = is_true(value),
        "summary.config.uuid" => vm.bios_uuid = some_text(value),
        _ => {}
    }
}

pub(super) fn power(value: &str) -> PowerState {
    match value {
        "poweredOn" => PowerState::On,
        "poweredOff" => PowerState::Off,
        "suspended" | "standBy" => PowerState::Suspended,
        _ => PowerState::Unknown,
    }
}

pub(super) fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1")
}

pub(super) fn some_text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| clean(value))
}

/// A display name: vSphere escapes three characters in names, as `%2f`, `%5c` and `%25`.
pub(super) fn name(escaped: &str) -> String {
    clean(&unescaped(escaped))
}

/// PostgreSQL cannot store U+0000, and no terminal or log should be steered by a name.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .take(NAME_CHARACTERS)
        .map(|character| {
            if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_harmless() {
        assert_eq!(name("web%2f01 %5c 100%25 50% %zz%2"), "web/01 \\ 100% 50% %zz%2");
        assert_eq!(name("%252f"), "%2f", "decoded once");
        assert_eq!(name("a\u{0}b\u{1b}[31mc"), "a\u{fffd}b\u{fffd}[31mc");
        assert_eq!(name(&"x".repeat(1 << 20)).len(), NAME_CHARACTERS);
    }
}
