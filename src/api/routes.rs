//! The routes, one file per resource. Which right each needs stands in [`crate::api::rights`].

mod actions;
mod audit;
mod health;
mod operations;

use axum::Router;

use crate::api::context::Context;

/// Every route.
pub(super) fn all() -> Router<Context> {
    Router::new()
        .merge(health::routes())
        .merge(actions::routes())
        .merge(operations::routes())
        .merge(audit::routes())
}
