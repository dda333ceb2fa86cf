//! What the relay asks the kernel to forward.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::maps::NO_ALLOCATION;
use hairpin_common::wire::{CHANNEL_MAX, CHANNEL_MIN};

/// A part of an allocation's traffic, or a path of a media session, that may pass for a time of its own.
///
/// A media path joins two legs. To the kernel, one of them is the client's, `client` to `server`, and the other the peer's,
/// `relayed` to the peer: see [`Scope::Media`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The client's address, as the server sees it.
    pub client: SocketAddr,
    /// The local address the client sends to; never a wildcard.
    pub server: SocketAddr,
    /// The local address that the relayed transport address is bound to (behind a NAT not the one the peer sees).
    pub relayed: SocketAddr,
    /// Index of the allocation's counters and state, less than `max_allocations`; of [`Scope::Media`], one of the
    /// `max_media` behind these; of [`Scope::Client`], none.
    pub allocation: u32,
    /// Which part.
    pub scope: Scope,
}

/// Which part of an allocation's traffic a flow is.
///
/// A relay is installed before any of its permissions, and a permission before its channels: the kernel does not ask
/// whether what a flow rests on is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A client of whose datagrams the program understands nothing: see [`Handle::vouch`](super::Handle::vouch).
    Client,
    /// The relayed transport address itself. On its own it lets nothing through, but the kernel knows whose it is.
    Relay,
    /// A permission (RFC 8656 section 9): datagrams of this IP address, whatever the port, as Data indications, and Send
    /// indications to it.
    Permission {
        /// The peer's address, of the relayed address's family.
        peer: IpAddr,
    },
    /// A channel binding (RFC 8656 section 12): ChannelData, both ways.
    Channel {
        /// The channel number.
        channel: u16,
        /// The peer's address, of the relayed address's family.
        peer: SocketAddr,
    },
    /// A path of a media session, both ways, without any framing: what `client` sends to `server` goes from `relayed` to
    /// the peer and counts as to a peer, what the peer sends to `relayed` goes from `server` to `client` and counts as to
    /// the client. STUN (RFC 7983 section 7) and empty datagrams are left to userspace, and so is what comes from anybody
    /// else. It rests on no other flow.
    ///
    /// Where the remote of one leg is a relayed address of this relay, that leg is the peer's. When a remote becomes another
    /// one, the new flow is installed and then the old one removed: a record of both changes hands.
    Media {
        /// The remote of the other leg, of its local address's family.
        peer: SocketAddr,
    },
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to a peer.
    ToPeer,
    /// From a peer to the client.
    ToClient,
}

impl Flow {
    /// The flow of a client that is vouched for.
    pub(super) fn of_client(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, relayed: server, allocation: NO_ALLOCATION, scope: Scope::Client }
    }

    /// The same flow with IPv4-mapped IPv6 addresses written as IPv4, which is what a dual-stack socket's packets are.
    #[must_use]
    pub(super) fn canonical(mut self) -> Self {
        let addresses = [&mut self.client, &mut self.server, &mut self.relayed];
        match &mut self.scope {
            Scope::Client | Scope::Relay => {}
            Scope::Permission { peer } => *peer = peer.to_canonical(),
            Scope::Channel { peer, .. } | Scope::Media { peer } => *peer = canonical(*peer),
        }
        for address in addresses {
            *address = canonical(*address);
        }
        self
    }

    /// Whether the program can forward it at all. What it can't, the userspace path does.
    pub(super) fn is_supported(&self) -> bool {
        let exact = [self.client, self.server, self.relayed].iter().all(is_exact);
        let peer = match self.scope {
            Scope::Client | Scope::Relay => true,
            Scope::Permission { peer } => is_unicast(peer),
            Scope::Channel { channel, peer } => is_exact(&peer) && (CHANNEL_MIN..=CHANNEL_MAX).contains(&channel),
            Scope::Media { peer } => is_exact(&peer),
        };
        // Each leg is of one family; the two may differ.
        let legs = self.client.is_ipv4() == self.server.is_ipv4()
            && self.peer().is_none_or(|peer| peer.is_ipv4() == self.relayed.is_ipv4());
        exact && peer && legs
    }

    /// Whom the flow is with, if it is with anyone.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self.scope {
            Scope::Client | Scope::Relay => None,
            Scope::Permission { peer } => Some(peer),
            Scope::Channel { peer, .. } | Scope::Media { peer } => Some(peer.ip()),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_exact(address: &SocketAddr) -> bool {
    address.port() != 0 && is_unicast(address.ip())
}

/// Whether packets from and to an address can be the program's.
///
/// Link-local IPv6 addresses are left out too: they name a host only together with a link, and the key has no link.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A channel over IPv4.
    pub(in crate::datapath) fn flow4() -> Flow {
        Flow {
            client: "192.0.2.10:40000".parse().unwrap(),
            server: "192.0.2.1:3478".parse().unwrap(),
            relayed: "192.0.2.1:50000".parse().unwrap(),
            allocation: 3,
            scope: channel("198.51.100.7:6000"),
        }
    }

    /// A channel over IPv6.
    pub(in crate::datapath) fn flow6() -> Flow {
        Flow {
            client: "[2001:db8::10]:40000".parse().unwrap(),
            server: "[2001:db8::1]:3478".parse().unwrap(),
            relayed: "[2001:db8::1]:50000".parse().unwrap(),
            allocation: 3,
            scope: channel("[2001:db8:1::7]:6000"),
        }
    }

    /// The client of one flow, and the relayed address and peer of another.
    pub(in crate::datapath) fn crossed(client: Flow, peer: Flow) -> Flow {
        Flow { relayed: peer.relayed, scope: peer.scope, ..client }
    }

    /// Channel 0x4001 to a peer.
    pub(in crate::datapath) fn channel(peer: &str) -> Scope {
        Scope::Channel { channel: 0x4001, peer: peer.parse().unwrap() }
    }

    /// A path of a media session with the addresses of a channel.
    pub(in crate::datapath) fn media(flow: Flow) -> Flow {
        let Scope::Channel { peer, .. } = flow.scope else { panic!("not a channel: {flow:?}") };
        Flow { scope: Scope::Media { peer }, ..flow }
    }

    /// The same allocation's flow of another scope, with the same peer where there is one.
    pub(in crate::datapath) fn scopes(flow: Flow) -> [Flow; 3] {
        let peer = flow.peer().unwrap();
        [Scope::Relay, Scope::Permission { peer }, flow.scope].map(|scope| Flow { scope, ..flow })
    }

    #[test]
    fn each_leg_may_be_of_either_family() {
        for client in [flow4(), flow6()] {
            for peer in [flow4(), flow6()] {
                let flow = crossed(client, peer);
                for flow in scopes(flow).into_iter().chain([media(flow)]) {
                    assert!(flow.is_supported(), "{flow:?}");
                }
            }
        }
    }

    #[test]
    fn what_the_program_cannot_forward_is_refused() {
        let to = |peer| Flow { scope: channel(peer), ..flow4() };
        let in_channel = |channel| {
            let Scope::Channel { peer, .. } = flow4().scope else { panic!("a channel") };
            Flow { scope: Scope::Channel { channel, peer }, ..flow4() }
        };
        let path = |peer: &str| Flow { scope: Scope::Media { peer: peer.parse().unwrap() }, ..flow4() };
        let permission = |peer: &str| Flow { scope: Scope::Permission { peer: peer.parse().unwrap() }, ..flow4() };
        let refused = [
            ("a leg of two families", Flow { server: flow6().server, ..flow4() }),
            ("a peer of another family", to("[2001:db8:1::7]:6000")),
            ("a permission of another family", permission("2001:db8:1::7")),
            ("channel 0", in_channel(0)),
            ("channel 0x8000", in_channel(0x8000)),
            ("wildcard server", Flow { server: "0.0.0.0:3478".parse().unwrap(), ..flow4() }),
            ("wildcard relay", Flow { relayed: "0.0.0.0:50000".parse().unwrap(), scope: Scope::Relay, ..flow4() }),
            ("multicast peer", to("224.0.0.1:6000")),
            ("multicast permission", permission("224.0.0.1")),
            ("broadcast peer", to("255.255.255.255:6000")),
            ("loopback permission", permission("127.0.0.1")),
            ("loopback client", Flow { client: "127.0.0.1:40000".parse().unwrap(), ..flow4() }),
            ("link-local peer", Flow { scope: channel("[fe80::1]:6000"), ..flow6() }),
            ("peer port 0", to("198.51.100.7:0")),
            ("a leg of two families whose remote is another's", path("[2001:db8:1::7]:6000")),
            ("a remote with port 0", path("198.51.100.7:0")),
            ("a remote without an address", path("0.0.0.0:6000")),
            ("a remote on this host", path("127.0.0.1:6000")),
        ];
        for (why, flow) in refused {
            assert!(!flow.is_supported(), "{why}: {flow:?}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_on_the_wire() {
        let mapped = Flow {
            client: "[::ffff:192.0.2.10]:40000".parse().unwrap(),
            server: "[::ffff:192.0.2.1]:3478".parse().unwrap(),
            relayed: "[::ffff:192.0.2.1]:50000".parse().unwrap(),
            scope: channel("[::ffff:198.51.100.7]:6000"),
            ..flow4()
        };
        assert_eq!(mapped.canonical(), flow4());
        assert_eq!(media(mapped).canonical(), media(flow4()));
        let peer = "::ffff:198.51.100.7".parse().unwrap();
        let [_, permission, _] = scopes(flow4());
        assert_eq!(Flow { scope: Scope::Permission { peer }, ..mapped }.canonical(), permission);
    }
}
