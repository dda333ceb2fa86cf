//! A relay with an allocation of every kind, and all the ways that data can take through it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use hairpin_common::maps::FlowKey;

use super::{
    frame::Frame,
    setup::{Allocation, Channel, Permission, Relay, Setup, key, mark_key},
    stun,
};

/// The port of all listeners of this world.
pub const LISTENER_PORT: u16 = 3478;
/// A transaction id of a client.
pub const ID: stun::TransactionId = *b"client's own";

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How data comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// From a client, in ChannelData.
    Channel(u16),
    /// From a client, in a Send indication.
    Send(SocketAddr),
    /// From a peer.
    Plain,
    /// No data: a Binding request, with a FINGERPRINT or not.
    Binding(bool),
}

/// One of the ways that data can take.
#[derive(Clone, Debug)]
pub struct Path {
    /// For a failing test.
    pub name: String,
    /// How data comes in.
    pub framing: Framing,
    /// Where from.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// What it needs in the flow table.
    pub keys: Vec<FlowKey>,
}

impl Family {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// An address of this version: the last two bytes tell addresses apart, `net` tells what they are for.
    pub fn address(self, net: u8, host: u16, port: u16) -> SocketAddr {
        let [high, low] = host.to_be_bytes();
        let ip = match self {
            Self::V4 => IpAddr::from([198, net, high, low]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, u16::from(net), 0, 0, 0, 0, host]),
        };
        SocketAddr::new(ip, port)
    }

    /// The address of nobody.
    pub fn unspecified(self, port: u16) -> SocketAddr {
        let ip = match self {
            Self::V4 => IpAddr::from([0; 4]),
            Self::V6 => IpAddr::from([0; 16]),
        };
        SocketAddr::new(ip, port)
    }

    /// Where clients of this version reach the server.
    pub fn listener(self) -> SocketAddr {
        self.address(51, 1, LISTENER_PORT)
    }

    /// The version of an address.
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn digit(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl Path {
    /// A packet that takes this path, as a common host sends it.
    pub fn frame(&self, data: &[u8]) -> Frame {
        let payload = match self.framing {
            Framing::Channel(number) => stun::channel_data(number, data),
            Framing::Send(peer) => stun::send_indication(peer, data, ID),
            Framing::Plain => data.to_vec(),
            Framing::Binding(fingerprint) => stun::binding_request(ID, fingerprint),
        };
        Frame::new(self.source, self.destination, payload)
    }

    /// Whether it carries data.
    pub fn carries_data(&self) -> bool {
        !matches!(self.framing, Framing::Binding(_))
    }

    /// Whether it leads through a leg of a media session, which takes no STUN and nothing empty.
    pub fn passes_leg(&self) -> bool {
        self.name.contains("media")
    }

    /// Whether the packet is from a client.
    pub fn is_from_client(&self) -> bool {
        self.framing != Framing::Plain
    }
}

/// Peers of every allocation: one with a channel, one that shares its permission, one with a permission only.
fn bound_peer(family: Family) -> SocketAddr {
    family.address(52, 1, 5000)
}

fn permitted_peer(family: Family) -> SocketAddr {
    family.address(52, 2, 6000)
}

/// The world, and every path through it: framing in x framing out x IP version in x IP version out, from client to client
/// also by either version between the relayed addresses, and the answers to Binding requests.
pub fn world() -> (Setup, Vec<Path>) {
    world_of(BTreeMap::new())
}

/// The same behind a 1:1 NAT: what is different then, which is the paths from client to client.
pub fn world_behind_nat() -> (Setup, Vec<Path>) {
    let public = Family::ALL.map(|family| (family.listener().ip(), family.address(54, 1, 0).ip()));
    let (setup, mut paths) = world_of(BTreeMap::from(public));
    paths.retain(|path| path.name.matches("->").count() > 2);
    for path in &mut paths {
        path.name.push_str(" behind a NAT");
    }
    (setup, paths)
}

fn world_of(public: BTreeMap<IpAddr, IpAddr>) -> (Setup, Vec<Path>) {
    let mut setup = Setup { public, ..Setup::new(Family::ALL.map(Family::listener)) };
    // Who calls, who is called and answers in channels, who is called and has none.
    for role in 0..3_u16 {
        for client in Family::ALL {
            let index = u32::from(role) * 2 + u32::from(client == Family::V6) + 1;
            let client = client.address(50, 1 + role, 40_000 + role);
            let own = Family::ALL.map(|family| setup.outside(family.listener()).ip());
            setup.allocations.push(allocation(index, client, own));
        }
    }
    let mut paths = Vec::new();
    for (caller, client) in Family::ALL.into_iter().enumerate() {
        let listener = client.listener();
        for fingerprint in [false, true] {
            paths.push(Path {
                name: format!("Binding IPv{}, FINGERPRINT: {fingerprint}", client.digit()),
                framing: Framing::Binding(fingerprint),
                source: client.address(53, 9, 9),
                destination: listener,
                keys: vec![mark_key(listener)],
            });
        }
        for relayed in Family::ALL {
            let (bound, permitted) = (bound_peer(relayed), permitted_peer(relayed));
            let number = bind(&mut setup.allocations[caller], bound);
            let (source, relay) = (setup.allocations[caller].client, relay_of(&setup.allocations[caller], relayed));
            let (from, to) = (client.digit(), relayed.digit());
            let sending = |peer: SocketAddr| {
                let keys = vec![key(source, listener, to.into()), key((peer.ip(), 0).into(), relay, 0)];
                ("Send indication", Framing::Send(peer), keys)
            };
            let in_channel = |number| ("ChannelData", Framing::Channel(number), vec![key(source, listener, number)]);

            for (what, framing, keys) in [in_channel(number), sending(permitted)] {
                let name = format!("{what} -> UDP {from}->{to}");
                paths.push(Path { name, framing, source, destination: listener, keys });
            }
            for (what, peer, key_port) in [("ChannelData", bound, bound.port()), ("Data indication", permitted, 0)] {
                paths.push(Path {
                    name: format!("UDP -> {what} {to}->{from}"),
                    framing: Framing::Plain,
                    source: peer,
                    destination: relay,
                    keys: vec![key((peer.ip(), key_port).into(), relay, 0)],
                });
            }
            for (callee, other) in Family::ALL.into_iter().enumerate() {
                for (role, out) in [(1, "ChannelData"), (2, "Data indication")] {
                    let callee = 2 * role + callee;
                    let its_relay = relay_of(&setup.allocations[callee], relayed);
                    let (known, its_known) = (setup.outside(relay), setup.outside(its_relay));
                    let number = bind(&mut setup.allocations[caller], its_known);
                    if role == 1 {
                        bind(&mut setup.allocations[callee], known);
                    }
                    let key_port = if role == 1 { relay.port() } else { 0 };
                    for (what, framing, mut keys) in [in_channel(number), sending(its_known)] {
                        keys.push(key((known.ip(), key_port).into(), its_relay, 0));
                        let name = format!("{what} -> {out} {from}->{to}->{}", other.digit());
                        paths.push(Path { name, framing, source, destination: listener, keys });
                    }
                }
            }
        }
    }
    (setup, paths)
}

/// An allocation with a relayed address of each IP version, and permissions for its peers and for other relayed addresses,
/// by what they are known by.
fn allocation(index: u32, client: SocketAddr, own: [IpAddr; 2]) -> Allocation {
    let port = 50_000 + index as u16;
    let relays = Family::ALL.map(|family| Relay { address: family.address(51, 1, port), live: true });
    let peers = Family::ALL.map(|family| [bound_peer(family).ip(), permitted_peer(family).ip()]);
    Allocation {
        index,
        client,
        server: Family::of(client).listener(),
        relays: relays.to_vec(),
        permissions: peers.into_iter().flatten().chain(own).map(|peer| Permission { peer, live: true }).collect(),
        channels: Vec::new(),
        complete: true,
    }
}

pub(super) fn relay_of(allocation: &Allocation, family: Family) -> SocketAddr {
    let relay = allocation.relays.iter().find(|relay| Family::of(relay.address) == family);
    relay.expect("an address of each IP version").address
}

/// Binds the next channel to a peer.
pub(super) fn bind(allocation: &mut Allocation, peer: SocketAddr) -> u16 {
    let number = 0x4000 + allocation.channels.len() as u16;
    allocation.channels.push(Channel { number, peer, live: true });
    number
}

/// The allocation of one call among many: client and peer of any IP version, a channel or only a permission. Another number
/// makes another client and another relayed address.
pub fn numbered(client: Family, relayed: Family, number: u32, bound: bool) -> Allocation {
    // Another network for every 2^16 clients; and there are only so many ports.
    let [net, host] = [number >> 16, number & 0xffff];
    let (port, peer_port) = (49_152 + (number % 16_000) as u16, 5000 + (number / 16_000) as u16);
    let peer = relayed.address(52, 7, peer_port);
    let channel = Channel { number: 0x4000 + (number % 0x1000) as u16, peer, live: true };
    Allocation {
        index: number,
        client: client.address(60 + net as u8, host as u16, 40_000),
        server: client.listener(),
        relays: vec![Relay { address: relayed.address(51, 1 + (number / 16_000) as u16, port), live: true }],
        permissions: vec![Permission { peer: peer.ip(), live: true }],
        channels: if bound { vec![channel] } else { Vec::new() },
        complete: true,
    }
}
