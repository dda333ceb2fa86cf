//! From a flow to the key and the rewrite record of each direction. Pure: no map, no clock, no route.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::maps::{FlowKey, Rewrite, flow_delta};

use super::flow::{Direction, Flow, Path};

/// The key of one direction, for the map of its IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    V4(FlowKey<4>),
    V6(FlowKey<16>),
}

/// What a record holds besides the flow itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Index of the next hop.
    pub(super) next_hop: u16,
    /// First tick at which the record is not valid any more.
    pub(super) expires: u32,
}

impl Key {
    /// The key under which packets of a direction arrive; `None` if its two addresses are of different families.
    pub(super) fn of(flow: &Flow, direction: Direction) -> Option<Self> {
        let Path { source, destination } = flow.arrives(direction);
        let channel = match direction {
            Direction::ToPeer => flow.channel,
            Direction::ToClient => 0,
        };
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(Self::V4(FlowKey {
                source: from.octets(),
                destination: to.octets(),
                source_port: source.port().to_be_bytes(),
                destination_port: destination.port().to_be_bytes(),
                channel: channel.to_be_bytes(),
                zero: [0; 2],
            })),
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(Self::V6(FlowKey {
                source: from.octets(),
                destination: to.octets(),
                source_port: source.port().to_be_bytes(),
                destination_port: destination.port().to_be_bytes(),
                channel: channel.to_be_bytes(),
                zero: [0; 2],
            })),
            _ => None,
        }
    }
}

/// The finished record of a direction.
pub(super) fn rewrite(flow: &Flow, direction: Direction, stamp: Stamp) -> Rewrite {
    let (arrives, leaves) = (flow.arrives(direction), flow.leaves(direction));
    let (taken_channel, put_channel) = match direction {
        Direction::ToPeer => (flow.channel, 0),
        Direction::ToClient => (0, flow.channel),
    };
    Rewrite {
        expires: stamp.expires,
        allocation: flow.allocation,
        source: octets(leaves.source),
        destination: octets(leaves.destination),
        source_port: leaves.source.port().to_be_bytes(),
        destination_port: leaves.destination.port().to_be_bytes(),
        channel: put_channel.to_be_bytes(),
        delta: delta(arrives, taken_channel, leaves, put_channel),
        next_hop: stamp.next_hop,
        family: if leaves.destination.is_ipv4() { 4 } else { 6 },
        flags: 0,
    }
}

/// A missing channel is summed as 0, which changes no one's complement sum.
fn delta(arrives: Path, taken_channel: u16, leaves: Path, put_channel: u16) -> [u8; 2] {
    flow_delta(
        [
            &octets(arrives.source),
            &octets(arrives.destination),
            &arrives.source.port().to_be_bytes(),
            &arrives.destination.port().to_be_bytes(),
            &taken_channel.to_be_bytes(),
        ],
        [
            &octets(leaves.source),
            &octets(leaves.destination),
            &leaves.source.port().to_be_bytes(),
            &leaves.destination.port().to_be_bytes(),
            &put_channel.to_be_bytes(),
        ],
    )
}

/// The address as records hold it: IPv4 in the first four bytes, the rest zero.
fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use hairpin_common::checksum::{Sum, update_udp, word};
    use hairpin_common::wire::{CHANNEL_DATA_LEN, ChannelDataHeader, PROTOCOL_UDP, UDP_LEN};

    use super::super::flow::tests::{flow4, flow6};
    use super::*;

    const STAMP: Stamp = Stamp { next_hop: 5, expires: 1000 };

    /// The checksum field of a UDP datagram, computed over everything (RFC 768, RFC 8200 section 8.1).
    fn full_checksum(path: Path, body: &[u8]) -> u16 {
        let length = u16::try_from(UDP_LEN + body.len()).unwrap();
        let sum = Sum::ZERO
            .add_bytes(&octets(path.source))
            .add_bytes(&octets(path.destination))
            .add(word(u16::from(PROTOCOL_UDP)))
            .add(word(length))
            .add_bytes(&path.source.port().to_be_bytes())
            .add_bytes(&path.destination.port().to_be_bytes())
            .add(word(length))
            .add_bytes(body);
        match sum.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    fn framed(channel: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        [&ChannelDataHeader { channel, length }.to_bytes(), payload].concat()
    }

    /// What the program does: the record's delta, and the lengths (UDP length twice, in the header and in the pseudo
    /// header, and the ChannelData length once).
    fn incremental(old: u16, record: &Rewrite, direction: Direction, payload: usize) -> u16 {
        let short = word(u16::try_from(UDP_LEN + payload).unwrap());
        let long = word(u16::try_from(UDP_LEN + CHANNEL_DATA_LEN + payload).unwrap());
        let framing = word(u16::try_from(payload).unwrap());
        let delta = Sum::ZERO.add(u16::from_ne_bytes(record.delta));
        let delta = match direction {
            Direction::ToPeer => delta.sub(long).sub(long).sub(framing).add(short).add(short),
            Direction::ToClient => delta.sub(short).sub(short).add(long).add(long).add(framing),
        };
        update_udp(old, delta)
    }

    #[test]
    fn the_delta_gives_the_checksum_of_the_rewritten_packet() {
        for flow in [flow4(), flow6()] {
            for payload in [&b""[..], b"x", b"hello", b"an even number of bytes!", &[0xff; 1200]] {
                for direction in Direction::BOTH {
                    let record = rewrite(&flow, direction, STAMP);
                    let with_channel = framed(flow.channel, payload);
                    let (before, after) = match direction {
                        Direction::ToPeer => (&with_channel[..], payload),
                        Direction::ToClient => (payload, &with_channel[..]),
                    };
                    let old = full_checksum(flow.arrives(direction), before);
                    let new = full_checksum(flow.leaves(direction), after);
                    assert_eq!(
                        incremental(old, &record, direction, payload.len()),
                        new,
                        "{direction:?} {flow:?} with {} bytes",
                        payload.len()
                    );
                }
            }
        }
    }

    #[test]
    fn a_client_is_known_by_its_channel_and_a_peer_without() {
        let flow = flow4();
        let expected = FlowKey {
            source: [192, 0, 2, 10],
            destination: [192, 0, 2, 1],
            source_port: 40_000_u16.to_be_bytes(),
            destination_port: 3478_u16.to_be_bytes(),
            channel: [0x40, 0x01],
            zero: [0; 2],
        };
        assert_eq!(Key::of(&flow, Direction::ToPeer), Some(Key::V4(expected)));
        let expected = FlowKey {
            source: [198, 51, 100, 7],
            destination: [192, 0, 2, 1],
            source_port: 6000_u16.to_be_bytes(),
            destination_port: 50_000_u16.to_be_bytes(),
            channel: [0; 2],
            zero: [0; 2],
        };
        assert_eq!(Key::of(&flow, Direction::ToClient), Some(Key::V4(expected)));
    }

    #[test]
    fn a_record_says_what_to_send() {
        let flow = flow6();
        let record = rewrite(&flow, Direction::ToClient, STAMP);
        assert_eq!(record.source, octets(flow.server));
        assert_eq!(record.destination, octets(flow.client));
        assert_eq!(record.source_port, 3478_u16.to_be_bytes());
        assert_eq!(record.destination_port, 40_000_u16.to_be_bytes());
        assert_eq!(record.channel, [0x40, 0x01]);
        assert_eq!((record.next_hop, record.expires), (5, 1000));
        assert_eq!((record.family, record.allocation, record.flags), (6, 3, 0));

        let record = rewrite(&flow4(), Direction::ToPeer, STAMP);
        assert_eq!(record.source[..4], [192, 0, 2, 1]);
        assert_eq!(record.destination[..4], [198, 51, 100, 7]);
        assert_eq!((record.channel, record.family), ([0; 2], 4));
        assert_eq!(record.source[4..], [0; 12]);
    }
}
