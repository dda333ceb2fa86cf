//! What happens to sessions, as it happens.

use axum::extract::State;
use axum::response::Response;

use super::super::Admin;
use super::super::sse::respond;
use super::Meant;
use crate::api::{self, ice};

/// What happens to sessions, as it happens: a stream of server-sent events that does not end, with one JSON document in the
/// `data` of each. All that happens after the head of the answer was sent is in it, or counted as missed.
#[utoipa::path(get, path = "/v1/ice/events", operation_id = "watch_ice_sessions", tag = "ice", params(ice::Filter), responses(
    (status = 200, description = "The events", body = ice::Event, content_type = "text/event-stream"),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
    (status = 503, description = "64 watch already", body = api::Problem),
))]
pub(in crate::admin) async fn watch(State(admin): State<Admin>, Meant(filter): Meant) -> Response {
    respond(&admin.watchers, admin.control.ice_events(), move |event| filter.has_event(event))
}
