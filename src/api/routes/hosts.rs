//! Hosts, with their newest sample.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use crate::api::context::{Caller, Context};
use crate::api::extract::{Nothing, Path, Query};
use crate::api::listing::{Asked, HOSTS, Sent, key};
use crate::api::problem::Problem;
use crate::api::routes::vms::{WithMetrics, newest_of};
use crate::model::ids::EntityKind;
use crate::store::reading::Host;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/hosts/", get(list))
        .route("/api/virt-center/hosts/{id}/", get(show))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Sent<WithMetrics<Host>>>, Problem> {
    let wanted = HOSTS.read(asked, &caller)?;
    let listed = context.reader().list::<Host>(&wanted.filter, wanted.page).await?;
    let mut newest = newest_of(&context, EntityKind::Host, &listed, wanted.metrics).await?;
    Ok(Json(HOSTS.page(listed, |host| WithMetrics {
        metrics: newest.remove(&host.id),
        row: host,
    })))
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<WithMetrics<Host>>, Problem> {
    let what = format!("host {id}");
    let found: Option<Host> = context.reader().find(&None, key(id)?).await?;
    let host = found.ok_or_else(|| Problem::not_found(&what))?;
    caller.may_see(&context, &host.platform, what).await?;
    let mut newest = context.reader().newest(EntityKind::Host, &[id]).await?;
    Ok(Json(WithMetrics {
        row: host,
        metrics: newest.remove(&id),
    }))
}
