//! The network of an edge host: the relay has one link, to a router; clients and peers are behind that.
//!
//! ```text
//!   client 0 ─┐                 ┌─ peer 0
//!   client 1 ─┤── router ───────┤
//!             │      │          └─ peer 1
//!                  relay
//! ```
//!
//! So a packet that the relay turns around leaves through the link it came from, to the router's link-layer address, as
//! on a host in a data centre. Addresses look like the Internet's, because the relay refuses private peers, but no route
//! leads out of the lab.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use super::namespace::{Namespace, set};
use super::{passing, process};

/// The relay's link, seen from the relay.
pub const RELAY_LINK: &str = "eth0";
/// The same link, seen from the router.
pub const ROUTER_LINK: &str = "relay0";
/// What [`Lab::add_link`] adds, seen from the relay.
pub const SECOND_RELAY_LINK: &str = "eth1";
/// The same link, seen from the router.
pub const SECOND_ROUTER_LINK: &str = "relay1";
/// Link-layer address of the relay.
pub const RELAY_MAC: [u8; 6] = [0x02, 0, 0, 0x03, 0, 0x02];
/// Link-layer address of the router on the relay's link.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0x03, 0, 0x01];

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Every pair: of a client and a peer, or of two clients.
    pub fn pairs() -> impl Iterator<Item = (Self, Self)> {
        Self::ALL.into_iter().flat_map(|one| Self::ALL.map(|other| (one, other)))
    }
}

/// What a host is in the lab; the number is part of its addresses.
#[derive(Clone, Copy)]
enum Role {
    Client = 1,
    Peer = 2,
    Relay = 3,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Relay => "relay",
        }
    }
}

/// Clients, peers, a relay and the router between them, each in a namespace of its own.
#[derive(Debug)]
pub struct Lab {
    /// Hosts with TURN clients.
    pub clients: Vec<Namespace>,
    /// Hosts that know nothing of TURN.
    pub peers: Vec<Namespace>,
    /// The host of the relay.
    pub relay: Namespace,
    /// What forwards between all of them.
    pub router: Namespace,
    /// Keep the router able to receive what XDP sends, for each link to the relay.
    receivers: Mutex<Vec<OwnedFd>>,
}

impl Lab {
    /// One client, one peer, a relay behind one link, and a router.
    pub fn routed() -> Self {
        Self::routed_with(1, 1)
    }

    /// The same with several clients and peers.
    pub fn routed_with(clients: u8, peers: u8) -> Self {
        let router = Namespace::new("router");
        router.enter(|| {
            set("net/ipv4/ip_forward", "1");
            set("net/ipv6/conf/all/forwarding", "1");
            // A test that sends to a port without a socket many times would find its errors missing.
            set("net/ipv4/icmp_ratelimit", "0");
        });
        let host = |role: Role, index| {
            let host = Namespace::new(&format!("{}{index}", role.name()));
            connect(&router, &host, role, index, RELAY_LINK);
            default_route(&host, role, index);
            host
        };
        let relay = host(Role::Relay, 0);
        let clients = (0..clients).map(|index| host(Role::Client, index)).collect();
        let peers = (0..peers).map(|index| host(Role::Peer, index)).collect();
        let receivers = Mutex::new(vec![passing::attach(&router, ROUTER_LINK)]);
        let lab = Self { clients, peers, relay, router, receivers };
        // The first packet of a test must not wait for the address resolution of a link.
        lab.resolve_neighbours();
        lab
    }

    /// Gives the relay a second link to the router, with addresses of its own; no route leads through it.
    pub fn add_link(&self) {
        connect(&self.router, &self.relay, Role::Relay, 1, SECOND_RELAY_LINK);
        self.receive(SECOND_ROUTER_LINK);
    }

    /// Lets the router take what XDP sends to it by a link.
    fn receive(&self, link: &str) {
        let receiver = passing::attach(&self.router, link);
        self.receivers.lock().expect("no holder panics").push(receiver);
    }

    /// Deletes the relay's first link.
    pub fn delete_link(&self) {
        self.relay.ip(&format!("link delete {RELAY_LINK}"));
    }

    /// Makes the relay's first link again, as it was.
    pub fn make_link_again(&self) {
        connect(&self.router, &self.relay, Role::Relay, 0, RELAY_LINK);
        default_route(&self.relay, Role::Relay, 0);
        self.receive(ROUTER_LINK);
        self.resolve_neighbours();
    }

    /// Has the relay send what is for the peers by one of its links.
    pub fn route_peers(&self, link: &str) {
        let index = u8::from(link == SECOND_RELAY_LINK);
        for family in Family::ALL {
            let peers = address(family, Role::Peer, 0, 0);
            let length = if family == Family::V4 { 16 } else { 48 };
            let gateway = address(family, Role::Relay, index, 1);
            self.relay.ip(&format!("route replace {peers}/{length} via {gateway} dev {link}"));
        }
    }

    /// Has the relay forget where the gateway of [`Lab::route_peers`] is. It is in use, so it is there.
    pub fn forget_gateway(&self, family: Family, link: &str) {
        let gateway = address(family, Role::Relay, u8::from(link == SECOND_RELAY_LINK), 1);
        self.relay.ip(&format!("neighbour del {gateway} dev {link}"));
    }

    /// Address of a client.
    pub fn client_ip(family: Family, index: u8) -> IpAddr {
        address(family, Role::Client, index, 2)
    }

    /// Address of a peer.
    pub fn peer_ip(family: Family, index: u8) -> IpAddr {
        address(family, Role::Peer, index, 2)
    }

    /// Address of the relay.
    pub fn relay_ip(family: Family) -> IpAddr {
        address(family, Role::Relay, 0, 2)
    }

    /// Address of the relay's second link.
    pub fn second_relay_ip(family: Family) -> IpAddr {
        address(family, Role::Relay, 1, 2)
    }

    fn resolve_neighbours(&self) {
        for host in self.clients.iter().chain(&self.peers).chain([&self.relay]) {
            host.enter(|| {
                for family in Family::ALL {
                    let from = std::net::UdpSocket::bind(match family {
                        Family::V4 => "0.0.0.0:0",
                        Family::V6 => "[::]:0",
                    });
                    // To the discard port of the router, which will complain; only the way there matters.
                    let sent = from.and_then(|socket| socket.send_to(b"", (address(family, Role::Relay, 0, 1), 9)));
                    sent.unwrap_or_else(|error| panic!("no way to the router from {}: {error}", host.name()));
                }
            });
        }
    }
}

/// Made-up addresses that look like any of the Internet's. `end` is 1 for the router and 2 for the host.
fn address(family: Family, role: Role, index: u8, end: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(11, role as u8, index, end).into(),
        Family::V6 => Ipv6Addr::new(0x2a0e, 0x11, role as u16, index.into(), 0, 0, 0, end.into()).into(),
    }
}

/// Makes a link between the router and a host.
fn connect(router: &Namespace, host: &Namespace, role: Role, index: u8, near: &str) {
    let far = format!("{}{index}", role.name());
    let mac = |end: u8| format!("02:00:00:{:02x}:{index:02x}:{end:02x}", role as u8);
    router.ip(&format!(
        "link add {far} address {} type veth peer name {near} address {} netns {}",
        mac(1),
        mac(2),
        host.name()
    ));
    for (namespace, link, end) in [(router, far.as_str(), 1), (host, near, 2)] {
        namespace.ip(&format!(
            "addr add {}/24 dev {link}
             addr add {}/64 dev {link} nodad
             link set {link} up",
            address(Family::V4, role, index, end),
            address(Family::V6, role, index, end),
        ));
        // A checksum that is left to hardware never comes to be on a veth; a real wire carries finished packets.
        process::run(namespace.command("ethtool").args(["-K", link, "tx", "off"])).expect_success();
    }
}

fn default_route(host: &Namespace, role: Role, index: u8) {
    host.ip(&format!(
        "route add default via {}
         route add default via {}",
        address(Family::V4, role, index, 1),
        address(Family::V6, role, index, 1),
    ));
}
