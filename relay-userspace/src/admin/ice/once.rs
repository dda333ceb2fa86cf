//! Requests that are carried out once, however often they come (`Idempotency-Key`).

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use ring::digest::{Context, SHA256};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::super::problem::Refusal;
use super::super::read::{MAX_BODY, needed, whole};
use super::kept::{Answer, Awaited, Digest, Doing, Found, Kept};
use crate::control::IceError;

/// The header, in lower case.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is an earlier one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in characters.
const LONGEST: usize = 128;

/// What tells that a request is one that came before. It is read by [`Once`] and [`OnceByPath`].
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it documents a parameter")]
pub(super) struct Key {
    /// 1 to 128 visible characters of the client's choice. For ten minutes, or until a thousand others have come, the same
    /// request with the same key gets the same answer and is not carried out again; another request with it is refused.
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

/// A body of JSON, of no more bytes than this, that is asked for once if it has a key.
pub(super) struct Once<T, const MAX: usize = MAX_BODY> {
    key: Option<(String, Digest)>,
    body: T,
}

/// What is said by its path alone, and asked for once if it has a key. A body says nothing more.
pub(super) struct OnceByPath(Once<()>);

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Once<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let key = key_of(&parts.headers)?;
        let bytes = whole(body, MAX).await?;
        let body = needed(&parts.headers, &bytes)?;
        Ok(Self { key: key.map(|key| (key, digest(parts.uri.path(), &bytes))), body })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OnceByPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let key = key_of(&parts.headers)?;
        Ok(Self(Once { key: key.map(|key| (key, digest(parts.uri.path(), &[]))), body: () }))
    }
}

impl<T, const MAX: usize> Once<T, MAX> {
    /// Does it, or answers what was answered when it was done. What is begun comes to its end, whoever has gone: the same
    /// request comes again then.
    pub(super) async fn answer<A, F>(self, kept: &Arc<Kept>, work: impl FnOnce(T) -> F) -> Response
    where
        A: Serialize + Send + 'static,
        F: Future<Output = Result<A, IceError>> + Send + 'static,
    {
        let Self { key, body } = self;
        let Some((key, request)) = key else { return respond(work(body).await) };
        match kept.find(Instant::now(), &key, request) {
            Found::Same(answer) => {
                let mut response = await_answer(answer).await;
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                response
            }
            Found::Another => {
                let error =
                    format!("Idempotency-Key: `{key}` was given to another request: give each a key of its own");
                Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error).into_response()
            }
            Found::First(doing, answer) => {
                tokio::spawn(carry_out(doing, work(body)));
                await_answer(answer).await
            }
        }
    }
}

impl OnceByPath {
    /// As [`Once::answer`] does.
    pub(super) async fn answer<A, F>(self, kept: &Arc<Kept>, work: impl FnOnce() -> F) -> Response
    where
        A: Serialize + Send + 'static,
        F: Future<Output = Result<A, IceError>> + Send + 'static,
    {
        self.0.answer(kept, |()| work()).await
    }
}

async fn carry_out<A: Serialize>(doing: Doing, work: impl Future<Output = Result<A, IceError>>) {
    let response = respond(work.await);
    let status = response.status();
    // It was made of bytes that are there.
    if let Ok(body) = response.into_body().collect().await {
        doing.done(Answer { status, body: body.to_bytes() });
    }
}

fn respond<A: Serialize>(answer: Result<A, IceError>) -> Response {
    answer.map(Json).map_err(Refusal::from).into_response()
}

async fn await_answer(mut answer: Awaited) -> Response {
    let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
    match answer.ok().flatten() {
        Some(Answer { status, body }) => {
            (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
        }
        None => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request came to no end: look at the log of the relay")
                .into_response()
        }
    }
}

/// What was asked of which path.
fn digest(path: &str, body: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    // No path has the byte between them.
    for part in [path.as_bytes(), &[0], body] {
        context.update(part);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    read_key(headers).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error))
}

fn read_key(headers: &HeaderMap) -> Result<Option<String>, String> {
    let mut keys = headers.get_all(HEADER).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let is_visible = |key: &&str| (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    match key.to_str().ok().filter(is_visible) {
        Some(key) if keys.next().is_none() => Ok(Some(key.to_owned())),
        Some(_) => Err("Idempotency-Key: it is given twice, one is allowed".to_owned()),
        None => {
            Err(format!("Idempotency-Key: 1 to {LONGEST} visible characters of ASCII are allowed, and nothing else"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Counts how often something is done, which takes a moment.
    #[derive(Clone, Default)]
    struct Work(Arc<AtomicUsize>);

    impl Work {
        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }

        fn work(&self) -> impl FnOnce(u8) -> std::pin::Pin<Box<dyn Future<Output = Result<usize, IceError>> + Send>> {
            let Self(count) = self.clone();
            move |_| {
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(count.fetch_add(1, Ordering::SeqCst))
                })
            }
        }
    }

    fn once(key: Option<&str>, body: u8) -> Once<u8> {
        Once { key: key.map(|key| (key.to_owned(), [body; 32])), body }
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_same_at_the_same_time_is_done_once_and_the_second_waits() {
        let (kept, work) = (Arc::<Kept>::default(), Work::default());
        let ask = || once(Some("key"), 1).answer(&kept, work.work());
        let (first, second) = tokio::join!(ask(), ask());
        assert!(!first.headers().contains_key(REPLAYED));
        assert_eq!(second.headers()[REPLAYED], "true");
        assert_eq!(second.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!((text(first).await.as_str(), text(second).await.as_str()), ("0", "0"));
        assert_eq!(text(ask().await).await, "0", "and so does one that comes later");
        assert_eq!(work.count(), 1);
    }

    #[tokio::test]
    async fn without_a_key_everything_is_done() {
        let (kept, work) = (Arc::<Kept>::default(), Work::default());
        for expected in ["0", "1"] {
            assert_eq!(text(once(None, 1).answer(&kept, work.work()).await).await, expected);
        }
    }

    #[tokio::test]
    async fn another_request_with_a_key_that_was_used_is_refused() {
        let (kept, work) = (Arc::<Kept>::default(), Work::default());
        once(Some("key"), 1).answer(&kept, work.work()).await;
        let refused = once(Some("key"), 2).answer(&kept, work.work()).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let text = text(refused).await;
        assert!(text.contains("`key`"), "{text}");
        assert_eq!(work.count(), 1);
    }

    #[tokio::test]
    async fn what_is_begun_comes_to_its_end_when_nobody_waits() {
        let (kept, work) = (Arc::<Kept>::default(), Work::default());
        let gone = tokio::time::timeout(Duration::from_millis(1), once(Some("key"), 1).answer(&kept, work.work()));
        assert!(gone.await.is_err(), "whoever has asked has gone");
        assert_eq!(text(once(Some("key"), 1).answer(&kept, work.work()).await).await, "0");
        assert_eq!(work.count(), 1);
    }

    #[tokio::test]
    async fn what_had_no_room_may_come_again() {
        let (kept, work) = (Arc::<Kept>::default(), Work::default());
        let full = once(Some("key"), 1).answer(&kept, |_| async { Err::<(), _>(IceError::Draining) }).await;
        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(once(Some("key"), 1).answer(&kept, work.work()).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn what_came_to_no_end_is_an_error_and_may_come_again() {
        async fn broken() -> Result<(), IceError> {
            std::future::ready(()).await;
            panic!("this is what the test is about")
        }
        let (kept, work) = (Arc::<Kept>::default(), Work::default());
        let unknown = once(Some("key"), 1).answer(&kept, |_| broken()).await;
        assert_eq!(unknown.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text(unknown).await.contains("log"), "it says where to look");
        assert_eq!(once(Some("key"), 1).answer(&kept, work.work()).await.status(), StatusCode::OK);
    }

    #[test]
    fn the_same_body_for_another_path_is_another_request() {
        let [one, body] = [b"{}".as_slice(), b"{ }"];
        assert_eq!(digest("/v1/ice/offer", one), digest("/v1/ice/offer", one));
        assert_ne!(digest("/v1/ice/offer", one), digest("/v1/ice/sessions", one));
        assert_ne!(digest("/v1/ice/offer", one), digest("/v1/ice/offer", body));
    }

    #[test]
    fn a_key_is_of_visible_characters() {
        let read = |keys: &[&[u8]]| {
            let keys = keys.iter().map(|key| (HEADER, HeaderValue::from_bytes(key).unwrap()));
            read_key(&keys.collect())
        };
        assert_eq!(read(&[]), Ok(None));
        for good in ["8e03978e-40d5-43e8-bc93-6894a57f9324", "\"quoted\"", "k", &"k".repeat(128)] {
            assert_eq!(read(&[good.as_bytes()]), Ok(Some(good.to_owned())));
        }
        for bad in [&b""[..], b"a b", b"a\tb", "ü".as_bytes(), "k".repeat(129).as_bytes()] {
            let error = read(&[bad]).unwrap_err();
            assert!(error.contains("128"), "{bad:?}: {error}");
        }
        assert!(read(&[b"a", b"a"]).unwrap_err().contains("twice"));
    }
}
