//! Metrics and health, open to whoever reaches the listener: they tell no client's address and no user's name.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Admin;

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health", security(()), responses(
    (status = 200, description = "The exposition", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
))]
pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin.exporter.render(&admin.control.snapshot().await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "health", security(()), responses(
    (status = 200, description = "It does", body = String, content_type = "text/plain; charset=utf-8"),
))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether new clients should be sent here: every shard answers, and takes new clients.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", security(()), responses(
    (status = 200, description = "They should", body = String, content_type = "text/plain; charset=utf-8"),
    (status = 503, description = "They should not, and why", body = String, content_type = "text/plain; charset=utf-8"),
))]
pub(super) async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.control.readiness().await {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
