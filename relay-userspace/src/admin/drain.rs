//! Draining: new clients are sent elsewhere.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Admin;
use super::problem::Refusal;
use super::read::BodyOrDefault;
use crate::api;

/// How far a drain is.
#[utoipa::path(get, path = "/v1/drain", operation_id = "show_drain", tag = "relay", responses(
    (status = 200, description = "How far it is", body = api::DrainStatus),
))]
pub(super) async fn show(State(admin): State<Admin>) -> Json<api::DrainStatus> {
    Json(admin.control.drain_status().await)
}

/// Sends new clients elsewhere from now on; one that runs already gets these terms.
#[utoipa::path(post, path = "/v1/drain", operation_id = "begin_drain", tag = "relay", request_body = Option<api::DrainRequest>, responses(
    (status = 200, description = "How far it is", body = api::DrainStatus),
    (status = 400, description = "The body is not JSON", body = api::Problem),
    (status = 422, description = "The body is not what it should be, or there is nowhere to move clients to", body = api::Problem),
))]
pub(super) async fn begin(
    State(admin): State<Admin>,
    BodyOrDefault(request): BodyOrDefault<api::DrainRequest>,
) -> Result<Json<api::DrainStatus>, Refusal> {
    let refuse = |why| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    admin.control.drain(request).await.map(Json).map_err(refuse)
}

/// Lets new clients in again.
#[utoipa::path(delete, path = "/v1/drain", operation_id = "cancel_drain", tag = "relay", responses(
    (status = 200, description = "It is over", body = api::DrainStatus),
))]
pub(super) async fn cancel(State(admin): State<Admin>) -> Json<api::DrainStatus> {
    Json(admin.control.cancel_drain().await)
}
