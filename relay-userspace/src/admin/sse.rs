//! What happens, as it happens: server-sent events, with one JSON document in the `data` of each.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Refusal;
use crate::api;

/// A sign of life in silence, so that whoever is between does not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many may watch at once. It is fewer than a listener has connections: whoever wants to ask something finds one.
pub(super) const WATCHERS: usize = 64;

/// Events that may come faster than a connection carries them.
pub(super) trait Told: Clone + Serialize + Send + 'static {
    /// Says that so many were too much.
    fn missed(count: u64) -> Self;
}

impl Told for api::Event {
    fn missed(count: u64) -> Self {
        Self::Missed { count }
    }
}

impl Told for api::ice::Event {
    fn missed(count: u64) -> Self {
        Self::Missed { count }
    }
}

/// Answers with the events that are meant, until there are no more, if there is a place for one more who watches.
pub(super) fn respond<E: Told>(
    watchers: &Arc<Semaphore>,
    receiver: Receiver<E>,
    is_meant: impl Fn(&E) -> bool + Send + 'static,
) -> Response {
    let Ok(place) = Arc::clone(watchers).try_acquire_owned() else {
        let error = format!("{WATCHERS} watch already, and more are not allowed: let one go first");
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    };
    let events = Sse::new(stream(receiver, is_meant, place)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = events.into_response();
    // Proxies of nginx's kind would keep events until a buffer is full.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn stream<E: Told>(
    receiver: Receiver<E>,
    is_meant: impl Fn(&E) -> bool + Send + 'static,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
    unfold((receiver, is_meant, place), async |(mut receiver, is_meant, place)| {
        let event = loop {
            match receiver.recv().await {
                Ok(event) if is_meant(&event) => break event,
                Ok(_) => {}
                // Nobody knows whether one of them was meant.
                Err(RecvError::Lagged(count)) => break E::missed(count),
                Err(RecvError::Closed) => return None,
            }
        };
        // The types are ours, and have no map whose keys JSON could not name.
        let event = sse::Event::default().json_data(event).unwrap_or_default();
        Some((Ok(event), (receiver, is_meant, place)))
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::broadcast;

    use super::*;
    use crate::api::Event;

    fn watchers() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(1))
    }

    async fn text_of(response: Response) -> Vec<String> {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap().split_terminator("\n\n").map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_was_too_much_is_counted_and_what_comes_after_is_told() {
        let allocation = api::Allocation::example();
        let sender = broadcast::Sender::new(2);
        let response = respond(&watchers(), sender.subscribe(), |_| true);
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        for _ in 0..7 {
            sender.send(Event::Began { allocation: allocation.clone() }).unwrap();
        }
        drop(sender);
        let text = text_of(response).await;
        assert_eq!(text.len(), 3, "{text:?}");
        assert_eq!(text[0], r#"data: {"event":"missed","count":5}"#);
        for line in &text[1..] {
            let data: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["event"], "began");
            assert_eq!(data["allocation"]["id"], allocation.id);
        }
    }

    #[tokio::test]
    async fn what_is_not_meant_is_not_told() {
        let sender = broadcast::Sender::new(8);
        let response =
            respond(&watchers(), sender.subscribe(), |event| matches!(event, api::ice::Event::Missed { count: 2 }));
        for count in 1..4 {
            sender.send(api::ice::Event::Missed { count }).unwrap();
        }
        drop(sender);
        assert_eq!(text_of(response).await, [r#"data: {"event":"missed","count":2}"#]);
    }

    #[tokio::test]
    async fn who_watches_has_a_place_until_it_goes() {
        let sender = broadcast::Sender::<Event>::new(2);
        let places = watchers();
        let first = respond(&places, sender.subscribe(), |_| true);
        assert_eq!(first.status(), StatusCode::OK);
        let second = respond(&places, sender.subscribe(), |_| true);
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(respond(&places, sender.subscribe(), |_| true).status(), StatusCode::OK);
    }
}
