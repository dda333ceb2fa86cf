//! Users that have an allocation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Admin;
use super::problem::Refusal;
use super::read::Named;
use crate::api;

/// Users that have an allocation.
#[utoipa::path(get, path = "/v1/users", operation_id = "list_users", tag = "users", responses(
    (status = 200, description = "The users", body = Vec<api::User>),
))]
pub(super) async fn list(State(admin): State<Admin>) -> Json<Vec<api::User>> {
    Json(admin.control.users().await)
}

/// Closes all allocations of a user, in the kernel too. The user may make new ones.
#[utoipa::path(delete, path = "/v1/users/{user}", operation_id = "close_user", tag = "users",
    params(("user" = String, Path, description = "The username, or the part of it that quotas count by")),
    responses(
        (status = 200, description = "They are closed", body = api::Closed),
        (status = 404, description = "The user has none", body = api::Problem),
    ))]
pub(super) async fn close(State(admin): State<Admin>, Named(user): Named) -> Result<Json<api::Closed>, Refusal> {
    let filter = api::Filter { user: Some(user.clone()), ..api::Filter::default() };
    let closed = admin.control.close(&filter).await?;
    if closed.closed == 0 {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("`{user}` has no allocation")));
    }
    Ok(Json(closed))
}
