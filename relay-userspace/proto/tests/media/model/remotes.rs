//! What is said of the other side of a leg.

use std::time::Instant;

use hairpin_proto::media::{PlainAddress, Remote, RemoteError, Side};

use super::mirror::{Accepts, End, Ice, Kind, Mirror, Plain};
use super::sources::{Change, source, text};
use super::{Place, World};
use crate::agent::{of_first, parameters};
use crate::harness::At;

impl World {
    pub(super) fn full(&mut self, place: Place) {
        let Some((session, at)) = self.at(place) else { return };
        let candidates = of_first(&["candidate:1 1 UDP 5 8.8.8.8 4000 typ host"]);
        let remote = Remote::Ice { parameters: parameters(), is_lite: false, candidates, end_of_candidates: true };
        self.bed.remote(at, remote).unwrap();
        let leg = self.sessions[session].leg(at.side);
        (leg.kind, leg.is_lite) = (Kind::Ice, false);
        for path in &mut self.sessions[session].paths {
            let end = &mut path.ends[at.side as usize];
            if matches!(end, End::Plain(_)) {
                *end = End::Ice(Ice::default());
            }
        }
        self.learn(session);
    }

    pub(super) fn lite(&mut self, place: Place, from: usize) {
        let Some((session, at)) = self.at(place) else { return };
        let remote = source(from);
        let candidate = format!("candidate:1 1 UDP 5 {} {} typ host", remote.ip(), remote.port());
        let candidates = of_first(&[&candidate]);
        let lite = Remote::Ice { parameters: parameters(), is_lite: true, candidates, end_of_candidates: false };
        let told = self.bed.remote(at, lite);
        if !self.change.permits(from) {
            assert_eq!(told, Err(RemoteError::Forbidden(remote)));
            return;
        }
        assert_eq!(told, Ok(()));
        let first = self.sessions[session].paths[0].stream.clone();
        let leg = self.sessions[session].leg(at.side);
        let is_known = std::mem::replace(&mut leg.is_lite, true);
        leg.kind = Kind::Ice;
        for path in &mut self.sessions[session].paths {
            if is_known && matches!(path.ends[at.side as usize], End::Ice(_)) {
                continue;
            }
            let is_meant = path.stream == first && path.component == 1;
            let chosen = path.base_for(remote).filter(|_| is_meant).map(|base| (base, remote));
            let told = chosen.map(|(_, remote)| remote);
            path.ends[at.side as usize] = End::Plain(Plain { remote: chosen, told, latches: false });
        }
        self.learn(session);
    }

    pub(super) fn plain(&mut self, place: Place, from: Option<usize>, latch: bool) {
        let Some((session, at)) = self.at(place) else { return };
        let path = &self.sessions[session].paths[at.path];
        let stream = Some(path.stream.clone());
        let address = |from| PlainAddress { stream: stream.clone(), component: path.component, address: source(from) };
        let addresses = from.map(address).into_iter().collect();
        let base = from.map(|from| path.base_for(source(from)));
        let told = self.bed.remote(at, Remote::Plain { addresses, latch, is_hint: true });
        let expected = match (from, base) {
            // What is said of a side that may latch may be wrong.
            _ if latch => Ok(()),
            (Some(from), Some(None)) => Err(RemoteError::NoFamily(source(from))),
            (Some(from), Some(Some(_))) if !self.change.permits(from) => Err(RemoteError::Forbidden(source(from))),
            _ => Ok(()),
        };
        assert_eq!(told, expected);
        if told.is_err() {
            return;
        }
        let told = from.map(source);
        let remote = from.filter(|from| self.change.permits(*from)).map(source).zip(base.flatten());
        let remote = remote.map(|(remote, base)| (base, remote));
        let mirror = &mut self.sessions[session];
        let has_latched = mirror.leg(at.side).kind == Kind::Plain { latch: true };
        let leg = mirror.leg(at.side);
        (leg.kind, leg.is_lite) = (Kind::Plain { latch }, false);
        for (number, path) in mirror.paths.iter_mut().enumerate() {
            let end = &mut path.ends[at.side as usize];
            let remote = remote.filter(|_| number == at.path);
            let told = told.filter(|_| number == at.path);
            let stays = match end {
                End::Plain(was) => latch && has_latched && was.remote.is_some() && was.told == told,
                End::Ice(_) => false,
            };
            if !stays {
                *end = End::Plain(Plain { remote, told, latches: latch });
            }
        }
    }

    pub(super) fn restart(&mut self, place: Place) {
        let Some((session, at)) = self.at(place) else { return };
        let is_ice = self.sessions[session].leg(at.side).kind == Kind::Ice;
        assert_eq!(self.bed.sessions.restart(at.id, at.side), is_ice);
        assert_eq!(self.bed.drain(), []);
        let leg = self.sessions[session].leg(at.side);
        // While those of before are good, nobody has used the new ones.
        if is_ice && !leg.previous {
            leg.credentials.push(None);
            leg.previous = true;
            self.learn(session);
        }
    }

    /// A datagram arrives that is no check: media, or something broken.
    pub(super) fn media(&mut self, place: Place, from: usize, datagram: &[u8]) {
        let Some((session, at)) = self.at(place) else { return };
        let now = self.bed.now.instant;
        let got = self.bed.arrives(at, text(from), datagram);
        let mirror = &mut self.sessions[session];
        let may_be_stun = mirror.leg(at.side).kind == Kind::Ice || datagram.get(4..8) == Some(&COOKIE);
        if datagram.first().is_some_and(|first| *first < 4) && may_be_stun {
            super::probe::stun_is_refused(&got);
            return;
        }
        let end = (at.side, at.path, at.base);
        if mirror.accepts(end, source(from), now) == Accepts::First && may_latch(mirror, self.change, end, from) {
            latch(mirror, end, from);
        }
        let is_late = self.is_late();
        super::probe::media_is_right(&self.sessions[session], &self.bed, end, source(from), (now, is_late), &got);
        if got.target().is_some() {
            self.sessions[session].active = now;
        }
    }

    fn is_late(&self) -> bool {
        self.bed.sessions.poll_timeout().is_some_and(|at: Instant| at <= self.bed.now.instant)
    }
}

/// The magic cookie of STUN.
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Whether somebody may take a place: not against the peer rules, and not by chance from an address of this relay.
pub(super) fn may_latch(mirror: &Mirror, change: Change, (side, path, _): (Side, usize, usize), from: usize) -> bool {
    let is_told =
        matches!(&mirror.paths[path].ends[side as usize], End::Plain(plain) if plain.told == Some(source(from)));
    change.permits(from) && (!change.is_own(from) || is_told)
}

/// Who comes first takes the place.
fn latch(mirror: &mut Mirror, (side, path, base): (Side, usize, usize), from: usize) {
    let End::Plain(plain) = &mut mirror.paths[path].ends[side as usize] else { panic!("no ICE latches") };
    (plain.remote, plain.latches) = (Some((base, source(from))), false);
}

/// The end opposite.
pub(super) fn opposite(at: At) -> At {
    At { side: at.side.other(), ..at }
}
