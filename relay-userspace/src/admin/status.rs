//! How the relay is.

use axum::Json;
use axum::extract::State;

use super::Admin;
use crate::api;

/// How the relay is, at a glance.
#[utoipa::path(get, path = "/v1/status", operation_id = "status", tag = "relay", responses(
    (status = 200, description = "How it is", body = api::Status),
))]
pub(super) async fn status(State(admin): State<Admin>) -> Json<api::Status> {
    Json(admin.control.status().await)
}
