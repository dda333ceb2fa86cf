//! What goes through the relay.

use std::net::SocketAddr;

use hairpin::load::blast::{Plan, Way};
use hairpin::load::{Carrier, Family as Relayed};
use hairpin_client::Credentials;

use super::Bed;
use crate::lab::Family::{self, V4, V6};
use crate::lab::relay::{PASSWORD, PORT, USER};

/// One way through the relay.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// What it is called in tables.
    pub name: &'static str,
    /// IP version between client and server.
    pub client: Family,
    /// IP version of the relayed address and the peer.
    pub relayed: Family,
    /// Who sends to whom.
    pub way: Way,
    /// How data travels between client and server.
    pub carrier: Carrier,
}

const fn path(name: &'static str, client: Family, relayed: Family, way: Way, carrier: Carrier) -> Path {
    Path { name, client, relayed, way, carrier }
}

/// All that are measured.
pub const PATHS: [Path; 20] = [
    path("channel to udp, ipv4", V4, V4, Way::ToPeer, Carrier::Channel),
    path("udp to channel, ipv4", V4, V4, Way::ToClient, Carrier::Channel),
    path("channel to udp, ipv6", V6, V6, Way::ToPeer, Carrier::Channel),
    path("udp to channel, ipv6", V6, V6, Way::ToClient, Carrier::Channel),
    path("channel to udp, ipv4 to ipv6", V4, V6, Way::ToPeer, Carrier::Channel),
    path("udp to channel, ipv6 to ipv4", V4, V6, Way::ToClient, Carrier::Channel),
    path("channel to udp, ipv6 to ipv4", V6, V4, Way::ToPeer, Carrier::Channel),
    path("udp to channel, ipv4 to ipv6", V6, V4, Way::ToClient, Carrier::Channel),
    path("send to udp, ipv4", V4, V4, Way::ToPeer, Carrier::Send),
    path("udp to data, ipv4", V4, V4, Way::ToClient, Carrier::Send),
    path("send to udp, ipv6", V6, V6, Way::ToPeer, Carrier::Send),
    path("udp to data, ipv6", V6, V6, Way::ToClient, Carrier::Send),
    path("send to udp, ipv4 to ipv6", V4, V6, Way::ToPeer, Carrier::Send),
    path("udp to data, ipv4 to ipv6", V6, V4, Way::ToClient, Carrier::Send),
    path("channel to channel, ipv4", V4, V4, Way::Pair, Carrier::Channel),
    path("channel to channel, ipv6", V6, V6, Way::Pair, Carrier::Channel),
    path("send to data, ipv4", V4, V4, Way::Pair, Carrier::Send),
    path("send to data, ipv6", V6, V6, Way::Pair, Carrier::Send),
    path("binding, ipv4", V4, V4, Way::Binding, Carrier::Channel),
    path("binding, ipv6", V6, V6, Way::Binding, Carrier::Channel),
];

impl Path {
    /// So many flows of it, through the relay of a bed.
    pub fn plan(&self, bed: &Bed, flows: u32, payload: usize) -> Plan {
        // Many flows are two to an allocation: each takes an open file of the relay, and hosts allow only so many.
        let flows_each = if flows.is_multiple_of(8) { 2 } else { 1 };
        Plan {
            interface: bed.relay_link.far.clone(),
            server: SocketAddr::new(Bed::relay_ip(self.client), PORT),
            credentials: Credentials::new(USER, PASSWORD),
            allocations: match self.way {
                // A pair is two allocations that send to each other.
                Way::Pair => (flows / flows_each).max(2),
                _ => flows / flows_each,
            },
            flows_each,
            way: self.way,
            carrier: self.carrier,
            family: match self.relayed {
                Family::V4 => Relayed::V4,
                Family::V6 => Relayed::V6,
            },
            payload,
        }
    }
}
