//! Actions on VMs that people ask for, as values.
//!
//! The words in the database, in the API and in metrics are the same, and stand here once.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::ids::{MoRef, PlatformId, VmId};
use crate::units::Stamp;

/// What is to be done to a VM.
///
/// As JSON, the word is in `action` and what belongs to it in `arguments`, as in the columns of `virt_operation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", content = "arguments", rename_all = "snake_case")]
pub enum Action {
    /// Power on.
    PowerOn,
    /// Power off, as by pulling the plug.
    PowerOff,
    /// Reset, as by the button.
    Reset,
    /// Suspend.
    Suspend,
    /// Ask the guest to shut down.
    ShutdownGuest,
    /// Ask the guest to reboot.
    RebootGuest,
    /// Create a snapshot.
    CreateSnapshot(NewSnapshot),
    /// Revert to a snapshot.
    RevertSnapshot {
        /// Its moref.
        snapshot: Box<str>,
    },
    /// Remove a snapshot.
    RemoveSnapshot {
        /// Its moref.
        snapshot: Box<str>,
        /// The snapshots below it as well.
        children: bool,
    },
    /// Remove all snapshots.
    RemoveAllSnapshots,
}

/// A snapshot that is to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// Its name; snapshots may share one.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// With the memory of a running VM.
    #[serde(default)]
    pub memory: bool,
    /// With the guest's file systems at rest, by VMware Tools.
    #[serde(default)]
    pub quiesce: bool,
}

impl Action {
    /// Every word.
    pub const NAMES: [&'static str; 10] = [
        "power_on",
        "power_off",
        "reset",
        "suspend",
        "shutdown_guest",
        "reboot_guest",
        "create_snapshot",
        "revert_snapshot",
        "remove_snapshot",
        "remove_all_snapshots",
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PowerOn => "power_on",
            Self::PowerOff => "power_off",
            Self::Reset => "reset",
            Self::Suspend => "suspend",
            Self::ShutdownGuest => "shutdown_guest",
            Self::RebootGuest => "reboot_guest",
            Self::CreateSnapshot(_) => "create_snapshot",
            Self::RevertSnapshot { .. } => "revert_snapshot",
            Self::RemoveSnapshot { .. } => "remove_snapshot",
            Self::RemoveAllSnapshots => "remove_all_snapshots",
        }
    }

    /// True where something of the VM is lost for good: a person has to confirm it by the VM's name.
    #[must_use]
    pub const fn is_destructive(&self) -> bool {
        match self {
            Self::PowerOff
            | Self::Reset
            | Self::RevertSnapshot { .. }
            | Self::RemoveSnapshot { .. }
            | Self::RemoveAllSnapshots => true,
            Self::PowerOn
            | Self::Suspend
            | Self::ShutdownGuest
            | Self::RebootGuest
            | Self::CreateSnapshot(_) => false,
        }
    }

    /// Its column `arguments`, as JSON.
    #[must_use]
    pub fn arguments(&self) -> serde_json::Value {
        let arguments = match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(mut whole)) => whole.remove("arguments"),
            // Text and truth values alone: it can always be written.
            _ => None,
        };
        arguments.unwrap_or_else(|| serde_json::json!({}))
    }

    /// From the two columns.
    ///
    /// # Errors
    /// When the word is not known, or its arguments are not what it needs.
    pub fn from_columns(name: &str, arguments: &str) -> Result<Self, serde_json::Error> {
        let arguments: serde_json::Value = serde_json::from_str(arguments)?;
        let none = arguments.as_object().is_some_and(serde_json::Map::is_empty);
        serde_json::from_value(if none {
            serde_json::json!({ "action": name })
        } else {
            serde_json::json!({ "action": name, "arguments": arguments })
        })
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Asked for; no collector has taken it up.
    Queued,
    /// A collector is at it.
    Running,
    /// Done.
    Succeeded,
    /// Not done.
    Failed,
    /// It was sent to the platform, and nothing tells what became of it.
    Unknown,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// From the word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// True once nothing more will change.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Unknown)
    }
}

/// Why an operation failed, or why nobody knows what became of it. A closed set; the words are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No collector took it up in time; nothing was done.
    Expired,
    /// The platform could not be asked in time; nothing was done.
    Unreachable,
    /// The VM does not exist, or no longer.
    VmGone,
    /// It is not the VM any more that was asked for.
    VmChanged,
    /// The snapshot does not exist, or no longer.
    SnapshotGone,
    /// It is a template.
    Template,
    /// Its host does not answer.
    Disconnected,
    /// It waits for an answer to a question.
    Question,
    /// The platform has the action disabled for this VM just now.
    Disabled,
    /// It is in a power state in which this cannot be done.
    PowerState,
    /// It is in some other state in which this cannot be done.
    InvalidState,
    /// VMware Tools do not run in the guest.
    ToolsMissing,
    /// The account lacks a privilege.
    NoPermission,
    /// The licence of the host does not allow it.
    Licence,
    /// This server cannot do it.
    NotSupported,
    /// The platform is doing something else with the VM.
    Busy,
    /// Not enough resources.
    Resources,
    /// Somebody cancelled it on the platform.
    Cancelled,
    /// The guest accepted and did not do it in time.
    GuestTimeout,
    /// Any other refusal or failure of the platform.
    Fault,
    /// Unknown: the answer to the call was lost, and nothing tells what became of it.
    AnswerLost,
    /// Unknown: the platform has forgotten the task, and the VM's state does not tell.
    TaskGone,
    /// Unknown: the task has not ended within the time that a collector follows it.
    TaskTimeout,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::Expired,
        Self::Unreachable,
        Self::VmGone,
        Self::VmChanged,
        Self::SnapshotGone,
        Self::Template,
        Self::Disconnected,
        Self::Question,
        Self::Disabled,
        Self::PowerState,
        Self::InvalidState,
        Self::ToolsMissing,
        Self::NoPermission,
        Self::Licence,
        Self::NotSupported,
        Self::Busy,
        Self::Resources,
        Self::Cancelled,
        Self::GuestTimeout,
        Self::Fault,
        Self::AnswerLost,
        Self::TaskGone,
        Self::TaskTimeout,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::VmGone => "vm_gone",
            Self::VmChanged => "vm_changed",
            Self::SnapshotGone => "snapshot_gone",
            Self::Template => "template",
            Self::Disconnected => "disconnected",
            Self::Question => "question",
            Self::Disabled => "disabled",
            Self::PowerState => "power_state",
            Self::InvalidState => "invalid_state",
            Self::ToolsMissing => "tools_missing",
            Self::NoPermission => "no_permission",
            Self::Licence => "licence",
            Self::NotSupported => "not_supported",
            Self::Busy => "busy",
            Self::Resources => "resources",
            Self::Cancelled => "cancelled",
            Self::GuestTimeout => "guest_timeout",
            Self::Fault => "fault",
            Self::AnswerLost => "answer_lost",
            Self::TaskGone => "task_gone",
            Self::TaskTimeout => "task_timeout",
        }
    }

    /// What it means, for the API's document.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Expired => "no collector took it up in time; nothing was done",
            Self::Unreachable => "the platform could not be asked in time; nothing was done",
            Self::VmGone => "the VM does not exist, or no longer",
            Self::VmChanged => "the VM is not the one any more that was asked for",
            Self::SnapshotGone => "the snapshot does not exist, or no longer",
            Self::Template => "the VM is a template",
            Self::Disconnected => "the VM's host does not answer",
            Self::Question => "the VM waits for an answer to a question",
            Self::Disabled => "the platform has the action disabled for this VM just now",
            Self::PowerState => "the VM is in a power state in which this cannot be done",
            Self::InvalidState => "the VM is in some other state in which this cannot be done",
            Self::ToolsMissing => "VMware Tools do not run in the guest",
            Self::NoPermission => "the collector's account lacks a privilege",
            Self::Licence => "the licence of the host does not allow it",
            Self::NotSupported => "this server cannot do it",
            Self::Busy => "the platform is doing something else with the VM",
            Self::Resources => "not enough resources",
            Self::Cancelled => "somebody cancelled it on the platform",
            Self::GuestTimeout => "the guest accepted and did not do it in time",
            Self::Fault => "any other refusal or failure of the platform",
            Self::AnswerLost => "the answer to the call was lost, and nothing tells what became of it",
            Self::TaskGone => "the platform has forgotten the task, and the VM's state does not tell",
            Self::TaskTimeout => "the task has not ended within the time that a collector follows it",
        }
    }
}

/// What came of an operation that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// There was nothing to do: the VM was in that state already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub already: bool,
    /// The moref of the new snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What else there is to know, in plain words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Done.
    Succeeded(Outcome),
    /// Not done.
    Failed(Code, String),
    /// Nobody knows.
    Unknown(Code, String),
}

impl End {
    /// The state that it leaves.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Succeeded(_) => State::Succeeded,
            Self::Failed(..) => State::Failed,
            Self::Unknown(..) => State::Unknown,
        }
    }
}

/// What a VM looked like just before it was acted upon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `on`, `off`, `suspended` or `unknown`.
    pub power_state: String,
    /// The moref of its current snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_snapshot: Option<String>,
    /// `runtime.bootTime`, as the platform wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_time: Option<String>,
    /// Its tasks that the platform still showed: none of them is this action's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
}

/// An operation, from the queue to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its key.
    pub id: Uuid,
    /// The platform of the VM.
    pub platform: PlatformId,
    /// The platform's name.
    pub platform_name: String,
    /// The VM.
    pub vm: VmId,
    /// The VM on its platform.
    pub vm_moref: MoRef,
    /// The VM's name when this was asked for.
    pub vm_name: Option<String>,
    /// The VM's instance UUID when this was asked for.
    pub vm_instance_uuid: Option<String>,
    /// What is to be done.
    pub action: Action,
    /// How far it is.
    pub state: State,
    /// Name of the token that asked for it.
    pub requested_by: String,
    /// The request that asked for it.
    pub request_id: String,
    /// When it was asked for.
    pub created_at: Stamp,
    /// When a collector took it up.
    pub started_at: Option<Stamp>,
    /// When its end was found out.
    pub ended_at: Option<Stamp>,
    /// Written before the call is sent.
    pub sent_at: Option<Stamp>,
    /// The same moment in the clock of the platform.
    pub sent_at_source: Option<Stamp>,
    /// The VM just before.
    pub seen_before: Option<Seen>,
    /// When the platform was heard to accept it.
    pub accepted_at: Option<Stamp>,
    /// The platform's task.
    pub task: Option<MoRef>,
    /// Percent done, where the platform tells.
    pub progress: Option<i16>,
    /// What came of it.
    pub result: Option<Outcome>,
    /// Kind of failure or doubt, a word of [`Code`].
    pub code: Option<String>,
    /// Why, in plain words; while it runs, what it waits for.
    pub detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_action() -> Vec<Action> {
        let snapshot: Box<str> = "snapshot-7".into();
        vec![
            Action::PowerOn,
            Action::PowerOff,
            Action::Reset,
            Action::Suspend,
            Action::ShutdownGuest,
            Action::RebootGuest,
            Action::CreateSnapshot(NewSnapshot {
                name: "before the patch".to_owned(),
                description: String::new(),
                memory: false,
                quiesce: true,
            }),
            Action::RevertSnapshot {
                snapshot: snapshot.clone(),
            },
            Action::RemoveSnapshot {
                snapshot,
                children: true,
            },
            Action::RemoveAllSnapshots,
        ]
    }

    #[test]
    fn an_action_survives_its_two_columns() {
        for (action, name) in every_action().into_iter().zip(Action::NAMES) {
            assert_eq!(action.as_str(), name);
            let arguments = action.arguments().to_string();
            assert_eq!(Action::from_columns(name, &arguments).unwrap(), action);
        }
    }

    #[test]
    fn every_code_has_a_word_and_a_meaning_of_its_own() {
        let words: std::collections::BTreeSet<&str> = Code::ALL.map(Code::as_str).into();
        let meanings: std::collections::BTreeSet<&str> = Code::ALL.map(Code::meaning).into();
        assert_eq!((words.len(), meanings.len()), (Code::ALL.len(), Code::ALL.len()));
    }

    #[test]
    fn a_word_that_nobody_knows_and_arguments_that_do_not_fit_are_errors() {
        assert!(Action::from_columns("explode", "{}").is_err());
        assert!(Action::from_columns("revert_snapshot", "{}").is_err());
        assert!(Action::from_columns("power_on", "no json").is_err());
    }
}
