//! Allocations: which there are, and the end of some.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa::IntoParams;

use super::Admin;
use super::problem::Refusal;
use super::read::{Named, Order, Selected};
use crate::api;

/// How many are wanted, and which first. It is read by [`Selected`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it documents parameters")]
pub(super) struct Part {
    /// At most so many.
    limit: Option<u64>,
    /// Which come first: the oldest (`began`, which holds without it), or those that have relayed the most (`data`).
    order: Option<String>,
}

/// Whether really all are meant. It is read by [`Selected`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it documents a parameter")]
pub(super) struct All {
    /// All allocations, when nothing else is given.
    all: Option<bool>,
}

/// Live allocations: those that all that is given is true of.
#[utoipa::path(get, path = "/v1/allocations", operation_id = "list_allocations", tag = "allocations", params(api::Filter, Part), responses(
    (status = 200, description = "The allocations", body = Vec<api::Allocation>),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
))]
pub(super) async fn list(
    State(admin): State<Admin>,
    selected: Selected,
) -> Result<Json<Vec<api::Allocation>>, Refusal> {
    let Selected { filter, limit, order, all: _ } = selected;
    let mut allocations = admin.control.allocations(&filter).await?;
    if order == Some(Order::Data) {
        allocations.sort_by_key(|allocation| Reverse(allocation.relayed_data.bytes()));
    }
    allocations.truncate(limit.unwrap_or(usize::MAX));
    Ok(Json(allocations))
}

/// One allocation, with its permissions and channels.
#[utoipa::path(get, path = "/v1/allocations/{id}", operation_id = "show_allocation", tag = "allocations",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The allocation", body = api::AllocationDetail),
        (status = 404, description = "There is none", body = api::Problem),
    ))]
pub(super) async fn show(State(admin): State<Admin>, Named(id): Named) -> Result<Json<api::AllocationDetail>, Refusal> {
    admin.control.allocation(&id).await.map(Json).ok_or_else(|| no_such(&id))
}

/// Closes one allocation. It is gone, in the kernel too, when this is answered.
#[utoipa::path(delete, path = "/v1/allocations/{id}", operation_id = "close_allocation", tag = "allocations",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "It is closed", body = api::Closed),
        (status = 404, description = "There is none", body = api::Problem),
    ))]
pub(super) async fn close(State(admin): State<Admin>, Named(id): Named) -> Result<Json<api::Closed>, Refusal> {
    let filter = api::Filter { id: Some(id.clone()), ..api::Filter::default() };
    let closed = admin.control.close(&filter).await?;
    if closed.closed == 0 { Err(no_such(&id)) } else { Ok(Json(closed)) }
}

/// Closes allocations: those that all that is given is true of. They are gone, in the kernel too, when this is answered.
#[utoipa::path(delete, path = "/v1/allocations", operation_id = "close_allocations", tag = "allocations", params(api::Filter, All), responses(
    (status = 200, description = "They are closed", body = api::Closed),
    (status = 400, description = "Nothing says which, or the query cannot be understood", body = api::Problem),
))]
pub(super) async fn close_some(State(admin): State<Admin>, selected: Selected) -> Result<Json<api::Closed>, Refusal> {
    let Selected { filter, limit, order, all } = selected;
    if limit.is_some() || order.is_some() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "limit, order: what is closed cannot be limited"));
    }
    if all == (filter != api::Filter::default()) {
        let error = "say which: id, user, client, relayed or realm, or all=true alone for all";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
    }
    Ok(Json(admin.control.close(&filter).await?))
}

fn no_such(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no allocation `{id}` (any more)"))
}
