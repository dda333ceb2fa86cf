//! Requests that are refused: a status code, and why, as JSON.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::api::Problem;
use crate::control::BadFilter;

/// A refused request.
#[derive(Debug)]
pub(super) struct Refusal(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    problem: Problem,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// With one reason, which says what to do.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self::of_several(status, error, Vec::new())
    }

    /// With several.
    pub(super) fn of_several(status: StatusCode, error: impl Into<String>, problems: Vec<String>) -> Self {
        Self(Box::new(Parts { status, problem: Problem { error: error.into(), problems, line: None }, header: None }))
    }

    /// And the line of a session description.
    pub(super) fn at_line(mut self, line: usize) -> Self {
        self.0.problem.line = Some(line as u64);
        self
    }

    /// And a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Parts { status, problem, header } = *self.0;
        let mut response = (status, Json(problem)).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<BadFilter> for Refusal {
    fn from(error: BadFilter) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// For paths that there are not.
pub(super) async fn not_found(uri: Uri) -> Refusal {
    let path = uri.path();
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("{path} is not a path of the admin interface: /v1/openapi.json lists them"),
    )
}

/// For methods that a path has not.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    let path = uri.path();
    let error = format!("{method} is not a method of {path}: the header Allow lists those that are");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
