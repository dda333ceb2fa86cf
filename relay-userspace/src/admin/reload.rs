//! Reading the configuration again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Admin;
use super::problem::Refusal;
use super::read::BodyOrDefault;
use crate::api;

/// Reads the configuration again, and says what has changed, what is drained, and what needs a restart. Of a bad one
/// nothing is taken.
#[utoipa::path(post, path = "/v1/reload", operation_id = "reload", tag = "relay", request_body = Option<api::ReloadRequest>, responses(
    (status = 200, description = "What was done", body = api::Reloaded),
    (status = 400, description = "The body is not JSON", body = api::Problem),
    (status = 422, description = "Nothing was done, and why", body = api::Problem),
))]
pub(super) async fn reload(
    State(admin): State<Admin>,
    BodyOrDefault(request): BodyOrDefault<api::ReloadRequest>,
) -> Result<Json<api::Reloaded>, Refusal> {
    admin.control.reload(request).await.map(Json).map_err(|problems| {
        let error = "the new configuration has problems; nothing has changed";
        Refusal::of_several(StatusCode::UNPROCESSABLE_ENTITY, error, problems)
    })
}
