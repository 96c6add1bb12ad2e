//! Who is polled: powered-on VMs on connected hosts, and connected hosts.
//!
//! An entity leaves the live set two polls after it stopped running, not at the inventory's word, so that its last
//! samples are read. One that the inventory no longer holds leaves at once: it cannot be asked.
//!
//! Of each it is known when it was last asked for with success and when that last brought a sample, both by the server's
//! clock: a host whose clock is behind never has a sample that is young.

use std::collections::HashMap;

use crate::model::gap::Reason;
use crate::model::ids::{EntityId, MoRef};
use crate::model::inventory::{KnownInventory, PowerState};
use crate::units::Stamp;

/// Polls that an entity stays after it stopped running.
const POLLS_AFTER_STOP: u8 = 2;

/// What a query has to know of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Our key.
    pub entity: EntityId,
    /// The server's reference.
    pub moref: MoRef,
    /// vCPUs of a VM, threads of a host; 0 if unknown.
    pub cpus: u16,
}

/// An entity as an inventory shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// For asking.
    pub subject: Subject,
    /// It publishes samples.
    pub running: bool,
    /// If it does not, and it is known why.
    pub why_silent: Option<Reason>,
}

/// Every entity of an inventory.
pub fn seen(inventory: &KnownInventory) -> impl Iterator<Item = Seen> {
    let connected: HashMap<&MoRef, bool> = inventory
        .hosts
        .iter()
        .map(|known| (&known.host.moref, known.host.connected))
        .collect();
    let hosts = inventory.hosts.iter().map(|known| {
        let host = &known.host;
        let why_silent = if !host.connected {
            Some(Reason::HostDisconnected)
        } else {
            match host.power {
                PowerState::Off | PowerState::Suspended => Some(Reason::PoweredOff),
                PowerState::On | PowerState::Unknown => host.maintenance.then_some(Reason::Maintenance),
            }
        };
        Seen {
            subject: Subject {
                entity: known.id.into(),
                moref: host.moref.clone(),
                cpus: host.threads.unwrap_or(0),
            },
            // A host in stand-by is connected but silent; one in maintenance publishes.
            running: host.connected && matches!(host.power, PowerState::On | PowerState::Unknown),
            why_silent,
        }
    });
    let vms = inventory.vms.iter().map(move |known| {
        let vm = &known.vm;
        // Of a host that a filter or the account's rights leave out, the VM's own connection tells.
        let host_answers = vm
            .host
            .as_ref()
            .is_none_or(|host| connected.get(host).copied().unwrap_or(vm.connected));
        let why_silent = match vm.power {
            PowerState::Off => Some(Reason::PoweredOff),
            PowerState::Suspended => Some(Reason::Suspended),
            PowerState::On | PowerState::Unknown => (!host_answers).then_some(Reason::HostDisconnected),
        };
        Seen {
            subject: Subject {
                entity: known.id.into(),
                moref: vm.moref.clone(),
                cpus: vm.vcpus.unwrap_or(0),
            },
            running: vm.power == PowerState::On && !vm.template && host_answers,
            why_silent,
        }
    });
    hosts.chain(vms)
}

/// The live set over time.
#[derive(Debug, Default)]
pub struct LiveSet {
    polls_left: HashMap<EntityId, u8>,
    answered: HashMap<EntityId, Stamp>,
    spoke: HashMap<EntityId, Stamp>,
    has_polled: bool,
}

impl LiveSet {
    /// True before the first poll.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        !self.has_polled
    }

    /// Before the first poll of a term: entities that ran until not long ago count as just stopped, since nobody was
    /// there to see when.
    pub fn remember(&mut self, recent: impl IntoIterator<Item = EntityId>) {
        self.polls_left
            .extend(recent.into_iter().map(|entity| (entity, POLLS_AFTER_STOP)));
    }

    /// The subjects of this poll. Called once per poll: it is what counts down.
    pub fn next_poll(&mut self, inventory: &KnownInventory) -> Vec<Subject> {
        let mut left = HashMap::with_capacity(self.polls_left.len());
        let live = seen(inventory)
            .filter_map(|Seen { subject, running, .. }| {
                let polls = if running {
                    POLLS_AFTER_STOP
                } else {
                    self.polls_left.get(&subject.entity)?.checked_sub(1)?
                };
                left.insert(subject.entity, polls);
                Some(subject)
            })
            .collect();
        self.polls_left = left;
        self.has_polled = true;
        let polls_left = &self.polls_left;
        for known in [&mut self.answered, &mut self.spoke] {
            known.retain(|entity, _| polls_left.contains_key(entity));
        }
        live
    }

    /// Notes that an answer for an entity was stored, and whether it held a sample.
    pub fn note(&mut self, entity: EntityId, at: Stamp, has_spoken: bool) {
        self.answered.insert(entity, at);
        if has_spoken {
            self.spoke.insert(entity, at);
        }
    }

    /// Whether an answer for it was stored since then.
    #[must_use]
    pub fn is_followed(&self, entity: EntityId, since: Stamp) -> bool {
        self.answered.get(&entity).is_some_and(|at| *at >= since)
    }

    /// Whether such an answer has held a sample since then, however old that was.
    #[must_use]
    pub fn has_spoken(&self, entity: EntityId, since: Stamp) -> bool {
        self.spoke.get(&entity).is_some_and(|at| *at >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{HostId, VmId};
    use crate::model::inventory::{Host, KnownHost, KnownVm, Vm};

    fn inventory(power: PowerState, connected: bool) -> KnownInventory {
        let host = Host {
            moref: MoRef::new("host-1"),
            name: None,
            uuid: None,
            power: PowerState::On,
            connected,
            maintenance: false,
            threads: Some(16),
            details: std::sync::Arc::default(),
        };
        let vm = Vm {
            moref: MoRef::new("vm-1"),
            name: None,
            instance_uuid: None,
            bios_uuid: None,
            power,
            connected: true,
            host: Some(MoRef::new("host-1")),
            vcpus: None,
            memory_mib: None,
            template: false,
            details: std::sync::Arc::default(),
        };
        KnownInventory {
            hosts: vec![KnownHost { id: HostId(1), host }],
            vms: vec![KnownVm {
                id: VmId(1),
                vm,
                placement: None,
            }],
        }
    }

    fn polled(set: &mut LiveSet, inventory: &KnownInventory) -> Vec<String> {
        set.next_poll(inventory)
            .iter()
            .map(|subject| subject.moref.to_string())
            .collect()
    }

    #[test]
    fn a_stopped_vm_is_polled_twice_more_and_returns_when_it_runs() {
        let mut set = LiveSet::default();
        let (on, off) = (inventory(PowerState::On, true), inventory(PowerState::Off, true));
        assert_eq!(polled(&mut set, &on), ["host-1", "vm-1"]);
        assert_eq!(polled(&mut set, &off), ["host-1", "vm-1"]);
        assert_eq!(polled(&mut set, &off), ["host-1", "vm-1"]);
        assert_eq!(polled(&mut set, &off), ["host-1"]);
        assert_eq!(polled(&mut set, &on), ["host-1", "vm-1"]);
    }

    #[test]
    fn a_vm_that_never_ran_is_not_polled_and_a_removed_one_leaves_at_once() {
        let mut set = LiveSet::default();
        assert_eq!(polled(&mut set, &inventory(PowerState::Off, true)), ["host-1"]);
        assert_eq!(
            polled(&mut set, &inventory(PowerState::On, true)),
            ["host-1", "vm-1"]
        );
        assert_eq!(polled(&mut set, &KnownInventory::default()), Vec::<String>::new());
    }

    #[test]
    fn a_vm_that_stopped_while_nobody_polled_is_polled_twice() {
        let off = inventory(PowerState::Off, true);
        let mut set = LiveSet::default();
        set.remember([EntityId::from(VmId(1))]);
        assert_eq!(polled(&mut set, &off), ["host-1", "vm-1"]);
        assert_eq!(polled(&mut set, &off), ["host-1", "vm-1"]);
        assert_eq!(polled(&mut set, &off), ["host-1"]);
    }

    #[test]
    fn nothing_on_a_disconnected_host_counts_as_running() {
        let mut set = LiveSet::default();
        assert_eq!(
            polled(&mut set, &inventory(PowerState::On, false)),
            Vec::<String>::new()
        );
    }
}
