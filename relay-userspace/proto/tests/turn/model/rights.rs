//! What one client may do, from the answers that it got.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use hairpin_proto::address::AddressFamily;

use super::PEERS;
use crate::harness::socket;

#[derive(Default)]
pub(super) struct Rights {
    /// Who has made the allocation.
    pub(super) user: usize,
    pub(super) families: HashMap<AddressFamily, Instant>,
    pub(super) permissions: HashMap<IpAddr, Instant>,
    /// Peer and end of each channel.
    pub(super) channels: HashMap<u16, (usize, Instant)>,
}

impl Rights {
    pub(super) fn of(user: usize) -> Self {
        Self { user, ..Self::default() }
    }

    pub(super) fn lives(&self, now: Instant) -> bool {
        self.families.values().any(|end| now < *end)
    }

    pub(super) fn permits(&self, peer: usize, now: Instant) -> bool {
        let ip = socket(PEERS[peer]).ip();
        let allocated = self.families.get(&AddressFamily::of(ip)).is_some_and(|end| now < *end);
        allocated && self.permissions.get(&ip).is_some_and(|end| now < *end)
    }

    pub(super) fn channel_to(&self, peer: usize, now: Instant) -> Option<u16> {
        self.channels.iter().find(|(_, (bound, end))| *bound == peer && now < *end).map(|(number, _)| *number)
    }

    /// The peer that a channel reaches.
    pub(super) fn peer_of(&self, number: u16, now: Instant) -> Option<usize> {
        let bound = self.channels.get(&number).filter(|(_, end)| now < *end).map(|(peer, _)| *peer);
        bound.filter(|peer| self.permits(*peer, now))
    }

    /// Ends what the client may do with peers that are forbidden.
    pub(super) fn lose(&mut self, forbidden: impl Fn(usize) -> bool) {
        let lost = |ip: IpAddr| (0..PEERS.len()).any(|peer| forbidden(peer) && socket(PEERS[peer]).ip() == ip);
        self.permissions.retain(|ip, _| !lost(*ip));
        self.channels.retain(|_, (peer, _)| !forbidden(*peer));
    }

    pub(super) fn forget(&mut self, family: AddressFamily) {
        self.families.remove(&family);
        self.permissions.retain(|ip, _| AddressFamily::of(*ip) != family);
        self.channels.retain(|_, (peer, _)| AddressFamily::of(socket(PEERS[*peer]).ip()) != family);
    }

    /// What ends with its family is forgotten, also when the server has not been asked since.
    pub(super) fn tidy(&mut self, now: Instant) {
        for family in [AddressFamily::V4, AddressFamily::V6] {
            if self.families.get(&family).is_some_and(|end| *end <= now) {
                self.forget(family);
            }
        }
    }
}
