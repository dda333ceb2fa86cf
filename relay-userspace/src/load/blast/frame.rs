//! Ethernet frames with UDP in them: built whole, and taken apart with every length and checksum verified.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hairpin_common::checksum::{Sum, word};
use hairpin_common::wire::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP, UDP_LEN};

/// TTL or hop limit that frames start with.
pub(super) const HOP_LIMIT: u8 = 64;

/// Link-layer addresses: to whom, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The relay's interface, or its gateway's.
    pub(super) destination: [u8; 6],
    /// Our own.
    pub(super) source: [u8; 6],
}

/// A UDP datagram, as it was in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) hop_limit: u8,
    pub(super) payload: Vec<u8>,
}

/// How long the headers before UDP's payload are.
pub(super) fn headers(ip: IpAddr) -> usize {
    ETHERNET_LEN + if ip.is_ipv4() { IPV4_LEN } else { IPV6_LEN } + UDP_LEN
}

/// A frame of one datagram, as a common host sends it: DF set over IPv4, and with a checksum. Both addresses are of one
/// IP version.
pub(super) fn build(link: Link, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_LEN + payload.len()) as u16;
    let mut frame = Vec::with_capacity(headers(source.ip()) + payload.len());
    frame.extend(link.destination);
    frame.extend(link.source);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
            let mut header = [0; IPV4_LEN];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(IPV4_LEN as u16 + udp_length).to_be_bytes());
            header[6] = 0x40;
            header[8] = HOP_LIMIT;
            header[9] = PROTOCOL_UDP;
            header[12..16].copy_from_slice(&from.octets());
            header[16..].copy_from_slice(&to.octets());
            let checksum = Sum::ZERO.add_bytes(&header).checksum();
            header[10..12].copy_from_slice(&checksum.to_ne_bytes());
            frame.extend(header);
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(udp_length.to_be_bytes());
            frame.extend([PROTOCOL_UDP, HOP_LIMIT]);
            frame.extend(octets(from));
            frame.extend(octets(to));
        }
    }
    let udp = frame.len();
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0; 2]);
    frame.extend(payload);
    // Zero would say that there is none (RFC 768).
    let checksum = match udp_sum(source.ip(), destination.ip(), &frame[udp..]).checksum() {
        0 => u16::MAX,
        checksum => checksum,
    };
    frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_ne_bytes());
    frame
}

/// Takes a frame apart; an error says what is wrong with it.
pub(super) fn parse(frame: &[u8]) -> Result<Datagram, &'static str> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_LEN).ok_or("shorter than an Ethernet header")?;
    let (source, destination, hop_limit, udp) = match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => {
            let (header, udp) = packet.split_first_chunk::<IPV4_LEN>().ok_or("shorter than an IPv4 header")?;
            if header[0] != 0x45 || header[9] != PROTOCOL_UDP || header[6] & 0x3f != 0 || header[7] != 0 {
                return Err("not a plain UDP packet over IPv4");
            }
            if usize::from(u16::from_be_bytes([header[2], header[3]])) != packet.len() {
                return Err("the length in the IPv4 header is wrong");
            }
            if Sum::ZERO.add_bytes(header).fold() != u16::MAX {
                return Err("the checksum of the IPv4 header is wrong");
            }
            let ip =
                |at: usize| IpAddr::from(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
            (ip(12), ip(16), header[8], udp)
        }
        ETHERTYPE_IPV6 => {
            let (header, udp) = packet.split_first_chunk::<IPV6_LEN>().ok_or("shorter than an IPv6 header")?;
            if header[0] >> 4 != 6 || header[6] != PROTOCOL_UDP {
                return Err("not a plain UDP packet over IPv6");
            }
            if usize::from(u16::from_be_bytes([header[4], header[5]])) != udp.len() {
                return Err("the length in the IPv6 header is wrong");
            }
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&header[at..at + 16]);
                IpAddr::from(Ipv6Addr::from(octets))
            };
            (ip(8), ip(24), header[7], udp)
        }
        _ => return Err("neither IPv4 nor IPv6"),
    };
    let (header, payload) = udp.split_first_chunk::<UDP_LEN>().ok_or("shorter than a UDP header")?;
    if usize::from(u16::from_be_bytes([header[4], header[5]])) != udp.len() {
        return Err("the length in the UDP header is wrong");
    }
    if header[6..8] == [0, 0] {
        return Err("it has no UDP checksum, and was sent with one");
    }
    if udp_sum(source, destination, udp).fold() != u16::MAX {
        return Err("the UDP checksum is wrong");
    }
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Ok(Datagram {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        hop_limit,
        payload: payload.to_vec(),
    })
}

/// The sum over pseudo-header (RFC 768, RFC 8200 section 8.1), header and payload.
fn udp_sum(source: IpAddr, destination: IpAddr, udp: &[u8]) -> Sum {
    let sum = Sum::ZERO.add(word(u16::from(PROTOCOL_UDP))).add(word(udp.len() as u16));
    let sum = [source, destination].iter().fold(sum, |sum, ip| match ip {
        IpAddr::V4(ip) => sum.add_bytes(&ip.octets()),
        IpAddr::V6(ip) => sum.add_bytes(&ip.octets()),
    });
    sum.add_bytes(udp)
}

/// The same frame with another TTL or hop limit.
#[cfg(test)]
pub(super) fn with_hop_limit(mut frame: Vec<u8>, hop_limit: u8) -> Vec<u8> {
    if frame[12..14] == ETHERTYPE_IPV6.to_be_bytes() {
        frame[ETHERNET_LEN + 7] = hop_limit;
        return frame;
    }
    let (_, header) = frame.split_at_mut(ETHERNET_LEN);
    header[8] = hop_limit;
    header[10..12].fill(0);
    let checksum = Sum::ZERO.add_bytes(&header[..IPV4_LEN]).checksum();
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { destination: [2, 0, 0, 0, 0, 1], source: [2, 0, 0, 0, 0, 2] };

    #[test]
    fn a_frame_is_what_another_implementation_makes_of_it() {
        for (source, destination, expected) in [
            (
                "11.0.0.1:1",
                "11.0.0.2:2",
                "02000000000102000000000208004500001f00004000401124cc0b0000010b000002\
                 00010002000b166e6f6464",
            ),
            (
                "[2a0e::1]:1",
                "[2a0e::2]:2",
                "02000000000102000000000286dd60000000000b11402a0e00000000000000000000\
                 000000012a0e000000000000000000000000000200010002000bd8516f6464",
            ),
        ] {
            let frame = build(LINK, source.parse().unwrap(), destination.parse().unwrap(), b"odd");
            let hex = frame.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            assert_eq!(hex, expected);
        }
    }

    #[test]
    fn every_bit_behind_the_link_layer_is_verified() {
        for (source, destination) in [("11.0.0.1:1", "11.0.0.2:2"), ("[2a0e::1]:1", "[2a0e::2]:2")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let whole = build(LINK, source, destination, b"odd");
            let datagram = Datagram { source, destination, hop_limit: HOP_LIMIT, payload: b"odd".to_vec() };
            assert_eq!(parse(&whole), Ok(datagram.clone()));
            for bit in ETHERNET_LEN * 8..whole.len() * 8 {
                let mut broken = whole.clone();
                broken[bit / 8] ^= 0x80 >> (bit % 8);
                match parse(&broken) {
                    Err(_) => {}
                    // No checksum covers these in IPv6.
                    Ok(Datagram { hop_limit, .. }) if source.is_ipv6() => {
                        let at = bit / 8 - ETHERNET_LEN;
                        assert!(at < 4 || at == 7 && hop_limit != HOP_LIMIT, "bit {bit}");
                    }
                    Ok(other) => panic!("bit {bit}: {other:?}"),
                }
            }
            for length in 0..whole.len() {
                assert!(parse(&whole[..length]).is_err(), "{length}");
            }
        }
    }
}
