//! VMs, with their newest sample, disks and network adapters. Snapshots and actions are [`super::actions`].

use std::collections::HashMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::api::context::{Caller, Context};
use crate::api::extract::{Nothing, Path, Query};
use crate::api::listing::{Asked, Sent, VMS, key};
use crate::api::problem::Problem;
use crate::model::ids::EntityKind;
use crate::store::reading::{Disk, Listed, Newest, Nic, Record, Vm};

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/vms/", get(list))
        .route("/api/virt-center/vms/{id}/", get(show))
}

/// A host or VM and its newest sample.
#[derive(Debug, Serialize)]
pub(super) struct WithMetrics<T> {
    #[serde(flatten)]
    pub(super) row: T,
    pub(super) metrics: Option<Newest>,
}

#[derive(Debug, Serialize)]
struct Details {
    #[serde(flatten)]
    vm: WithMetrics<Vm>,
    disks: Vec<Disk>,
    nics: Vec<Nic>,
}

/// The newest samples of a page, where they are wanted.
pub(super) async fn newest_of<T: Record>(
    context: &Context,
    kind: EntityKind,
    listed: &Listed<T>,
    wanted: bool,
) -> Result<HashMap<i32, Newest>, Problem> {
    if !wanted || listed.rows.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<i32> = listed.rows.iter().map(Record::key).collect();
    Ok(context.reader().newest(kind, &keys).await?)
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Sent<WithMetrics<Vm>>>, Problem> {
    let wanted = VMS.read(asked, &caller)?;
    let listed = context.reader().list::<Vm>(&wanted.filter, wanted.page).await?;
    let mut newest = newest_of(&context, EntityKind::Vm, &listed, wanted.metrics).await?;
    Ok(Json(VMS.page(listed, |vm| WithMetrics {
        metrics: newest.remove(&vm.id),
        row: vm,
    })))
}

async fn find(context: &Context, caller: &Caller, id: i32) -> Result<Vm, Problem> {
    let what = format!("VM {id}");
    let found: Option<Vm> = context.reader().find(&None, key(id)?).await?;
    let vm = found.ok_or_else(|| Problem::not_found(&what))?;
    caller.may_see(context, &vm.platform, what).await?;
    Ok(vm)
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Details>, Problem> {
    let vm = find(&context, &caller, id).await?;
    let reader = context.reader();
    let mut newest = reader.newest(EntityKind::Vm, &[id]).await?;
    Ok(Json(Details {
        vm: WithMetrics {
            row: vm,
            metrics: newest.remove(&id),
        },
        disks: reader.disks(id).await?,
        nics: reader.nics(id).await?,
    }))
}
