//! The task history: collectors that read it.
//!
//! Owns: their methods, which tasks a collector's filter is about, and how far it has read. Collectors live in their session.

use super::{Service, lock};
use crate::properties;
use crate::soap::{Call, Fault, Request, TaskFilter, moref};
use crate::spec::PlatformKind;
use crate::truth::EntityKind;
use crate::world::{State, Task, TaskState};

/// Most tasks of one page.
const MAX_PAGE: usize = 1000;

/// A TaskHistoryCollector.
#[derive(Debug)]
pub(crate) struct TaskCollector {
    about: About,
    time: Option<(Time, i64, i64)>,
    states: Vec<TaskState>,
    /// Number of the task that was read last; 0 = none yet.
    read: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Everything,
    Nothing,
    Vm(usize),
}

#[derive(Clone, Copy, Debug)]
enum Time {
    Queued,
    Started,
    Completed,
}

/// Answers a method of the task history; writes the result.
pub(super) fn answer(
    service: &Service,
    state: &State,
    request: &Request<'_>,
    session: &str,
    out: &mut String,
) -> Result<(), Fault> {
    let (sessions, this) = (&service.sessions, &request.this);
    let collector = || {
        let found = sessions.history(session, &this.value);
        found
            .filter(|_| this.kind == "TaskHistoryCollector")
            .ok_or_else(|| Fault::not_found(&this.kind, &this.value))
    };
    match &request.call {
        Call::CreateCollectorForTasks { filter } => {
            let made = TaskCollector::new(state, filter)?;
            let made = sessions.add_history(session, made, properties::MAX_COLLECTORS);
            let made = made.ok_or_else(|| {
                Fault::new(
                    "InvalidState",
                    "The operation is not allowed in the current state.",
                )
            })?;
            moref(out, "returnval", "TaskHistoryCollector", &made);
        }
        Call::ReadNextTasks { most } => {
            for number in lock(&*collector()?).next(state, *most)? {
                out.push_str("<returnval>");
                properties::task_info(out, state, number);
                out.push_str("</returnval>\n");
            }
        }
        Call::RewindCollector => lock(&*collector()?).rewind(),
        _ => {
            collector()?;
            sessions.remove_history(session, &this.value);
        }
    }
    Ok(())
}

impl TaskCollector {
    fn new(state: &State, filter: &TaskFilter<'_>) -> Result<Self, Fault> {
        if state.kind() == PlatformKind::Esxi {
            return Err(Fault::new(
                "NotSupported",
                "The operation is not supported on the object.",
            ));
        }
        let about = match &filter.entity {
            None => About::Everything,
            Some((entity, recursion)) => about(state, &entity.kind, &entity.value, recursion)?,
        };
        let time = filter.time.as_ref().map(|(kind, begin, end)| {
            let kind = match &**kind {
                "startedTime" => Time::Started,
                "completedTime" => Time::Completed,
                _ => Time::Queued,
            };
            (kind, begin.unwrap_or(i64::MIN), end.unwrap_or(i64::MAX))
        });
        Ok(Self {
            about,
            time,
            states: filter.states.clone(),
            read: 0,
        })
    }

    fn rewind(&mut self) {
        self.read = 0;
    }

    /// Numbers of the next tasks, oldest first.
    fn next(&mut self, state: &State, most: i32) -> Result<Vec<u64>, Fault> {
        let most = usize::try_from(most)
            .ok()
            .filter(|most| (1..=MAX_PAGE).contains(most));
        let most = most.ok_or_else(|| Fault::invalid_argument("maxCount"))?;
        let tasks = state.tasks.history(self.read).into_iter();
        let found = tasks.filter(|(_, task)| self.matches(task));
        let found: Vec<u64> = found.map(|(number, _)| number).take(most).collect();
        self.read = found.last().copied().unwrap_or(self.read);
        Ok(found)
    }

    fn matches(&self, task: &Task) -> bool {
        let about = match self.about {
            About::Everything => true,
            About::Nothing => false,
            About::Vm(vm) => vm == task.on.vm,
        };
        let time = self.time.is_none_or(|(kind, begin, end)| {
            let time = match kind {
                Time::Queued => Some(task.queued_at),
                Time::Started => task.started_at,
                Time::Completed => task.completed_at,
            };
            time.is_some_and(|time| begin <= time && time <= end)
        });
        about && time && (self.states.is_empty() || self.states.contains(&task.state))
    }
}

/// Every task here is about a VM, and every VM is below the root folder.
fn about(state: &State, kind: &str, value: &str, recursion: &str) -> Result<About, Fault> {
    let vm = (kind == "VirtualMachine").then(|| state.find(EntityKind::Vm, value));
    Ok(match vm {
        Some(Some(vm)) if recursion != "children" => About::Vm(vm),
        Some(Some(_)) => About::Nothing,
        None if kind == "Folder" && value == state.names.root_folder => match recursion {
            "self" => About::Nothing,
            _ => About::Everything,
        },
        _ => return Err(Fault::not_found(kind, value)),
    })
}
