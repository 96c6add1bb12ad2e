//! Tasks: what the server is busy with and what it was busy with lately.
//!
//! Owns: the acceptance of an operation, and the life of a task from its order to its disappearance. Time moves it on:
//! [`State::settle`] lets everything happen that is due, each at its own time, before anyone looks at the world.
//! Never knows what an operation does.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::State;
use super::guests::Appointment;
use super::operations::{Operation, OperationRecord, Target, Trouble};
use crate::clock::Reading;
use crate::grid::MICROS;
use crate::spec::PlatformKind;

/// How long the object of a finished task stays.
const KEPT: i64 = 600 * MICROS;
/// Tasks that the history remembers.
const REMEMBERED: usize = 10_000;

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Not begun yet.
    Queued,
    /// Under way.
    Running,
    /// Done.
    Success,
    /// Failed, and without effect.
    Error,
}

impl TaskState {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Error => "error",
        }
    }

    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// How a client learns what stands in the way of an operation. Real servers do both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// By a fault, at once.
    Fault,
    /// By a task that ends in an error.
    Task,
}

/// How an operation will go. Times are in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Time in the queue.
    pub(crate) queued: i64,
    /// Time from its start to its end.
    pub(crate) time: i64,
    /// Progress is told so many times in between.
    pub(crate) steps: u32,
    /// It never ends by itself.
    pub(crate) stuck: bool,
    /// It raises a question when it starts.
    pub(crate) asks: bool,
    /// Type and text of the fault that it ends with instead of having an effect.
    pub(crate) failure: Option<(String, String)>,
    /// The task's object is gone so long after the order, whatever became of the task.
    pub(crate) gone_after: Option<i64>,
    /// The history does not have it.
    pub(crate) forgotten: bool,
    /// How obstacles are told; `None` = each as it is usual.
    pub(crate) told: Option<Told>,
    /// The guest obeys after this time; `None` = never.
    pub(crate) guest_after: Option<i64>,
    /// A guest that restarts is away so long.
    pub(crate) guest_away: i64,
}

/// An operation that a client wants.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) operation: Operation,
    pub(crate) on: Target,
    /// The MoRef that was named.
    pub(crate) object: String,
    pub(crate) user: String,
    pub(crate) operation_id: Option<String>,
    pub(crate) plan: Plan,
}

/// One task. Times are server times.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) operation: Operation,
    pub(crate) on: Target,
    pub(crate) user: String,
    pub(crate) state: TaskState,
    /// Percent, while it runs.
    pub(crate) progress: Option<u32>,
    pub(crate) cancelled: bool,
    pub(crate) error: Option<Trouble>,
    /// `id` of the snapshot that it made.
    pub(crate) result: Option<usize>,
    pub(crate) queued_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) completed_at: Option<i64>,
    plan: Plan,
    /// Its place in the log of operations.
    record: usize,
    steps_told: u32,
    /// When it moves on, by the horizon; `i64::MAX` = not by itself.
    next: i64,
    /// When its object disappears, by the horizon; `i64::MAX` = it is not known yet, or it has.
    gone: i64,
    /// Its object is there.
    pub(crate) visible: bool,
}

/// All tasks, by number.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    made: u64,
    /// Those with an object, and those that are open.
    present: BTreeMap<u64, Task>,
    /// Of the others, what the history remembers.
    past: VecDeque<(u64, Task)>,
    /// Every operation that was accepted, in order.
    pub(super) log: Vec<OperationRecord>,
}

enum Due {
    Task(u64),
    Guest(usize),
}

impl Tasks {
    /// A task, whether its object is there or only the history remembers it.
    pub(crate) fn get(&self, number: u64) -> Option<&Task> {
        self.present.get(&number).or_else(|| {
            let past = self.past.iter().find(|(known, _)| *known == number);
            past.map(|(_, task)| task)
        })
    }

    /// Tasks whose object is there, oldest first.
    pub(crate) fn visible(&self) -> impl Iterator<Item = (u64, &Task)> {
        let present = self.present.iter().filter(|(_, task)| task.visible);
        present.map(|(number, task)| (*number, task))
    }

    /// What the history has from a number on, oldest first.
    pub(crate) fn history(&self, after: u64) -> Vec<(u64, &Task)> {
        let past = self.past.iter().map(|(number, task)| (*number, task));
        let present = self.present.iter().map(|(number, task)| (*number, task));
        let mut all: Vec<(u64, &Task)> = past
            .chain(present)
            .filter(|(number, task)| *number > after && !task.plan.forgotten)
            .collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all
    }
}

impl State {
    /// MoRef of a task.
    pub(crate) fn task_moref(&self, number: u64) -> String {
        match (self.kind(), self.tasks.get(number)) {
            (PlatformKind::Esxi, Some(task)) => {
                let what = task.operation.description();
                format!("haTask-{}-vim.{what}-{number}", self.moref(task.on.vm))
            }
            _ => format!("task-{number}"),
        }
    }

    /// The task with a MoRef, if its object is there.
    pub(crate) fn find_task(&self, moref: &str) -> Option<u64> {
        let (_, number) = moref.rsplit_once('-')?;
        let number = number.parse().ok()?;
        let task = self.tasks.present.get(&number)?;
        (task.visible && self.task_moref(number) == moref).then_some(number)
    }

    /// The open task of a VM.
    pub(super) fn busy(&self, vm: usize) -> Option<u64> {
        let mut open = self.tasks.present.iter();
        open.find(|(_, task)| task.on.vm == vm && task.state.is_open())
            .map(|(number, _)| *number)
    }

    /// When something happens by itself next, by the horizon.
    pub(super) fn due(&self) -> i64 {
        self.next_due().map_or(i64::MAX, |(at, _)| at)
    }

    fn next_due(&self) -> Option<(i64, Due)> {
        let tasks = self.tasks.present.iter().map(|(number, task)| {
            // A question holds up what runs.
            let asked = task.state == TaskState::Running
                && self.vm(task.on.vm).is_some_and(|vm| vm.question.is_some());
            let next = if asked { i64::MAX } else { task.next };
            (next.min(task.gone), Due::Task(*number))
        });
        let guests = self.agenda.iter().enumerate();
        let guests = guests.map(|(place, Appointment { at, .. })| (*at, Due::Guest(place)));
        let first = tasks.chain(guests).min_by_key(|(at, _)| *at);
        first.filter(|(at, _)| *at < i64::MAX)
    }

    /// Lets everything happen that is due.
    pub(super) fn settle(&mut self, reading: Reading) {
        while let Some((at, due)) = self.next_due()
            && at <= reading.horizon
        {
            // What a client of then would have called that time.
            let time = reading.now - (reading.horizon - at);
            match due {
                Due::Task(number) => self.move_on(number, at, time),
                Due::Guest(place) => self.keep_appointment(place, time),
            }
            self.version += 1;
        }
    }

    /// Accepts an operation; answers the number of its task, or `None` where the guest was told.
    pub(super) fn order(&mut self, order: Order, reading: Reading) -> Result<Option<u64>, Trouble> {
        let Order {
            operation,
            on,
            object,
            user,
            operation_id,
            plan,
        } = order;
        let method = operation.method();
        if self.spec.free_license {
            return Err(self.trouble("RestrictedVersion", "", &operation, on));
        }
        if self
            .vm(on.vm)
            .is_some_and(|vm| vm.disabled.iter().any(|one| one == method))
        {
            return Err(self.trouble("MethodDisabled", "", &operation, on));
        }
        if matches!(&operation, Operation::CreateSnapshot { name, .. } if name.is_empty()) {
            return Err(self.trouble("InvalidName", "", &operation, on));
        }
        let obstacle = self.obstacle(&operation, on);
        let mut record = OperationRecord {
            method: method.to_owned(),
            object,
            vm: self.moref(on.vm),
            user: user.clone(),
            operation_id,
            at: reading.now,
            task: None,
            state: None,
            fault: None,
            effect_at: None,
        };
        let place = self.tasks.log.len();
        if operation.is_for_guest() {
            if let Some(trouble) = obstacle {
                return Err(trouble);
            }
            self.tasks.log.push(record);
            self.tell_guest(on.vm, place, &operation, &plan, reading.horizon);
            return Ok(None);
        }
        if plan.told != Some(Told::Task) && self.busy(on.vm).is_some() {
            return Err(self.trouble("TaskInProgress", "", &operation, on));
        }
        if plan.told == Some(Told::Fault)
            && let Some(trouble) = obstacle
        {
            return Err(trouble);
        }
        self.tasks.made += 1;
        let number = self.tasks.made;
        let gone_after = plan.gone_after.map(|after| reading.horizon.saturating_add(after));
        let task = Task {
            next: reading.horizon.saturating_add(plan.queued),
            gone: gone_after.unwrap_or(i64::MAX),
            operation,
            on,
            user,
            state: TaskState::Queued,
            progress: None,
            cancelled: false,
            error: None,
            result: None,
            queued_at: reading.now,
            started_at: None,
            completed_at: None,
            plan,
            record: place,
            steps_told: 0,
            visible: true,
        };
        self.tasks.present.insert(number, task);
        record.task = Some(self.task_moref(number));
        record.state = Some(TaskState::Queued);
        self.tasks.log.push(record);
        Ok(Some(number))
    }

    /// Cancels a task.
    pub(super) fn cancel(&mut self, number: u64, reading: Reading) -> Result<(), Trouble> {
        let Some(task) = self.tasks.present.get_mut(&number) else {
            return Ok(());
        };
        if !task.state.is_open() {
            let message = "The operation is not allowed in the current state.";
            return Err(Trouble::new("InvalidState", message));
        }
        if !task.operation.is_cancelable() {
            let message = "The operation is not supported on the object.";
            return Err(Trouble::new("NotSupported", message));
        }
        task.cancelled = true;
        let (operation, on) = (task.operation.clone(), task.on);
        let trouble = self.trouble("RequestCanceled", "", &operation, on);
        self.end(number, Err(trouble), reading.horizon, reading.now);
        Ok(())
    }

    /// What a question of the VM held up goes on.
    pub(super) fn resume(&mut self, vm: usize, horizon: i64) {
        for task in self.tasks.present.values_mut() {
            if task.on.vm == vm && task.state == TaskState::Running {
                task.next = task.next.max(horizon);
            }
        }
    }

    /// Moves a task on by one step of its life.
    fn move_on(&mut self, number: u64, at: i64, time: i64) {
        let Some(task) = self.tasks.present.get_mut(&number) else {
            return;
        };
        if task.gone <= at {
            task.gone = i64::MAX;
            task.visible = false;
            if !task.state.is_open() {
                self.file(number);
            }
            return;
        }
        let (operation, on) = (task.operation.clone(), task.on);
        let (state, plan) = (task.state, task.plan.clone());
        if state == TaskState::Queued {
            let busy = self.busy(on.vm).filter(|other| *other != number);
            let busy = busy.map(|_| self.trouble("TaskInProgress", "", &operation, on));
            if let Some(trouble) = busy.or_else(|| self.obstacle(&operation, on)) {
                self.end(number, Err(trouble), at, time);
                return;
            }
            if plan.asks
                && let Some((details, _)) = self.vm_mut(on.vm)
            {
                details.question = Some(super::Question::new(None));
            }
        }
        let Some(task) = self.tasks.present.get_mut(&number) else {
            return;
        };
        let steps = if plan.time > 0 { plan.steps } else { 0 };
        match state {
            TaskState::Queued => {
                task.state = TaskState::Running;
                task.started_at = Some(time);
                task.progress = Some(0);
                let record = self.tasks.log.get_mut(task.record);
                if let Some(record) = record {
                    record.state = Some(TaskState::Running);
                }
            }
            TaskState::Running if task.steps_told < steps => {
                task.steps_told += 1;
                task.progress = Some(100 * task.steps_told / (steps + 1));
            }
            _ => {
                let done = match plan.failure {
                    Some((kind, message)) => Err(self.trouble(&kind, &message, &operation, on)),
                    None => self.carry_out(&operation, on, at),
                };
                self.end(number, done, at, time);
                return;
            }
        }
        let told = task.steps_told;
        task.next = if plan.stuck && told == steps {
            i64::MAX
        } else {
            // Equal parts of its time, without a remainder at the end.
            let parts = i64::from(steps) + 1;
            let until =
                |part: u32| plan.time / parts * i64::from(part) + plan.time % parts * i64::from(part) / parts;
            at + until(told + 1) - until(told)
        };
    }

    fn end(&mut self, number: u64, done: Result<Option<usize>, Trouble>, at: i64, time: i64) {
        let Some(task) = self.tasks.present.get_mut(&number) else {
            return;
        };
        let record = self.tasks.log.get_mut(task.record);
        task.progress = None;
        task.started_at.get_or_insert(time);
        task.completed_at = Some(time);
        task.next = i64::MAX;
        task.state = match &done {
            Ok(_) => TaskState::Success,
            Err(_) => TaskState::Error,
        };
        if let Some(record) = record {
            record.state = Some(task.state);
            record.effect_at = done.is_ok().then_some(time);
            record.fault = done.as_ref().err().map(|trouble| trouble.kind.clone());
        }
        match done {
            Ok(result) => task.result = result,
            Err(trouble) => task.error = Some(trouble),
        }
        if task.visible {
            task.gone = task.gone.min(at + KEPT);
        } else {
            self.file(number);
        }
    }

    /// Leaves a task to the history.
    fn file(&mut self, number: u64) {
        let Some(task) = self.tasks.present.remove(&number) else {
            return;
        };
        if self.tasks.past.len() == REMEMBERED {
            self.tasks.past.pop_front();
        }
        self.tasks.past.push_back((number, task));
    }
}
