//! UDP datagrams out of captured frames, with their checksums verified by an independent implementation.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::program::frame::hex;

/// A UDP datagram that was captured, and the fields of its headers that tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it says it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Whether routers must not fragment it. Over IPv6 none ever does.
    pub dont_fragment: bool,
    /// What UDP carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Takes a frame apart; `None` when it does not carry UDP.
    ///
    /// # Panics
    /// When a length or a checksum is wrong: what the relay sends must be right to the last bit.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).unwrap_or_else(|error| panic!("{error}:{}", hex(frame)));
        let (Some(net), Some(TransportSlice::Udp(udp))) = (&packet.net, &packet.transport) else { return None };
        let header = udp.to_header();
        let computed = match net {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header().to_header();
                assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header checksum:{}", hex(frame));
                header.calc_checksum_ipv4(&ip, udp.payload())
            }
            NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
            NetSlice::Arp(_) => return None,
        };
        let computed = computed.expect("its length is in a 16-bit field");
        // Over IPv4 a sender may leave the checksum out, and it stays out.
        let left_out = header.checksum == 0 && matches!(net, NetSlice::Ipv4(_));
        assert!(left_out || header.checksum == computed, "UDP checksum, should be {computed:#06x}:{}", hex(frame));
        let (source, destination, hop_limit, dont_fragment): (IpAddr, IpAddr, u8, bool) = match net {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header();
                (ip.source_addr().into(), ip.destination_addr().into(), ip.ttl(), ip.dont_fragment())
            }
            NetSlice::Ipv6(ip) => {
                let ip = ip.header();
                (ip.source_addr().into(), ip.destination_addr().into(), ip.hop_limit(), true)
            }
            NetSlice::Arp(_) => return None,
        };
        Some(Self {
            source: SocketAddr::new(source, header.source_port),
            destination: SocketAddr::new(destination, header.destination_port),
            hop_limit,
            dont_fragment,
            payload: udp.payload().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::program::frame::Frame;

    #[test]
    fn every_bit_of_headers_and_payload_is_covered_by_a_checksum_or_a_length() {
        for (source, destination, headers) in [("11.0.0.1:1", "11.0.0.2:2", 28), ("[2a0e::1]:1", "[2a0e::2]:2", 48)] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let frame = Frame::new(source, destination, *b"payload").bytes();
            let whole = Datagram::of(&frame).unwrap();
            assert_eq!((whole.source, whole.destination, whole.hop_limit), (source, destination, 64));
            assert_eq!(whole.payload, b"payload");
            // The UDP header and all behind it.
            for bit in (14 + headers - 8) * 8..frame.len() * 8 {
                let mut broken = frame.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(catch_unwind(|| Datagram::of(&broken)).is_err(), "bit {bit} of{}", hex(&broken));
            }
        }
    }
}
