//! Clusters.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use crate::api::context::{Caller, Context};
use crate::api::extract::{Nothing, Path, Query};
use crate::api::listing::{Asked, CLUSTERS, Sent, key};
use crate::api::problem::Problem;
use crate::store::reading::Cluster;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/clusters/", get(list))
        .route("/api/virt-center/clusters/{id}/", get(show))
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Sent<Cluster>>, Problem> {
    let wanted = CLUSTERS.read(asked, &caller)?;
    let listed = context.reader().list(&wanted.filter, wanted.page).await?;
    Ok(Json(CLUSTERS.page(listed, |cluster| cluster)))
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Cluster>, Problem> {
    let what = format!("cluster {id}");
    let found: Option<Cluster> = context.reader().find(&None, key(id)?).await?;
    let cluster = found.ok_or_else(|| Problem::not_found(&what))?;
    caller.may_see(&context, &cluster.platform, what).await?;
    Ok(Json(cluster))
}
