//! What the relay asks the kernel to forward: both directions between one client and one peer, over one channel.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::wire::{CHANNEL_MAX, CHANNEL_MIN};

/// One channel binding in use (RFC 8656 section 12), as the datapath sees it.
///
/// It becomes two records: ChannelData of the client leaves as plain datagrams of the relayed address, and datagrams of
/// the peer leave as ChannelData of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The client's address, as the server sees it.
    pub client: SocketAddr,
    /// The local address the client sends to; never a wildcard.
    pub server: SocketAddr,
    /// The channel number.
    pub channel: u16,
    /// The local address that the relayed transport address is bound to (behind a NAT not the one the peer sees).
    pub relayed: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Index of the allocation's counters, less than `max_allocations`.
    pub allocation: u32,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToPeer,
    ToClient,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::ToPeer, Self::ToClient];
}

/// Addresses of a packet as it is on the wire: where from, where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Flow {
    /// The same flow with IPv4-mapped IPv6 addresses written as IPv4, which is what a dual-stack socket's packets are.
    #[must_use]
    pub(super) fn canonical(mut self) -> Self {
        for address in [&mut self.client, &mut self.server, &mut self.relayed, &mut self.peer] {
            *address = SocketAddr::new(address.ip().to_canonical(), address.port());
        }
        self
    }

    /// Whether this version of the program can forward it at all. What it can't, the userspace path does.
    pub(super) fn is_supported(&self) -> bool {
        let addresses = [self.client, self.server, self.relayed, self.peer];
        // The program does not translate between families yet.
        let one_family = addresses.iter().all(|address| address.is_ipv4() == self.client.is_ipv4());
        let exact = addresses.iter().all(|address| address.port() != 0 && is_unicast(address.ip()));
        one_family && exact && (CHANNEL_MIN..=CHANNEL_MAX).contains(&self.channel)
    }

    /// How the packet of a direction arrives.
    pub(super) fn arrives(&self, direction: Direction) -> Path {
        match direction {
            Direction::ToPeer => Path { source: self.client, destination: self.server },
            Direction::ToClient => Path { source: self.peer, destination: self.relayed },
        }
    }

    /// How the packet of a direction leaves.
    pub(super) fn leaves(&self, direction: Direction) -> Path {
        match direction {
            Direction::ToPeer => Path { source: self.relayed, destination: self.peer },
            Direction::ToClient => Path { source: self.server, destination: self.client },
        }
    }
}

/// Link-local IPv6 addresses are left out too: they name a host only together with a link, and the key has no link.
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::datapath) fn flow4() -> Flow {
        Flow {
            client: "192.0.2.10:40000".parse().unwrap(),
            server: "192.0.2.1:3478".parse().unwrap(),
            channel: 0x4001,
            relayed: "192.0.2.1:50000".parse().unwrap(),
            peer: "198.51.100.7:6000".parse().unwrap(),
            allocation: 3,
        }
    }

    pub(in crate::datapath) fn flow6() -> Flow {
        Flow {
            client: "[2001:db8::10]:40000".parse().unwrap(),
            server: "[2001:db8::1]:3478".parse().unwrap(),
            channel: 0x4001,
            relayed: "[2001:db8::1]:50000".parse().unwrap(),
            peer: "[2001:db8:1::7]:6000".parse().unwrap(),
            allocation: 3,
        }
    }

    #[test]
    fn flows_of_one_family_are_supported() {
        assert!(flow4().is_supported());
        assert!(flow6().is_supported());
    }

    #[test]
    fn what_the_program_cannot_forward_is_refused() {
        let refused = [
            ("cross-family", Flow { peer: flow6().peer, relayed: flow6().relayed, ..flow4() }),
            ("channel 0", Flow { channel: 0, ..flow4() }),
            ("channel 0x8000", Flow { channel: 0x8000, ..flow4() }),
            ("wildcard server", Flow { server: "0.0.0.0:3478".parse().unwrap(), ..flow4() }),
            ("multicast peer", Flow { peer: "224.0.0.1:6000".parse().unwrap(), ..flow4() }),
            ("broadcast peer", Flow { peer: "255.255.255.255:6000".parse().unwrap(), ..flow4() }),
            ("loopback client", Flow { client: "127.0.0.1:40000".parse().unwrap(), ..flow4() }),
            ("link-local peer", Flow { peer: "[fe80::1]:6000".parse().unwrap(), ..flow6() }),
            ("peer port 0", Flow { peer: "198.51.100.7:0".parse().unwrap(), ..flow4() }),
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
            ..flow4()
        };
        assert_eq!(mapped.canonical(), flow4());
    }
}
