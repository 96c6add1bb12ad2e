//! What a VM's state, a task or a fault means for an action: pure decisions, and the words for people.
//!
//! Never does: asking anybody.

use std::time::Duration;

use crate::model::ids::MoRef;
use crate::model::inventory::PowerState;
use crate::model::operation::{Action, Code, End, Operation, Outcome, Seen};
use crate::soap::fault::{Fault, FaultKind};
use crate::units::Stamp;
use crate::vsphere::actions::{TaskInfo, TaskState, VmNow};

/// A server may write the moment at which a task was made less exactly than its clock. Tasks that were there before
/// the call are told apart by their references.
pub(super) const QUEUE_TIME_SLACK: Duration = Duration::from_secs(1);

/// What the VM's state says about an action that has not been sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Send it.
    Go,
    /// Do not: this is how it ends.
    End(End),
}

/// Looks at a VM just before. What the server does not tell does not stop an action: the server itself will.
pub(super) fn before(operation: &Operation, vm: &VmNow) -> Before {
    match obstacle(operation, vm) {
        Some(end) => Before::End(end),
        None => Before::Go,
    }
}

fn obstacle(operation: &Operation, vm: &VmNow) -> Option<End> {
    let failed = |code, words: String| Some(End::Failed(code, words + "; nothing was done"));
    let action = &operation.action;
    if let Some((what, was, is)) = changed(operation, vm) {
        return failed(
            Code::VmChanged,
            format!("the VM is not the one that was asked for: its {what} was {was:?} and is {is:?} now"),
        );
    }
    if vm.is_template {
        return failed(
            Code::Template,
            "it is a template, which has no power state and no snapshots; convert it to a VM first"
                .to_owned(),
        );
    }
    if let Some(connection) = vm.connection.as_deref().filter(|state| *state != "connected") {
        return failed(
            Code::Disconnected,
            format!("the VM is {connection}: the platform has lost its host or its files; look at the host"),
        );
    }
    if is_there(action, vm) {
        return Some(already());
    }
    if let Some(words) = wrong_power(action, vm.power) {
        return failed(Code::PowerState, words);
    }
    if let Some(question) = &vm.question {
        return failed(
            Code::Question,
            format!("the VM waits for an answer to a question; answer it in vSphere first: {question}"),
        );
    }
    if let Action::RevertSnapshot { snapshot } | Action::RemoveSnapshot { snapshot, .. } = action
        && !vm
            .snapshots
            .iter()
            .any(|known| known.moref.as_str() == &**snapshot)
    {
        return failed(Code::SnapshotGone, format!("the VM has no snapshot {snapshot}"));
    }
    if let Some(method) = vm.disabled.iter().find(|method| *method == method_of(action)) {
        return failed(
            Code::Disabled,
            format!(
                "the platform has {method} disabled for this VM just now; back-up programs and migrations do that while \
                 they work on it"
            ),
        );
    }
    None
}

/// What makes it another VM than the one that was asked for: what, what it was, what it is.
fn changed<'a>(operation: &'a Operation, vm: &'a VmNow) -> Option<(&'static str, &'a str, &'a str)> {
    let differ = |was: &'a Option<String>, is: &'a Option<String>, what| match (was, is) {
        (Some(was), Some(is)) if !was.eq_ignore_ascii_case(is) || (what == "name" && was != is) => {
            Some((what, was.as_str(), is.as_str()))
        }
        _ => None,
    };
    differ(&operation.vm_instance_uuid, &vm.instance_uuid, "instance UUID")
        .or_else(|| differ(&operation.vm_name, &vm.name, "name"))
}

/// True where there is nothing to do.
fn is_there(action: &Action, vm: &VmNow) -> bool {
    match action {
        Action::RemoveAllSnapshots => vm.snapshots.is_empty(),
        _ => target(action) == Some(vm.power),
    }
}

/// The power state that an action is for.
const fn target(action: &Action) -> Option<PowerState> {
    match action {
        Action::PowerOn => Some(PowerState::On),
        Action::PowerOff | Action::ShutdownGuest => Some(PowerState::Off),
        Action::Suspend => Some(PowerState::Suspended),
        Action::Reset
        | Action::RebootGuest
        | Action::CreateSnapshot(_)
        | Action::RevertSnapshot { .. }
        | Action::RemoveSnapshot { .. }
        | Action::RemoveAllSnapshots => None,
    }
}

fn wrong_power(action: &Action, power: PowerState) -> Option<String> {
    let needs_power = matches!(
        action,
        Action::Reset | Action::Suspend | Action::ShutdownGuest | Action::RebootGuest
    );
    (needs_power && matches!(power, PowerState::Off | PowerState::Suspended)).then(|| {
        format!(
            "the VM is {}; only one that is powered on can be {}",
            spoken(power),
            done(action)
        )
    })
}

const fn spoken(power: PowerState) -> &'static str {
    match power {
        PowerState::On => "powered on",
        PowerState::Off => "powered off",
        PowerState::Suspended => "suspended",
        PowerState::Unknown => "in an unknown power state",
    }
}

/// An action as what is done to the VM.
const fn done(action: &Action) -> &'static str {
    match action {
        Action::PowerOn => "powered on",
        Action::PowerOff => "powered off",
        Action::Reset => "reset",
        Action::Suspend => "suspended",
        Action::ShutdownGuest => "shut down by its guest",
        Action::RebootGuest => "rebooted by its guest",
        Action::CreateSnapshot(_) => "given a snapshot",
        Action::RevertSnapshot { .. } => "reverted to a snapshot",
        Action::RemoveSnapshot { .. } => "freed of a snapshot",
        Action::RemoveAllSnapshots => "freed of its snapshots",
    }
}

/// As in `disabledMethod`.
const fn method_of(action: &Action) -> &'static str {
    match action {
        Action::PowerOn => "PowerOnVM_Task",
        Action::PowerOff => "PowerOffVM_Task",
        Action::Reset => "ResetVM_Task",
        Action::Suspend => "SuspendVM_Task",
        Action::ShutdownGuest => "ShutdownGuest",
        Action::RebootGuest => "RebootGuest",
        Action::CreateSnapshot(_) => "CreateSnapshot_Task",
        // The VM itself has no method to revert to or remove one snapshot; these two are disabled with them.
        Action::RevertSnapshot { .. } => "RevertToCurrentSnapshot_Task",
        Action::RemoveSnapshot { .. } | Action::RemoveAllSnapshots => "RemoveAllSnapshots_Task",
    }
}

const fn privilege_of(action: &Action) -> &'static str {
    match action {
        Action::PowerOn => "VirtualMachine.Interact.PowerOn",
        Action::PowerOff | Action::ShutdownGuest => "VirtualMachine.Interact.PowerOff",
        Action::Reset | Action::RebootGuest => "VirtualMachine.Interact.Reset",
        Action::Suspend => "VirtualMachine.Interact.Suspend",
        Action::CreateSnapshot(_) => "VirtualMachine.State.CreateSnapshot",
        Action::RevertSnapshot { .. } => "VirtualMachine.State.RevertToSnapshot",
        Action::RemoveSnapshot { .. } | Action::RemoveAllSnapshots => "VirtualMachine.State.RemoveSnapshot",
    }
}

/// The success of one for whom there was nothing to do.
fn already() -> End {
    End::Succeeded(Outcome {
        already: true,
        ..Outcome::default()
    })
}

/// A success that was found out otherwise than by the task.
pub(super) fn found(snapshot: Option<String>, note: String) -> End {
    End::Succeeded(Outcome {
        already: false,
        snapshot,
        note: Some(note),
    })
}

/// The end of a task that was found although the answer to its call was lost.
pub(super) fn found_again(end: End, task: &MoRef) -> End {
    match end {
        End::Succeeded(outcome) => End::Succeeded(Outcome {
            note: Some(format!("the platform's answer was lost; found again as {task}")),
            ..outcome
        }),
        other => other,
    }
}

/// What a refusal or a failed task means.
pub(super) fn of_fault(action: &Action, fault: &Fault) -> End {
    use FaultKind as F;
    let (code, words) = match &fault.kind {
        F::InvalidPowerState => {
            let existing = fault.existing_state.as_deref().map(power_word);
            if existing.is_some() && existing == target(action) {
                return already();
            }
            let state = existing.map_or("in another power state", spoken);
            (Code::PowerState, format!("the VM is {state}, in which it cannot be {}", done(action)))
        }
        F::NotAuthenticated => (
            Code::Unreachable,
            "the platform accepts no session of the collector".to_owned(),
        ),
        F::NoPermission => {
            let privilege = fault.privilege.as_deref().unwrap_or_else(|| privilege_of(action));
            (
                Code::NoPermission,
                format!("the collector's account lacks the privilege {privilege} on this VM; add it to the account's role"),
            )
        }
        F::RestrictedVersion | F::LicenseRestricted => (
            Code::Licence,
            "the host's licence does not allow it: with the free licence of ESXi, programs may only read; it takes \
             another licence, or a vCenter"
                .to_owned(),
        ),
        F::ToolsUnavailable => (
            Code::ToolsMissing,
            "VMware Tools do not run in the guest, so it cannot be asked; start them, or use power_off or reset"
                .to_owned(),
        ),
        F::MethodDisabled => (
            Code::Disabled,
            format!("the platform has {} disabled for this VM just now", method_of(action)),
        ),
        F::TaskInProgress | F::ConcurrentAccess => (
            Code::Busy,
            "the platform is doing something else with the VM; try again when that has ended".to_owned(),
        ),
        F::InvalidState => (
            Code::InvalidState,
            "the VM or its host is in a state in which this cannot be done, such as maintenance".to_owned(),
        ),
        F::HostNotConnected | F::HostNotReachable | F::HostCommunication => {
            (Code::Disconnected, "the platform cannot reach the VM's host".to_owned())
        }
        F::NotSupported | F::NotImplemented | F::MethodNotFound => {
            (Code::NotSupported, "this server or this VM does not support it".to_owned())
        }
        F::ManagedObjectNotFound => match action {
            Action::RevertSnapshot { .. } | Action::RemoveSnapshot { .. } => {
                (Code::SnapshotGone, "the snapshot or the VM does not exist any more".to_owned())
            }
            _ => (Code::VmGone, "the VM does not exist any more".to_owned()),
        },
        F::RequestCanceled => (Code::Cancelled, "somebody cancelled it in vSphere".to_owned()),
        F::Other(name) if name.starts_with("Insufficient") => (
            Code::Resources,
            "the host, cluster or resource pool has not enough resources for it".to_owned(),
        ),
        _ => (Code::Fault, "the platform could not do it".to_owned()),
    };
    End::Failed(code, format!("{words} ({fault})"))
}

fn power_word(word: &str) -> PowerState {
    match word {
        "poweredOn" => PowerState::On,
        "poweredOff" => PowerState::Off,
        "suspended" => PowerState::Suspended,
        _ => PowerState::Unknown,
    }
}

/// How an ended task ends its operation; `None` while it has not ended.
pub(super) fn of_task(action: &Action, info: &TaskInfo) -> Option<End> {
    match info.state {
        TaskState::Running => None,
        TaskState::Success => Some(End::Succeeded(Outcome {
            already: false,
            snapshot: match action {
                Action::CreateSnapshot(_) => info.result.clone(),
                _ => None,
            },
            note: None,
        })),
        TaskState::Error if info.cancelled => Some(End::Failed(
            Code::Cancelled,
            "somebody cancelled it in vSphere".to_owned(),
        )),
        TaskState::Error => Some(info.error.as_ref().map_or_else(
            || {
                End::Failed(
                    Code::Fault,
                    "the platform could not do it and does not say why".to_owned(),
                )
            },
            |fault| of_fault(action, fault),
        )),
    }
}

/// The VM just before, for whoever has to find out later.
pub(super) fn seen(vm: &VmNow) -> Seen {
    Seen {
        power_state: vm.power.as_str().to_owned(),
        current_snapshot: vm.current_snapshot().map(ToString::to_string),
        boot_time: vm.boot_time.clone(),
        tasks: vm.recent_tasks.iter().map(ToString::to_string).collect(),
    }
}

/// Whether a task may be the one of a call that was sent at `sent` of the platform's clock.
pub(super) fn may_be_ours(operation: &Operation, sent: Stamp, info: &TaskInfo) -> bool {
    let words: &[&str] = match &operation.action {
        Action::PowerOn => &["powerOn"],
        Action::PowerOff => &["powerOff"],
        Action::Reset => &["reset"],
        Action::Suspend => &["suspend"],
        // No task.
        Action::ShutdownGuest | Action::RebootGuest => &[],
        Action::CreateSnapshot(_) => &["createSnapshot", "createSnapshotEx"],
        Action::RevertSnapshot { .. } => &["revertToSnapshot", "revert", "revertSnapshot"],
        Action::RemoveSnapshot { .. } => &["removeSnapshot", "remove"],
        Action::RemoveAllSnapshots => &["removeAllSnapshots"],
    };
    let kind = info.description_id.rsplit('.').next().unwrap_or_default();
    let is_kind = words.iter().any(|word| word.eq_ignore_ascii_case(kind));
    let entity = info.entity.as_deref();
    let is_about = entity == Some(operation.vm_moref.as_str())
        || entity.is_some() && entity == snapshot_of(&operation.action);
    let is_new = info
        .queued_at
        .is_some_and(|queued| queued >= sent.minus(QUEUE_TIME_SLACK));
    let was_there = operation
        .seen_before
        .as_ref()
        .is_some_and(|seen| seen.tasks.contains(&info.task));
    is_kind && is_about && is_new && !was_there
}

fn snapshot_of(action: &Action) -> Option<&str> {
    match action {
        Action::RevertSnapshot { snapshot } | Action::RemoveSnapshot { snapshot, .. } => Some(snapshot),
        _ => None,
    }
}

/// What the VM itself tells of an action whose answer or task is lost; `None` where it does not tell.
pub(super) fn evidence(operation: &Operation, vm: &VmNow) -> Option<End> {
    let seen = operation.seen_before.as_ref()?;
    let note = |words: String| format!("the platform's answer was lost; found out by looking: {words}");
    match &operation.action {
        Action::CreateSnapshot(_) => {
            let mark = operation.id.to_string();
            let mine = vm.snapshots.iter().find(|snapshot| {
                let description = snapshot.description.as_deref();
                description.is_some_and(|description| description.contains(&mark))
            })?;
            let moref = mine.moref.to_string();
            Some(found(Some(moref), note("the snapshot is there".to_owned())))
        }
        Action::RevertSnapshot { snapshot } => {
            let stands_on = |moref: Option<&str>| moref == Some(&**snapshot);
            let is = stands_on(vm.current_snapshot().map(MoRef::as_str));
            (is && !stands_on(seen.current_snapshot.as_deref()))
                .then(|| found(None, note("the VM stands on the snapshot now".to_owned())))
        }
        Action::RemoveSnapshot { snapshot, .. } => {
            let is_gone = !vm
                .snapshots
                .iter()
                .any(|known| known.moref.as_str() == &**snapshot);
            is_gone.then(|| found(None, note("the snapshot is gone".to_owned())))
        }
        Action::RemoveAllSnapshots => vm
            .snapshots
            .is_empty()
            .then(|| found(None, note("the VM has no snapshots any more".to_owned()))),
        Action::RebootGuest => match (&seen.boot_time, &vm.boot_time) {
            (Some(was), Some(is)) if was != is => {
                Some(found(None, note("the VM has started anew since".to_owned())))
            }
            _ => None,
        },
        // Nothing tells a reset VM from one that was left alone.
        Action::Reset => None,
        action => {
            let is_there = target(action) == Some(vm.power) && seen.power_state != vm.power.as_str();
            is_there.then(|| found(None, note(format!("the VM is {} now", spoken(vm.power)))))
        }
    }
}

/// How a VM ends whose guest accepted to shut down or to reboot; `None` while it is at it. `went_down`: VMware Tools
/// have stopped since; `is_over`: more will not be seen.
pub(super) fn of_guest(operation: &Operation, vm: &VmNow, went_down: bool, is_over: bool) -> Option<End> {
    let is_reboot = operation.action == Action::RebootGuest;
    match (vm.power, is_reboot) {
        (PowerState::Off, false) => Some(End::Succeeded(Outcome::default())),
        (PowerState::Off | PowerState::Suspended, true) => Some(End::Failed(
            Code::PowerState,
            format!("the guest was asked to reboot, and the VM is {} now", spoken(vm.power)),
        )),
        (_, true) if went_down && vm.has_tools() => Some(End::Succeeded(Outcome::default())),
        (_, true) if is_over && !went_down => Some(found(
            None,
            "the guest accepted to reboot; VMware Tools did not stop meanwhile, so it cannot be seen whether it has"
                .to_owned(),
        )),
        _ => None,
    }
}

/// Why nobody knows, for a person who has to find out.
pub(super) fn nobody_knows(operation: &Operation, vm: &VmNow, n_tasks: usize) -> String {
    let tasks = match n_tasks {
        0 => "the platform shows no task of it".to_owned(),
        n => format!("{n} tasks of the platform could be it"),
    };
    format!(
        "the call was sent, its answer was lost, and it will not be sent again: {tasks}, and {}",
        state_now(operation, vm)
    )
}

/// What the VM shows that does not tell, and what to do.
pub(super) fn state_now(operation: &Operation, vm: &VmNow) -> String {
    let was = operation
        .seen_before
        .as_ref()
        .map_or("unknown", |seen| seen.power_state.as_str());
    let state = match &operation.action {
        Action::CreateSnapshot(_) => "no snapshot has this operation's id in its description".to_owned(),
        Action::RevertSnapshot { snapshot } => format!(
            "the VM stands on snapshot {}, and was to be reverted to {snapshot}",
            vm.current_snapshot().map_or("none", MoRef::as_str)
        ),
        Action::RemoveSnapshot { snapshot, .. } => format!("the VM still has snapshot {snapshot}"),
        Action::RemoveAllSnapshots => format!("the VM still has snapshots ({})", vm.snapshots.len()),
        Action::PowerOn
        | Action::PowerOff
        | Action::Reset
        | Action::Suspend
        | Action::ShutdownGuest
        | Action::RebootGuest => format!("the VM was {was} before and is {} now", vm.power.as_str()),
    };
    format!("{state}; look at the VM and its tasks in vSphere, and ask again if it was not done")
}

#[cfg(test)]
mod tests;
