//! The properties of a task.

use super::objects::Obj;
use super::paths::{self, Value};
use crate::soap::{Fault, element};
use crate::world::State;

/// What TaskInfo has, in schema order.
pub(super) const INFO: &[&str] = &[
    "key",
    "task",
    "name",
    "descriptionId",
    "entity",
    "entityName",
    "state",
    "cancelled",
    "cancelable",
    "error",
    "result",
    "progress",
    "reason",
    "queueTime",
    "startTime",
    "completeTime",
    "eventChainId",
];

/// Paths of a task.
pub(super) const TASK: &[&str] = &[
    "info.key",
    "info.task",
    "info.name",
    "info.descriptionId",
    "info.entity",
    "info.entityName",
    "info.state",
    "info.cancelled",
    "info.cancelable",
    "info.error",
    "info.result",
    "info.progress",
    "info.reason",
    "info.queueTime",
    "info.startTime",
    "info.completeTime",
    "info.eventChainId",
];

/// Appends the inner XML of a TaskInfo.
pub(crate) fn info(out: &mut String, state: &State, number: u64) {
    for name in INFO {
        paths::plain(out, state, name, field(state, number, name));
    }
}

/// A field of TaskInfo.
pub(super) fn field(state: &State, number: u64, name: &str) -> Value {
    let Some(task) = state.tasks.get(number) else {
        return Value::Unset;
    };
    let time = |time: Option<i64>| time.map_or(Value::Unset, Value::Time);
    match name {
        "key" => Value::Text(state.task_moref(number)),
        "task" => Value::Ref(Obj::Task(number)),
        "name" => Value::Text(task.operation.method().to_owned()),
        "descriptionId" => Value::Text(task.operation.description().to_owned()),
        "entity" => Value::Ref(Obj::Vm(task.on.vm)),
        "entityName" => {
            let record = state.truth.entities.get(task.on.vm);
            record.map_or(Value::Unset, |record| Value::Text(record.name.clone()))
        }
        "state" => Value::Enum("TaskInfoState", task.state.name()),
        "cancelled" => Value::Bool(task.cancelled),
        "cancelable" => Value::Bool(task.state.is_open() && task.operation.is_cancelable()),
        "error" => task.error.as_ref().map_or(Value::Unset, |trouble| {
            let mut inner = String::new();
            Fault::from(trouble).localized(&mut inner);
            Value::Data("LocalizedMethodFault", inner)
        }),
        "result" => task
            .result
            .map_or(Value::Unset, |id| Value::AnyRef(Obj::Snapshot(task.on.vm, id))),
        "progress" => task.progress.map_or(Value::Unset, paths::int),
        "reason" => {
            let mut inner = String::new();
            element(&mut inner, "userName", &task.user);
            Value::Sub("TaskReasonUser", inner)
        }
        "queueTime" => Value::Time(task.queued_at),
        "startTime" => time(task.started_at),
        "completeTime" => time(task.completed_at),
        "eventChainId" => Value::Int(i32::try_from(number).unwrap_or(i32::MAX)),
        _ => Value::Unset,
    }
}
