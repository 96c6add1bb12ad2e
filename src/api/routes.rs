//! The routes, one file per resource. Which right each needs stands in [`crate::api::rights`].

mod health;

use utoipa_axum::router::OpenApiRouter;

use crate::api::context::Context;

/// Every route, with its part of the document.
pub(super) fn all() -> OpenApiRouter<Context> {
    OpenApiRouter::new().merge(health::routes())
}
