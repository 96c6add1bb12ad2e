//! The routes, one file per resource. Which right each needs stands in [`crate::api::rights`].

pub(super) mod actions;
mod audit;
mod clusters;
mod datastores;
mod document;
mod health;
mod hosts;
pub(super) mod operations;
pub(super) mod platforms;
mod vms;

use axum::Router;

use crate::api::context::Context;

/// Every route.
pub(super) fn all() -> Router<Context> {
    Router::new()
        .merge(health::routes())
        .merge(document::routes())
        .merge(platforms::routes())
        .merge(hosts::routes())
        .merge(vms::routes())
        .merge(datastores::routes())
        .merge(clusters::routes())
        .merge(actions::routes())
        .merge(operations::routes())
        .merge(audit::routes())
}
