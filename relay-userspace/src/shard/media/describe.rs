//! Sessions as an operator is told of them.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Instant;

use hairpin_proto::media;
use hairpin_proto::media::{
    Counts, EndInfo, Event, LegInfo, Limits, PathId, PathInfo, Refused, SelectedInfo, SessionId, SessionInfo, Side,
    StreamInfo, Timeouts,
};

use super::super::journal::name;
use super::super::questions::unix;
use super::super::state::State;
use crate::api::Amount;
use crate::api::ice;
use crate::clock::unix_seconds;

impl State {
    /// A session as it is now.
    pub(super) fn session(&self, id: SessionId) -> Option<ice::Session> {
        self.media.sessions.describe(id).map(|info| self.told(&info))
    }

    /// What is told of a session.
    pub(super) fn told(&self, info: &SessionInfo) -> ice::Session {
        let streams = info.streams.iter().map(|stream| ice::Stream {
            name: stream.name.clone(),
            components: stream.paths.iter().map(|path| self.component(path)).collect(),
        });
        let [a, b] = Side::BOTH.map(|side| leg(info, side));
        ice::Session {
            id: name(self.index, info.id.0),
            label: info.label.clone(),
            created: info.created,
            state: info.state.label().to_owned(),
            timeouts: timeouts(&info.terms.timeouts),
            limits: limits(&info.terms.limits),
            totals: totals(&info.totals),
            streams: streams.collect(),
            a,
            b,
        }
    }

    /// What is told of something that has happened to an end.
    pub(super) fn end_event(&self, id: SessionId, event: Event, path: PathId, side: Side) -> Option<ice::Event> {
        let info = self.media.sessions.describe(id)?;
        let of_path = |stream: &StreamInfo| {
            let found = stream.paths.iter().find(|one| one.path == path)?;
            Some((stream.name.clone(), found.component, found.ends[side as usize].selected))
        };
        let (stream, component, selected) = info.streams.iter().find_map(of_path)?;
        let end = ice::EndEvent {
            session: name(self.index, id.0),
            label: info.label,
            leg: match side {
                Side::A => ice::Side::A,
                Side::B => ice::Side::B,
            },
            stream,
            component,
            local: selected.map(|selected| selected.local),
            remote: selected.map(|selected| selected.remote),
            at: unix_seconds(),
        };
        Some(match event {
            Event::Nominated => ice::Event::Nominated(end),
            Event::Moved => ice::Event::Moved(end),
            Event::ConsentLost => ice::Event::ConsentLost(end),
            Event::Resumed => ice::Event::Resumed(end),
        })
    }

    fn component(&self, path: &PathInfo) -> ice::Component {
        ice::Component {
            component: path.component,
            in_kernel: self.datapath.is_active() && path.installed.is_some_and(|until| until > Instant::now()),
            counts: totals(&path.counts),
        }
    }
}

fn totals(counts: &Counts) -> ice::Totals {
    let amount = |amount: media::Amount| Amount { packets: amount.packets, bytes: amount.bytes };
    let ([a_to_b, b_to_a], [of_a, of_b]) = (counts.all.map(amount), counts.forwarded.map(amount));
    let mut kernel = of_a;
    kernel += of_b;
    ice::Totals { a_to_b, b_to_a, kernel }
}

fn leg(info: &SessionInfo, side: Side) -> ice::LegStatus {
    let leg = &info.legs[side as usize];
    let speaks_ice = leg.parameters.is_some();
    let paths = || {
        info.streams.iter().flat_map(|stream| {
            stream.paths.iter().map(move |path| (stream.name.as_str(), path.component, &path.ends[side as usize]))
        })
    };
    let candidates = paths().flat_map(|(stream, component, EndInfo { locals, candidates, .. })| {
        locals.iter().zip(candidates).map(move |(address, candidate)| ice::LocalCandidate {
            stream: stream.to_owned(),
            component,
            address: *address,
            candidate: speaks_ice.then(|| candidate.to_string()),
        })
    });
    let selected = paths().filter_map(|(stream, component, end)| {
        let SelectedInfo { local, remote, checked, is_lost } = end.selected?;
        let (stream, last_check) = (stream.to_owned(), checked.map(unix));
        Some(ice::Selected { stream, component, local, remote, last_check, lost: is_lost })
    });
    ice::LegStatus {
        kind: leg.kind.label().to_owned(),
        state: leg.state.label().to_owned(),
        ufrag: leg.parameters.as_ref().map(|own| own.ufrag.clone()),
        pwd: leg.parameters.as_ref().map(|own| own.pwd.clone()),
        candidates: candidates.collect(),
        sdp: fragments(info, side),
        selected: selected.collect(),
        remote: leg.remote.as_ref().map(|remote| ice::RemoteStatus {
            ufrag: remote.ufrag.clone(),
            lite: leg.remote_is_lite,
            candidates: leg.remote_candidates.iter().map(|(_, candidate)| candidate.to_string()).collect(),
            end_of_candidates: leg.end_of_candidates,
        }),
        refused: paths()
            .filter_map(|(stream, component, end)| {
                let Refused { remote, reason } = end.refused?;
                let (stream, reason) = (stream.to_owned(), reason.label().to_owned());
                Some(ice::Refused { stream, component, remote, reason })
            })
            .collect(),
    }
}

/// A leg as lines of a session description (RFC 8839).
fn fragments(info: &SessionInfo, side: Side) -> ice::Fragments {
    let leg = &info.legs[side as usize];
    let media = info.streams.iter().map(|stream| (stream.name.clone(), section(leg, stream, side)));
    // RFC 8839 section 5.3: being lite is said once.
    let session = leg.parameters.as_ref().map_or("", |_| "a=ice-lite\r\na=ice-options:ice2\r\n");
    ice::Fragments { session: session.to_owned(), media: media.collect() }
}

/// What the media section of a stream says of a leg.
fn section(leg: &LegInfo, stream: &StreamInfo, side: Side) -> ice::Fragment {
    let ends = || stream.paths.iter().map(|path| &path.ends[side as usize]);
    let address = |address: &SocketAddr| {
        let version = if address.is_ipv4() { 4 } else { 6 };
        format!("IN IP{version} {}", address.ip())
    };
    let defaults: Vec<_> = ends().filter_map(|end| end.default).collect();
    let mut lines = Vec::new();
    lines.extend(defaults.first().map(|rtp| format!("c={}", address(rtp))));
    lines.extend(defaults.get(1).map(|rtcp| format!("a=rtcp:{} {}", rtcp.port(), address(rtcp))));
    if let Some(own) = &leg.parameters {
        lines.extend([format!("a=ice-ufrag:{}", own.ufrag), format!("a=ice-pwd:{}", own.pwd)]);
        lines.extend(ends().flat_map(|end| &end.candidates).map(|candidate| format!("a={candidate}")));
        lines.push("a=end-of-candidates".to_owned());
    }
    let port = defaults.first().map_or(0, SocketAddr::port);
    ice::Fragment { port, lines: lines.into_iter().map(|line| line + "\r\n").collect() }
}

fn limits(limits: &Limits) -> ice::Limits {
    let said = |limit: Option<NonZeroU64>| Some(limit.map_or(0, NonZeroU64::get));
    ice::Limits { packets: said(limits.packets), bytes: said(limits.bytes) }
}

fn timeouts(timeouts: &Timeouts) -> ice::Timeouts {
    let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    ice::Timeouts {
        setup: Some(seconds(timeouts.setup)),
        consent: Some(seconds(timeouts.consent)),
        paused: Some(seconds(timeouts.paused)),
        idle: Some(timeouts.idle.map_or(0, seconds)),
    }
}
