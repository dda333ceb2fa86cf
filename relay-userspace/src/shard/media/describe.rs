//! Sessions as an operator is told of them.

use std::time::Instant;

use hairpin_proto::media::{
    EndInfo, Event, LegInfo, PathId, PathInfo, SelectedInfo, SessionId, SessionInfo, Side, Timeouts,
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
            timeouts: timeouts(&info.timeouts),
            streams: streams.collect(),
            a,
            b,
        }
    }

    /// What is told of something that has happened to an end.
    pub(super) fn end_event(&self, id: SessionId, event: Event, path: PathId, side: Side) -> Option<ice::Event> {
        let info = self.media.sessions.describe(id)?;
        let of_path = |stream: &hairpin_proto::media::StreamInfo| {
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
        let kernel = self.datapath.allocation_count(self.path_index(path.path));
        let of_client = Amount { packets: kernel.to_peer.packets, bytes: kernel.to_peer.bytes };
        let of_peer = Amount { packets: kernel.to_client.packets, bytes: kernel.to_client.bytes };
        let (from_a, from_b) = match path.client_side {
            Side::A => (of_client, of_peer),
            Side::B => (of_peer, of_client),
        };
        let [a, b] = path.relayed.map(|(packets, bytes)| Amount { packets, bytes });
        let sum = |mut one: Amount, other: Amount| {
            one += other;
            one
        };
        ice::Component {
            component: path.component,
            in_kernel: self.datapath.is_active() && path.installed.is_some_and(|until| until > Instant::now()),
            a_to_b: sum(from_a, a),
            b_to_a: sum(from_b, b),
            kernel: sum(from_a, from_b),
        }
    }
}

fn leg(info: &SessionInfo, side: Side) -> ice::LegStatus {
    let leg = &info.legs[side as usize];
    let paths =
        || info.streams.iter().flat_map(|stream| stream.paths.iter().map(move |path| (stream.name.as_str(), path)));
    let end = |path: &PathInfo| path.ends[side as usize].clone();
    let candidates = paths().flat_map(|(stream, path)| {
        let EndInfo { locals, candidates, .. } = end(path);
        locals.into_iter().zip(candidates).map(|(address, candidate)| ice::LocalCandidate {
            stream: stream.to_owned(),
            component: path.component,
            address,
            candidate: candidate.to_string(),
        })
    });
    let candidates: Vec<_> = candidates.collect();
    let selected = paths().filter_map(|(stream, path)| {
        let SelectedInfo { local, remote, checked, is_lost } = end(path).selected?;
        let (stream, component, last_check) = (stream.to_owned(), path.component, checked.map(unix));
        Some(ice::Selected { stream, component, local, remote, last_check, lost: is_lost })
    });
    ice::LegStatus {
        kind: leg.kind.label().to_owned(),
        state: leg.state.label().to_owned(),
        ufrag: leg.parameters.as_ref().map(|own| own.ufrag.clone()),
        pwd: leg.parameters.as_ref().map(|own| own.pwd.clone()),
        sdp: fragment(leg, &candidates),
        selected: selected.collect(),
        remote: leg.remote.as_ref().map(|remote| ice::RemoteStatus {
            ufrag: remote.ufrag.clone(),
            lite: leg.remote_is_lite,
            candidates: leg.remote_candidates.iter().map(|(_, candidate)| candidate.to_string()).collect(),
            end_of_candidates: leg.end_of_candidates,
        }),
        candidates,
    }
}

/// A leg as lines of a session description (RFC 8839). Without ICE there is nothing to say but addresses.
fn fragment(leg: &LegInfo, candidates: &[ice::LocalCandidate]) -> String {
    let Some(own) = &leg.parameters else { return String::new() };
    let mut lines = vec![
        "a=ice-lite".to_owned(),
        "a=ice-options:ice2".to_owned(),
        format!("a=ice-ufrag:{}", own.ufrag),
        format!("a=ice-pwd:{}", own.pwd),
    ];
    lines.extend(candidates.iter().map(|candidate| format!("a={}", candidate.candidate)));
    lines.push("a=end-of-candidates".to_owned());
    lines.into_iter().map(|line| line + "\r\n").collect()
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
