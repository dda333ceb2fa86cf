//! `hairpin ice watch`: a line for each thing that happens to a session.

use std::net::SocketAddr;

use super::super::human::{age, clean, named, size};
use super::super::watch::missed;
use super::label;
use crate::api::ice::{EndEvent, Event};

pub(super) fn render(event: &Event, now: u64) -> String {
    match event {
        Event::Nominated(end) => of_end("nominated", end),
        Event::Moved(end) => of_end("moved", end),
        Event::ConsentLost(end) => of_end("consent_lost", end),
        Event::Resumed(end) => of_end("resumed", end),
        Event::Closed { session, reason } => {
            let totals = &session.totals;
            format!(
                "closed {} {}: {} after {}, {} from a to b, {} from b to a",
                clean(&session.id),
                clean(&named(&session.label)),
                clean(reason),
                age(now.saturating_sub(session.created)),
                size(totals.a_to_b.bytes),
                size(totals.b_to_a.bytes)
            )
        }
        Event::Missed { count } => missed(*count),
    }
}

fn of_end(what: &str, end: &EndEvent) -> String {
    let EndEvent { session, label: name, leg, stream, component, local, remote, at: _ } = end;
    let told = |address: &Option<SocketAddr>| address.map_or("-".to_owned(), |address| address.to_string());
    format!(
        "{what} {} {}: leg {}, {}/{component}, {} at {}",
        clean(session),
        clean(&named(name)),
        label(*leg),
        clean(stream),
        told(remote),
        told(local)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ice::{Session, Side};

    #[test]
    fn each_event_is_a_line() {
        let end = EndEvent {
            session: "0-17".to_owned(),
            label: "a\nb".to_owned(),
            leg: Side::B,
            stream: "audio".to_owned(),
            component: 2,
            local: Some("203.0.113.7:50001".parse().unwrap()),
            remote: Some("198.51.100.7:4001".parse().unwrap()),
            at: 1_100,
        };
        let at = "0-17 a\\u{a}b: leg b, audio/2, 198.51.100.7:4001 at 203.0.113.7:50001";
        for (event, what) in [
            (Event::Nominated(end.clone()), "nominated"),
            (Event::Moved(end.clone()), "moved"),
            (Event::ConsentLost(end.clone()), "consent_lost"),
            (Event::Resumed(end.clone()), "resumed"),
        ] {
            assert_eq!(render(&event, 1_192), format!("{what} {at}"));
        }
        let gone = EndEvent { remote: None, local: None, label: String::new(), ..end };
        assert_eq!(render(&Event::ConsentLost(gone), 0), "consent_lost 0-17 (none): leg b, audio/2, - at -");
        let closed = Event::Closed { session: Box::new(Session::example()), reason: "idle".to_owned() };
        assert_eq!(
            render(&closed, 1_192),
            "closed 0-17 call: idle after 3m12s, 9.0 MB from a to b, 1.2 MB from b to a"
        );
        assert!(render(&Event::Missed { count: 5 }, 0).starts_with("missed 5: "));
    }
}
