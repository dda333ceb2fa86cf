//! Packets from their fields.

use std::{fmt::Write as _, net::SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
    SingleVlanHeader, UdpHeader, VlanId, VlanPcp,
};

use super::bench::NEXT_HOP;

/// A UDP datagram in an Ethernet frame, by its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Link-layer destination and source.
    pub link: ([u8; 6], [u8; 6]),
    /// IEEE 802.1Q tag: priority (3 bits), drop eligibility (1 bit), VLAN id (12 bits).
    pub vlan: Option<u16>,
    /// Both addresses are of one family.
    pub source: SocketAddr,
    /// See `source`.
    pub destination: SocketAddr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4: the DF bit.
    pub dont_fragment: bool,
    /// IPv4: the identification.
    pub identification: u16,
    /// IPv6: the flow label.
    pub flow_label: u32,
    /// Whether the UDP checksum is computed, or zero.
    pub checksum: bool,
    /// What UDP carries.
    pub payload: Vec<u8>,
    /// What follows the packet in the frame, such as Ethernet's padding.
    pub trailing: Vec<u8>,
}

impl Frame {
    /// A plain datagram between two addresses, as a common host sends it.
    pub fn new(source: SocketAddr, destination: SocketAddr, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            link: (NEXT_HOP.source, [0x02, 0, 0, 0, 0, 2]),
            vlan: None,
            source,
            destination,
            traffic_class: 0,
            hop_limit: 64,
            dont_fragment: true,
            identification: 0,
            flow_label: 0,
            checksum: true,
            payload: payload.into(),
            trailing: Vec::new(),
        }
    }

    /// Where the IP header begins.
    pub fn layer3(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    /// Where the UDP header begins.
    pub fn layer4(&self) -> usize {
        self.layer3() + if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// The frame as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ether_type = if self.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let (destination, source) = self.link;
        let outer = if self.vlan.is_some() { EtherType::VLAN_TAGGED_FRAME } else { ether_type };
        let ethernet = Ethernet2Header { destination, source, ether_type: outer };
        bytes.extend(ethernet.to_bytes());
        if let Some(tag) = self.vlan {
            let vlan = SingleVlanHeader {
                pcp: VlanPcp::try_new((tag >> 13) as u8).expect("three bits"),
                drop_eligible_indicator: tag & 0x1000 != 0,
                vlan_id: VlanId::try_new(tag & 0x0fff).expect("twelve bits"),
                ether_type,
            };
            bytes.extend(vlan.to_bytes());
        }
        let (source, destination) = (self.source.port(), self.destination.port());
        let udp_length = u16::try_from(8 + self.payload.len()).expect("a datagram");
        let mut udp = match (self.source, self.destination) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                let ip = self.ipv4(from.ip().octets(), to.ip().octets(), udp_length);
                bytes.extend(ip.to_bytes());
                UdpHeader::with_ipv4_checksum(source, destination, &ip, &self.payload)
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                let ip = Ipv6Header {
                    traffic_class: self.traffic_class,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("twenty bits"),
                    payload_length: udp_length,
                    next_header: IpNumber::UDP,
                    hop_limit: self.hop_limit,
                    source: from.ip().octets(),
                    destination: to.ip().octets(),
                };
                bytes.extend(ip.to_bytes());
                UdpHeader::with_ipv6_checksum(source, destination, &ip, &self.payload)
            }
            _ => panic!("addresses of two families in {self:?}"),
        }
        .expect("a datagram");
        if !self.checksum {
            udp.checksum = 0;
        }
        bytes.extend(udp.to_bytes());
        bytes.extend(&self.payload);
        bytes.extend(&self.trailing);
        bytes
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], udp_length: u16) -> Ipv4Header {
        let mut ip = Ipv4Header::new(udp_length, self.hop_limit, IpNumber::UDP, source, destination).expect("a packet");
        ip.dscp = IpDscp::try_new(self.traffic_class >> 2).expect("six bits");
        ip.ecn = IpEcn::try_new(self.traffic_class & 3).expect("two bits");
        ip.dont_fragment = self.dont_fragment;
        ip.identification = self.identification;
        ip.fragment_offset = IpFragOffset::ZERO;
        ip.header_checksum = ip.calc_header_checksum();
        ip
    }
}

/// Makes an IPv4 header's checksum right again after a test changed the header.
pub fn repair_ipv4(bytes: &mut [u8], layer3: usize) {
    let header = usize::from(bytes[layer3] & 0xf) * 4;
    bytes[layer3 + 10..layer3 + 12].fill(0);
    let mut sum = 0_u32;
    for pair in bytes[layer3..layer3 + header].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[layer3 + 10..layer3 + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The packet as a dump for a failing test.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "\n    {:04x} ", line * 16);
        for byte in chunk {
            let _ = write!(text, " {byte:02x}");
        }
    }
    text
}
