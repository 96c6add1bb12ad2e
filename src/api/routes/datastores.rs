//! Datastores.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use crate::api::context::{Caller, Context};
use crate::api::extract::{Nothing, Path, Query};
use crate::api::listing::{Asked, DATASTORES, Sent, key};
use crate::api::problem::Problem;
use crate::store::reading::Datastore;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/datastores/", get(list))
        .route("/api/virt-center/datastores/{id}/", get(show))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Sent<Datastore>>, Problem> {
    let wanted = DATASTORES.read(asked, &caller)?;
    let listed = context.reader().list(&wanted.filter, wanted.page).await?;
    Ok(Json(DATASTORES.page(listed, |datastore| datastore)))
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Datastore>, Problem> {
    let what = format!("datastore {id}");
    let found: Option<Datastore> = context.reader().find(&None, key(id)?).await?;
    let datastore = found.ok_or_else(|| Problem::not_found(&what))?;
    caller.may_see(&context, &datastore.platform, what).await?;
    Ok(Json(datastore))
}
