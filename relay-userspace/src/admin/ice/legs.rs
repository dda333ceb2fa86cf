//! Legs: who is on the other side of one, and how it proves who it is.

use axum::extract::State;
use axum::response::Response;

use super::super::Admin;
use super::super::read::MAX_DESCRIPTION;
use super::NamedLeg;
use super::once::{Key, Once, OnceByPath};
use crate::api::{self, ice};

/// Says who is on the other side of a leg: an ICE agent, addresses without ICE, or a session description of either.
#[utoipa::path(put, path = "/v1/ice/sessions/{id}/legs/{leg}/remote", operation_id = "set_ice_remote", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), ("leg" = ice::Side, Path, description = "Which leg"), Key),
    request_body = ice::Remote,
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The body is not JSON, or the key is none", body = api::Problem),
        (status = 404, description = "There is no such session, or no such leg", body = api::Problem),
        (status = 422, description = "Something in it is not allowed, or the key was of another request; of a description, \
            the line is told", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn set_remote(
    State(admin): State<Admin>,
    NamedLeg { id, side }: NamedLeg,
    once: Once<ice::Remote, MAX_DESCRIPTION>,
) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, |remote| async move { control.set_remote(&id, side, &remote).await }).await
}

/// Adds candidates of an ICE agent that a leg knows already (RFC 8838).
#[utoipa::path(post, path = "/v1/ice/sessions/{id}/legs/{leg}/candidates", operation_id = "add_ice_candidates", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), ("leg" = ice::Side, Path, description = "Which leg"), Key),
    request_body = ice::Candidates,
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The body is not JSON, or the key is none", body = api::Problem),
        (status = 404, description = "There is no such session, or no such leg", body = api::Problem),
        (status = 409, description = "The leg knows no ICE agent yet", body = api::Problem),
        (status = 422, description = "Something in it is not allowed (which candidate, and why), or the key was of another \
            request", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn add_candidates(
    State(admin): State<Admin>,
    NamedLeg { id, side }: NamedLeg,
    once: Once<ice::Candidates, MAX_DESCRIPTION>,
) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, |candidates| async move { control.add_candidates(&id, side, &candidates).await }).await
}

/// Gives a leg new credentials (an ICE restart). Media flows by the old ones until somebody is nominated by the new.
#[utoipa::path(post, path = "/v1/ice/sessions/{id}/legs/{leg}/restart", operation_id = "restart_ice_leg", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), ("leg" = ice::Side, Path, description = "Which leg"), Key),
    responses(
        (status = 200, description = "The session", body = ice::Session),
        (status = 400, description = "The key is none", body = api::Problem),
        (status = 404, description = "There is no such session, or no such leg", body = api::Problem),
        (status = 409, description = "The leg speaks no ICE", body = api::Problem),
        (status = 422, description = "The key was of another request", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn restart(
    State(admin): State<Admin>,
    NamedLeg { id, side }: NamedLeg,
    once: OnceByPath,
) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, || async move { control.restart_leg(&id, side).await }).await
}
