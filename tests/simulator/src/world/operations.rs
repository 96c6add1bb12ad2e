//! What clients make the world do: power, guests, snapshots.
//!
//! Owns: what each operation needs, what stands in its way, and its effect, which goes through the functions that
//! events go through. Never knows a task or a protocol.

use serde::{Deserialize, Serialize};

use super::tasks::TaskState;
use super::{HostLink, PowerState, State, WorldError, begin_run, end_run};
use crate::clock;
use crate::truth::EntityKind;

/// One operation, without the object that it is called on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    PowerOn,
    PowerOff,
    Reset,
    Suspend,
    ShutdownGuest,
    RebootGuest,
    CreateSnapshot {
        name: String,
        description: String,
        memory: bool,
        quiesce: bool,
    },
    RemoveSnapshot {
        children: bool,
    },
    RemoveAllSnapshots,
    RevertToSnapshot {
        stay_off: bool,
    },
    RevertToCurrentSnapshot {
        stay_off: bool,
    },
}

/// What an operation is called on: a VM, or one of its snapshots. Indices of the log, which outlive the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) vm: usize,
    pub(crate) snapshot: Option<usize>,
}

/// What the world did for a client, or is about to do: one entry for each call that it accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// SOAP method.
    pub method: String,
    /// MoRef that it was called on: a VM or a snapshot.
    pub object: String,
    /// MoRef of the VM.
    pub vm: String,
    /// Who called.
    pub user: String,
    /// The `operationID` header element.
    pub operation_id: Option<String>,
    /// Server time of its acceptance.
    pub at: i64,
    /// MoRef of its task; `None` = the guest was told.
    pub task: Option<String>,
    /// State of its task.
    pub state: Option<TaskState>,
    /// Type of the fault that its task ended with.
    pub fault: Option<String>,
    /// Server time at which the VM changed; `None` = not (yet).
    pub effect_at: Option<i64>,
}

/// Why an operation can't be: a fault's type, its text, and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) fields: Vec<(&'static str, Field)>,
}

/// A field of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Text(String),
    /// Type and value of a reference.
    Ref(&'static str, String),
}

impl Trouble {
    pub(crate) fn new(kind: &str, message: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.to_owned(),
            fields: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, field: Field) -> Self {
        self.fields.push((name, field));
        self
    }

    pub(crate) fn not_found(kind: &'static str, moref: &str) -> Self {
        let message = format!(
            "The object 'vim.{kind}:{moref}' has already been deleted or has not been completely created"
        );
        Self::new("ManagedObjectNotFound", &message).with("obj", Field::Ref(kind, moref.to_owned()))
    }
}

impl Operation {
    /// The SOAP method.
    pub(crate) const fn method(&self) -> &'static str {
        match self {
            Self::PowerOn => "PowerOnVM_Task",
            Self::PowerOff => "PowerOffVM_Task",
            Self::Reset => "ResetVM_Task",
            Self::Suspend => "SuspendVM_Task",
            Self::ShutdownGuest => "ShutdownGuest",
            Self::RebootGuest => "RebootGuest",
            Self::CreateSnapshot { .. } => "CreateSnapshot_Task",
            Self::RemoveSnapshot { .. } => "RemoveSnapshot_Task",
            Self::RemoveAllSnapshots => "RemoveAllSnapshots_Task",
            Self::RevertToSnapshot { .. } => "RevertToSnapshot_Task",
            Self::RevertToCurrentSnapshot { .. } => "RevertToCurrentSnapshot_Task",
        }
    }

    /// `TaskInfo.descriptionId`.
    pub(crate) const fn description(&self) -> &'static str {
        match self {
            Self::PowerOn => "VirtualMachine.powerOn",
            Self::PowerOff => "VirtualMachine.powerOff",
            Self::Reset => "VirtualMachine.reset",
            Self::Suspend => "VirtualMachine.suspend",
            Self::ShutdownGuest => "VirtualMachine.shutdownGuest",
            Self::RebootGuest => "VirtualMachine.rebootGuest",
            Self::CreateSnapshot { .. } => "VirtualMachine.createSnapshot",
            Self::RemoveSnapshot { .. } => "vm.Snapshot.remove",
            Self::RemoveAllSnapshots => "VirtualMachine.removeAllSnapshots",
            Self::RevertToSnapshot { .. } => "vm.Snapshot.revert",
            Self::RevertToCurrentSnapshot { .. } => "VirtualMachine.revertToCurrentSnapshot",
        }
    }

    /// The privilege that it takes.
    const fn privilege(&self) -> &'static str {
        match self {
            Self::PowerOn => "VirtualMachine.Interact.PowerOn",
            Self::PowerOff | Self::ShutdownGuest => "VirtualMachine.Interact.PowerOff",
            Self::Reset | Self::RebootGuest => "VirtualMachine.Interact.Reset",
            Self::Suspend => "VirtualMachine.Interact.Suspend",
            Self::CreateSnapshot { .. } => "VirtualMachine.State.CreateSnapshot",
            Self::RemoveSnapshot { .. } | Self::RemoveAllSnapshots => "VirtualMachine.State.RemoveSnapshot",
            Self::RevertToSnapshot { .. } | Self::RevertToCurrentSnapshot { .. } => {
                "VirtualMachine.State.RevertToSnapshot"
            }
        }
    }

    /// Only asks the guest; there is no task.
    pub(crate) const fn is_for_guest(&self) -> bool {
        matches!(self, Self::ShutdownGuest | Self::RebootGuest)
    }

    /// A task of it can be cancelled: it copies or merges disks, which takes long.
    pub(crate) const fn is_cancelable(&self) -> bool {
        matches!(
            self,
            Self::CreateSnapshot { .. } | Self::RemoveSnapshot { .. } | Self::RemoveAllSnapshots
        )
    }

    /// The power states in which it can be; empty = in all.
    const fn states(&self) -> &'static [PowerState] {
        match self {
            Self::PowerOn => &[PowerState::PoweredOff, PowerState::Suspended],
            Self::PowerOff => &[PowerState::PoweredOn, PowerState::Suspended],
            Self::Reset | Self::Suspend | Self::ShutdownGuest | Self::RebootGuest => &[PowerState::PoweredOn],
            _ => &[],
        }
    }
}

impl State {
    /// The object of an operation.
    pub(crate) fn target(&self, kind: &str, moref: &str) -> Option<Target> {
        match kind {
            "VirtualMachine" => Some(Target {
                vm: self.find(EntityKind::Vm, moref)?,
                snapshot: None,
            }),
            "VirtualMachineSnapshot" => {
                let (vm, id) = self.find_snapshot(moref)?;
                Some(Target {
                    vm,
                    snapshot: Some(id),
                })
            }
            _ => None,
        }
    }

    /// Why the operation can't be now; tasks of the VM are not looked at.
    pub(super) fn obstacle(&self, operation: &Operation, on: Target) -> Option<Trouble> {
        let (vm, record) = (self.vm(on.vm)?, self.truth.entities.get(on.vm)?);
        if record.removed_at.is_some() {
            return Some(Trouble::not_found("VirtualMachine", &record.moref));
        }
        if let Some(id) = on.snapshot
            && !vm.snapshots.iter().any(|snapshot| snapshot.id == id)
        {
            let gone = super::snapshots::moref(&record.moref, id);
            return Some(Trouble::not_found("VirtualMachineSnapshot", &gone));
        }
        let host = self.host(vm.host)?;
        if host.link != HostLink::Connected {
            let message = "Unable to communicate with the remote host, since it is disconnected.";
            return Some(Trouble::new("HostNotConnected", message));
        }
        if record.template || (*operation == Operation::PowerOn && host.maintenance) {
            let message = "The operation is not allowed in the current state.";
            return Some(Trouble::new("InvalidState", message));
        }
        if !operation.states().is_empty() && !operation.states().contains(&vm.power) {
            return Some(self.trouble("InvalidPowerState", "", operation, on));
        }
        if operation.is_for_guest() && !(vm.guest_up && record.profile.tools) {
            return Some(self.trouble("ToolsUnavailable", "", operation, on));
        }
        if matches!(operation, Operation::RevertToCurrentSnapshot { .. }) && vm.snapshots.is_empty() {
            return Some(Trouble::new(
                "NotFound",
                "The object or item referred to could not be found.",
            ));
        }
        None
    }

    /// A trouble by its type alone, with the fields that it has for this operation.
    pub(crate) fn trouble(&self, kind: &str, message: &str, operation: &Operation, on: Target) -> Trouble {
        let text = |text: &str| Field::Text(text.to_owned());
        let (usual, fields) = match kind {
            "InvalidPowerState" => {
                let is = self.vm(on.vm).map_or(PowerState::PoweredOff, |vm| vm.power);
                // What the operation would have needed.
                let needs = operation
                    .states()
                    .first()
                    .copied()
                    .unwrap_or(PowerState::PoweredOff);
                (
                    format!(
                        "The attempted operation cannot be performed in the current state ({}).",
                        is.name()
                    ),
                    vec![
                        ("requestedState", text(needs.name())),
                        ("existingState", text(is.name())),
                    ],
                )
            }
            "TaskInProgress" => {
                let task = self.busy(on.vm).map(|number| self.task_moref(number));
                (
                    "The operation cannot be allowed at the moment because the VM has an operation in \
                     progress."
                        .to_owned(),
                    vec![("task", Field::Ref("Task", task.unwrap_or_default()))],
                )
            }
            "NoPermission" => (
                "Permission to perform this operation was denied.".to_owned(),
                vec![
                    ("object", Field::Ref("VirtualMachine", self.moref(on.vm))),
                    ("privilegeId", text(operation.privilege())),
                ],
            ),
            "ManagedObjectNotFound" => {
                let mut gone = match on.snapshot {
                    Some(id) => {
                        let moref = super::snapshots::moref(&self.moref(on.vm), id);
                        Trouble::not_found("VirtualMachineSnapshot", &moref)
                    }
                    None => Trouble::not_found("VirtualMachine", &self.moref(on.vm)),
                };
                (std::mem::take(&mut gone.message), gone.fields)
            }
            "SystemError" => (
                "A general system error occurred: injected".to_owned(),
                vec![("reason", text("injected"))],
            ),
            "InvalidArgument" => (
                "A specified parameter was not correct: ".to_owned(),
                vec![("invalidProperty", text("name"))],
            ),
            "InvalidName" => ("The name is not valid.".to_owned(), vec![("name", text(""))]),
            _ => (words(kind).to_owned(), Vec::new()),
        };
        Trouble {
            kind: kind.to_owned(),
            message: if message.is_empty() {
                usual
            } else {
                message.to_owned()
            },
            fields,
        }
    }

    /// Carries an operation out at a time of the world; answers the snapshot that it made.
    pub(super) fn carry_out(
        &mut self,
        operation: &Operation,
        on: Target,
        at: i64,
    ) -> Result<Option<usize>, Trouble> {
        if let Some(trouble) = self.obstacle(operation, on) {
            return Err(trouble);
        }
        let vm = self.moref(on.vm);
        let done = match operation {
            Operation::PowerOn => self.power(&vm, PowerState::PoweredOn, at),
            Operation::PowerOff | Operation::ShutdownGuest => self.power(&vm, PowerState::PoweredOff, at),
            Operation::Suspend => self.power(&vm, PowerState::Suspended, at),
            Operation::Reset | Operation::RebootGuest => {
                let away = clock::micros(self.spec.guest_boot);
                self.boot_guest(on.vm, at, away);
                Ok(vm)
            }
            Operation::CreateSnapshot {
                name,
                description,
                memory,
                quiesce,
            } => {
                let made = self.take_snapshot(&vm, name, description, (*memory, *quiesce), at);
                return made
                    .map(Some)
                    .map_err(|error| self.unlikely(&error, operation, on));
            }
            Operation::RemoveSnapshot { children } => {
                self.drop_snapshot(on.vm, on.snapshot.unwrap_or_default(), *children);
                Ok(vm)
            }
            Operation::RemoveAllSnapshots => {
                if let Some((details, _)) = self.vm_mut(on.vm) {
                    details.snapshots.clear();
                }
                Ok(vm)
            }
            Operation::RevertToSnapshot { stay_off } => {
                self.revert(on.vm, on.snapshot, *stay_off, at);
                Ok(vm)
            }
            Operation::RevertToCurrentSnapshot { stay_off } => {
                self.revert(on.vm, None, *stay_off, at);
                Ok(vm)
            }
        };
        match done {
            Ok(_) => Ok(None),
            Err(error) => Err(self.unlikely(&error, operation, on)),
        }
    }

    /// The world refuses what nothing stood in the way of.
    fn unlikely(&self, error: &WorldError, operation: &Operation, on: Target) -> Trouble {
        self.trouble("SystemError", &error.to_string(), operation, on)
    }

    /// Puts a VM back to a snapshot (`None` = the current one), with the power state that it had then.
    fn revert(&mut self, vm: usize, to: Option<usize>, stay_off: bool, at: i64) {
        let moref = self.moref(vm);
        let host = self.vm(vm).map(|vm| self.moref(vm.host)).unwrap_or_default();
        let Some((details, record)) = self.vm_mut(vm) else {
            return;
        };
        let to = to.or_else(|| details.snapshots.iter().find(|one| one.current).map(|one| one.id));
        let mut on = false;
        for snapshot in &mut details.snapshots {
            snapshot.current = Some(snapshot.id) == to;
            on |= snapshot.current && snapshot.power == PowerState::PoweredOn.name();
        }
        let to = if on && !stay_off {
            PowerState::PoweredOn
        } else {
            PowerState::PoweredOff
        };
        if details.power == PowerState::PoweredOn && to == PowerState::PoweredOn {
            // Memory is replaced: the interval in which that happens is not a whole one.
            end_run(record, at);
            begin_run(record, at, host, details.vcpus, details.booted_at);
        } else if details.power != to {
            // Neither a template nor there already: nothing is left that could refuse.
            self.power(&moref, to, at).map(drop).unwrap_or_default();
        }
    }
}

fn words(kind: &str) -> &'static str {
    match kind {
        "ToolsUnavailable" => {
            "Cannot complete operation because VMware Tools is not running in this virtual machine."
        }
        "RestrictedVersion" => {
            "Current license or ESXi version prohibits execution of the requested operation."
        }
        "MethodDisabled" => "The method is disabled.",
        "SnapshotFault" => "An error occurred while taking a snapshot: injected.",
        "InsufficientResourcesFault" => "The available resources are not sufficient for the operation.",
        "RequestCanceled" => "The task was canceled by a user.",
        _ => "",
    }
}
