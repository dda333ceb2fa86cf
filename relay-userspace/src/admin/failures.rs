//! Why something failed for a client.

use std::num::NonZeroU64;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Admin;
use super::problem::Refusal;
use super::read::Asked;
use crate::api;
use crate::selection::Address;

/// Whose failures are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    /// Those of clients at this address, with or without a port; of all, if it is left out.
    client: Option<String>,
    /// At most so many.
    #[param(value_type = Option<u64>, minimum = 1)]
    limit: Option<NonZeroU64>,
}

/// The last failures, newest first. Only so many are kept, in memory.
#[utoipa::path(get, path = "/v1/failures", operation_id = "list_failures", tag = "relay", params(Whose), responses(
    (status = 200, description = "The failures", body = Vec<api::Failure>),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Asked(Whose { client, limit }): Asked<Whose>,
) -> Result<Json<Vec<api::Failure>>, Refusal> {
    let client = client.map(|client| Address::parse(&client).ok_or_else(|| refusal(&client))).transpose()?;
    let mut failures = admin.control.failures(client.map(|client| client.ip)).await;
    failures.retain(|failure| client.is_none_or(|client| client.has(failure.client)));
    failures.truncate(limit.map_or(usize::MAX, |limit| limit.get() as usize));
    Ok(Json(failures))
}

fn refusal(client: &str) -> Refusal {
    let error = format!("client: `{client}` is not an address: IP or IP:PORT is needed");
    Refusal::new(StatusCode::BAD_REQUEST, error)
}
