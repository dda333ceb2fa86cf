//! Sessions: which there are, the beginning and the end of one.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::super::Admin;
use super::super::problem::Refusal;
use super::super::read::{Body, Named};
use super::Meant;
use super::once::{Key, Once};
use crate::api::{self, ice};

/// Creates a session: its legs have addresses and credentials when this is answered.
#[utoipa::path(post, path = "/v1/ice/sessions", operation_id = "create_ice_session", tag = "ice", params(Key),
    request_body = ice::Create,
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The body is not JSON, or the key is none", body = api::Problem),
        (status = 422, description = "Something in it is not allowed, or the key was of another request", body = api::Problem),
        (status = 503, description = "The relay has no room, or is draining", body = api::Problem),
    ))]
pub(in crate::admin) async fn create(State(admin): State<Admin>, once: Once<ice::Create>) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, |create| async move { control.create_session(&create).await }).await
}

/// Sessions: those that all that is given is true of, the oldest first.
#[utoipa::path(get, path = "/v1/ice/sessions", operation_id = "list_ice_sessions", tag = "ice", params(ice::Filter), responses(
    (status = 200, description = "The sessions", body = ice::Sessions),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
))]
pub(in crate::admin) async fn list(State(admin): State<Admin>, Meant(filter): Meant) -> Json<ice::Sessions> {
    Json(ice::Sessions { sessions: admin.control.sessions(&filter).await })
}

/// One session.
#[utoipa::path(get, path = "/v1/ice/sessions/{id}", operation_id = "show_ice_session", tag = "ice",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 404, description = "There is none", body = api::Problem),
        (status = 503, description = "Its shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn show(
    State(admin): State<Admin>,
    Named(id): Named,
) -> Result<Json<ice::Session>, Refusal> {
    Ok(Json(admin.control.session(&id).await?))
}

/// Changes label, limits and timeouts of a session. What is not said stays as it is.
#[utoipa::path(patch, path = "/v1/ice/sessions/{id}", operation_id = "update_ice_session", tag = "ice",
    params(("id" = String, Path, description = "Its id")),
    request_body = ice::Update,
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The body is not JSON", body = api::Problem),
        (status = 404, description = "There is none", body = api::Problem),
        (status = 422, description = "Something in it is not allowed", body = api::Problem),
        (status = 503, description = "Its shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn update(
    State(admin): State<Admin>,
    Named(id): Named,
    Body(update): Body<ice::Update>,
) -> Result<Json<ice::Session>, Refusal> {
    Ok(Json(admin.control.update_session(&id, &update).await?))
}

/// Closes a session: as it was in the end, with all that was counted. It is gone, in the kernel too, when this is answered.
#[utoipa::path(delete, path = "/v1/ice/sessions/{id}", operation_id = "close_ice_session", tag = "ice",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "It is closed", body = ice::Session),
        (status = 404, description = "There is none", body = api::Problem),
        (status = 503, description = "Its shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn close(
    State(admin): State<Admin>,
    Named(id): Named,
) -> Result<Json<ice::Session>, Refusal> {
    Ok(Json(admin.control.close_session(&id).await?))
}
