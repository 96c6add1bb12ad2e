//! Actions on a VM, and the tasks that they start.
//!
//! Each call of this file that changes something is sent once: the wire below repeats nothing, and a session that the
//! server has forgotten refuses a call before it is done.

use crate::soap::envelope::Object;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::fault::Fault;
use crate::soap::methods::SMALL_REPLY_BYTES;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::Reader;
use crate::soap::xml::Writer;
use crate::units::Stamp;

/// Tasks asked for at once. Those of one VM since a moment are a handful.
const TASKS: &str = "100";

/// The states of a task. A word of a newer server counts as running: only an end is an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Waiting or at work.
    Running,
    /// Done.
    Success,
    /// Not done.
    Error,
}

/// A task, as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Its reference.
    pub task: String,
    /// What it does, language-neutral: `VirtualMachine.powerOn`.
    pub description_id: String,
    /// What it does it to.
    pub entity: Option<String>,
    /// How far it is.
    pub state: TaskState,
    /// Somebody cancelled it.
    pub cancelled: bool,
    /// Why it failed.
    pub error: Option<Fault>,
    /// The text of its result: of a reference, the moref.
    pub result: Option<String>,
    /// Percent done; often unset to the end.
    pub progress: Option<i16>,
    /// When it was made.
    pub queued_at: Option<Stamp>,
}

impl TaskInfo {
    /// Reads a `TaskInfo` whose start was just entered.
    pub(crate) fn read(xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let mut info = Self {
            task: String::new(),
            description_id: String::new(),
            entity: None,
            state: TaskState::Running,
            cancelled: false,
            error: None,
            result: None,
            progress: None,
            queued_at: None,
        };
        while let Some(field) = xml.next_child()? {
            match field.name() {
                // The same as the reference on every server; the reference is what is asked for later.
                "key" if info.task.is_empty() => info.task = xml::cut(&xml.loose_text()?),
                "task" => info.task = xml::cut(&xml.loose_text()?),
                "descriptionId" => info.description_id = xml::cut(&xml.loose_text()?),
                "entity" => info.entity = Some(xml::cut(&xml.loose_text()?)),
                "state" => {
                    info.state = match xml.loose_text()?.as_str() {
                        "success" => TaskState::Success,
                        "error" => TaskState::Error,
                        _ => TaskState::Running,
                    }
                }
                "cancelled" => info.cancelled = matches!(xml.loose_text()?.as_str(), "true" | "1"),
                "error" => info.error = Some(Fault::read_localized(xml)?),
                "result" => info.result = Some(xml::cut(&xml.loose_text()?)),
                "progress" => info.progress = xml.loose_text()?.parse().ok(),
                "queueTime" => info.queued_at = xml.loose_text()?.parse().ok(),
                _ => xml.skip()?,
            }
        }
        Ok(info)
    }
}

/// Calls a method that starts a task and answers with it.
pub(crate) async fn start_task(
    session: &Pinned,
    method: &'static str,
    on: &Object,
    arguments: impl FnOnce(&mut Writer),
) -> Result<Object, Error> {
    let request = Request::new(method, on, 1024, arguments)?;
    let reply = session.call(&request, SMALL_REPLY_BYTES).await?;
    reply.read(|xml| {
        let mut task = None;
        while let Some(returnval) = xml.next_child()? {
            task = Some(Object::read(&returnval, xml)?);
        }
        task.ok_or(xml::Error::Missing("returnval"))
    })
}

/// Calls a method that answers with nothing once the server has accepted it.
pub(crate) async fn call_void(session: &Pinned, method: &'static str, on: &Object) -> Result<(), Error> {
    let request = Request::new(method, on, 0, |_| ())?;
    session
        .call(&request, SMALL_REPLY_BYTES)
        .await?
        .read(|_xml| Ok(()))
}

/// The tasks of an object that were made since a moment, from the server's history. A vCenter has one.
pub(crate) async fn task_history(
    session: &Pinned,
    manager: &Object,
    of: &Object,
    since: Stamp,
) -> Result<Vec<TaskInfo>, Error> {
    let request = Request::new("CreateCollectorForTasks", manager, 400, |xml| {
        xml.open("filter").open("entity");
        xml.object("entity", &of.kind, of.moref.as_str())
            .text("recursion", "self")
            .close();
        xml.open("time")
            .text("timeType", "queuedTime")
            .text("beginTime", &since.to_string())
            .close();
        xml.close();
    })?;
    let reply = session.call(&request, SMALL_REPLY_BYTES).await?;
    let collector = reply.read(|xml| {
        let mut collector = None;
        while let Some(returnval) = xml.next_child()? {
            collector = Some(Object::read(&returnval, xml)?);
        }
        collector.ok_or(xml::Error::Missing("returnval"))
    })?;
    let tasks = read_history(session, &collector).await;
    // It ends with the session at the latest.
    if let Err(error) = call_void(session, "DestroyCollector", &collector).await {
        tracing::debug!(error = %crate::error::Chain(&error), "could not give up a history of tasks");
    }
    tasks
}

async fn read_history(session: &Pinned, collector: &Object) -> Result<Vec<TaskInfo>, Error> {
    call_void(session, "RewindCollector", collector).await?;
    let request = Request::new("ReadNextTasks", collector, 100, |xml| {
        xml.text("maxCount", TASKS);
    })?;
    session.call(&request, SMALL_REPLY_BYTES).await?.read(|xml| {
        let mut tasks = Vec::new();
        while let Some(_returnval) = xml.next_child()? {
            tasks.push(TaskInfo::read(xml)?);
        }
        Ok(tasks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::fault::FaultKind;

    fn read(info: &str) -> TaskInfo {
        let mut xml = Reader::new(info);
        xml.root().unwrap();
        TaskInfo::read(&mut xml).unwrap()
    }

    #[test]
    fn a_failed_task_gives_its_fault_and_whose_it_is() {
        let info = read(concat!(
            r#"<val xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="TaskInfo"><key>task-9</key>"#,
            r#"<task type="Task">task-9</task><name>PowerOnVM_Task</name>"#,
            r#"<descriptionId>VirtualMachine.powerOn</descriptionId><entity type="VirtualMachine">vm-42</entity>"#,
            r#"<entityName>web</entityName><state>error</state><cancelled>false</cancelled>"#,
            r#"<error><fault xsi:type="InvalidPowerState"><requestedState>poweredOff</requestedState>"#,
            r#"<existingState>poweredOn</existingState></fault><localizedMessage>no</localizedMessage></error>"#,
            r#"<reason xsi:type="TaskReasonUser"><userName>mon</userName></reason>"#,
            r#"<queueTime>2026-01-31T10:00:00.5Z</queueTime><eventChainId>88</eventChainId></val>"#,
        ));
        assert_eq!((info.task.as_str(), info.state), ("task-9", TaskState::Error));
        assert_eq!(info.entity.as_deref(), Some("vm-42"));
        assert_eq!(info.description_id, "VirtualMachine.powerOn");
        assert_eq!(info.queued_at, Some("2026-01-31T10:00:00.5Z".parse().unwrap()));
        let fault = info.error.unwrap();
        assert_eq!(fault.kind, FaultKind::InvalidPowerState);
        assert_eq!(fault.existing_state.as_deref(), Some("poweredOn"));
    }

    #[test]
    fn a_task_without_an_end_is_running_whatever_its_state_is_called() {
        let info = read("<val><key>task-1</key><state>contemplating</state><progress>37</progress></val>");
        assert_eq!((info.state, info.progress), (TaskState::Running, Some(37)));
    }

    #[test]
    fn the_result_of_a_snapshot_is_its_reference() {
        let info = read(concat!(
            r#"<val xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><key>task-1</key><state>success</state>"#,
            r#"<result type="VirtualMachineSnapshot" xsi:type="ManagedObjectReference">snapshot-7</result></val>"#,
        ));
        assert_eq!(info.result.as_deref(), Some("snapshot-7"));
    }
}
