//! Actions on a VM: what it looks like before, the call, and the task that follows.
//!
//! Owns: which call each action is, and reading a VM's state for it. Never does: sending a call twice; deciding
//! whether an action makes sense, or what a fault means for whoever asked.

use super::discovery::{clean, is_true, name, power, some_text};
use super::objects::snapshots;
use crate::model::ids::MoRef;
use crate::model::inventory::{PowerState, Snapshot};
use crate::model::operation::Action;
use crate::soap;
use crate::soap::Object;
use crate::soap::fault::FaultKind;
use crate::soap::methods;
use crate::soap::methods::actions::{call_void, start_task};
use crate::soap::methods::properties::{From, Visit, Wanted, retrieve};
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::{Element, Reader};
use crate::units::Stamp;
use crate::vsphere::{Error, Vsphere};

pub use crate::soap::methods::actions::{TaskInfo, TaskState};

const VM: Wanted = Wanted {
    kind: "VirtualMachine",
    paths: &[
        "name",
        "disabledMethod",
        "guest.toolsRunningStatus",
        "recentTask",
        "runtime.bootTime",
        "runtime.connectionState",
        "runtime.powerState",
        "runtime.question",
        "snapshot",
        "summary.config.instanceUuid",
        "summary.config.template",
    ],
};

const TASK: Wanted = Wanted {
    kind: "Task",
    paths: &["info"],
};

const TASK_MANAGER: Wanted = Wanted {
    kind: "TaskManager",
    paths: &["recentTask"],
};

/// A VM as it is at this moment, as far as actions go. What the server keeps to itself is `None` or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmNow {
    /// Its name, as in the inventory.
    pub name: Option<String>,
    /// Its instance UUID.
    pub instance_uuid: Option<String>,
    /// Its power state.
    pub power: PowerState,
    /// `connected`, or what is wrong.
    pub connection: Option<String>,
    /// It is a template.
    pub is_template: bool,
    /// What it asks and waits for.
    pub question: Option<String>,
    /// Methods that the server refuses for it just now.
    pub disabled: Vec<String>,
    /// `guestToolsRunning`, or another word.
    pub tools: Option<String>,
    /// When it was last powered on, as written.
    pub boot_time: Option<String>,
    /// Its snapshots, those above before those below.
    pub snapshots: Vec<Snapshot>,
    /// Its tasks of the last minutes.
    pub recent_tasks: Vec<MoRef>,
}

impl Default for VmNow {
    fn default() -> Self {
        Self {
            name: None,
            instance_uuid: None,
            power: PowerState::Unknown,
            connection: None,
            is_template: false,
            question: None,
            disabled: Vec::new(),
            tools: None,
            boot_time: None,
            snapshots: Vec::new(),
            recent_tasks: Vec::new(),
        }
    }
}

impl VmNow {
    /// The snapshot that its disks stand on.
    #[must_use]
    pub fn current_snapshot(&self) -> Option<&MoRef> {
        let current = self.snapshots.iter().find(|snapshot| snapshot.current);
        current.map(|snapshot| &snapshot.moref)
    }

    /// True while VMware Tools run in the guest.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        self.tools.as_deref() == Some("guestToolsRunning")
    }
}

impl Visit for VmNow {
    fn object(&mut self, _object: Object) {}

    fn property(&mut self, path: &str, _value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        match path {
            "disabledMethod" => self.disabled = texts(xml)?,
            "recentTask" => self.recent_tasks = texts(xml)?.into_iter().map(MoRef::new).collect(),
            "snapshot" => self.snapshots = snapshots(xml)?,
            "runtime.question" => self.question = Some(question(xml)?),
            _ => {
                let value = xml.loose_text()?;
                match path {
                    "name" => self.name = Some(name(&value)),
                    "guest.toolsRunningStatus" => self.tools = some_text(&value),
                    "runtime.bootTime" => self.boot_time = some_text(&value),
                    "runtime.connectionState" => self.connection = some_text(&value),
                    "runtime.powerState" => self.power = power(&value),
                    "summary.config.instanceUuid" => self.instance_uuid = some_text(&value),
                    "summary.config.template" => self.is_template = is_true(&value),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// An array of texts or references.
fn texts(xml: &mut Reader<'_>) -> Result<Vec<String>, xml::Error> {
    let mut texts = Vec::new();
    while let Some(_item) = xml.next_child()? {
        texts.push(xml::cut(&xml.loose_text()?));
    }
    Ok(texts)
}

/// The text of a `VirtualMachineQuestionInfo`.
fn question(xml: &mut Reader<'_>) -> Result<String, xml::Error> {
    let mut text = String::new();
    while let Some(field) = xml.next_child()? {
        match field.name() {
            "text" => text = clean(&xml.loose_text()?),
            _ => xml.skip()?,
        }
    }
    Ok(text)
}

#[derive(Debug, Default)]
struct Info(Option<TaskInfo>);

impl Visit for Info {
    fn object(&mut self, _object: Object) {}

    fn property(&mut self, _path: &str, _: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        self.0 = Some(TaskInfo::read(xml)?);
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Recent(Vec<MoRef>);

impl Visit for Recent {
    fn object(&mut self, _object: Object) {}

    fn property(&mut self, _path: &str, _: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        self.0 = texts(xml)?.into_iter().map(MoRef::new).collect();
        Ok(())
    }
}

impl Vsphere {
    /// A VM at this moment, on the server that the platform has always been.
    ///
    /// # Errors
    /// When the call fails, the VM does not exist, or the server is another one.
    pub async fn vm_now(&self, vm: &MoRef) -> Result<VmNow, Error> {
        let vm = &virtual_machine(vm);
        self.in_session(|session: Pinned| async move {
            self.login(&session).await?;
            let (now, _withheld) = retrieve::<VmNow>(&session, From::Object(vm), &[VM]).await?;
            Ok(now)
        })
        .await
    }

    /// A task; `None` where the server no longer knows it.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn task(&self, task: &MoRef) -> Result<Option<TaskInfo>, Error> {
        self.in_session(|session: Pinned| async move { Ok(task_info(&session, task).await?) })
            .await
    }

    /// The tasks of the last minutes that are about a VM, apart from `known` ones.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn recent_tasks(&self, vm: &VmNow, known: &[String]) -> Result<Vec<TaskInfo>, Error> {
        self.in_session(|session: Pinned| async move {
            let mut tasks = vm.recent_tasks.clone();
            if let Some(manager) = &session.content().task_manager {
                let all = retrieve::<Recent>(&session, From::Object(manager), &[TASK_MANAGER]).await;
                tasks.extend(all?.0.0);
            }
            tasks.sort();
            tasks.dedup();
            tasks.retain(|task| !known.iter().any(|known| known == task.as_str()));
            let mut infos = Vec::new();
            for task in &tasks {
                infos.extend(task_info(&session, task).await?);
            }
            Ok(infos)
        })
        .await
    }

    /// The tasks of a VM that were made since a moment, from the server's history. Only a vCenter keeps one.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn task_history(&self, vm: &MoRef, since: Stamp) -> Result<Vec<TaskInfo>, Error> {
        let vm = &virtual_machine(vm);
        self.in_session(|session: Pinned| async move {
            match session.content().task_manager.clone() {
                Some(manager) => Ok(methods::actions::task_history(&session, &manager, vm, since).await?),
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    /// Sends the one call of an action, once, and returns its task; `None` where the action has none and was accepted.
    /// `mark` is appended to the description of a snapshot.
    ///
    /// # Errors
    /// [`Error::Action`] for the call itself. After any other the call was not sent.
    pub async fn act(&self, vm: &MoRef, action: &Action, mark: &str) -> Result<Option<MoRef>, Error> {
        let vm = &virtual_machine(vm);
        self.in_session(|session: Pinned| async move {
            self.login(&session).await?;
            send(&session, vm, action, mark).await.map_err(Error::Action)
        })
        .await
    }
}

fn virtual_machine(moref: &MoRef) -> Object {
    Object::new("VirtualMachine", moref.as_str())
}

async fn task_info(session: &Pinned, task: &MoRef) -> Result<Option<TaskInfo>, soap::Error> {
    let object = Object::new("Task", task.as_str());
    match retrieve::<Info>(session, From::Object(&object), &[TASK]).await {
        Ok((info, _withheld)) => Ok(info.0),
        Err(soap::Error::Fault { fault, .. }) if fault.kind == FaultKind::ManagedObjectNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Optional arguments that nobody asked for are left out: the host of a start, the consolidation of disks.
async fn send(
    session: &Pinned,
    vm: &Object,
    action: &Action,
    mark: &str,
) -> Result<Option<MoRef>, soap::Error> {
    let snapshot = |moref: &str| Object::new("VirtualMachineSnapshot", moref);
    let truth = |value: bool| if value { "true" } else { "false" };
    let task = match action {
        Action::PowerOn => start_task(session, "PowerOnVM_Task", vm, |_| ()).await?,
        Action::PowerOff => start_task(session, "PowerOffVM_Task", vm, |_| ()).await?,
        Action::Reset => start_task(session, "ResetVM_Task", vm, |_| ()).await?,
        Action::Suspend => start_task(session, "SuspendVM_Task", vm, |_| ()).await?,
        Action::ShutdownGuest => {
            call_void(session, "ShutdownGuest", vm).await?;
            return Ok(None);
        }
        Action::RebootGuest => {
            call_void(session, "RebootGuest", vm).await?;
            return Ok(None);
        }
        Action::CreateSnapshot(new) => {
            let description = marked(&new.description, mark);
            start_task(session, "CreateSnapshot_Task", vm, |xml| {
                xml.text("name", &new.name)
                    .text("description", &description)
                    .text("memory", truth(new.memory))
                    .text("quiesce", truth(new.quiesce));
            })
            .await?
        }
        Action::RevertSnapshot { snapshot: moref } => {
            start_task(session, "RevertToSnapshot_Task", &snapshot(moref), |_| ()).await?
        }
        Action::RemoveSnapshot {
            snapshot: moref,
            children,
        } => {
            start_task(session, "RemoveSnapshot_Task", &snapshot(moref), |xml| {
                xml.text("removeChildren", truth(*children));
            })
            .await?
        }
        Action::RemoveAllSnapshots => start_task(session, "RemoveAllSnapshots_Task", vm, |_| ()).await?,
    };
    Ok(Some(task.moref))
}

/// A description, and behind it the mark by which the snapshot is found again.
fn marked(description: &str, mark: &str) -> String {
    if description.is_empty() {
        mark.to_owned()
    } else {
        format!("{description}\n{mark}")
    }
}
