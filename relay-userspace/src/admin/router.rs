//! The paths, and what stands before them: first CORS, whose questions carry no token, then the gate.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    Admin, allocations, cors, credentials, drain, events, failures, health, ice, log_level, openapi, page, page_tokens,
    problem, reload, status, users,
};

/// Everything that is served to one listener.
pub(super) fn router(admin: Admin) -> Router {
    let gate: middleware::FromFnLayer<_, _, (State<Admin>, Request)> = from_fn_with_state(admin.clone(), admit);
    Router::from(paths())
        .merge(page::paths())
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(gate)
        .layer(middleware::map_response(keep_from_other_pages))
        .layer(from_fn_with_state(admin.clone(), cors::share))
        .with_state(admin)
}

/// The paths with their documentation.
pub(super) fn paths() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(allocations::list, allocations::close_some))
        .routes(routes!(events::watch))
        .routes(routes!(allocations::show, allocations::close))
        .routes(routes!(users::list))
        .routes(routes!(users::close))
        .routes(routes!(failures::list))
        .routes(routes!(reload::reload))
        .routes(routes!(drain::show, drain::begin, drain::cancel))
        .routes(routes!(log_level::show, log_level::set))
        .routes(routes!(credentials::by_query, credentials::by_body))
        .routes(routes!(page_tokens::issue))
        .merge(ice::paths())
        .routes(routes!(openapi::serve))
        .routes(routes!(health::metrics))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// No web page of another origin gets an answer as a script or an image, whatever is in it.
async fn keep_from_other_pages(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

async fn admit(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match admin.gate.admit(admin.via, request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
