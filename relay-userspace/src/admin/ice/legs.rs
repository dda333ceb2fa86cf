//! Legs: who is on the other side of one, and how it proves who it is.

use axum::Json;
use axum::extract::State;

use super::super::Admin;
use super::super::problem::Refusal;
use super::super::read::{Body, MAX_DESCRIPTION};
use super::NamedLeg;
use crate::api::{self, ice};

/// Says who is on the other side of a leg: an ICE agent, addresses without ICE, or a session description of either.
#[utoipa::path(put, path = "/v1/ice/sessions/{id}/legs/{leg}/remote", operation_id = "set_ice_remote", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), ("leg" = ice::Side, Path, description = "Which leg")),
    request_body = ice::Remote,
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The body is not JSON", body = api::Problem),
        (status = 404, description = "There is no such session, or no such leg", body = api::Problem),
        (status = 422, description = "Something in it is not allowed; of a description, the line is told", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn set_remote(
    State(admin): State<Admin>,
    NamedLeg { id, side }: NamedLeg,
    Body(remote): Body<ice::Remote, MAX_DESCRIPTION>,
) -> Result<Json<ice::Session>, Refusal> {
    Ok(Json(admin.control.set_remote(&id, side, &remote).await?))
}

/// Adds candidates of an ICE agent that a leg knows already (RFC 8838).
#[utoipa::path(post, path = "/v1/ice/sessions/{id}/legs/{leg}/candidates", operation_id = "add_ice_candidates", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), ("leg" = ice::Side, Path, description = "Which leg")),
    request_body = ice::Candidates,
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The body is not JSON", body = api::Problem),
        (status = 404, description = "There is no such session, or no such leg", body = api::Problem),
        (status = 409, description = "The leg knows no ICE agent yet", body = api::Problem),
        (status = 422, description = "Something in it is not allowed: which candidate, and why", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn add_candidates(
    State(admin): State<Admin>,
    NamedLeg { id, side }: NamedLeg,
    Body(candidates): Body<ice::Candidates, MAX_DESCRIPTION>,
) -> Result<Json<ice::Session>, Refusal> {
    Ok(Json(admin.control.add_candidates(&id, side, &candidates).await?))
}

/// Gives a leg new credentials (an ICE restart). Media flows by the old ones until somebody is nominated by the new.
#[utoipa::path(post, path = "/v1/ice/sessions/{id}/legs/{leg}/restart", operation_id = "restart_ice_leg", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), ("leg" = ice::Side, Path, description = "Which leg")),
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 404, description = "There is no such session, or no such leg", body = api::Problem),
        (status = 409, description = "The leg speaks no ICE", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn restart(
    State(admin): State<Admin>,
    NamedLeg { id, side }: NamedLeg,
) -> Result<Json<ice::Session>, Refusal> {
    Ok(Json(admin.control.restart_leg(&id, side).await?))
}
