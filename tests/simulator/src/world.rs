//! The simulated world: inventory, the life of its entities, and the events that change them.
//!
//! Owns: the state behind one lock, and the rule that every change goes through [`World::apply`], so
//! that the log ([`Truth`]) and what the server serves are one record. Never speaks a protocol and
//! never computes a value.
//!
//! Tasks and guests take time. Nothing wakes up for them: whoever looks at the world first lets happen what is due.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Clock, History, Reading, StampRange};
use crate::counters::{self, Numbering};
use crate::grid;
use crate::spec::{PlatformKind, Spec};
use crate::truth::{EntityKind, EntityRecord, Late, Run, Truth, Unreachable, Withheld};
use crate::value::mix;

mod guests;
mod inventory;
mod operations;
mod snapshots;
mod tasks;

pub(crate) use inventory::{Details, HostDetails, Names, Question, VmDetails};
pub use operations::OperationRecord;
pub(crate) use operations::{Field, Operation, Trouble};
pub(crate) use snapshots::{Snapshot, moref as snapshot_moref};
pub(crate) use tasks::{Order, Plan, Task, Tasks};
pub use tasks::{TaskState, Told};

/// A VM's power state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PowerState {
    /// Running.
    PoweredOn,
    /// Off.
    PoweredOff,
    /// Suspended.
    Suspended,
}

impl PowerState {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PoweredOn => "poweredOn",
            Self::PoweredOff => "poweredOff",
            Self::Suspended => "suspended",
        }
    }
}

/// How vCenter sees a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostLink {
    /// Reachable.
    Connected,
    /// Taken out by an administrator.
    Disconnected,
    /// Lost.
    NotResponding,
}

impl HostLink {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::NotResponding => "notResponding",
        }
    }
}

/// What happens to the ring of a VM that moves to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingFate {
    /// The samples go along; no interval is missing.
    Kept,
    /// The samples stay behind and can't be read any more; the next one is the first whole interval
    /// on the new host.
    Reset,
}

/// Something that happens in the world. Times are "now" on the server's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case",
    deny_unknown_fields
)]
pub enum Event {
    /// A VM is powered on.
    PowerOn {
        /// MoRef.
        vm: String,
    },
    /// A VM is powered off.
    PowerOff {
        /// MoRef.
        vm: String,
    },
    /// A VM is suspended.
    Suspend {
        /// MoRef.
        vm: String,
    },
    /// A VM is created, powered on.
    CreateVm {
        /// Name as on the wire; `None` = by the pattern.
        #[serde(default)]
        name: Option<String>,
        /// MoRef of its host; `None` = the first connected one.
        #[serde(default)]
        host: Option<String>,
    },
    /// A VM is deleted, running or not.
    DeleteVm {
        /// MoRef.
        vm: String,
    },
    /// A VM is taken out of the inventory and registered again: the same machine, powered on, under a new MoRef.
    ReRegister {
        /// MoRef until now.
        vm: String,
    },
    /// An entity gets another name.
    Rename {
        /// MoRef of a VM or host.
        entity: String,
        /// Name as on the wire.
        name: String,
    },
    /// A VM moves to another host.
    MoveVm {
        /// MoRef.
        vm: String,
        /// MoRef of the new host.
        host: String,
        /// What becomes of its samples.
        ring: RingFate,
    },
    /// A snapshot of a VM is taken, below its current one.
    CreateSnapshot {
        /// MoRef.
        vm: String,
        /// Name of the snapshot.
        name: String,
    },
    /// A snapshot is removed; those below it move up.
    RemoveSnapshot {
        /// MoRef of the VM.
        vm: String,
        /// Name of the snapshot; the first one with that name.
        name: String,
    },
    /// A VM asks something: what runs on it waits for the answer.
    Ask {
        /// MoRef.
        vm: String,
        /// The question; `None` = whether it was moved or copied.
        #[serde(default)]
        text: Option<String>,
    },
    /// The question of a VM is answered.
    Answer {
        /// MoRef.
        vm: String,
    },
    /// A method of a VM is disabled, as solutions do to the VMs that they manage, or enabled again.
    SetMethod {
        /// MoRef.
        vm: String,
        /// For example `PowerOffVM_Task`.
        method: String,
        /// Whether it can be called.
        enabled: bool,
    },
    /// The overall status of a VM or host changes, of which the server tells nobody.
    SetStatus {
        /// MoRef of a VM or host.
        entity: String,
        /// `green`, `yellow`, `red` or `gray`.
        status: String,
    },
    /// A VM gets a value of a custom attribute, which comes into being with its first value.
    SetAttribute {
        /// MoRef.
        vm: String,
        /// Name of the attribute.
        name: String,
        /// Its value; an empty one is none.
        value: String,
    },
    /// A custom attribute gets another name.
    RenameAttribute {
        /// Its name.
        name: String,
        /// Its new name.
        to: String,
    },
    /// A VM gets another number of vCPUs (hot-add if it runs).
    SetVcpus {
        /// MoRef.
        vm: String,
        /// New number.
        vcpus: u32,
    },
    /// vCenter's connection to a host changes. Its samples go on, they just can't be read.
    HostLink {
        /// MoRef.
        host: String,
        /// New state.
        link: HostLink,
    },
    /// A host enters or leaves maintenance mode.
    Maintenance {
        /// MoRef.
        host: String,
        /// In maintenance.
        on: bool,
    },
    /// A host restarts: ring and uptime begin anew, its VMs are powered off.
    HostReboot {
        /// MoRef.
        host: String,
    },
    /// The counters get other numbers.
    RenumberCounters,
    /// The server knows only so many in a hundred of its hosts and VMs, as while it starts. The others are neither shown
    /// nor answered for; their samples go on.
    Load {
        /// 0 to 100.
        percent: u8,
    },
    /// From now on a roll-up appears later than the server's usual delay.
    LateRollups {
        /// By so many microseconds.
        extra: i64,
    },
    /// Samples that are not published yet will appear late.
    Late {
        /// MoRef; `None` = all entities.
        #[serde(default)]
        entity: Option<String>,
        /// First stamp.
        first: i64,
        /// Last stamp.
        last: i64,
        /// Microseconds on top of the publish delay.
        extra: i64,
    },
    /// Cells will be empty although their sample is there.
    Withhold {
        /// MoRef; `None` = all entities.
        #[serde(default)]
        entity: Option<String>,
        /// What is withheld, from when to when.
        cells: Withheld,
    },
}

/// Why an event can't happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// No such entity (any more), or one of another kind.
    #[error("there is no {kind:?} {moref:?}")]
    Unknown {
        /// What was looked for.
        kind: EntityKind,
        /// The MoRef.
        moref: String,
    },
    /// No host could take the VM.
    #[error("there is no connected host")]
    NoHost,
    /// A move between hosts of which one can't be reached.
    #[error("host {0:?} is not connected")]
    NotConnected(String),
    /// Already in that state.
    #[error("{moref} is already {state}")]
    Already {
        /// The entity.
        moref: String,
        /// The state.
        state: &'static str,
    },
    /// A template has no power.
    #[error("{0} is a template")]
    Template(String),
    /// Stamps that are published already can't become late.
    #[error("stamp {0} is published already")]
    Published(i64),
    /// No such snapshot.
    #[error("there is no snapshot {0:?}")]
    Snapshot(String),
    /// The VM has asked nothing.
    #[error("{0} has no question")]
    Question(String),
    /// No such counter.
    #[error("there is no counter {0:?}")]
    Counter(String),
}

/// A handle on the world.
#[derive(Clone, Debug)]
pub struct World {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    state: RwLock<State>,
}

/// Everything that the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    /// The log. Its clock fields are brought up to date on export only.
    pub(crate) truth: Truth,
    /// What the log has no need of, parallel to `truth.entities`.
    pub(crate) details: Vec<Details>,
    /// Live entities by MoRef.
    pub(crate) live: HashMap<String, usize>,
    pub(crate) names: Names,
    pub(crate) numbering: Numbering,
    pub(crate) epoch: u32,
    /// In a hundred hosts and VMs so many are known.
    loaded: u8,
    /// Grows with every event: what a waiting property collector looks at.
    pub(crate) version: u64,
    /// Overall status where it is not green.
    pub(crate) status: HashMap<usize, String>,
    /// Names of custom attributes; their keys are their places.
    pub(crate) fields: Vec<String>,
    /// Values of custom attributes, by VM and place of the name.
    pub(crate) attributes: BTreeMap<(usize, usize), String>,
    pub(crate) tasks: Tasks,
    /// What guests will do.
    agenda: Vec<guests::Appointment>,
    next_vm: usize,
    spec: Spec,
}

impl World {
    pub(crate) fn new(spec: &Spec, clock: Clock) -> Self {
        let state = inventory::build(spec, &clock);
        Self {
            inner: Arc::new(Inner {
                clock,
                state: RwLock::new(state),
            }),
        }
    }

    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.look().0
    }

    /// The world, and the time at which it is like that: all that was due by then has happened.
    pub(crate) fn look(&self) -> (RwLockReadGuard<'_, State>, History) {
        loop {
            let state = self.inner.state.read().unwrap_or_else(PoisonError::into_inner);
            let history = self.inner.clock.history();
            if state.due() > history.reading.horizon {
                return (state, history);
            }
            drop(state);
            drop(self.write());
        }
    }

    /// The world as it is now, to be changed.
    fn write(&self) -> (RwLockWriteGuard<'_, State>, Reading) {
        let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
        let reading = self.inner.clock.read();
        state.settle(reading);
        (state, reading)
    }

    /// Makes something happen now. Answers the MoRef of what was created, renamed, moved... ("" for
    /// events without an entity).
    ///
    /// # Errors
    /// The event can't happen in the present state; nothing has changed.
    pub fn apply(&self, event: Event) -> Result<String, WorldError> {
        let (mut state, reading) = self.write();
        let moref = state.apply(event, reading.horizon)?;
        state.version += 1;
        Ok(moref)
    }

    /// Accepts an operation of a client; answers the MoRef of its task, or `None` where the guest was told.
    pub(crate) fn order(&self, order: Order) -> Result<Option<String>, Trouble> {
        let (mut state, reading) = self.write();
        let task = state.order(order, reading)?;
        state.version += 1;
        Ok(task.map(|number| state.task_moref(number)))
    }

    /// Cancels a task; `None` = there is no such task.
    pub(crate) fn cancel(&self, task: &str) -> Option<Result<(), Trouble>> {
        let (mut state, reading) = self.write();
        let number = state.find_task(task)?;
        state.version += 1;
        Some(state.cancel(number, reading))
    }

    /// Every operation that was accepted from a client so far, oldest first.
    #[must_use]
    pub fn operations(&self) -> Vec<OperationRecord> {
        self.read().tasks.log.clone()
    }

    /// The log up to now.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let (state, history) = self.look();
        let mut truth = state.truth.clone();
        truth.now = history.reading.now;
        truth.horizon = history.reading.horizon;
        truth.clock_steps = history.steps;
        truth.not_lived = history.not_lived;
        truth.index = OnceLock::new();
        truth
    }

    /// MoRefs of the VMs that exist, in order of creation, templates left out.
    #[must_use]
    pub fn vms(&self) -> Vec<String> {
        self.list(|record| record.kind == EntityKind::Vm && !record.template)
    }

    /// MoRefs of the hosts.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        self.list(|record| record.kind == EntityKind::Host)
    }

    /// MoRefs of the VMs that are powered on.
    #[must_use]
    pub fn running_vms(&self) -> Vec<String> {
        self.list(|record| {
            record.kind == EntityKind::Vm && record.runs.last().is_some_and(|run| run.last_stamp.is_none())
        })
    }

    fn list(&self, wanted: impl Fn(&EntityRecord) -> bool) -> Vec<String> {
        let state = self.read();
        let all = state.truth.entities.iter();
        all.filter(|record| record.removed_at.is_none() && wanted(record))
            .map(|record| record.moref.clone())
            .collect()
    }

    /// MoRef of the entity with this name (as on the wire).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<String> {
        self.list(|record| record.name == name).into_iter().next()
    }

    /// Powers a VM on.
    ///
    /// # Errors
    /// Unknown, a template, or already on.
    pub fn power_on(&self, vm: &str) -> Result<(), WorldError> {
        self.apply(Event::PowerOn { vm: vm.to_owned() }).map(drop)
    }

    /// Powers a VM off.
    ///
    /// # Errors
    /// Unknown, a template, or already off.
    pub fn power_off(&self, vm: &str) -> Result<(), WorldError> {
        self.apply(Event::PowerOff { vm: vm.to_owned() }).map(drop)
    }

    /// Suspends a VM.
    ///
    /// # Errors
    /// Unknown, a template, or already suspended.
    pub fn suspend(&self, vm: &str) -> Result<(), WorldError> {
        self.apply(Event::Suspend { vm: vm.to_owned() }).map(drop)
    }

    /// Creates a VM and powers it on; answers its MoRef.
    ///
    /// # Errors
    /// No host, or the host is unknown or not connected.
    pub fn create_vm(&self, name: Option<&str>, host: Option<&str>) -> Result<String, WorldError> {
        self.apply(Event::CreateVm {
            name: name.map(str::to_owned),
            host: host.map(str::to_owned),
        })
    }

    /// Deletes a VM.
    ///
    /// # Errors
    /// Unknown.
    pub fn delete_vm(&self, vm: &str) -> Result<(), WorldError> {
        self.apply(Event::DeleteVm { vm: vm.to_owned() }).map(drop)
    }

    /// Takes a VM out and registers it again, powered on; answers its new MoRef.
    ///
    /// # Errors
    /// Unknown, a template, or its host is not connected.
    pub fn re_register(&self, vm: &str) -> Result<String, WorldError> {
        self.apply(Event::ReRegister { vm: vm.to_owned() })
    }

    /// Knows only so many in a hundred of its hosts and VMs from now on.
    pub fn load(&self, percent: u8) {
        // This event has no entity that could be missing.
        self.apply(Event::Load { percent }).map(drop).unwrap_or_default();
    }

    /// Publishes roll-ups later than usual from now on.
    pub fn delay_rollups(&self, extra: Duration) {
        let extra = clock::micros(extra);
        self.apply(Event::LateRollups { extra })
            .map(drop)
            .unwrap_or_default();
    }

    /// Renames a VM or host.
    ///
    /// # Errors
    /// Unknown.
    pub fn rename(&self, entity: &str, name: &str) -> Result<(), WorldError> {
        self.apply(Event::Rename {
            entity: entity.to_owned(),
            name: name.to_owned(),
        })
        .map(drop)
    }

    /// Moves a VM to another host.
    ///
    /// # Errors
    /// Unknown VM or host, or one of the hosts is not connected.
    pub fn move_vm(&self, vm: &str, host: &str, ring: RingFate) -> Result<(), WorldError> {
        self.apply(Event::MoveVm {
            vm: vm.to_owned(),
            host: host.to_owned(),
            ring,
        })
        .map(drop)
    }

    /// Changes a VM's number of vCPUs.
    ///
    /// # Errors
    /// Unknown.
    pub fn set_vcpus(&self, vm: &str, vcpus: u32) -> Result<(), WorldError> {
        self.apply(Event::SetVcpus {
            vm: vm.to_owned(),
            vcpus,
        })
        .map(drop)
    }

    /// Changes how vCenter sees a host.
    ///
    /// # Errors
    /// Unknown.
    pub fn set_host_link(&self, host: &str, link: HostLink) -> Result<(), WorldError> {
        self.apply(Event::HostLink {
            host: host.to_owned(),
            link,
        })
        .map(drop)
    }

    /// Gives the counters other numbers.
    pub fn renumber_counters(&self) {
        // This event has no entity that could be missing.
        self.apply(Event::RenumberCounters).map(drop).unwrap_or_default();
    }

    /// Delays the publication of the samples `first..=last` of one entity or (`None`) all.
    ///
    /// # Errors
    /// Unknown entity, or the first sample is published already.
    pub fn delay_samples(
        &self,
        entity: Option<&str>,
        first: i64,
        last: i64,
        extra: Duration,
    ) -> Result<(), WorldError> {
        self.apply(Event::Late {
            entity: entity.map(str::to_owned),
            first,
            last,
            extra: clock::micros(extra),
        })
        .map(drop)
    }

    /// Leaves cells empty in one entity's or (`None`) all entities' samples.
    ///
    /// # Errors
    /// Unknown entity or counter.
    pub fn withhold(&self, entity: Option<&str>, cells: Withheld) -> Result<(), WorldError> {
        self.apply(Event::Withhold {
            entity: entity.map(str::to_owned),
            cells,
        })
        .map(drop)
    }
}

impl State {
    /// The log's index of a live entity.
    pub(crate) fn find(&self, kind: EntityKind, moref: &str) -> Option<usize> {
        let index = *self.live.get(moref)?;
        let record = self.truth.entities.get(index)?;
        (record.kind == kind).then_some(index)
    }

    fn need(&self, kind: EntityKind, moref: &str) -> Result<usize, WorldError> {
        self.find(kind, moref).ok_or_else(|| WorldError::Unknown {
            kind,
            moref: moref.to_owned(),
        })
    }

    pub(crate) fn vm(&self, index: usize) -> Option<&VmDetails> {
        match self.details.get(index)? {
            Details::Vm(vm) => Some(vm),
            Details::Host(_) => None,
        }
    }

    pub(crate) fn host(&self, index: usize) -> Option<&HostDetails> {
        match self.details.get(index)? {
            Details::Host(host) => Some(host),
            Details::Vm(_) => None,
        }
    }

    fn vm_mut(&mut self, index: usize) -> Option<(&mut VmDetails, &mut EntityRecord)> {
        match (self.details.get_mut(index)?, self.truth.entities.get_mut(index)?) {
            (Details::Vm(vm), record) => Some((vm, record)),
            (Details::Host(_), _) => None,
        }
    }

    fn host_mut(&mut self, index: usize) -> Option<(&mut HostDetails, &mut EntityRecord)> {
        match (self.details.get_mut(index)?, self.truth.entities.get_mut(index)?) {
            (Details::Host(host), record) => Some((host, record)),
            (Details::Vm(_), _) => None,
        }
    }

    /// Live VMs on a host, templates included.
    pub(crate) fn vms_on(&self, host: usize) -> impl Iterator<Item = usize> {
        let live = self.truth.entities.iter().zip(&self.details).enumerate();
        live.filter_map(move |(index, (record, details))| match details {
            Details::Vm(vm) if vm.host == host && record.removed_at.is_none() => Some(index),
            _ => None,
        })
    }

    /// Whether the server knows of an entity already.
    pub(crate) fn is_loaded(&self, index: usize) -> bool {
        let place = || mix(self.spec.seed ^ u64::try_from(index).unwrap_or_default()) % 100;
        self.loaded >= 100 || place() < u64::from(self.loaded)
    }

    fn moref(&self, index: usize) -> String {
        let record = self.truth.entities.get(index);
        record.map(|r| r.moref.clone()).unwrap_or_default()
    }

    fn connected(&self, host: usize) -> Result<(), WorldError> {
        match self.host(host) {
            Some(details) if details.link == HostLink::Connected => Ok(()),
            _ => Err(WorldError::NotConnected(self.moref(host))),
        }
    }

    fn apply(&mut self, event: Event, horizon: i64) -> Result<String, WorldError> {
        match event {
            Event::PowerOn { vm } => self.power(&vm, PowerState::PoweredOn, horizon),
            Event::PowerOff { vm } => self.power(&vm, PowerState::PoweredOff, horizon),
            Event::Suspend { vm } => self.power(&vm, PowerState::Suspended, horizon),
            Event::CreateVm { name, host } => self.create(name, host.as_deref(), horizon),
            Event::DeleteVm { vm } => self.delete(&vm, horizon),
            Event::ReRegister { vm } => self.register_again(&vm, horizon),
            Event::Rename { entity, name } => {
                let index = self.live.get(&entity).copied();
                let record = index.and_then(|index| self.truth.entities.get_mut(index));
                let record = record.ok_or_else(|| WorldError::Unknown {
                    kind: EntityKind::Vm,
                    moref: entity.clone(),
                })?;
                record.name = name;
                Ok(entity)
            }
            Event::MoveVm { vm, host, ring } => self.relocate(&vm, &host, ring, horizon),
            Event::CreateSnapshot { vm, name } => {
                self.take_snapshot(&vm, &name, "", (true, false), horizon)?;
                Ok(vm)
            }
            Event::RemoveSnapshot { vm, name } => self.remove_snapshot(&vm, &name),
            Event::Ask { vm, text } => {
                let index = self.need(EntityKind::Vm, &vm)?;
                if let Some((details, _)) = self.vm_mut(index) {
                    details.question = Some(Question::new(text));
                }
                Ok(vm)
            }
            Event::Answer { vm } => {
                let index = self.need(EntityKind::Vm, &vm)?;
                let question = self
                    .vm_mut(index)
                    .and_then(|(details, _)| details.question.take());
                question.ok_or_else(|| WorldError::Question(vm.clone()))?;
                self.resume(index, horizon);
                Ok(vm)
            }
            Event::SetMethod { vm, method, enabled } => {
                let index = self.need(EntityKind::Vm, &vm)?;
                if let Some((details, _)) = self.vm_mut(index) {
                    details.disabled.retain(|one| *one != method);
                    if !enabled {
                        details.disabled.push(method);
                    }
                }
                Ok(vm)
            }
            Event::SetStatus { entity, status } => {
                let index = self.live.get(&entity).copied();
                let index = index.ok_or_else(|| WorldError::Unknown {
                    kind: EntityKind::Vm,
                    moref: entity.clone(),
                })?;
                self.status.insert(index, status);
                Ok(entity)
            }
            Event::SetAttribute { vm, name, value } => {
                let index = self.need(EntityKind::Vm, &vm)?;
                let known = self.fields.iter().position(|field| *field == name);
                let field = known.unwrap_or_else(|| {
                    self.fields.push(name);
                    self.fields.len() - 1
                });
                if value.is_empty() {
                    self.attributes.remove(&(index, field));
                } else {
                    self.attributes.insert((index, field), value);
                }
                Ok(vm)
            }
            Event::RenameAttribute { name, to } => {
                for field in self.fields.iter_mut().filter(|field| **field == name) {
                    field.clone_from(&to);
                }
                Ok(to)
            }
            Event::SetVcpus { vm, vcpus } => self.resize(&vm, vcpus, horizon),
            Event::HostLink { host, link } => self.link(&host, link, horizon),
            Event::Maintenance { host, on } => {
                let index = self.need(EntityKind::Host, &host)?;
                if let Some((details, _)) = self.host_mut(index) {
                    details.maintenance = on;
                }
                Ok(host)
            }
            Event::HostReboot { host } => self.reboot(&host, horizon),
            Event::RenumberCounters => {
                self.epoch += 1;
                self.numbering = Numbering::new(self.truth.kind, self.epoch);
                Ok(String::new())
            }
            Event::Load { percent } => {
                self.loaded = percent;
                Ok(String::new())
            }
            Event::LateRollups { extra } => {
                self.truth.rollup_delay = clock::micros(self.spec.rollup_delay).saturating_add(extra);
                Ok(String::new())
            }
            Event::Late {
                entity,
                first,
                last,
                extra,
            } => self.late(entity, first, last, extra, horizon),
            Event::Withhold { entity, cells } => {
                if counters::catalog().find(&cells.counter).is_none() {
                    return Err(WorldError::Counter(cells.counter));
                }
                let (_, withheld) = self.exceptions(entity.as_deref())?;
                withheld.push(cells);
                Ok(entity.unwrap_or_default())
            }
        }
    }

    fn power(&mut self, vm: &str, to: PowerState, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let host = self.vm(index).map(|vm| vm.host).unwrap_or_default();
        let host = self.moref(host);
        let Some((details, record)) = self.vm_mut(index) else {
            return Ok(String::new());
        };
        if record.template {
            return Err(WorldError::Template(vm.to_owned()));
        }
        if details.power == to {
            return Err(WorldError::Already {
                moref: vm.to_owned(),
                state: to.name(),
            });
        }
        let resumed = details.power == PowerState::Suspended;
        details.power = to;
        end_run(record, horizon);
        if to == PowerState::PoweredOn {
            if !resumed {
                details.booted_at = grid::seconds(horizon);
            }
            begin_run(record, horizon, host, details.vcpus, details.booted_at);
            if !resumed {
                self.boot_guest(index, horizon, clock::micros(self.spec.guest_boot));
            }
        }
        Ok(vm.to_owned())
    }

    fn create(
        &mut self,
        name: Option<String>,
        host: Option<&str>,
        horizon: i64,
    ) -> Result<String, WorldError> {
        let host = match host {
            Some(host) => self.need(EntityKind::Host, host)?,
            None => {
                let hosts = self.details.iter().enumerate();
                let connected = hosts.filter(
                    |(_, details)| matches!(details, Details::Host(h) if h.link == HostLink::Connected),
                );
                connected.map(|(i, _)| i).next().ok_or(WorldError::NoHost)?
            }
        };
        self.connected(host)?;
        let number = self.next_vm;
        self.next_vm += 1;
        let host_moref = self.moref(host);
        let clusters = self.host(host).map_or(0, |h| h.cluster);
        let (mut record, mut details) = inventory::vm(&self.spec, number, host, clusters, false, horizon);
        if let Some(name) = name {
            record.name = name;
        }
        details.booted_at = grid::seconds(horizon);
        begin_run(&mut record, horizon, host_moref, details.vcpus, details.booted_at);
        let moref = record.moref.clone();
        self.live.insert(moref.clone(), self.details.len());
        self.truth.entities.push(record);
        self.details.push(Details::Vm(details));
        Ok(moref)
    }

    fn delete(&mut self, vm: &str, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        self.live.remove(vm);
        if let Some((details, record)) = self.vm_mut(index) {
            details.power = PowerState::PoweredOff;
            end_run(record, horizon);
            record.removed_at = Some(horizon);
        }
        Ok(vm.to_owned())
    }

    fn register_again(&mut self, vm: &str, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let host = self.vm(index).map(|vm| vm.host).unwrap_or_default();
        self.connected(host)?;
        let before = self.truth.entities.get(index).cloned();
        if before.as_ref().is_some_and(|record| record.template) {
            return Err(WorldError::Template(vm.to_owned()));
        }
        let host = self.moref(host);
        self.delete(vm, horizon)?;
        let moref = self.create(None, Some(&host), horizon)?;
        let again = self.need(EntityKind::Vm, &moref)?;
        // Beside its reference all that it is stays.
        let identity = self.vm(index).map(|vm| {
            (
                vm.uuid.clone(),
                vm.instance_uuid.clone(),
                vm.vcpus,
                vm.memory_mb,
                vm.guest,
            )
        });
        if let (Some(before), Some(identity)) = (before, identity)
            && let Some((details, record)) = self.vm_mut(again)
        {
            record.name = before.name;
            record.profile = before.profile;
            (
                details.uuid,
                details.instance_uuid,
                details.vcpus,
                details.memory_mb,
                details.guest,
            ) = identity;
            for run in &mut record.runs {
                run.vcpus = details.vcpus;
            }
        }
        Ok(moref)
    }

    fn relocate(&mut self, vm: &str, host: &str, ring: RingFate, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let target = self.need(EntityKind::Host, host)?;
        let source = self.vm(index).map_or(target, |vm| vm.host);
        self.connected(source)?;
        self.connected(target)?;
        let cluster = self.host(target).map_or(0, |h| h.cluster);
        let Some((details, record)) = self.vm_mut(index) else {
            return Ok(String::new());
        };
        details.host = target;
        details.cluster = cluster;
        if ring == RingFate::Reset {
            record.ring_resets.push(horizon);
        }
        if details.power == PowerState::PoweredOn {
            let host = host.to_owned();
            match ring {
                // The interval of the move is reported by the new host: none is missing.
                RingFate::Kept => continue_run(record, horizon, host, details.vcpus, details.booted_at),
                RingFate::Reset => {
                    end_run(record, horizon);
                    begin_run(record, horizon, host, details.vcpus, details.booted_at);
                }
            }
        }
        Ok(vm.to_owned())
    }

    fn resize(&mut self, vm: &str, vcpus: u32, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let host = self.vm(index).map(|vm| vm.host).unwrap_or_default();
        let host = self.moref(host);
        if let Some((details, record)) = self.vm_mut(index) {
            details.vcpus = vcpus;
            if details.power == PowerState::PoweredOn {
                continue_run(record, horizon, host, vcpus, details.booted_at);
            }
        }
        Ok(vm.to_owned())
    }

    fn link(&mut self, host: &str, link: HostLink, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Host, host)?;
        let Some((details, _)) = self.host_mut(index) else {
            return Ok(String::new());
        };
        let before = std::mem::replace(&mut details.link, link);
        let affected: Vec<usize> = self.vms_on(index).chain([index]).collect();
        for entity in affected {
            let Some(record) = self.truth.entities.get_mut(entity) else {
                continue;
            };
            match (before, link) {
                (HostLink::Connected, HostLink::Connected) => {}
                (HostLink::Connected, _) => record.unreachable.push(Unreachable {
                    from: horizon,
                    to: None,
                }),
                (_, HostLink::Connected) => {
                    if let Some(open) = record.unreachable.last_mut() {
                        open.to.get_or_insert(horizon);
                    }
                }
                _ => {}
            }
        }
        Ok(host.to_owned())
    }

    fn reboot(&mut self, host: &str, horizon: i64) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Host, host)?;
        let affected: Vec<usize> = self.vms_on(index).collect();
        for vm in affected {
            if let Some((details, record)) = self.vm_mut(vm) {
                end_run(record, horizon);
                record.ring_resets.push(horizon);
                if details.power == PowerState::PoweredOn {
                    details.power = PowerState::PoweredOff;
                }
            }
        }
        if let Some((details, record)) = self.host_mut(index) {
            details.booted_at = grid::seconds(horizon);
            let threads = u32::from(details.threads);
            end_run(record, horizon);
            record.ring_resets.push(horizon);
            begin_run(record, horizon, host.to_owned(), threads, details.booted_at);
        }
        Ok(host.to_owned())
    }

    fn late(
        &mut self,
        entity: Option<String>,
        first: i64,
        last: i64,
        extra: i64,
        horizon: i64,
    ) -> Result<String, WorldError> {
        if first * grid::MICROS + self.truth.publish_delay <= horizon {
            return Err(WorldError::Published(first));
        }
        let (late, _) = self.exceptions(entity.as_deref())?;
        late.push(Late {
            stamps: StampRange { first, last },
            extra,
        });
        Ok(entity.unwrap_or_default())
    }

    fn exceptions(
        &mut self,
        entity: Option<&str>,
    ) -> Result<(&mut Vec<Late>, &mut Vec<Withheld>), WorldError> {
        let Some(moref) = entity else {
            return Ok((&mut self.truth.late, &mut self.truth.withheld));
        };
        let unknown = || WorldError::Unknown {
            kind: EntityKind::Vm,
            moref: moref.to_owned(),
        };
        let index = self.live.get(moref).copied().ok_or_else(unknown)?;
        let record = self.truth.entities.get_mut(index).ok_or_else(unknown)?;
        Ok((&mut record.late, &mut record.withheld))
    }

    /// The platform's kind.
    pub(crate) fn kind(&self) -> PlatformKind {
        self.truth.kind
    }
}

/// Ends the open run at the newest whole interval; a run that never had one is dropped.
fn end_run(record: &mut EntityRecord, horizon: i64) {
    if let Some(run) = record.runs.last_mut()
        && run.last_stamp.is_none()
    {
        let last = grid::newest_stamp(horizon);
        if last < run.first_stamp {
            record.runs.pop();
        } else {
            run.last_stamp = Some(last);
        }
    }
}

/// Goes on with another host or size, without a missing interval.
fn continue_run(record: &mut EntityRecord, horizon: i64, host: String, vcpus: u32, booted_at: i64) {
    // A run that has no sample yet keeps waiting for its first whole interval.
    let due = record.runs.last().map_or(i64::MIN, |run| run.first_stamp);
    end_run(record, horizon);
    begin_run(record, horizon, host, vcpus, booted_at);
    if let Some(run) = record.runs.last_mut() {
        run.first_stamp = due.max(grid::newest_stamp(horizon) + grid::INTERVAL);
    }
}

fn begin_run(record: &mut EntityRecord, horizon: i64, host: String, vcpus: u32, booted_at: i64) {
    record.runs.push(Run {
        first_stamp: grid::first_whole_interval(horizon),
        last_stamp: None,
        host,
        vcpus,
        booted_at,
    });
}
