//! What requests carry, read with limits; what cannot be read is refused as a problem, as JSON.

use std::time::Duration;

use axum::body::{self, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Refusal;
use crate::api::Filter;

/// The longest body. The longest sensible one names a user, in 763 bytes.
pub(super) const MAX_BODY: usize = 16 << 10;
/// The longest body with a session description, whose lines end in four characters of JSON where there were two.
pub(super) const MAX_DESCRIPTION: usize = 128 << 10;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body of JSON, of no more bytes than this.
pub(super) struct Body<T, const MAX: usize = MAX_BODY>(pub(super) T);

/// A body of JSON; an empty one is an empty object.
pub(super) struct BodyOrDefault<T>(pub(super) T);

/// A query.
pub(super) struct Asked<T>(pub(super) T);

/// A part of the path.
pub(super) struct Named(pub(super) String);

/// Which allocations a query means, and what else it says: `limit`, `order`, `all`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) filter: Filter,
    pub(super) limit: Option<usize>,
    pub(super) order: Option<Order>,
    pub(super) all: bool,
}

/// Which allocations come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The oldest.
    Began,
    /// Those that have relayed the most.
    Data,
}

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Body<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = whole(body, MAX).await?;
        needed(&parts.headers, &bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for BodyOrDefault<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = whole(body, MAX_BODY).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { json(&parts.headers, &bytes).map(Self) }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let query = Query::try_from_uri(&parts.uri);
        let query =
            query.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the query: {}", reason(&error))))?;
        Ok(Self(query.0))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Selected {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Asked(pairs) = Asked::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        Self::read(pairs).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error))
    }
}

impl Selected {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let mut selected = Self::default();
        let filter = &mut selected.filter;
        for (key, value) in pairs {
            if value.is_empty() {
                // What was meant is not known; of `user=`, it could be anybody.
                return Err(format!("`{key}` needs a value"));
            }
            let place = match key.as_str() {
                "id" => &mut filter.id,
                "user" => &mut filter.user,
                "client" => &mut filter.client,
                "relayed" => &mut filter.relayed,
                "realm" => &mut filter.realm,
                "limit" => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    selected.limit = Some(number.ok_or_else(|| format!("limit: `{value}` is not a number from 1 on"))?);
                    continue;
                }
                "order" => {
                    selected.order = Some(match value.as_str() {
                        "began" => Order::Began,
                        "data" => Order::Data,
                        _ => return Err(format!("order: `{value}` is neither began nor data")),
                    });
                    continue;
                }
                "all" => {
                    selected.all = value.parse().map_err(|_| format!("all: `{value}` is neither true nor false"))?;
                    continue;
                }
                _ => return Err(format!("`{key}` is none of id, user, client, relayed, realm, limit, order and all")),
            };
            if place.replace(value).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        Ok(selected)
    }
}

/// A body of at most so many bytes.
pub(super) async fn whole(body: body::Body, max: usize) -> Result<Bytes, Refusal> {
    match timeout(PATIENCE, body::to_bytes(body, max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => {
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {max} bytes")))
        }
        Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the body has no end")),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body has not come within {} seconds", PATIENCE.as_secs()),
        )),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// What a body says that cannot be left out.
pub(super) fn needed<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "a body of JSON is needed"));
    }
    json(headers, bytes)
}

fn json<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "`Content-Type: application/json` is needed"));
    }
    // To the library, a list of values would be an object without names.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "the body: an object is needed, not a list"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Refusal::new(status, format!("the body: {error}"))
    })
}

/// What is behind an error of the library, whose own words tell the reader nothing.
fn reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Selected, String> {
        let uri = format!("/v1/allocations?{query}").parse().unwrap();
        Selected::read(Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn a_query_names_allocations_by_what_the_filter_has() {
        let everything =
            read("id=1&user=1700000000%3Aal%26ice&client=%5B%3A%3A1%5D%3A9&relayed=192.0.2.1&realm=a+b&limit=5");
        let filter = Filter {
            id: Some("1".to_owned()),
            user: Some("1700000000:al&ice".to_owned()),
            client: Some("[::1]:9".to_owned()),
            relayed: Some("192.0.2.1".to_owned()),
            realm: Some("a b".to_owned()),
        };
        // The keys are those of the type: one that is added there has to be read here.
        let keys = serde_json::to_value(&filter).unwrap();
        assert!(keys.as_object().unwrap().keys().all(|key| read(&format!("{key}=x")).is_ok()), "{keys}");
        assert_eq!(everything, Ok(Selected { filter, limit: Some(5), order: None, all: false }));
        assert_eq!(read(""), Ok(Selected::default()));
        assert_eq!(read("order=data").map(|selected| selected.order), Ok(Some(Order::Data)));
        assert_eq!(read("all=true").map(|selected| selected.all), Ok(true));
    }

    #[test]
    fn what_a_query_should_not_say_is_named() {
        for (query, named) in [
            ("usr=alice", "`usr`"),
            ("user=a&user=b", "`user`"),
            ("limit=-1", "`-1`"),
            ("limit=", "`limit`"),
            ("limit=0", "`0`"),
            ("user=", "`user`"),
            ("client=", "`client`"),
            ("order=size", "`size`"),
            ("all=yes", "`yes`"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(named), "{query}: {error}");
        }
    }
}
