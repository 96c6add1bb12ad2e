//! Health, for whoever balances load or restarts: without a token, and without details.

use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::api::context::Context;
use crate::api::extract::{Nothing, Query};
use crate::api::problem::Problem;
use crate::model::status::DatabaseHealth;

/// How often the database's health is looked at.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

/// Whether the process answers.
async fn livez(Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether the database can be used. A platform that is down does not make a collector unready.
async fn readyz(
    State(context): State<Context>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    match context.health() {
        DatabaseHealth::Up => Ok(Json(json!({ "status": "ok" }))),
        // The reason names servers and accounts: /readyz of the admin endpoint has it.
        DatabaseHealth::Down(_) => Err(Problem::unavailable(
            "database_unavailable",
            "The database cannot be used just now.",
            AGAIN,
        )),
    }
}
