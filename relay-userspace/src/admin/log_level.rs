//! What is logged.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Admin;
use super::problem::Refusal;
use super::read::Body;
use crate::api;

/// What is logged.
#[utoipa::path(get, path = "/v1/log-level", operation_id = "show_log_level", tag = "relay", responses(
    (status = 200, description = "The level or filter", body = api::LogLevel),
))]
pub(super) async fn show(State(admin): State<Admin>) -> Json<api::LogLevel> {
    Json(admin.control.log_level())
}

/// Changes what is logged, until the next change, reload or restart.
#[utoipa::path(put, path = "/v1/log-level", operation_id = "set_log_level", tag = "relay", request_body = api::LogLevel, responses(
    (status = 200, description = "What is logged now", body = api::LogLevel),
    (status = 400, description = "The body is not JSON", body = api::Problem),
    (status = 422, description = "There is no such level", body = api::Problem),
))]
pub(super) async fn set(
    State(admin): State<Admin>,
    Body(level): Body<api::LogLevel>,
) -> Result<Json<api::LogLevel>, Refusal> {
    let set = admin.control.set_log_level(&level);
    set.map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    Ok(Json(admin.control.log_level()))
}
