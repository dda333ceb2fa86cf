//! What there is, told to whoever runs the server. Nothing here is asked for by packets, so it may take its time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::allocation::{Allocation, PeerTransport, Relay};
use super::effect::AllocationId;
use super::mobility::Presence;
use super::redirect::comes_by;
use super::server::Server;
use crate::address::{FiveTuple, PeerAddr, RelayedAddr, Transport};

/// An allocation, as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationInfo {
    /// Where data for the client goes.
    pub five_tuple: FiveTuple,
    /// Whether the client is there: one with a ticket may have lost its connection, and come back (RFC 8016).
    pub is_present: bool,
    /// Who has made it, as in the requests.
    pub username: String,
    /// The realm that it was made in.
    pub realm: Arc<str>,
    /// Whose quota it counts for: the name without the expiry.
    pub account: String,
    /// What is spoken with peers.
    pub peers: PeerTransport,
    /// One, or two of a dual allocation, IPv4 first.
    pub relayed: Vec<RelayInfo>,
    /// By the peer's address.
    pub permissions: Vec<PermissionInfo>,
    /// By number.
    pub channels: Vec<ChannelInfo>,
    /// Connections to peers, those included that are under way or wait for their client.
    pub connections: usize,
}

/// A relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayInfo {
    /// As the socket is bound.
    pub bound: RelayedAddr,
    /// As the world sees it.
    pub public: SocketAddr,
    /// When it ends, unless it is refreshed.
    pub ends: Instant,
}

/// A permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermissionInfo {
    /// The peer's address.
    pub peer: IpAddr,
    /// When it ends, unless it is given again.
    pub ends: Instant,
}

/// A channel that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its number.
    pub number: u16,
    /// The peer.
    pub peer: PeerAddr,
    /// When it ends, unless it is bound again.
    pub ends: Instant,
}

impl Server {
    /// The names of all allocations.
    pub fn allocation_ids(&self) -> Vec<AllocationId> {
        self.allocations.ids()
    }

    /// What there is to know about an allocation.
    pub fn describe(&self, allocation: AllocationId) -> Option<AllocationInfo> {
        self.allocations.find(allocation).map(Allocation::describe)
    }

    /// How many allocations have come by a listener and can go on by no other: one that takes new clients serves those of a
    /// wider or narrower one that is gone. An unspecified address means every one of its family.
    pub fn allocations_at(&self, transport: Transport, listener: SocketAddr) -> usize {
        let listener = (transport, listener);
        let is_current = self.listeners.is_empty() || self.listeners.contains(&listener);
        let by = |five_tuple: &FiveTuple| {
            comes_by(listener, five_tuple.transport, five_tuple.server.socket())
                && (is_current || !self.is_served(five_tuple))
        };
        self.allocations.all().filter(|allocation| by(&allocation.five_tuple)).count()
    }

    /// How many allocations have a relayed address that is bound to this address.
    pub fn allocations_on(&self, relay: IpAddr) -> usize {
        let relay = relay.to_canonical();
        let is_on = |allocation: &&Allocation| allocation.relays().any(|bound| bound.address.ip() == relay);
        self.allocations.all().filter(is_on).count()
    }

    /// How many ports are in use, reserved ones included, of each relay address: also of one that is no longer
    /// configured, as long as there are any.
    pub fn ports_in_use(&self) -> Vec<(IpAddr, usize)> {
        self.ports.in_use().collect()
    }
}

impl Allocation {
    fn describe(&self) -> AllocationInfo {
        let relayed = |relay: &Relay| RelayInfo { bound: relay.address, public: relay.public, ends: relay.expires };
        let permissions = self.permissions.iter().map(|(peer, permission)| (*peer, permission.expires));
        let mut permissions: Vec<_> = permissions.map(|(peer, ends)| PermissionInfo { peer, ends }).collect();
        permissions.sort_unstable_by_key(|permission| permission.peer);
        let bound = self.channels.iter().filter(|(_, channel)| channel.is_bound());
        let mut channels: Vec<_> = bound
            .map(|(number, channel)| ChannelInfo { number: number.get(), peer: channel.peer, ends: channel.expires })
            .collect();
        channels.sort_unstable_by_key(|channel| channel.number);
        AllocationInfo {
            five_tuple: self.five_tuple,
            is_present: self.presence != Presence::Lost,
            username: self.username.to_string(),
            realm: Arc::clone(self.lease.realm()),
            account: self.lease.account().to_owned(),
            peers: self.peers,
            relayed: self.relays().map(relayed).collect(),
            permissions,
            channels,
            connections: self.connections.len(),
        }
    }
}
