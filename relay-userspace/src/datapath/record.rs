//! From a flow to the keys and the rewrite records that make it up. Pure: no map, no clock, no route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hairpin_common::maps::{
    FlowKey, MEDIA, MEDIA_TO_PEER, NO_ALLOCATION, PEER_IS_RELAYED, Rewrite, VOUCHED, flow_delta,
};

use super::flow::{Flow, Scope};
use super::relay_addresses::Crossing;

/// A record, and what a packet has to arrive with to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: FlowKey,
    pub(super) rewrite: Rewrite,
}

/// What records hold besides the flow itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// First tick at which the record is not valid any more.
    pub(super) expires: u32,
    /// Index of the next hop to the peer; 0 where the program is told by something else.
    pub(super) to_peer: u16,
    /// Index of the next hop to the client.
    pub(super) to_client: u16,
    /// The way to the peer, if it has one of the addresses that relayed addresses are made of.
    pub(super) crossing: Option<Crossing>,
}

/// Where a packet comes from and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path {
    source: SocketAddr,
    destination: SocketAddr,
}

/// The records of a flow: one or two, see [`FlowKey`]. Their keys, and how many there are, do not depend on the stamp.
pub(super) fn records(flow: &Flow, stamp: &Stamp) -> impl Iterator<Item = Record> + use<> {
    let (first, second) = match flow.scope {
        Scope::Client => (vouched(flow, stamp.expires), None),
        Scope::Relay => (to_any_peer(flow, stamp), Some(mark(flow.relayed, flow.allocation, stamp.expires))),
        Scope::Permission { peer } => (from_any_port(flow, peer, stamp), None),
        Scope::Channel { channel, peer } => {
            (to_peer(flow, channel, peer, stamp), Some(to_client(flow, channel, peer, stamp)))
        }
        Scope::Media { peer } => {
            let (there, back) = (to_peer(flow, 0, peer, stamp), to_client(flow, 0, peer, stamp));
            (flagged(there, MEDIA | MEDIA_TO_PEER), Some(flagged(back, MEDIA)))
        }
    };
    std::iter::once(first).chain(second)
}

/// The keys of a flow's records. The first tells the flow from all others that can be there at the same time.
pub(super) fn keys(flow: &Flow) -> impl Iterator<Item = FlowKey> + use<> {
    records(flow, &Stamp::default()).map(|record| record.key)
}

/// The record of a listener. It belongs to no allocation and is never over.
pub(super) fn listener(server: SocketAddr) -> Record {
    mark(server, NO_ALLOCATION, u32::MAX)
}

/// Plain datagrams where there is no channel, from one leg to another.
fn flagged(Record { key, rewrite }: Record, more: u8) -> Record {
    Record { key, rewrite: Rewrite { flags: rewrite.flags | more, ..rewrite } }
}

/// ChannelData from the client.
fn to_peer(flow: &Flow, channel: u16, peer: SocketAddr, stamp: &Stamp) -> Record {
    let arrives = Path { source: flow.client, destination: flow.server };
    let mut leaves = Path { source: flow.relayed, destination: peer };
    if let Some(Crossing { source, destination, .. }) = stamp.crossing {
        leaves.source.set_ip(source);
        leaves.destination.set_ip(destination);
    }
    let rewrite = rewrite(flow, arrives, leaves, stamp.expires);
    let rewrite = Rewrite { next_hop: stamp.to_peer, flags: flags(stamp), ..rewrite };
    Record { key: key(arrives, channel), rewrite }
}

/// Datagrams of a peer, for the client, in a channel.
fn to_client(flow: &Flow, channel: u16, peer: SocketAddr, stamp: &Stamp) -> Record {
    let arrives = Path { source: peer, destination: flow.relayed };
    let leaves = Path { source: flow.server, destination: flow.client };
    let rewrite = rewrite(flow, arrives, leaves, stamp.expires);
    let channel = channel.to_be_bytes();
    let rewrite = Rewrite { channel, next_hop: stamp.to_client, flags: flags(stamp), ..rewrite };
    Record { key: key(arrives, 0), rewrite }
}

fn flags(stamp: &Stamp) -> u8 {
    if stamp.crossing.is_some() { PEER_IS_RELAYED } else { 0 }
}

/// Datagrams of an IP address that has a permission. The port, which is not known, counts as 0 and so adds nothing to
/// the delta.
fn from_any_port(flow: &Flow, peer: IpAddr, stamp: &Stamp) -> Record {
    let record = to_client(flow, 0, SocketAddr::new(peer, 0), stamp);
    let peer_next_hop = stamp.crossing.map_or(stamp.to_peer, |crossing| crossing.index);
    Record { rewrite: Rewrite { peer_next_hop, ..record.rewrite }, ..record }
}

/// Send indications from the client to peers of the relayed address's family. Which peer is not known, so it counts as
/// all zeros.
fn to_any_peer(flow: &Flow, stamp: &Stamp) -> Record {
    let version = u16::from(version(flow.relayed.ip()));
    to_peer(flow, version, unspecified(flow.relayed.ip()), &Stamp { expires: stamp.expires, ..Stamp::default() })
}

/// A record that forwards nothing: it says that a client is no stranger.
fn vouched(flow: &Flow, expires: u32) -> Record {
    let arrives = Path { source: flow.client, destination: flow.server };
    Record { key: key(arrives, VOUCHED), ..mark(flow.server, NO_ALLOCATION, expires) }
}

/// A record that forwards nothing: it says that an address is ours, and whose.
fn mark(address: SocketAddr, allocation: u32, expires: u32) -> Record {
    let arrives = Path { source: unspecified(address.ip()), destination: address };
    let rewrite = Rewrite {
        expires,
        allocation,
        source: [0; 16],
        destination: [0; 16],
        source_port: [0; 2],
        destination_port: [0; 2],
        channel: [0; 2],
        delta: [0; 2],
        next_hop: 0,
        peer_next_hop: 0,
        family: version(address.ip()),
        flags: 0,
    };
    Record { key: key(arrives, 0), rewrite }
}

fn key(Path { source, destination }: Path, channel: u16) -> FlowKey {
    FlowKey {
        source: octets(source.ip()),
        destination: octets(destination.ip()),
        source_port: source.port().to_be_bytes(),
        destination_port: destination.port().to_be_bytes(),
        channel: channel.to_be_bytes(),
        family: version(destination.ip()),
        zero: 0,
    }
}

fn rewrite(flow: &Flow, arrives: Path, leaves: Path, expires: u32) -> Rewrite {
    Rewrite {
        expires,
        allocation: flow.allocation,
        source: octets(leaves.source.ip()),
        destination: octets(leaves.destination.ip()),
        source_port: leaves.source.port().to_be_bytes(),
        destination_port: leaves.destination.port().to_be_bytes(),
        channel: [0; 2],
        delta: delta(arrives, leaves),
        next_hop: 0,
        peer_next_hop: 0,
        family: version(leaves.destination.ip()),
        flags: 0,
    }
}

fn delta(arrives: Path, leaves: Path) -> [u8; 2] {
    let ports = |path: Path| (path.source.port().to_be_bytes(), path.destination.port().to_be_bytes());
    let ((taken_source, taken_destination), (put_source, put_destination)) = (ports(arrives), ports(leaves));
    flow_delta(
        [&octets(arrives.source.ip()), &octets(arrives.destination.ip()), &taken_source, &taken_destination],
        [&octets(leaves.source.ip()), &octets(leaves.destination.ip()), &put_source, &put_destination],
    )
}

/// The address as records hold it: IPv4 in the first four bytes, the rest zero.
pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn version(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// All zeros, of the same family.
fn unspecified(like: IpAddr) -> SocketAddr {
    let any = if like.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(any, 0)
}

#[cfg(test)]
mod tests {
    use hairpin_common::checksum::{Sum, update_udp, word};
    use hairpin_common::wire::{CHANNEL_DATA_LEN, ChannelDataHeader, PROTOCOL_UDP, UDP_LEN};

    use super::super::flow::tests::{crossed, flow4, flow6, media, scopes};
    use super::*;

    const STAMP: Stamp = Stamp { expires: 1000, to_peer: 5, to_client: 6, crossing: None };

    fn of(flow: &Flow, stamp: &Stamp) -> Vec<Record> {
        records(flow, stamp).collect()
    }

    /// Channels of all four pairs of families.
    fn pairs() -> [Flow; 4] {
        [flow4(), flow6(), crossed(flow4(), flow6()), crossed(flow6(), flow4())]
    }

    fn channel_of(flow: &Flow) -> (u16, SocketAddr) {
        let Scope::Channel { channel, peer } = flow.scope else { panic!("not a channel: {flow:?}") };
        (channel, peer)
    }

    /// The checksum field of a UDP datagram, computed over everything (RFC 768, RFC 8200 section 8.1).
    fn full_checksum(source: SocketAddr, destination: SocketAddr, body: &[u8]) -> u16 {
        let length = u16::try_from(UDP_LEN + body.len()).unwrap();
        let sum = Sum::ZERO
            .add_bytes(&octets(source.ip()))
            .add_bytes(&octets(destination.ip()))
            .add(word(u16::from(PROTOCOL_UDP)))
            .add(word(length))
            .add_bytes(&source.port().to_be_bytes())
            .add_bytes(&destination.port().to_be_bytes())
            .add(word(length))
            .add_bytes(body);
        match sum.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// What the program does: the record's delta, what the record leaves out, and what framing comes and goes; lengths
    /// count twice, in the header and in the pseudo header.
    fn incremental(old: u16, record: &Record, left_out: Sum, taken: &[u8], put: &[u8], payload: usize) -> u16 {
        let length = |framing: &[u8]| word(u16::try_from(UDP_LEN + framing.len() + payload).unwrap());
        let delta = left_out.add(u16::from_ne_bytes(record.rewrite.delta)).sub_bytes(taken).add_bytes(put);
        update_udp(old, delta.sub(length(taken)).sub(length(taken)).add(length(put)).add(length(put)))
    }

    fn payloads() -> Vec<Vec<u8>> {
        let long: Vec<u8> = (0..=255).cycle().take(1201).collect();
        vec![vec![], b"x".to_vec(), b"hello".to_vec(), b"an even number of bytes!".to_vec(), vec![0xff; 1200], long]
    }

    #[test]
    fn the_delta_gives_the_checksum_of_the_rewritten_packet() {
        for flow in pairs() {
            let (channel, peer) = channel_of(&flow);
            let [from_client, from_peer] = of(&flow, &STAMP)[..] else { panic!("a channel is two records") };
            for payload in payloads() {
                let length = u16::try_from(payload.len()).unwrap();
                let framing = ChannelDataHeader { channel, length }.to_bytes();
                assert_eq!(framing.len(), CHANNEL_DATA_LEN);
                let framed = [&framing, &payload[..]].concat();
                let inside = full_checksum(flow.client, flow.server, &framed);
                let outside = full_checksum(flow.relayed, peer, &payload);
                let new = incremental(inside, &from_client, Sum::ZERO, &framing, &[], payload.len());
                assert_eq!(new, outside, "{flow:?} to the peer with {} bytes", payload.len());

                let inside = full_checksum(flow.server, flow.client, &framed);
                let outside = full_checksum(peer, flow.relayed, &payload);
                let new = incremental(outside, &from_peer, Sum::ZERO, &[], &framing, payload.len());
                assert_eq!(new, inside, "{flow:?} to the client with {} bytes", payload.len());
            }
        }
    }

    #[test]
    fn the_delta_of_media_is_all_that_changes_in_the_checksum() {
        for flow in pairs() {
            let (_, peer) = channel_of(&flow);
            let [there, back] = of(&media(flow), &STAMP)[..] else { panic!("a path is two records") };
            for payload in payloads() {
                let one = full_checksum(flow.client, flow.server, &payload);
                let other = full_checksum(flow.relayed, peer, &payload);
                let new = incremental(one, &there, Sum::ZERO, &[], &[], payload.len());
                assert_eq!(new, other, "{flow:?} to the peer with {} bytes", payload.len());
                let one = full_checksum(peer, flow.relayed, &payload);
                let other = full_checksum(flow.server, flow.client, &payload);
                let new = incremental(one, &back, Sum::ZERO, &[], &[], payload.len());
                assert_eq!(new, other, "{flow:?} to the client with {} bytes", payload.len());
            }
        }
    }

    #[test]
    fn what_a_record_leaves_out_is_what_the_program_adds() {
        for flow in pairs() {
            let (_, peer) = channel_of(&flow);
            let [relay, permission, _] = scopes(flow);
            let (send, data) = (of(&relay, &STAMP)[0], of(&permission, &STAMP)[0]);
            for payload in payloads() {
                // Any framing will do: the program sums what it takes away and puts there.
                let framing = [0x5a; 36];
                let framed = [&framing, &payload[..]].concat();
                let inside = full_checksum(flow.client, flow.server, &framed);
                let outside = full_checksum(flow.relayed, peer, &payload);
                let add_peer = Sum::ZERO.add_bytes(&octets(peer.ip())).add_bytes(&peer.port().to_be_bytes());
                let new = incremental(inside, &send, add_peer, &framing, &[], payload.len());
                assert_eq!(new, outside, "{flow:?} to the peer with {} bytes", payload.len());

                let inside = full_checksum(flow.server, flow.client, &framed);
                let outside = full_checksum(peer, flow.relayed, &payload);
                let take_port = Sum::ZERO.sub_bytes(&peer.port().to_be_bytes());
                let new = incremental(outside, &data, take_port, &[], &framing, payload.len());
                assert_eq!(new, inside, "{flow:?} to the client with {} bytes", payload.len());
            }
        }
    }

    const CLIENT: [u8; 16] = [192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const SERVER: [u8; 16] = [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const PEER: [u8; 16] = [198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    /// The key of a packet with these addresses; ports 0 for all zeros.
    fn key_of(source: [u8; 16], source_port: u16, destination_port: u16, channel: u16) -> FlowKey {
        FlowKey {
            source,
            destination: SERVER,
            source_port: source_port.to_be_bytes(),
            destination_port: destination_port.to_be_bytes(),
            channel: channel.to_be_bytes(),
            family: 4,
            zero: 0,
        }
    }

    #[test]
    fn each_scope_has_the_keys_of_its_packets() {
        let [relay, permission, channel] = scopes(flow4()).map(|flow| keys(&flow).collect::<Vec<_>>());
        assert_eq!(relay, [key_of(CLIENT, 40_000, 3478, 4), key_of([0; 16], 0, 50_000, 0)]);
        assert_eq!(permission, [key_of(PEER, 0, 50_000, 0)]);
        assert_eq!(channel, [key_of(CLIENT, 40_000, 3478, 0x4001), key_of(PEER, 6000, 50_000, 0)]);
        let path: Vec<_> = keys(&media(flow4())).collect();
        assert_eq!(path, [key_of(CLIENT, 40_000, 3478, 0), key_of(PEER, 6000, 50_000, 0)]);
        assert_eq!(listener(flow4().server).key, key_of([0; 16], 0, 3478, 0));
        let vouched = of(&Flow::of_client(flow4().client, flow4().server), &STAMP);
        let expected = Rewrite { expires: 1000, ..listener(flow4().server).rewrite };
        assert_eq!(vouched, [Record { key: key_of(CLIENT, 40_000, 3478, 1), rewrite: expected }]);
    }

    #[test]
    fn a_key_has_the_family_of_the_packet_that_arrives_and_a_send_record_that_of_its_peers() {
        let [relay, permission, channel] =
            scopes(crossed(flow4(), flow6())).map(|flow| keys(&flow).map(|key| key.family).collect::<Vec<_>>());
        assert_eq!((relay, permission, channel), (vec![4, 6], vec![6], vec![4, 6]));
        let [relay, ..] = scopes(crossed(flow4(), flow6()));
        let send = of(&relay, &STAMP)[0];
        assert_eq!((send.key.channel, send.rewrite.family, send.rewrite.channel), ([0, 6], 6, [0; 2]));
    }

    #[test]
    fn a_channel_says_what_to_send_both_ways() {
        let [to_peer, to_client] = of(&crossed(flow6(), flow4()), &STAMP)[..] else { panic!("two records") };
        let rewrite = to_peer.rewrite;
        assert_eq!((rewrite.source, rewrite.destination), (SERVER, PEER));
        assert_eq!((rewrite.source_port, rewrite.destination_port), (50_000_u16.to_be_bytes(), 6000_u16.to_be_bytes()));
        assert_eq!((rewrite.channel, rewrite.family, rewrite.flags), ([0; 2], 4, 0));
        assert_eq!((rewrite.expires, rewrite.allocation), (1000, 3));
        assert_eq!((rewrite.next_hop, rewrite.peer_next_hop), (5, 0));

        let rewrite = to_client.rewrite;
        assert_eq!((rewrite.source, rewrite.destination), (octets(flow6().server.ip()), octets(flow6().client.ip())));
        assert_eq!((rewrite.source_port, rewrite.destination_port), (3478_u16.to_be_bytes(), 40_000_u16.to_be_bytes()));
        assert_eq!((rewrite.channel, rewrite.family, rewrite.flags), ([0x40, 0x01], 6, 0));
        assert_eq!((rewrite.next_hop, rewrite.peer_next_hop), (6, 0));
    }

    #[test]
    fn a_media_path_is_plain_both_ways_and_says_which_is_which() {
        let [there, back] = of(&media(crossed(flow6(), flow4())), &STAMP)[..] else { panic!("two records") };
        assert_eq!((there.key.family, back.key.family), (6, 4));
        let rewrite = there.rewrite;
        assert_eq!((rewrite.source, rewrite.destination), (SERVER, PEER));
        assert_eq!((rewrite.source_port, rewrite.destination_port), (50_000_u16.to_be_bytes(), 6000_u16.to_be_bytes()));
        assert_eq!((rewrite.channel, rewrite.family, rewrite.flags), ([0; 2], 4, MEDIA | MEDIA_TO_PEER));
        assert_eq!((rewrite.expires, rewrite.allocation), (1000, 3));
        assert_eq!((rewrite.next_hop, rewrite.peer_next_hop), (5, 0));

        let rewrite = back.rewrite;
        assert_eq!((rewrite.source, rewrite.destination), (octets(flow6().server.ip()), octets(flow6().client.ip())));
        assert_eq!((rewrite.source_port, rewrite.destination_port), (3478_u16.to_be_bytes(), 40_000_u16.to_be_bytes()));
        assert_eq!((rewrite.channel, rewrite.family, rewrite.flags), ([0; 2], 6, MEDIA));
        assert_eq!((rewrite.expires, rewrite.allocation), (1000, 3));
        assert_eq!((rewrite.next_hop, rewrite.peer_next_hop), (6, 0));
    }

    #[test]
    fn a_permission_knows_both_ways_and_a_relay_neither() {
        let [relay, permission, _] = scopes(flow4());
        let data = of(&permission, &STAMP)[0].rewrite;
        assert_eq!((data.source, data.destination), (SERVER, CLIENT));
        assert_eq!((data.next_hop, data.peer_next_hop, data.channel), (6, 5, [0; 2]));

        let [send, mark] = of(&relay, &STAMP)[..] else { panic!("two records") };
        assert_eq!((send.rewrite.source, send.rewrite.source_port), (SERVER, 50_000_u16.to_be_bytes()));
        assert_eq!((send.rewrite.destination, send.rewrite.destination_port), ([0; 16], [0; 2]));
        assert_eq!((send.rewrite.next_hop, send.rewrite.peer_next_hop), (0, 0));
        assert_eq!((mark.rewrite.allocation, mark.rewrite.expires), (3, 1000));
        let listener = listener(flow4().server).rewrite;
        assert_eq!(listener, Rewrite { allocation: u32::MAX, expires: u32::MAX, ..mark.rewrite });
    }

    #[test]
    fn a_peer_behind_this_relay_is_marked_where_packets_go_to_it() {
        let flow = flow4();
        let (_, peer) = channel_of(&flow);
        let crossing = Crossing { source: flow.relayed.ip(), destination: peer.ip(), index: 0 };
        let stamp = Stamp { to_peer: 0, crossing: Some(crossing), ..STAMP };
        let flags = |flow| records(&flow, &stamp).map(|record| record.rewrite.flags).collect::<Vec<_>>();
        let [relay, permission, channel] = scopes(flow4()).map(flags);
        assert_eq!((relay, permission, channel), (vec![0, 0], vec![PEER_IS_RELAYED], vec![PEER_IS_RELAYED; 2]));
        let path = flags(media(flow));
        assert_eq!(path, [PEER_IS_RELAYED | MEDIA | MEDIA_TO_PEER, PEER_IS_RELAYED | MEDIA]);
        let plain = of(&flow, &Stamp { to_peer: 0, ..STAMP });
        for (crossed, plain) in of(&flow, &stamp).iter().zip(plain) {
            assert_eq!(*crossed, Record { rewrite: Rewrite { flags: PEER_IS_RELAYED, ..plain.rewrite }, ..plain });
        }
    }

    #[test]
    fn behind_a_nat_data_for_another_client_arrives_where_its_relayed_address_is_bound() {
        let flow = flow4();
        let (_, peer) = channel_of(&flow);
        let [outside, inside]: [IpAddr; 2] = [[203, 0, 113, 1].into(), [10, 0, 0, 7].into()];
        let crossing = Crossing { source: outside, destination: inside, index: 0x0201 };
        let stamp = Stamp { to_peer: 0, crossing: Some(crossing), ..STAMP };
        let [to_peer, to_client] = of(&flow, &stamp)[..] else { panic!("two records") };
        let (from, to) = (SocketAddr::new(outside, flow.relayed.port()), SocketAddr::new(inside, peer.port()));
        assert_eq!((to_peer.rewrite.source, to_peer.rewrite.destination), (octets(from.ip()), octets(to.ip())));
        let plain = of(&flow, &STAMP);
        assert_eq!(
            [to_peer.key, to_client.key],
            [plain[0].key, plain[1].key],
            "each side sees the outside of the other"
        );
        assert_eq!(to_client.rewrite, Rewrite { flags: PEER_IS_RELAYED, ..plain[1].rewrite });
        for payload in payloads() {
            let framing = ChannelDataHeader { channel: 0x4001, length: payload.len() as u16 }.to_bytes();
            let before = full_checksum(flow.client, flow.server, &[&framing, &payload[..]].concat());
            let after = incremental(before, &to_peer, Sum::ZERO, &framing, &[], payload.len());
            assert_eq!(after, full_checksum(from, to, &payload), "{} bytes", payload.len());
        }
        let [there, back] = of(&media(flow), &stamp)[..] else { panic!("two records") };
        let sent = (there.rewrite.source, there.rewrite.destination);
        assert_eq!(sent, (to_peer.rewrite.source, to_peer.rewrite.destination), "media goes the same way");
        assert_eq!((there.rewrite.delta, back.rewrite.delta), (to_peer.rewrite.delta, to_client.rewrite.delta));
        let [_, permission, _] = scopes(flow);
        let [data] = of(&permission, &stamp)[..] else { panic!("one record") };
        let [plain] = of(&permission, &STAMP)[..] else { panic!("one record") };
        let expected = Rewrite { flags: PEER_IS_RELAYED, peer_next_hop: 0x0201, ..plain.rewrite };
        assert_eq!(data, Record { rewrite: expected, ..plain });
    }
}
