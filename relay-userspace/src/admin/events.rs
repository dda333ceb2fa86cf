//! What happens to allocations, as it happens: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Admin;
use super::problem::Refusal;
use super::read::Selected;
use crate::api::{self, Event};
use crate::selection::Selection;

/// A sign of life in silence, so that whoever is between does not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Allocations that begin and end, as it happens: a stream of server-sent events that does not end, with one JSON
/// document in the `data` of each. All that happens after the head of the answer was sent is in it, or counted as missed.
#[utoipa::path(get, path = "/v1/allocations/events", operation_id = "watch_allocations", tag = "allocations", params(api::Filter), responses(
    (status = 200, description = "The events", body = api::Event, content_type = "text/event-stream"),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
))]
pub(super) async fn watch(State(admin): State<Admin>, selected: Selected) -> Result<impl IntoResponse, Refusal> {
    let Selected { filter, limit, all } = selected;
    if limit.is_some() || all {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "neither limit nor all can be said of what will happen"));
    }
    let events = stream(admin.control.events(), Selection::new(&filter)?);
    // Proxies of nginx's kind would keep events until a buffer is full.
    let headers = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))))
}

fn stream(receiver: Receiver<Event>, selection: Selection) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    unfold((receiver, selection), async |(mut receiver, selection)| {
        let event = loop {
            match receiver.recv().await {
                Ok(event) if is_meant(&selection, &event) => break event,
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => break Event::Missed { count },
                Err(RecvError::Closed) => return None,
            }
        };
        // The types are ours, and have no map whose keys JSON could not name.
        let event = sse::Event::default().json_data(event).unwrap_or_default();
        Some((Ok(event), (receiver, selection)))
    })
}

fn is_meant(selection: &Selection, event: &Event) -> bool {
    match event {
        Event::Began { allocation } | Event::Ended { allocation, .. } => selection.has(allocation),
        Event::Missed { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::BodyExt as _;
    use tokio::sync::broadcast;

    use super::*;

    async fn text_of(events: impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static) -> Vec<String> {
        let body = Sse::new(events).into_response().into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap().split_terminator("\n\n").map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_was_too_much_is_counted_and_what_comes_after_is_told() {
        let allocation = api::Allocation::example();
        let sender = broadcast::Sender::new(2);
        let events = stream(sender.subscribe(), Selection::default());
        for _ in 0..7 {
            sender.send(Event::Began { allocation: allocation.clone() }).unwrap();
        }
        drop(sender);
        let text = text_of(events).await;
        assert_eq!(text.len(), 3, "{text:?}");
        assert_eq!(text[0], r#"data: {"event":"missed","count":5}"#);
        for line in &text[1..] {
            let data: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["event"], "began");
            assert_eq!(data["allocation"]["id"], allocation.id);
        }
    }

    #[tokio::test]
    async fn who_asks_for_some_gets_no_others() {
        let ours = api::Allocation::example();
        let other = api::Allocation { user: "bob".to_owned(), username: "bob".to_owned(), ..ours.clone() };
        let sender = broadcast::Sender::new(8);
        let filter = api::Filter { user: Some(ours.user.clone()), ..api::Filter::default() };
        let events = stream(sender.subscribe(), Selection::new(&filter).unwrap());
        for allocation in [&other, &ours, &other] {
            let reason = "expired".to_owned();
            sender.send(Event::Ended { allocation: allocation.clone(), reason }).unwrap();
        }
        drop(sender);
        assert_eq!(events.count().await, 1);
    }
}
