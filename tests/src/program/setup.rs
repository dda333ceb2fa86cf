//! What the relay has promised to whom, and the records that the daemon would have written for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
};

use hairpin_common::maps::{
    FlowKey, MEDIA, MEDIA_TO_PEER, NextHop, PEER_IS_RELAYED, PortRole, RelayAddress, Rewrite, crossing, flow_delta,
};

use super::{
    bench::{INTERFACE, NEXT_HOP},
    model::Direction,
};

/// A relay with its allocations, and the links around it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where clients reach the server.
    pub listeners: Vec<SocketAddr>,
    /// Who is served.
    pub allocations: Vec<Allocation>,
    /// Which legs are joined.
    pub media: Vec<Media>,
    /// Behind a 1:1 NAT, what others know the addresses by that relayed addresses are made of.
    pub public: BTreeMap<IpAddr, IpAddr>,
    /// Next hops by their index.
    pub next_hops: BTreeMap<u16, NextHop>,
    /// Which of them leads to an address; all other addresses are behind the first.
    pub routes: BTreeMap<IpAddr, u16>,
    /// The host's own link-layer address by interface and VLAN (0 for none).
    pub links: BTreeMap<(u32, u16), [u8; 6]>,
    /// Interfaces that packets may be redirected to.
    pub devices: Vec<u32>,
    /// Who has a limit of rate of its own.
    pub own_limits: Vec<OwnLimit>,
}

/// An allocation (RFC 8656 section 2.2).
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Index of its counters and state.
    pub index: u32,
    /// The client's address.
    pub client: SocketAddr,
    /// Where the client reaches the server.
    pub server: SocketAddr,
    /// At most one relayed transport address of each IP version.
    pub relays: Vec<Relay>,
    /// Whom it lets in.
    pub permissions: Vec<Permission>,
    /// Its channels; each peer has a permission, too.
    pub channels: Vec<Channel>,
    /// Whether the kernel knows each of its permissions.
    pub complete: bool,
}

/// A relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The address.
    pub address: SocketAddr,
    /// Whether its time is not over.
    pub live: bool,
}

/// A permission (RFC 8656 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Whom it is for.
    pub peer: IpAddr,
    /// Whether its time is not over.
    pub live: bool,
}

/// A channel binding (RFC 8656 section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The channel number.
    pub number: u16,
    /// The peer.
    pub peer: SocketAddr,
    /// Whether its time is not over.
    pub live: bool,
}

/// A path of a media session, which joins two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// Index of its counters and state, one that no allocation has.
    pub index: u32,
    /// The leg of whom it takes for the client.
    pub client: Leg,
    /// The leg of whom it takes for the peer, who may be at a relayed address or a leg.
    pub peer: Leg,
    /// Whether its time is not over.
    pub live: bool,
}

/// A limit of rate that an allocation or a path has of its own. One way it is used up, for as long as a test takes; the
/// other way it is far from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLimit {
    /// Whose it is.
    pub index: u32,
    /// What is limited.
    pub unit: Unit,
    /// The way that nothing more may go.
    pub used_up: Direction,
}

/// What a limit of rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Datagrams.
    Packets,
    /// Bytes of application data.
    Bytes,
}

/// One end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Where the relay receives and sends.
    pub local: SocketAddr,
    /// Whom it receives from and sends to; behind a NAT by what others know it by.
    pub remote: SocketAddr,
}

/// A record of the flow table.
pub type Record = (FlowKey, Rewrite);

impl Setup {
    /// A relay without allocations that listens here, on one link to one router.
    pub fn new(listeners: impl Into<Vec<SocketAddr>>) -> Self {
        Self {
            listeners: listeners.into(),
            allocations: Vec::new(),
            media: Vec::new(),
            public: BTreeMap::new(),
            next_hops: BTreeMap::from([(1, NEXT_HOP)]),
            routes: BTreeMap::new(),
            links: BTreeMap::from([((INTERFACE, 0), NEXT_HOP.source)]),
            devices: vec![INTERFACE],
            own_limits: Vec::new(),
        }
    }

    /// What a port is for.
    pub fn role(&self, port: u16) -> PortRole {
        if self.listeners.iter().any(|address| address.port() == port) {
            PortRole::Listener
        } else if self.own().any(|address| address.port() == port) {
            PortRole::Relayed
        } else {
            PortRole::None
        }
    }

    /// Every port that has a role, and which.
    pub fn ports(&self) -> BTreeMap<u16, PortRole> {
        let own = self.own().map(|address| (address.port(), PortRole::Relayed));
        own.chain(self.listeners.iter().map(|address| (address.port(), PortRole::Listener))).collect()
    }

    /// All relayed addresses, and whose they are.
    pub fn relays(&self) -> impl Iterator<Item = (&Allocation, &Relay)> {
        self.allocations.iter().flat_map(|allocation| allocation.relays.iter().map(move |relay| (allocation, relay)))
    }

    /// All relayed addresses, and the local addresses of all legs.
    fn own(&self) -> impl Iterator<Item = SocketAddr> {
        let legs = self.media.iter().flat_map(|media| [media.client.local, media.peer.local]);
        self.relays().map(|(_, relay)| relay.address).chain(legs)
    }

    /// The indices that there are counters for.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        let allocations = self.allocations.iter().map(|allocation| allocation.index);
        allocations.chain(self.media.iter().map(|media| media.index))
    }

    /// Whether relayed addresses and legs are made of this one, or known by it.
    pub fn relays_from(&self, ip: IpAddr) -> bool {
        self.own().any(|address| [address.ip(), self.outside(address).ip()].contains(&ip))
    }

    /// What others know a relayed address by.
    pub fn outside(&self, mut relayed: SocketAddr) -> SocketAddr {
        if let Some(public) = self.public.get(&relayed.ip()) {
            relayed.set_ip(*public);
        }
        relayed
    }

    /// Where a relayed address is that others know by this.
    pub fn inside(&self, mut known: SocketAddr) -> SocketAddr {
        let found = self.relay_ips().into_iter().find(|ip| self.public.get(ip) == Some(&known.ip()));
        if let Some(bind) = found {
            known.set_ip(bind);
        }
        known
    }

    /// What the program is told of the addresses that relayed addresses are made of, by index.
    pub fn relay_addresses(&self) -> BTreeMap<u8, RelayAddress> {
        let entry = |ip: IpAddr| {
            let bind = SocketAddr::new(ip, 0);
            RelayAddress { bind: octets(bind), public: octets(self.outside(bind)) }
        };
        (1..).zip(self.relay_ips().into_iter().map(entry)).collect()
    }

    fn relay_ips(&self) -> BTreeSet<IpAddr> {
        self.own().map(|address| address.ip()).collect()
    }

    /// How the program gets from a relayed address to a peer that is one, too.
    fn crossing(&self, relayed: SocketAddr, peer: SocketAddr) -> u16 {
        let (source, destination) = (self.outside(relayed), self.inside(peer));
        let index = |ip| {
            let at = self.relay_ips().iter().position(|known| *known == ip).expect("a relay address");
            u8::try_from(at + 1).expect("few")
        };
        if (source, destination) == (relayed, peer) {
            0
        } else {
            crossing(index(relayed.ip()), index(destination.ip()))
        }
    }

    /// The index of the next hop to an address.
    pub fn next_hop_to(&self, ip: IpAddr) -> u16 {
        self.routes.get(&ip).copied().unwrap_or(1)
    }

    /// Every record of the flow table.
    pub fn records(&self) -> Vec<Record> {
        let mark = Rewrite { allocation: u32::MAX, ..MARK };
        let listeners = self.listeners.iter().map(|address| (mark_key(*address), mark));
        let relayed = self.relayed_ips();
        let allocations = self.allocations.iter().flat_map(|allocation| self.records_next_to(&relayed, allocation));
        let media = self.media.iter().flat_map(|media| self.records_of_media(media));
        listeners.chain(allocations).chain(media).collect()
    }

    /// The records of a path of a media session.
    pub fn records_of_media(&self, media: &Media) -> Vec<Record> {
        let &Media { index, client, peer, live } = media;
        let is_own = self.relays_from(peer.remote.ip());
        let (from, to) =
            if is_own { (self.outside(peer.local), self.inside(peer.remote)) } else { (peer.local, peer.remote) };
        let flags = MEDIA | if is_own { PEER_IS_RELAYED } else { 0 };
        let plain = |arrives: Leg, [from, to]: [SocketAddr; 2], next_hop, flags| {
            let rewrite = Rewrite {
                expires: expiry(live),
                allocation: index,
                source: octets(from),
                destination: octets(to),
                source_port: from.port().to_be_bytes(),
                destination_port: to.port().to_be_bytes(),
                channel: [0; 2],
                delta: delta([Some(arrives.remote), Some(arrives.local)], [Some(from), Some(to)]),
                next_hop,
                peer_next_hop: 0,
                family: version(to),
                flags,
            };
            (key(arrives.remote, arrives.local, 0), rewrite)
        };
        let to_peer = self.next_hop_to(peer.remote.ip());
        let to_client = self.next_hop_to(client.remote.ip());
        vec![
            plain(client, [from, to], to_peer, flags | MEDIA_TO_PEER),
            plain(peer, [client.local, client.remote], to_client, flags),
        ]
    }

    /// The records of one allocation.
    pub fn records_of(&self, allocation: &Allocation) -> Vec<Record> {
        self.records_next_to(&self.relayed_ips(), allocation)
    }

    fn relayed_ips(&self) -> HashSet<IpAddr> {
        self.own().flat_map(|address| [address.ip(), self.outside(address).ip()]).collect()
    }

    fn records_next_to(&self, relayed: &HashSet<IpAddr>, allocation: &Allocation) -> Vec<Record> {
        let flags = |peer: IpAddr| if relayed.contains(&peer) { PEER_IS_RELAYED } else { 0 };
        let &Allocation { index, client, server, .. } = allocation;
        let mut records = Vec::new();
        for relay in &allocation.relays {
            let relayed = relay.address;
            let ending = Rewrite { allocation: index, expires: expiry(relay.live), ..MARK };
            records.push((mark_key(relayed), ending));
            let family = version(relayed);
            let send = Rewrite {
                source: octets(relayed),
                source_port: relayed.port().to_be_bytes(),
                delta: delta([Some(client), Some(server)], [Some(relayed), None]),
                family,
                ..ending
            };
            records.push((key(client, server, u16::from(family)), send));
        }
        for permission in &allocation.permissions {
            let Some(relay) = allocation.relay_to(permission.peer) else { continue };
            let live = relay.live && permission.live;
            let key = key((permission.peer, 0).into(), relay.address, 0);
            let to_client = self.to_client(allocation, relay.address, permission.peer, None, live);
            let flags = flags(permission.peer);
            let crossing = (flags != 0).then(|| self.crossing(relay.address, (permission.peer, 0).into()));
            // A next hop to another client there is none, nor has the program a use for it.
            let peer_next_hop = crossing.unwrap_or(to_client.peer_next_hop);
            records.push((key, Rewrite { flags, peer_next_hop, ..to_client }));
        }
        for channel in &allocation.channels {
            let Some(relay) = allocation.relay_to(channel.peer.ip()) else { continue };
            let (peer, relayed, live) = (channel.peer, relay.address, allocation.is_bound(channel));
            let is_own = flags(peer.ip()) != 0;
            let (from, to) = if is_own { (self.outside(relayed), self.inside(peer)) } else { (relayed, peer) };
            let to_peer = Rewrite {
                expires: expiry(live),
                allocation: index,
                source: octets(from),
                destination: octets(to),
                source_port: from.port().to_be_bytes(),
                destination_port: to.port().to_be_bytes(),
                channel: [0; 2],
                delta: delta([Some(client), Some(server)], [Some(from), Some(to)]),
                next_hop: self.next_hop_to(peer.ip()),
                peer_next_hop: 0,
                family: version(peer),
                flags: flags(peer.ip()),
            };
            records.push((key(client, server, channel.number), to_peer));
            let to_client = self.to_client(allocation, relayed, peer.ip(), Some(channel), live);
            records.push((key(peer, relayed, 0), Rewrite { flags: flags(peer.ip()), ..to_client }));
        }
        records
    }

    fn to_client(
        &self,
        allocation: &Allocation,
        relayed: SocketAddr,
        peer: IpAddr,
        channel: Option<&Channel>,
        live: bool,
    ) -> Rewrite {
        let &Allocation { index, client, server, .. } = allocation;
        let taken = match channel {
            Some(channel) => delta([Some(channel.peer), Some(relayed)], [Some(server), Some(client)]),
            None => delta_of_permission(peer, relayed, server, client),
        };
        Rewrite {
            expires: expiry(live),
            allocation: index,
            source: octets(server),
            destination: octets(client),
            source_port: server.port().to_be_bytes(),
            destination_port: client.port().to_be_bytes(),
            channel: channel.map_or([0; 2], |channel| channel.number.to_be_bytes()),
            delta: taken,
            next_hop: self.next_hop_to(client.ip()),
            peer_next_hop: if channel.is_none() { self.next_hop_to(peer) } else { 0 },
            family: version(client),
            flags: 0,
        }
    }
}

impl Allocation {
    /// The relayed address that reaches a peer.
    pub fn relay_to(&self, peer: IpAddr) -> Option<&Relay> {
        self.relays.iter().find(|relay| relay.address.is_ipv4() == peer.is_ipv4())
    }

    /// The permission for a peer.
    pub fn permission_for(&self, peer: IpAddr) -> Option<&Permission> {
        self.permissions.iter().find(|permission| permission.peer == peer)
    }

    /// Whether data of a peer is let in now.
    pub fn permits(&self, peer: IpAddr) -> bool {
        let live = |permission: &Permission| permission.live;
        self.relay_to(peer).is_some_and(|relay| relay.live) && self.permission_for(peer).is_some_and(live)
    }

    /// Whether a channel can be used now.
    pub fn is_bound(&self, channel: &Channel) -> bool {
        channel.live && self.permits(channel.peer.ip())
    }
}

/// A record that says nothing but that an address is ours.
pub const MARK: Rewrite = Rewrite {
    expires: u32::MAX,
    allocation: 0,
    source: [0; 16],
    destination: [0; 16],
    source_port: [0; 2],
    destination_port: [0; 2],
    channel: [0; 2],
    delta: [0; 2],
    next_hop: 0,
    peer_next_hop: 0,
    family: 0,
    flags: 0,
};

fn expiry(live: bool) -> u32 {
    if live { u32::MAX } else { 1 }
}

/// The key that marks an address as one of ours.
pub fn mark_key(address: SocketAddr) -> FlowKey {
    FlowKey { source: [0; 16], source_port: [0; 2], ..key(address, address, 0) }
}

/// The key of what goes from one address to another.
pub fn key(source: SocketAddr, destination: SocketAddr, channel: u16) -> FlowKey {
    assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} to {destination}");
    FlowKey {
        source: octets(source),
        destination: octets(destination),
        source_port: source.port().to_be_bytes(),
        destination_port: destination.port().to_be_bytes(),
        channel: channel.to_be_bytes(),
        family: version(source),
        zero: 0,
    }
}

/// The difference between source and destination as received and as sent, as far as they are known.
fn delta(taken: [Option<SocketAddr>; 2], put: [Option<SocketAddr>; 2]) -> [u8; 2] {
    let parts = |[source, destination]: [Option<SocketAddr>; 2]| {
        let ip = |address: Option<SocketAddr>| address.map_or_else(Vec::new, |address| ip_octets(address.ip()));
        let port = |address: Option<SocketAddr>| address.map_or([0; 2], |address| address.port().to_be_bytes());
        (ip(source), ip(destination), port(source), port(destination))
    };
    let (taken, put) = (parts(taken), parts(put));
    flow_delta([&taken.0, &taken.1, &taken.2, &taken.3], [&put.0, &put.1, &put.2, &put.3])
}

/// A permission knows its peer's address, but not the port.
fn delta_of_permission(peer: IpAddr, relayed: SocketAddr, server: SocketAddr, client: SocketAddr) -> [u8; 2] {
    delta([Some((peer, 0).into()), Some(relayed)], [Some(server), Some(client)])
}

fn ip_octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The address's bytes in front of zeros.
fn octets(address: SocketAddr) -> [u8; 16] {
    let mut bytes = ip_octets(address.ip());
    bytes.resize(16, 0);
    bytes.try_into().expect("sixteen bytes")
}

/// IP version of an address.
fn version(address: SocketAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}
