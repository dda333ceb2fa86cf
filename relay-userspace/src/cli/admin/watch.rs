//! `hairpin allocations watch`, and whatever else is watched: a line for each thing that happens.

use std::time::{Duration, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use super::allocations::{relayed, user};
use super::client::{Client, Line};
use super::failed::Failed;
use super::human::{age, clean, size};
use super::output::{is_unread, print, print_json};
use crate::api::Event;
use crate::clock::unix_seconds;

/// Prints what comes by a stream of events, until Ctrl-C or until nobody reads it: as it comes, or rendered for people.
pub(super) async fn watch<E: DeserializeOwned>(
    client: &Client,
    path: &str,
    json: bool,
    render: impl Fn(&E, u64) -> String,
) -> Result<(), Failed> {
    let mut events = client.events(path).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failed::Here(error.to_string()))?;
    loop {
        let line = tokio::select! {
            line = events.next() => line,
            _ = interrupt.recv() => return Ok(()),
        };
        match line {
            Some(Line::Data(data)) if json => print_json(&data)?,
            Some(Line::Data(data)) => print(&told(&data, unix_seconds(), &render)?)?,
            Some(Line::Quiet) if is_unread() => return Ok(()),
            Some(Line::Quiet) => {}
            None => {
                return Err(Failed::Here(
                    "the relay says nothing any more: it has ended, or was not read fast enough".to_owned(),
                ));
            }
        }
    }
}

fn told<E: DeserializeOwned>(data: &str, now: u64, render: impl Fn(&E, u64) -> String) -> Result<String, Failed> {
    let event = serde_json::from_str(data);
    let event =
        event.map_err(|error| Failed::Here(format!("the relay's event: {error}; is it of another version?")))?;
    Ok(format!("{} {}", humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(now)), render(&event, now)))
}

/// So many events were too much.
pub(super) fn missed(count: u64) -> String {
    format!("missed {count}: more has happened than this connection could carry")
}

/// Something that has happened to an allocation.
pub(super) fn render(event: &Event, now: u64) -> String {
    match event {
        Event::Began { allocation } => format!(
            "began {} {} {} over {}, relayed {}",
            clean(&allocation.id),
            user(allocation),
            allocation.client,
            allocation.transport,
            relayed(allocation)
        ),
        Event::Ended { allocation, reason } => format!(
            "ended {} {} {}: {} after {}, {} to peers, {} to the client",
            clean(&allocation.id),
            user(allocation),
            allocation.client,
            clean(reason),
            age(now.saturating_sub(allocation.began)),
            size(allocation.relayed_data.to_peer.bytes),
            size(allocation.relayed_data.to_client.bytes)
        ),
        Event::Missed { count } => missed(*count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Allocation;

    #[test]
    fn each_event_is_a_line() {
        let allocation = Allocation { user: "al\nice".to_owned(), ..Allocation::example() };
        let began = serde_json::to_string(&Event::Began { allocation: allocation.clone() }).unwrap();
        let expected = "1970-01-01T00:19:52Z began 1 al\\u{a}ice 192.0.2.1:5000 over udp, relayed 203.0.113.7:50000";
        assert_eq!(told(&began, 1_192, render).unwrap(), expected);
        let ended = Event::Ended { allocation, reason: "expired".to_owned() };
        let expected = "ended 1 al\\u{a}ice 192.0.2.1:5000: expired after 3m12s, 9.0 MB to peers, 1.2 MB to the client";
        assert_eq!(render(&ended, 1_192), expected);
        assert_eq!(
            told(r#"{"event":"missed","count":5}"#, 0, render).unwrap(),
            "1970-01-01T00:00:00Z missed 5: more has happened than this connection could carry"
        );
    }
}
