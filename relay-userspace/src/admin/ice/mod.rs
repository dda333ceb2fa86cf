//! Sessions of two legs, for whoever puts their addresses into session descriptions.

mod events;
mod kept;
mod legs;
mod negotiation;
mod once;
mod sessions;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use hairpin_proto::media::Side;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::kept::Kept;
use super::Admin;
use super::problem::Refusal;
use super::read::Asked;
use crate::api::ice::Filter;
use crate::control::{IceError, IceErrorKind};

/// The paths with their documentation.
pub(super) fn paths() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::show, sessions::update, sessions::close))
        .routes(routes!(legs::set_remote))
        .routes(routes!(legs::add_candidates))
        .routes(routes!(legs::restart))
        .routes(routes!(negotiation::offer))
        .routes(routes!(negotiation::reoffer))
        .routes(routes!(negotiation::answer))
        .routes(routes!(events::watch))
}

/// A session, and one of its legs.
struct NamedLeg {
    id: String,
    side: Side,
}

impl<S: Send + Sync> FromRequestParts<S> for NamedLeg {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((id, leg)) = path.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        let side = Side::BOTH.into_iter().find(|side| side.label() == leg);
        let side = side.ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, format!("`{leg}` is no leg: a session has legs `a` and `b`"))
        });
        Ok(Self { id, side: side? })
    }
}

/// Which sessions are meant.
struct Meant(Filter);

impl<S: Send + Sync> FromRequestParts<S> for Meant {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Asked(filter) = Asked::<Filter>::from_request_parts(parts, state).await?;
        for (key, value) in [("label", &filter.label), ("session", &filter.session)] {
            if value.as_ref().is_some_and(String::is_empty) {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`{key}` needs a value")));
            }
        }
        Ok(Self(filter))
    }
}

impl From<IceError> for Refusal {
    fn from(error: IceError) -> Self {
        let status = match error.kind() {
            IceErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            IceErrorKind::Missing => StatusCode::NOT_FOUND,
            IceErrorKind::Conflict => StatusCode::CONFLICT,
            IceErrorKind::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        };
        let refusal = Self::of_several(status, error.to_string(), error.problems().to_vec());
        match error.line() {
            Some(line) => refusal.at_line(line),
            None => refusal,
        }
    }
}
