//! Offers and answers (RFC 3264): each side of a call is told the session's legs in place of the other side.

use axum::extract::State;
use axum::response::Response;

use super::super::Admin;
use super::super::read::{MAX_DESCRIPTION, Named};
use super::once::{Key, Once};
use crate::api::{self, ice};

/// Makes a session of an offer: of the side that becomes leg A. With what the other side is to be offered.
#[utoipa::path(post, path = "/v1/ice/offer", operation_id = "offer_ice", tag = "ice", params(Key),
    request_body = ice::Offer,
    responses(
        (status = 200, description = "The session, and the offer for the other side", body = ice::Exchanged),
        (status = 400, description = "The body is not JSON, or the key is none", body = api::Problem),
        (status = 422, description = "Something in it is not allowed, or the key was of another request; of a description, \
            the line is told", body = api::Problem),
        (status = 503, description = "The relay has no room, or is draining", body = api::Problem),
    ))]
pub(in crate::admin) async fn offer(State(admin): State<Admin>, once: Once<ice::Offer, MAX_DESCRIPTION>) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, |offer| async move { control.offer(&offer).await }).await
}

/// Takes another offer, of either side: other media, another address, a restart of ICE. With what the other side is to be
/// offered. It is in force when it has been answered; where the other side rejects it, nothing is to be done.
#[utoipa::path(post, path = "/v1/ice/sessions/{id}/offer", operation_id = "reoffer_ice", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), Key),
    request_body = ice::Exchange,
    responses(
        (status = 200, description = "The session, and the offer for the other side", body = ice::Exchanged),
        (status = 400, description = "The body is not JSON, or the key is none", body = api::Problem),
        (status = 404, description = "There is no such session", body = api::Problem),
        (status = 409, description = "The session was not made of an offer", body = api::Problem),
        (status = 422, description = "Something in it is not allowed, or the key was of another request; of a description, \
            the line is told", body = api::Problem),
        (status = 503, description = "The relay has no room, or the session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn reoffer(
    State(admin): State<Admin>,
    Named(id): Named,
    once: Once<ice::Exchange, MAX_DESCRIPTION>,
) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, |exchange| async move { control.reoffer(&id, &exchange).await }).await
}

/// Takes the answer to the last offer; several may come, as with early media. With what the side that has offered is to be
/// answered.
#[utoipa::path(post, path = "/v1/ice/sessions/{id}/answer", operation_id = "answer_ice", tag = "ice",
    params(("id" = String, Path, description = "The session's id"), Key),
    request_body = ice::Exchange,
    responses(
        (status = 200, description = "The session, and the answer for the other side", body = ice::Exchanged),
        (status = 400, description = "The body is not JSON, or the key is none", body = api::Problem),
        (status = 404, description = "There is no such session", body = api::Problem),
        (status = 409, description = "There is no offer of the other side", body = api::Problem),
        (status = 422, description = "Something in it is not allowed, or the key was of another request; of a description, \
            the line is told", body = api::Problem),
        (status = 503, description = "The session's shard does not answer", body = api::Problem),
    ))]
pub(in crate::admin) async fn answer(
    State(admin): State<Admin>,
    Named(id): Named,
    once: Once<ice::Exchange, MAX_DESCRIPTION>,
) -> Response {
    let control = admin.control;
    once.answer(&admin.kept, |exchange| async move { control.answer(&id, &exchange).await }).await
}
