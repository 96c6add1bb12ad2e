//! The document of the API.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::api::context::Context;
use crate::api::extract::{Nothing, Query};
use crate::api::openapi;

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/openapi.json", get(document))
}

async fn document(Query(Nothing {}): Query<Nothing>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], openapi::text()).into_response()
}
