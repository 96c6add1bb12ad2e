//! Actions from their acceptance to their end, as they stand.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::api::context::{Caller, Context, Place};
use crate::api::extract::{Nothing, Path, Prefer, Query};
use crate::api::problem::Problem;
use crate::model::ids::{PlatformId, VmId};
use crate::model::operation::{Operation, State as OperationState};
use crate::store::operation::Filter;
use crate::units::Stamp;

/// Rows of a page.
pub(super) const PAGE: u32 = 100;

/// Most rows of a page.
pub(super) const LONGEST_PAGE: u32 = 500;

/// Whether an operation has ended is looked at when one has, and now and then, as a notification can be lost.
const LOOK: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/operations/", get(list))
        .route("/api/virt-center/operations/{id}/", get(show))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    platform: Option<i32>,
    vm: Option<i32>,
    state: Option<OperationState>,
    limit: Option<u32>,
    cursor: Option<String>,
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<List>,
) -> Result<Json<Value>, Problem> {
    let limit = limit(asked.limit)?;
    for (name, key) in [("platform", asked.platform), ("vm", asked.vm)] {
        if key.is_some_and(|key| key < 1) {
            let detail = format!("{name} must be a key: a number from 1 up.");
            return Err(Problem::bad_request("bad_query", detail));
        }
    }
    let filter = Filter {
        scope: caller.scope.names(),
        platforms: asked.platform.map(|platform| vec![PlatformId(platform)]),
        vm: asked.vm.map(VmId),
        state: asked.state,
        before: asked.cursor.as_deref().map(cursor).transpose()?,
    };
    let mut found = context.database().operations(&filter, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| format!("{}.{}", last.created_at.micros(), last.id));
    let items: Vec<Value> = found.iter().map(body).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// # Errors
/// 400 where it is out of bounds.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(PAGE);
    if (1..=LONGEST_PAGE).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::bad_request(
            "bad_query",
            format!("limit must be 1 to {LONGEST_PAGE}."),
        ))
    }
}

pub(super) fn bad_cursor() -> Problem {
    Problem::bad_request(
        "bad_cursor",
        "cursor must be next_cursor of the page before, as it came.",
    )
}

fn cursor(text: &str) -> Result<(Stamp, Uuid), Problem> {
    text.split_once('.')
        .and_then(|(micros, id)| Some((askable(micros.parse().ok()?)?, id.parse().ok()?)))
        .ok_or_else(bad_cursor)
}

/// An instant of the years 1 to 9999: the database knows no other that people would mean.
pub(super) fn askable(micros: i64) -> Option<Stamp> {
    (-62_135_596_800_000_000..=253_402_300_799_999_999)
        .contains(&micros)
        .then_some(Stamp::from_micros(micros))
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    prefer: Prefer,
    place: axum::Extension<Place>,
    path: Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Problem> {
    let Path(id) = path;
    let absent = || Problem::not_found(format!("operation {id}"));
    let Ok(id) = Uuid::try_parse(&id) else {
        return Err(Problem::bad_request(
            "bad_path",
            "The id of an operation is a UUID.",
        ));
    };
    let operation = context.database().operation(id).await?.ok_or_else(absent)?;
    caller
        .may_see(&context, &operation.platform_name, format!("operation {id}"))
        .await?;
    let (operation, waited) = wait(&context, operation, prefer, &place).await?;
    let mut response = Json(body(&operation)).into_response();
    if waited {
        applied(&mut response, prefer);
    }
    Ok(response)
}

/// Waits for the end of an operation, as long as the caller would, and where there is room to wait. True where it was
/// waited for.
pub(super) async fn wait(
    context: &Context,
    mut operation: Operation,
    prefer: Prefer,
    place: &Place,
) -> Result<(Operation, bool), Problem> {
    if prefer.wait.is_zero() {
        return Ok((operation, false));
    }
    let Ok(_room) = context.waiting().try_acquire() else {
        return Ok((operation, false));
    };
    place.give_up();
    let until = Instant::now() + prefer.wait;
    let mut ends = context.ends();
    let stopping = context.tasks().stopping();
    while !operation.state.is_end() && Instant::now() < until {
        let look = tokio::time::sleep_until(until.min(Instant::now() + LOOK));
        tokio::select! {
            // Somebody else goes on with it; how far it is, the caller knows then.
            () = stopping.cancelled() => break,
            () = look => {}
            Ok(()) = ends.changed() => {}
        }
        match context.database().operation(operation.id).await? {
            Some(now) => operation = now,
            None => break,
        }
    }
    Ok((operation, true))
}

/// Says that it was waited.
pub(super) fn applied(response: &mut Response, prefer: Prefer) {
    let text = format!("wait={}", prefer.wait.as_secs());
    if let Ok(value) = text.parse() {
        response.headers_mut().insert("preference-applied", value);
    }
}

/// As callers see it.
pub(super) fn body(operation: &Operation) -> Value {
    json!({
        "id": operation.id.to_string(),
        "platform_id": operation.platform.0,
        "platform": operation.platform_name,
        "vm_id": operation.vm.0,
        "vm_moref": operation.vm_moref.as_str(),
        "vm_name": operation.vm_name,
        "action": operation.action.as_str(),
        "arguments": operation.action.arguments(),
        "state": operation.state.as_str(),
        "progress": operation.progress,
        "task": operation.task.as_ref().map(|task| task.as_str()),
        "result": operation.result,
        "code": operation.code,
        "detail": operation.detail,
        "requested_by": operation.requested_by,
        "request_id": operation.request_id,
        "created_at": operation.created_at,
        "started_at": operation.started_at,
        "sent_at": operation.sent_at,
        "ended_at": operation.ended_at,
    })
}
