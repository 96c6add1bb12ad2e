//! Who asked for what, and what came of it.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::context::{Caller, Context};
use crate::api::extract::Query;
use crate::api::problem::Problem;
use crate::api::routes::operations::{askable, bad_cursor, limit};
use crate::store::audit::{LogFilter, Logged};
use crate::units::Stamp;

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/api/virt-center/audit/", get(list))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntryKind {
    Intent,
    Outcome,
    Denied,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    platform: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    entry: Option<EntryKind>,
    operation: Option<String>,
    request_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<List>,
) -> Result<Json<Value>, Problem> {
    let limit = i64::from(limit(asked.limit)?);
    let filter = LogFilter {
        below: asked
            .cursor
            .map(|cursor| cursor.parse().map_err(|_not_a_number| bad_cursor()))
            .transpose()?,
        scope: caller.scope.names(),
        platform: asked.platform,
        actor: asked.actor,
        action: asked.action,
        entry: asked.entry.map(|entry| {
            match entry {
                EntryKind::Intent => "intent",
                EntryKind::Outcome => "outcome",
                EntryKind::Denied => "denied",
            }
            .to_owned()
        }),
        operation: asked
            .operation
            .map(|id| {
                Uuid::try_parse(&id)
                    .map_err(|_not_one| Problem::bad_request("bad_query", "operation must be a UUID."))
            })
            .transpose()?,
        request_id: asked.request_id,
        since: instant("since", asked.since.as_deref())?,
        until: instant("until", asked.until.as_deref())?,
    };
    let mut found = context.database().audit_log(&filter, limit + 1).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > most;
    found.truncate(most);
    let next = found.last().filter(|_| more).map(|last| last.id.to_string());
    let items: Vec<Value> = found.iter().map(body).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Stamp>, Problem> {
    text.map(|text| {
        text.parse::<jiff::Timestamp>()
            .ok()
            .and_then(|instant| askable(instant.as_microsecond()))
            .ok_or_else(|| {
                Problem::bad_request(
                    "bad_query",
                    format!("{name} must be an instant such as 2026-11-26T08:00:00Z; in a query, a plus sign is %2B."),
                )
            })
    })
    .transpose()
}

fn body(entry: &Logged) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at,
        "entry": entry.entry,
        "actor": entry.actor,
        "client": entry.client,
        "request_id": entry.request_id,
        "action": entry.action,
        "platform": entry.platform,
        "target": entry.target,
        "target_name": entry.target_name,
        "operation_id": entry.operation.map(|id| id.to_string()),
        "outcome": entry.outcome,
        "code": entry.code,
        "detail": entry.detail,
        "before": entry.before,
        "after": entry.after,
    })
}
