//! What happens to allocations, as it happens.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::Admin;
use super::problem::Refusal;
use super::read::Selected;
use super::sse::respond;
use crate::api::{self, Event};
use crate::selection::Selection;

/// Allocations that begin and end, as it happens: a stream of server-sent events that does not end, with one JSON
/// document in the `data` of each. All that happens after the head of the answer was sent is in it, or counted as missed.
#[utoipa::path(get, path = "/v1/allocations/events", operation_id = "watch_allocations", tag = "allocations", params(api::Filter), responses(
    (status = 200, description = "The events", body = api::Event, content_type = "text/event-stream"),
    (status = 400, description = "The query cannot be understood", body = api::Problem),
    (status = 503, description = "64 watch already", body = api::Problem),
))]
pub(super) async fn watch(State(admin): State<Admin>, selected: Selected) -> Result<Response, Refusal> {
    let Selected { filter, limit, order, all } = selected;
    if limit.is_some() || order.is_some() || all {
        let error = "neither limit nor order nor all can be said of what will happen";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
    }
    let selection = Selection::new(&filter)?;
    Ok(respond(&admin.watchers, admin.control.events(), move |event| is_meant(&selection, event)))
}

fn is_meant(selection: &Selection, event: &Event) -> bool {
    match event {
        Event::Began { allocation } | Event::Ended { allocation, .. } => selection.has(allocation),
        Event::Missed { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_some_gets_no_others() {
        let ours = api::Allocation::example();
        let other = api::Allocation { user: "bob".to_owned(), username: "bob".to_owned(), ..ours.clone() };
        let filter = api::Filter { user: Some(ours.user.clone()), ..api::Filter::default() };
        let selection = Selection::new(&filter).unwrap();
        let ended = |allocation| Event::Ended { allocation, reason: "expired".to_owned() };
        assert!(is_meant(&selection, &ended(ours)));
        assert!(!is_meant(&selection, &ended(other.clone())));
        assert!(!is_meant(&selection, &Event::Began { allocation: other }));
        assert!(is_meant(&selection, &Event::Missed { count: 1 }), "one of them may have been meant");
    }
}
