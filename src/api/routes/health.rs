//! Health, for whoever balances load or restarts: without a token, and without details.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::context::Context;
use crate::api::extract::{Nothing, Query};
use crate::api::problem::{Problem, ProblemBody};
use crate::model::status::DatabaseHealth;

/// How often the database's health is looked at.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
}

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "status": "ok" }))]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the process answers
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, description = "It does.", body = Health)))]
async fn livez(Query(Nothing {}): Query<Nothing>) -> Response {
    axum::Json(Health { status: "ok" }).into_response()
}

/// Whether the database can be used
///
/// A platform that is down does not make a collector unready.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "It can.", body = Health),
        (status = 503, description = "It cannot.", body = ProblemBody, content_type = "application/problem+json")))]
async fn readyz(
    State(context): State<Context>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::Json<Health>, Problem> {
    match context.health() {
        DatabaseHealth::Up => Ok(axum::Json(Health { status: "ok" })),
        // The reason names servers and accounts: /readyz of the admin endpoint has it.
        DatabaseHealth::Down(_) => Err(Problem::unavailable(
            "database_unavailable",
            "The database cannot be used just now.",
            AGAIN,
        )),
    }
}
