//! The arguments of power, snapshot and task methods, in schema order.

use super::read::{Cursor, Refusal, Text, missing};
use super::request::{Call, Ref, boolean, number, optional_flag, optional_time, reference};
use crate::world::{Operation, TaskState};

/// `TaskFilterSpec`, as far as this server goes by it.
#[derive(Debug, Default)]
pub(crate) struct TaskFilter<'a> {
    /// The entity, and whether those below it count (too).
    pub(crate) entity: Option<(Ref<'a>, Text<'a>)>,
    /// Which of a task's times it goes by, and the range, server times with both bounds.
    pub(crate) time: Option<(Text<'a>, Option<i64>, Option<i64>)>,
    pub(crate) states: Vec<TaskState>,
}

/// `None` = none of these methods.
pub(super) fn arguments<'a>(cursor: &mut Cursor<'a>, method: &str) -> Result<Option<Call<'a>>, Refusal> {
    Ok(Some(match method {
        "PowerOnVM_Task" => {
            host(cursor, method)?;
            Call::Operate(Operation::PowerOn)
        }
        "PowerOffVM_Task" => Call::Operate(Operation::PowerOff),
        "ResetVM_Task" => Call::Operate(Operation::Reset),
        "SuspendVM_Task" => Call::Operate(Operation::Suspend),
        "ShutdownGuest" => Call::Operate(Operation::ShutdownGuest),
        "RebootGuest" => Call::Operate(Operation::RebootGuest),
        "CreateSnapshot_Task" => Call::Operate(Operation::CreateSnapshot {
            name: cursor.required("name", method)?.into_owned(),
            description: cursor.optional("description")?.unwrap_or_default().into_owned(),
            memory: required_flag(cursor, "memory", method)?,
            quiesce: required_flag(cursor, "quiesce", method)?,
        }),
        "RemoveSnapshot_Task" => {
            let children = required_flag(cursor, "removeChildren", method)?;
            // Here is nothing to merge.
            optional_flag(cursor, "consolidate")?;
            Call::Operate(Operation::RemoveSnapshot { children })
        }
        "RemoveAllSnapshots_Task" => {
            optional_flag(cursor, "consolidate")?;
            Call::Operate(Operation::RemoveAllSnapshots)
        }
        "RevertToSnapshot_Task" => {
            host(cursor, method)?;
            let stay_off = optional_flag(cursor, "suppressPowerOn")?.unwrap_or(false);
            Call::Operate(Operation::RevertToSnapshot { stay_off })
        }
        "RevertToCurrentSnapshot_Task" => {
            host(cursor, method)?;
            let stay_off = optional_flag(cursor, "suppressPowerOn")?.unwrap_or(false);
            Call::Operate(Operation::RevertToCurrentSnapshot { stay_off })
        }
        "CancelTask" => Call::CancelTask,
        "CreateCollectorForTasks" => {
            if cursor.enter("filter")?.is_none() {
                return Err(missing("filter", method));
            }
            Call::CreateCollectorForTasks {
                filter: task_filter(cursor)?,
            }
        }
        "ReadNextTasks" => Call::ReadNextTasks {
            most: number(&cursor.required("maxCount", method)?, "maxCount")?,
        },
        "RewindCollector" => Call::RewindCollector,
        "DestroyCollector" => Call::DestroyCollector,
        _ => return Ok(None),
    }))
}

fn required_flag(cursor: &mut Cursor<'_>, name: &str, owner: &str) -> Result<bool, Refusal> {
    boolean(&cursor.required(name, owner)?, name)
}

/// A VM stays where it is here: to name a host is not supported, and said so.
fn host(cursor: &mut Cursor<'_>, method: &str) -> Result<(), Refusal> {
    if cursor.at("host")? {
        reference(cursor, "host", method)?;
        return Err(Refusal::schema(format!(
            "This simulator has no {method} with a host"
        )));
    }
    Ok(())
}

fn task_filter<'a>(cursor: &mut Cursor<'a>) -> Result<TaskFilter<'a>, Refusal> {
    const OWNER: &str = "vim.TaskFilterSpec";
    const ENTITY: &str = "vim.TaskFilterSpec.ByEntity";
    const TIME: &str = "vim.TaskFilterSpec.ByTime";
    let mut filter = TaskFilter::default();
    if cursor.enter("entity")?.is_some() {
        let entity = reference(cursor, "entity", ENTITY)?;
        let recursion = cursor.required("recursion", ENTITY)?;
        one_of(&recursion, &["self", "children", "all"], "RecursionOption")?;
        cursor.leave(ENTITY)?;
        filter.entity = Some((entity, recursion));
    }
    if cursor.enter("time")?.is_some() {
        let kind = cursor.required("timeType", TIME)?;
        one_of(
            &kind,
            &["queuedTime", "startedTime", "completedTime"],
            "TimeOption",
        )?;
        let begin = optional_time(cursor, "beginTime")?;
        let end = optional_time(cursor, "endTime")?;
        cursor.leave(TIME)?;
        filter.time = Some((kind, begin, end));
    }
    while let Some(state) = cursor.optional("state")? {
        let all = [
            TaskState::Queued,
            TaskState::Running,
            TaskState::Success,
            TaskState::Error,
        ];
        one_of(&state, &all.map(TaskState::name), "TaskInfo.State")?;
        filter
            .states
            .extend(all.into_iter().filter(|known| known.name() == state));
    }
    cursor.leave(OWNER)?;
    Ok(filter)
}

fn one_of(text: &str, known: &[&str], kind: &str) -> Result<(), Refusal> {
    if known.contains(&text) {
        return Ok(());
    }
    Err(Refusal::schema(format!("Cannot convert \"{text}\" to {kind}")))
}
