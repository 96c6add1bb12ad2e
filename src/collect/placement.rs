//! Where VMs run, as each poll sees it.
//!
//! A row's host is the VM's placement at its stamp. A VM that two polls in a row see on one host was there between
//! them; of one that has moved, nobody can tell when, and the rows between the two polls get no host.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::ids::EntityId;
use crate::model::ids::HostId;
use crate::model::ids::MoRef;
use crate::model::inventory::KnownInventory;
use crate::units::Stamp;

/// Placements of one platform's VMs: written by the live lane, read by both lanes.
#[derive(Debug, Default)]
pub struct Placements {
    seen: Mutex<HashMap<EntityId, (HostId, Stamp)>>,
}

impl Placements {
    /// Notes a reading that was made at or after `now` of the server's clock.
    pub fn note(&self, inventory: &KnownInventory, reading: &HashMap<MoRef, MoRef>, now: Stamp) {
        let hosts: HashMap<&MoRef, HostId> = inventory
            .hosts
            .iter()
            .map(|known| (&known.host.moref, known.id))
            .collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = inventory
            .vms
            .iter()
            .filter_map(|known| {
                let entity = EntityId::from(known.id);
                let host = *hosts.get(reading.get(&known.vm.moref)?)?;
                let before = seen.get(&entity).copied().or(known.placement);
                let since = before
                    .filter(|(there, _)| *there == host)
                    .map_or(now, |(_, since)| since);
                Some((entity, (host, since)))
            })
            .collect();
    }

    /// The host of an entity and since when it is known to be there.
    #[must_use]
    pub fn get(&self, entity: EntityId) -> Option<(HostId, Stamp)> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&entity)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::VmId;
    use crate::model::inventory::{Host, KnownHost, KnownVm, PowerState, Vm};

    fn inventory() -> KnownInventory {
        let host = |moref: &str| Host {
            moref: MoRef::new(moref),
            name: None,
            uuid: None,
            power: PowerState::On,
            connected: true,
            maintenance: false,
            threads: None,
            details: std::sync::Arc::default(),
        };
        let vm = Vm {
            moref: MoRef::new("vm-1"),
            name: None,
            instance_uuid: None,
            bios_uuid: None,
            power: PowerState::On,
            connected: true,
            host: Some(MoRef::new("host-1")),
            vcpus: None,
            memory_mib: None,
            template: false,
            details: std::sync::Arc::default(),
        };
        KnownInventory {
            hosts: vec![
                KnownHost {
                    id: HostId(1),
                    host: host("host-1"),
                },
                KnownHost {
                    id: HostId(2),
                    host: host("host-2"),
                },
            ],
            vms: vec![KnownVm {
                id: VmId(1),
                vm,
                placement: Some((HostId(1), Stamp::from_seconds(10))),
            }],
        }
    }

    #[test]
    fn a_vm_that_has_moved_is_on_its_host_since_the_poll_that_saw_it_there() {
        let placements = Placements::default();
        let vm = EntityId::from(VmId(1));
        let see = |host: Option<&str>, second: i64| {
            let reading = host
                .map(|host| (MoRef::new("vm-1"), MoRef::new(host)))
                .into_iter()
                .collect();
            placements.note(&inventory(), &reading, Stamp::from_seconds(second));
            placements
                .get(vm)
                .map(|(host, since)| (host.0, since.micros() / 1_000_000))
        };
        assert_eq!(
            see(Some("host-1"), 100),
            Some((1, 10)),
            "what the inventory knew is still true"
        );
        assert_eq!(see(Some("host-2"), 160), Some((2, 160)));
        assert_eq!(see(Some("host-2"), 220), Some((2, 160)));
        assert_eq!(see(None, 280), None, "nobody knows");
        assert_eq!(see(Some("host-2"), 340), Some((2, 340)));
    }
}
