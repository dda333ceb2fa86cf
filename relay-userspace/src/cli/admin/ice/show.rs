//! `hairpin ice show`: a session, and all that belongs to it.

use super::super::human::{age, amount, bit_rate, clean, named, plural, since, size};
use super::super::table::{Column, section, table};
use super::list::share;
use crate::api::ice::{Fragments, LegStatus, Limits, Refused, RemoteStatus, Session, Side, Timeouts};

/// One leg, as lines of a session description.
pub(super) fn fragment(session: &Session, side: Side) -> String {
    let Fragments { session, media } = match side {
        Side::A => &session.a.sdp,
        Side::B => &session.b.sdp,
    };
    [session].into_iter().chain(media.values().map(|section| &section.lines)).map(String::as_str).collect()
}

/// The ports that belong into the first lines of its media sections, for whoever puts the lines there.
pub(super) fn ports(session: &Session, side: Side) -> String {
    let Fragments { media, .. } = match side {
        Side::A => &session.a.sdp,
        Side::B => &session.b.sdp,
    };
    media
        .iter()
        .map(|(stream, section)| format!("{}: port {}", clean(stream), section.port))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) fn describe(session: &Session, now: u64) -> String {
    let totals = &session.totals;
    let mut text = pairs([
        ("id", session.id.clone()),
        ("label", named(&session.label)),
        ("state", session.state.clone()),
        ("age", age(now.saturating_sub(session.created))),
        ("timeouts", timeouts(&session.timeouts)),
        ("limits", limits(&session.limits)),
        ("a to b", amount(totals.a_to_b)),
        ("b to a", amount(totals.b_to_a)),
        ("in the kernel", format!("{}, {}", amount(totals.kernel), share(totals))),
    ]);
    text.push_str(&section("STREAMS", &streams(session)));
    for (name, leg) in [("A", &session.a), ("B", &session.b)] {
        text.push_str(&section(&format!("LEG {name}"), &facts(leg)));
        text.push_str(&section(&format!("ADDRESSES OF {name}"), &addresses(leg)));
        text.push_str(&section(&format!("SELECTED BY {name}"), &selected(leg, now)));
    }
    text
}

fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    table([Column::Left(""), Column::Left("")], rows.into_iter().map(|(name, value)| [name.to_owned(), value]))
}

fn timeouts(timeouts: &Timeouts) -> String {
    let Timeouts { setup, consent, paused, idle } = *timeouts;
    let named = [("setup", setup), ("consent", consent), ("paused", paused), ("idle", idle)];
    let told = named.into_iter().filter_map(|(name, seconds)| {
        Some(match seconds? {
            0 => format!("{name} off"),
            seconds => format!("{name} {}", age(seconds.into())),
        })
    });
    told.collect::<Vec<_>>().join(", ")
}

fn limits(limits: &Limits) -> String {
    let of = |limit: Option<u64>| limit.filter(|limit| *limit > 0);
    let packets = of(limits.packets).map(|packets| format!("{packets} packets/s"));
    let told: Vec<_> = packets.into_iter().chain(of(limits.bytes).map(|bytes| bit_rate(bytes, 1))).collect();
    if told.is_empty() { "none of its own".to_owned() } else { told.join(" and ") + " to each leg and component" }
}

fn streams(session: &Session) -> String {
    let columns = [
        Column::Left("STREAM"),
        Column::Right("COMPONENT"),
        Column::Right("A TO B"),
        Column::Right("B TO A"),
        Column::Right("BY THE KERNEL"),
        Column::Left("IN KERNEL"),
    ];
    let components =
        session.streams.iter().flat_map(|stream| stream.components.iter().map(|component| (&stream.name, component)));
    let rows = components.map(|(name, component)| {
        [
            name.clone(),
            component.component.to_string(),
            size(component.counts.a_to_b.bytes),
            size(component.counts.b_to_a.bytes),
            share(&component.counts),
            if component.in_kernel { "yes" } else { "no" }.to_owned(),
        ]
    });
    table(columns, rows)
}

fn facts(leg: &LegStatus) -> String {
    let mut rows = vec![("kind", leg.kind.clone()), ("state", leg.state.clone())];
    rows.extend(leg.ufrag.clone().map(|ufrag| ("ufrag", ufrag)));
    rows.extend(leg.pwd.clone().map(|pwd| ("pwd", pwd)));
    if let Some(RemoteStatus { ufrag, lite, candidates, end_of_candidates }) = &leg.remote {
        let lite = if *lite { ", lite" } else { "" };
        let more = if *end_of_candidates { "no more will come" } else { "more may come" };
        let count = plural(candidates.len() as u64, "candidate");
        rows.push(("remote", format!("ufrag {ufrag}{lite}, {count}, {more}")));
        rows.extend(candidates.iter().map(|candidate| ("", candidate.clone())));
    }
    rows.extend(leg.refused.iter().map(|refused| ("refused", why(refused))));
    pairs(rows)
}

/// Why somebody did not become a remote, and what to do about it.
fn why(Refused { remote, reason, .. }: &Refused) -> String {
    match reason.as_str() {
        "forbidden" => {
            format!("{remote} has sent something, but peer rules forbid it: allow-peer, if it is the right one")
        }
        "unauthenticated" => format!("the last check of {remote}: it has another ufrag or password than the leg's"),
        reason => format!("the last check of {remote}: {}", clean(reason)),
    }
}

fn addresses(leg: &LegStatus) -> String {
    let rows = leg.candidates.iter().map(|local| {
        let candidate = local.candidate.clone().unwrap_or_default();
        [local.stream.clone(), local.component.to_string(), local.address.to_string(), candidate]
    });
    table(
        [Column::Left("STREAM"), Column::Right("COMPONENT"), Column::Left("ADDRESS"), Column::Left("CANDIDATE")],
        rows,
    )
}

fn selected(leg: &LegStatus, now: u64) -> String {
    let columns = [
        Column::Left("STREAM"),
        Column::Right("COMPONENT"),
        Column::Left("LOCAL"),
        Column::Left("REMOTE"),
        Column::Left("LAST CHECK"),
        Column::Left("CONSENT"),
    ];
    let rows = leg.selected.iter().map(|selected| {
        [
            selected.stream.clone(),
            selected.component.to_string(),
            selected.local.to_string(),
            selected.remote.to_string(),
            selected.last_check.map_or("-".to_owned(), |at| since(now, at)),
            match (selected.lost, selected.last_check) {
                (true, _) => "lost",
                (false, Some(_)) => "yes",
                (false, None) => "-",
            }
            .to_owned(),
        ]
    });
    table(columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::style::plain;

    #[test]
    fn one_is_shown_with_all_that_belongs_to_it() {
        let expected = "\
id             0-17
label          call
state          connected
age            3m12s
timeouts       setup 5m00s, consent 30s, paused 1m00s, idle off
limits         500 packets/s to each leg and component
a to b         9.0 MB (9.0k packets)
b to a         1.2 MB (3.0k packets)
in the kernel  8.0 MB (9.0k packets), 75%

STREAMS
  STREAM  COMPONENT  A TO B  B TO A  BY THE KERNEL  IN KERNEL
  audio           1  9.0 MB  1.2 MB            75%  yes

LEG A
  kind    ice
  state   nominated
  ufrag   abcdefgh
  pwd     abcdefghijklmnopqrstuvwx
  remote  ufrag wxyz, 1 candidate, more may come
          candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host

ADDRESSES OF A
  STREAM  COMPONENT  ADDRESS            CANDIDATE
  audio           1  203.0.113.7:50000  candidate:1 1 UDP 2130706431 203.0.113.7 50000 typ host

SELECTED BY A
  STREAM  COMPONENT  LOCAL              REMOTE             LAST CHECK  CONSENT
  audio           1  203.0.113.7:50000  198.51.100.7:4000  5s ago      yes

LEG B
  kind   plain
  state  nominated

ADDRESSES OF B
  STREAM  COMPONENT  ADDRESS            CANDIDATE
  audio           1  203.0.113.7:50002

SELECTED BY B
  STREAM  COMPONENT  LOCAL              REMOTE          LAST CHECK  CONSENT
  audio           1  203.0.113.7:50002  192.0.2.9:6000  -           -
";
        assert_eq!(plain(&describe(&Session::example(), 1_192)), expected);
    }

    #[test]
    fn limits_are_those_that_there_are() {
        let told = |packets, bytes| limits(&Limits { packets: Some(packets), bytes: Some(bytes) });
        assert_eq!(told(0, 0), "none of its own");
        assert_eq!(told(0, 250_000), "2.0 Mbit/s to each leg and component");
        assert_eq!(told(50, 125), "50 packets/s and 1.0 kbit/s to each leg and component");
    }

    #[test]
    fn who_was_refused_is_shown_with_what_to_do() {
        let mut session = Session::example();
        let refused = |component, reason: &str| Refused {
            stream: "audio".to_owned(),
            component,
            remote: std::net::SocketAddr::from(([10, 0, 0, 9], 4000)),
            reason: reason.to_owned(),
        };
        session.b.refused = vec![refused(1, "forbidden"), refused(2, "unauthenticated"), refused(2, "bad_request")];
        let text = describe(&session, 1_192);
        for line in [
            "  refused  10.0.0.9:4000 has sent something, but peer rules forbid it: allow-peer, if it is ",
            "  refused  the last check of 10.0.0.9:4000: it has another ufrag or password",
            "  refused  the last check of 10.0.0.9:4000: bad_request",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{text}");
        }
    }

    #[test]
    fn a_leg_alone_is_as_a_description_says_it() {
        let session = Session::example();
        assert_eq!(fragment(&session, Side::A), "a=ice-lite\r\na=ice-ufrag:abcdefgh\r\n");
        assert_eq!(fragment(&session, Side::B), "");
        assert_eq!(ports(&session, Side::A), "audio: port 50000");
    }
}
