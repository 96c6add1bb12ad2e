//! Power, guest and snapshot methods, and CancelTask: calls that change the world.
//!
//! Owns: from a call and the rules that hit it to an order for the world. Never decides what an operation does.

use super::Service;
use crate::clock;
use crate::rules::{Action, Effects, STEPS};
use crate::session::SessionInfo;
use crate::soap::{Call, Fault, Request, moref};
use crate::world::{Operation, Order, Plan};

/// Milliseconds in microseconds.
fn micros(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000)
}

/// Orders an operation; writes the result.
pub(super) fn order(
    service: &Service,
    request: &Request<'_>,
    operation: &Operation,
    session: &SessionInfo,
    effects: &Effects,
    out: &mut String,
) -> Result<(), Fault> {
    let this = &request.this;
    let on = service.world.read().target(&this.kind, &this.value);
    let has_snapshot = matches!(
        operation,
        Operation::RemoveSnapshot { .. } | Operation::RevertToSnapshot { .. }
    );
    let on = on
        .filter(|on| on.snapshot.is_some() == has_snapshot)
        .ok_or_else(|| Fault::not_found(&this.kind, &this.value))?;
    let task = service
        .world
        .order(Order {
            operation: operation.clone(),
            on,
            object: this.value.clone().into_owned(),
            user: session.user.clone(),
            operation_id: request.operation_id.clone(),
            plan: plan(service, effects),
        })
        .map_err(|trouble| Fault::from(&trouble))?;
    if let Some(task) = task {
        moref(out, "returnval", "Task", &task);
    }
    Ok(())
}

/// Cancels a task.
pub(super) fn cancel(service: &Service, request: &Request<'_>) -> Result<(), Fault> {
    let this = &request.this;
    let done = (this.kind == "Task").then(|| service.world.cancel(&this.value));
    match done.flatten() {
        Some(done) => done.map_err(|trouble| Fault::from(&trouble)),
        None => Err(Fault::not_found(&this.kind, &this.value)),
    }
}

/// The fault that a rule wants, with the fields that it has for this call.
pub(crate) fn injected(service: &Service, request: &Request<'_>, kind: &str, message: &str) -> Option<Fault> {
    let Call::Operate(operation) = &request.call else {
        return None;
    };
    let state = service.world.read();
    let on = state.target(&request.this.kind, &request.this.value)?;
    Some(Fault::from(&state.trouble(kind, message, operation, on)))
}

fn plan(service: &Service, effects: &Effects) -> Plan {
    let spec = &service.spec;
    let mut plan = Plan {
        queued: 0,
        time: clock::micros(spec.task_time),
        steps: STEPS,
        stuck: false,
        asks: false,
        failure: None,
        gone_after: None,
        forgotten: false,
        told: None,
        guest_after: Some(clock::micros(spec.guest_time)),
        guest_away: clock::micros(spec.guest_boot),
    };
    for action in &effects.operation {
        match action {
            Action::TaskTime {
                queued,
                millis,
                steps,
            } => {
                (plan.queued, plan.time) = (micros(*queued), micros(*millis));
                plan.steps = *steps;
            }
            Action::TaskStuck => plan.stuck = true,
            Action::TaskAsks => plan.asks = true,
            Action::TaskFault { fault, message } => plan.failure = Some((fault.clone(), message.clone())),
            Action::TaskGone { millis, forgotten } => {
                plan.gone_after = Some(micros(*millis));
                plan.forgotten = *forgotten;
            }
            Action::Refuse { by } => plan.told = Some(*by),
            Action::Guest { millis, away } => {
                plan.guest_after = millis.map(micros);
                plan.guest_away = micros(*away);
            }
            _ => {}
        }
    }
    plan
}
