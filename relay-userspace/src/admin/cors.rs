//! Pages of other origins that ask for credentials (CORS). All other paths are for no page at all.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Admin;
use super::access::CREDENTIALS;
use super::problem::Refusal;

/// How long a browser need not ask again whether it may ask, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Answers what browsers ask beforehand, and says in answers who may read them.
pub(super) async fn share(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if request.uri().path() != CREDENTIALS {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN);
    let allowed = origin.and_then(|origin| admin.gate.allowed_origin(origin));
    let is_preflight = request.method() == Method::OPTIONS
        && origin.is_some()
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (is_preflight, &allowed) {
        (true, Some(_)) => preflight(),
        (true, None) => refuse(origin),
        (false, _) => next.run(request).await,
    };
    let headers = response.headers_mut();
    // A cache must not give to one page what is for another.
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    response
}

fn preflight() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Authorization, Content-Type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn refuse(origin: Option<&HeaderValue>) -> Response {
    let origin = origin.and_then(|origin| origin.to_str().ok()).unwrap_or("this origin");
    let error = format!("pages of {origin} may not ask for credentials: --credentials-origin allows it");
    Refusal::new(StatusCode::FORBIDDEN, error).into_response()
}
