//! Relayed flows, and what a packet of theirs must become.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::maps::{FlowKey, NextHop, Rewrite, flow_delta};

use super::frame::Frame;

/// A channel between a client and a peer, and the relay between them.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The client's address.
    pub client: SocketAddr,
    /// Where the client reaches the server.
    pub listener: SocketAddr,
    /// Where the peer reaches the client.
    pub relayed: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The channel number.
    pub channel: u16,
    /// Index of the allocation's counters.
    pub allocation: u32,
    /// Index of the next hop, both ways.
    pub next_hop: u16,
}

/// One of the two ways through a [`Flow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// ChannelData in, UDP out.
    ToPeer,
    /// UDP in, ChannelData out.
    ToClient,
}

/// A key of either map.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// Of the IPv4 map.
    V4(FlowKey<4>),
    /// Of the IPv6 map.
    V6(FlowKey<16>),
}

impl Flow {
    /// A flow of IPv4, or of IPv6, that differs from all others with another number, of 24 bits.
    pub fn numbered(ipv6: bool, number: u32) -> Self {
        let [_, high, middle, low] = number.to_be_bytes();
        let at = |v4: [u8; 4], v6: u16, port| {
            let ip = if ipv6 {
                let [_, second, third, fourth] = v4.map(u16::from);
                IpAddr::from([0x2001, 0xdb8, v6, 0, 0, 0, second, third << 8 | fourth])
            } else {
                IpAddr::from(v4)
            };
            SocketAddr::new(ip, port)
        };
        // A peer is told apart by the relayed address first, and there are only so many ports.
        let (relayed_port, peer_port) = (number % 16_000, number / 16_000);
        Self {
            client: at([192, high, middle, low], 1, 40_000),
            listener: at([198, 51, 100, 1], 2, 3478),
            relayed: at([198, 51, 100, 1], 2, 49_152 + relayed_port as u16),
            peer: at([203, 0, 113, 7], 3, 5000 + peer_port as u16),
            channel: 0x4000 + (number % 0x4000) as u16,
            allocation: number,
            next_hop: 1,
        }
    }

    /// A packet that enters the flow, with this application data.
    pub fn packet(&self, direction: Direction, data: &[u8]) -> Frame {
        match direction {
            Direction::ToPeer => {
                let mut payload = self.channel.to_be_bytes().to_vec();
                payload.extend(u16::try_from(data.len()).expect("a datagram").to_be_bytes());
                payload.extend(data);
                Frame::new(self.client, self.listener, payload)
            }
            Direction::ToClient => Frame::new(self.peer, self.relayed, data),
        }
    }

    /// What the relay has to make of a packet: everything by hand, nothing by update.
    ///
    /// `data` is the application data in it. An identification that the relay is free to choose stays 0.
    pub fn relayed_packet(&self, direction: Direction, packet: &Frame, data: &[u8], next_hop: &NextHop) -> Frame {
        let mut sent = match direction {
            Direction::ToPeer => Frame::new(self.relayed, self.peer, data),
            Direction::ToClient => {
                let mut payload = self.channel.to_be_bytes().to_vec();
                payload.extend(u16::try_from(data.len()).expect("a datagram").to_be_bytes());
                payload.extend(data);
                Frame::new(self.listener, self.client, payload)
            }
        };
        sent.link = (next_hop.destination, next_hop.source);
        sent.vlan = packet.vlan;
        sent.traffic_class = packet.traffic_class;
        sent.hop_limit = packet.hop_limit - 1;
        sent.dont_fragment = packet.dont_fragment;
        sent.checksum = packet.checksum;
        sent
    }

    /// The key of one direction, from the addresses a packet arrives with.
    pub fn key(&self, direction: Direction) -> Key {
        let (source, destination, channel) = match direction {
            Direction::ToPeer => (self.client, self.listener, self.channel),
            Direction::ToClient => (self.peer, self.relayed, 0),
        };
        let (source_port, destination_port) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
        let (channel, zero) = (channel.to_be_bytes(), [0; 2]);
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Key::V4(FlowKey {
                source: from.octets(),
                destination: to.octets(),
                source_port,
                destination_port,
                channel,
                zero,
            }),
            (IpAddr::V6(from), IpAddr::V6(to)) => Key::V6(FlowKey {
                source: from.octets(),
                destination: to.octets(),
                source_port,
                destination_port,
                channel,
                zero,
            }),
            _ => panic!("addresses of two families in {self:?}"),
        }
    }

    /// The record of one direction; it never expires.
    pub fn record(&self, direction: Direction) -> Rewrite {
        let channel = self.channel.to_be_bytes();
        let (received, sent, from_channel, to_channel) = match direction {
            Direction::ToPeer => ((self.client, self.listener), (self.relayed, self.peer), channel, [0; 2]),
            Direction::ToClient => ((self.peer, self.relayed), (self.listener, self.client), [0; 2], channel),
        };
        Rewrite {
            expires: u32::MAX,
            allocation: self.allocation,
            source: octets(sent.0).1,
            destination: octets(sent.1).1,
            source_port: sent.0.port().to_be_bytes(),
            destination_port: sent.1.port().to_be_bytes(),
            channel: to_channel,
            delta: delta(received, from_channel, sent, to_channel),
            next_hop: self.next_hop,
            family: if sent.0.is_ipv4() { 4 } else { 6 },
            flags: 0,
        }
    }
}

fn delta(
    received: (SocketAddr, SocketAddr),
    from_channel: [u8; 2],
    sent: (SocketAddr, SocketAddr),
    to_channel: [u8; 2],
) -> [u8; 2] {
    let parts = |(source, destination): (SocketAddr, SocketAddr), channel: [u8; 2]| {
        let ((length, source_ip), (_, destination_ip)) = (octets(source), octets(destination));
        (
            source_ip[..length].to_vec(),
            destination_ip[..length].to_vec(),
            [source.port().to_be_bytes(), destination.port().to_be_bytes()],
            channel,
        )
    };
    let (taken, put) = (parts(received, from_channel), parts(sent, to_channel));
    flow_delta([&taken.0, &taken.1, &taken.2[0], &taken.2[1], &taken.3], [&put.0, &put.1, &put.2[0], &put.2[1], &put.3])
}

/// The address's bytes in front of zeros, and how many they are.
fn octets(address: SocketAddr) -> (usize, [u8; 16]) {
    let mut bytes = [0; 16];
    match address.ip() {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    (if address.is_ipv4() { 4 } else { 16 }, bytes)
}
