//! The way of a datagram that has come to a leg.

use std::net::SocketAddr;
use std::time::Instant;

use hairpin_common::wire::{Datagram, MAGIC_COOKIE};

use super::effect::{Discard, Disposition, Event, Forward, PathId, PortId};
use super::end::{Far, Refused, RefusedFor, Side};
use super::session::LegKind;
use super::sessions::{Port, Sessions};
use crate::address::PeerAddr;
use crate::ice::Outcome;

impl Sessions {
    /// Takes a datagram. `source` is as the world knows it, if that is an address of this relay behind a 1:1 NAT.
    pub fn datagram<'p>(
        &mut self,
        now: Instant,
        port: PortId,
        source: SocketAddr,
        payload: &'p [u8],
    ) -> Disposition<'p> {
        let Some(Port { path, side, base }) = self.ports.find(port.0).copied().flatten() else {
            return Disposition::Discard(Discard::NoLeg);
        };
        if payload.first().is_some_and(|first| Datagram::of(*first) == Datagram::Stun)
            && (self.speaks_ice(path, side) || has_cookie(payload))
        {
            return self.check(now, (path, side, base), source, payload);
        }
        match self.media(now, (path, side, base), source) {
            Ok((port, remote)) => {
                let is_clients = self.path(path).is_some_and(|path| path.tally.client_side == side);
                Disposition::Forward(Forward { path, from: side, is_clients, port, remote, payload })
            }
            Err(reason) => Disposition::Discard(reason),
        }
    }

    /// Whether the leg of an end speaks ICE. Where it does not, its side may send what begins like STUN and is not, as T.38 does.
    fn speaks_ice(&self, id: PathId, side: Side) -> bool {
        let session = self.path(id).and_then(|path| self.table.get(&path.session));
        session.is_some_and(|session| session.leg(side).kind == LegKind::Ice)
    }

    /// Whether a datagram is of somebody who has proven something, or is where the remote was said to be.
    pub fn knows(&self, port: PortId, source: SocketAddr, now: Instant) -> bool {
        self.ports.find(port.0).copied().flatten().is_some_and(|Port { path, side, base }| {
            self.path(path).is_some_and(|path| path.end(side).knows(base, source, now, path.consent))
        })
    }

    /// Where media goes that has come from there.
    fn media(
        &mut self,
        now: Instant,
        (id, side, base): (PathId, Side, usize),
        source: SocketAddr,
    ) -> Result<(PortId, SocketAddr), Discard> {
        self.heard(now, (id, side, base), source);
        let path = self.paths.find(id.0).ok_or(Discard::NoLeg)?;
        if !path.end(side).accepts(base, source, now, path.consent) {
            self.latch(now, (id, side, base), source)?;
        }
        let path = self.paths.find(id.0).ok_or(Discard::NoLeg)?;
        let other = path.end(side.other());
        // The time itself ends consent, also where its timer is late.
        let target = other.target().filter(|_| other.has_consent(now, path.consent));
        let (local, remote) = target.ok_or(Discard::NoRemote)?;
        let (port, is_idle) = (local.port, path.installed.is_none());
        if let Some(path) = self.paths.find_mut(id.0) {
            path.active = now;
        }
        if is_idle {
            // Nothing had flowed for so long that a fast path was told to stop.
            self.update_flow(id, now);
        }
        Ok((port, remote))
    }

    /// Takes something that a remote has sent as a sign of its life, where nothing better is to be had.
    pub(super) fn heard(&mut self, now: Instant, (id, side, base): (PathId, Side, usize), source: SocketAddr) {
        let Some(path) = self.paths.find_mut(id.0) else { return };
        let session = path.session;
        let Far::Ice(selection) = &mut path.end_mut(side).far else { return };
        if selection.heard(base, source, now) == Outcome::Resumed {
            self.happened(session, Event::Resumed, id, side);
            self.update_flow(id, now);
            self.settle(session, now);
        }
    }

    /// Has whoever has sent this take the remote's place: the first, once, where that was allowed.
    fn latch(
        &mut self,
        now: Instant,
        (id, side, base): (PathId, Side, usize),
        source: SocketAddr,
    ) -> Result<(), Discard> {
        let path = self.paths.find_mut(id.0).ok_or(Discard::NoLeg)?;
        let end = path.end_mut(side);
        if !end.latches() {
            return Err(Discard::UnknownRemote);
        }
        // Somebody else's session is nobody to be found by chance, but where it was said that it is.
        let is_told = matches!(&end.far, Far::Plain(plain) if plain.told == Some(source));
        let is_own = self.settings.is_own(source) && !is_told;
        if is_own || !self.settings.peer_policy.permits(PeerAddr::new(source)) {
            end.refused = Some(Refused { remote: source, reason: RefusedFor::Forbidden });
            return Err(Discard::Forbidden);
        }
        self.change_end(now, id, side, |end| {
            end.refused = None;
            if let Far::Plain(plain) = &mut end.far {
                (plain.remote, plain.latches) = (Some((base, source)), false);
            }
        });
        if let Some(session) = self.path(id).map(|path| path.session) {
            self.settle(session, now);
        }
        Ok(())
    }
}

/// Whether this has what all messages of STUN have (RFC 8489 section 5).
fn has_cookie(payload: &[u8]) -> bool {
    payload.get(4..8).is_some_and(|cookie| cookie == MAGIC_COOKIE.to_be_bytes())
}
