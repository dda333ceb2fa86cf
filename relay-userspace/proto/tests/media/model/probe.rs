//! What is tried after each step.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_proto::media::{Discard, Side};

use super::World;
use super::mirror::{Accepts, End, Mirror};
use super::remotes::{may_latch, opposite};
use super::sources::{SOURCE_COUNT, source};
use crate::agent::code;
use crate::harness::{At, Bed, Got, MEDIA, bound};

impl World {
    pub(super) fn probe(&mut self) {
        self.probe_sources();
        self.note_who_was_heard();
        self.probe_flows();
        let bed = &self.bed;
        assert_eq!(bed.sessions.poll_timeout().is_some(), !self.sessions.is_empty());
        assert_eq!(bed.sessions.len(), self.sessions.len());
        assert_eq!(bed.sessions.by_state().iter().sum::<usize>(), self.sessions.len());
        let mut open: Vec<_> = bed.ports.open.values().copied().collect();
        let mut told = Vec::new();
        for mirror in &self.sessions {
            let info = bed.describe(mirror.id);
            let paths: Vec<_> = info.streams.iter().flat_map(|stream| &stream.paths).collect();
            assert!(paths.iter().map(|path| path.path).eq(mirror.paths.iter().map(|path| path.id)));
            told.extend(paths.iter().flat_map(|path| &path.ends).flat_map(|end| &end.locals).map(|at| bound(*at)));
            for path in paths {
                let flow = bed.flows.iter().find(|(flow, _)| flow.path == path.path);
                assert_eq!(path.installed, flow.map(|(_, expires)| *expires));
                assert!(flow.is_none_or(|(flow, _)| flow.client_side == path.client_side));
            }
        }
        open.sort_unstable();
        told.sort_unstable();
        assert_eq!(open, told, "each socket is somebody's");
    }

    /// Of who has sent something, the engine takes it from who is selected.
    fn note_who_was_heard(&mut self) {
        let Self { bed, sessions, .. } = self;
        for mirror in sessions {
            let info = bed.describe(mirror.id);
            for (at, path) in info.streams.iter().flat_map(|stream| &stream.paths).enumerate() {
                for side in Side::BOTH {
                    let end = &path.ends[side as usize];
                    let selected = end.selected.and_then(|selected| {
                        let base = end.locals.iter().position(|local| *local == selected.local)?;
                        Some((base, selected.remote))
                    });
                    if let Some((base, remote)) = selected {
                        mirror.hear((side, at, base), remote);
                    }
                }
            }
        }
    }

    /// Media from everywhere to everywhere, except where it would take a place.
    fn probe_sources(&mut self) {
        let now = self.bed.now.instant;
        let is_late = self.bed.sessions.poll_timeout().is_some_and(|at| at <= now);
        for mirror in &self.sessions {
            for (path, known) in mirror.paths.iter().enumerate() {
                for (side, base) in
                    Side::BOTH.into_iter().flat_map(|side| (0..known.families.len()).map(move |base| (side, base)))
                {
                    let port = self.bed.port(At { id: mirror.id, side, path, base });
                    let end = (side, path, base);
                    for from in 0..SOURCE_COUNT {
                        let takes = mirror.accepts(end, source(from), now) == Accepts::First;
                        if takes && may_latch(mirror, self.change, end, from) {
                            continue;
                        }
                        let got = self.bed.arrives_at(port, now, source(from), MEDIA);
                        media_is_right(mirror, &self.bed, end, source(from), (now, is_late), &got);
                    }
                }
            }
        }
    }

    /// What a fast path does alone, userspace would do, now and until the flow ends.
    fn probe_flows(&mut self) {
        let now = self.bed.now.instant;
        for (flow, expires) in self.bed.flows.clone() {
            let port =
                |bed: &Bed, address: SocketAddr| *bed.ports.open.iter().find(|(_, open)| **open == address).unwrap().0;
            // What was installed may have ended meanwhile, and nobody has said so yet.
            let last = expires.checked_sub(Duration::from_nanos(1)).filter(|last| now <= *last);
            for at in last.into_iter().flat_map(|last| [now, last]) {
                let [server, relayed] = [flow.server, flow.relayed].map(|address| port(&self.bed, address));
                let bytes = MEDIA.to_vec();
                let there = self.bed.arrives_at(server, at, flow.client, MEDIA);
                assert_eq!(there, Got::Sent { from: flow.relayed, to: flow.peer, bytes: bytes.clone() }, "{flow:?}");
                let back = self.bed.arrives_at(relayed, at, flow.peer, MEDIA);
                assert_eq!(back, Got::Sent { from: flow.server, to: flow.client, bytes }, "{flow:?}");
            }
        }
    }
}

/// Whatever begins as STUN is dropped or refused, and never sent on.
pub(super) fn stun_is_refused(got: &Got) {
    match got {
        Got::Sent { .. } => panic!("{got:?} is STUN"),
        Got::Answer(_) => assert_ne!(code(got), 0, "{got:?}"),
        Got::Dropped(reason) => assert_eq!(*reason, Discard::Stun),
    }
}

pub(super) fn media_is_right(
    mirror: &Mirror,
    bed: &Bed,
    (side, path, base): (Side, usize, usize),
    source: SocketAddr,
    (now, is_late): (Instant, bool),
    got: &Got,
) {
    match mirror.accepts((side, path, base), source, now) {
        Accepts::Yes => assert_ne!(*got, Got::Dropped(Discard::UnknownRemote), "from {source}"),
        Accepts::No => assert_eq!(*got, Got::Dropped(Discard::UnknownRemote), "from {source}"),
        // Whoever might take a place was not let in here.
        Accepts::First => assert_eq!(*got, Got::Dropped(Discard::Forbidden), "from {source}"),
        Accepts::Perhaps => {}
    }
    let at = At { id: mirror.id, side, path, base };
    let (targets, is_certain) = mirror.targets(side.other(), path, now);
    match got {
        Got::Sent { from, to, .. } => {
            let target = targets
                .iter()
                .find(|(base, remote)| remote == to && bound(bed.local(At { base: *base, ..opposite(at) })) == *from);
            assert!(target.is_some(), "{got:?} is none of {targets:?}");
        }
        Got::Dropped(Discard::NoRemote) => {
            let is_plain = matches!(mirror.paths[path].ends[side.other() as usize], End::Plain(_));
            assert!(!is_certain || (is_late && !is_plain), "it may go to {targets:?}");
        }
        Got::Dropped(Discard::UnknownRemote | Discard::Forbidden) => {}
        _ => panic!("{got:?} of media"),
    }
}
