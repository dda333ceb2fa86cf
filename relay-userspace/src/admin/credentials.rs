//! Credentials for applications: what a web page gives to WebRTC.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Admin;
use super::problem::Refusal;
use super::read::{Asked, BodyOrDefault};
use crate::api;

/// Mints credentials, asked for by a query.
#[utoipa::path(get, path = "/v1/credentials", operation_id = "mint_by_query", tag = "credentials", params(api::CredentialsRequest), responses(
    (status = 200, description = "For `RTCConfiguration` as they are", body = api::Credentials),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
    (status = 422, description = "There is no secret to mint with, or they should live too long", body = api::Problem),
    (status = 429, description = "Too many were asked for in this second", body = api::Problem),
))]
pub(super) async fn by_query(
    State(admin): State<Admin>,
    Asked(request): Asked<api::CredentialsRequest>,
) -> Result<impl IntoResponse, Refusal> {
    mint(&admin, &request)
}

/// Mints credentials, asked for by a body.
#[utoipa::path(post, path = "/v1/credentials", operation_id = "mint_by_body", tag = "credentials",
    request_body = Option<api::CredentialsRequest>,
    responses(
        (status = 200, description = "For `RTCConfiguration` as they are", body = api::Credentials),
        (status = 400, description = "The body is not JSON", body = api::Problem),
        (status = 422, description = "There is no secret to mint with, or they should live too long", body = api::Problem),
        (status = 429, description = "Too many were asked for in this second", body = api::Problem),
    ))]
pub(super) async fn by_body(
    State(admin): State<Admin>,
    BodyOrDefault(request): BodyOrDefault<api::CredentialsRequest>,
) -> Result<impl IntoResponse, Refusal> {
    mint(&admin, &request)
}

fn mint(admin: &Admin, request: &api::CredentialsRequest) -> Result<impl IntoResponse + use<>, Refusal> {
    admin.gate.admit_minting()?;
    let minted = admin.control.credentials(request);
    let credentials = minted.map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    admin.gate.count_minted();
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(credentials)))
}
