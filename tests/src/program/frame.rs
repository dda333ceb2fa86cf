//! Packets from their fields.

use std::{fmt::Write as _, net::SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
    SingleVlanHeader, UdpHeader, VlanId, VlanPcp,
};

use hairpin_common::verdict::Verdict;

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
    /// By how much the UDP checksum is wrong: a one's complement difference, 0 if it is right.
    pub damage: u16,
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
            damage: 0,
            payload: payload.into(),
            trailing: Vec::new(),
        }
    }

    /// The id of its VLAN, 0 without one.
    pub fn vlan_id(&self) -> u16 {
        self.vlan.map_or(0, |tag| tag & 0x0fff)
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
        } else if self.damage != 0 {
            udp.checksum = ones_sum(&[udp.checksum, self.damage]);
        }
        bytes.extend(udp.to_bytes());
        bytes.extend(&self.payload);
        bytes.extend(&self.trailing);
        bytes
    }

    /// Reads a frame, or says why it is none that could be relayed. What [`Frame::bytes`] makes of it again are the same
    /// bytes, but for a reserved flag of IPv4.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Verdict>> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        if bytes.len() < 18 {
            return Err(vec![Verdict::NotUdp]);
        }
        let (vlan, layer3) = if word(12) == 0x8100 { (Some(word(14)), 18) } else { (None, 14) };
        let ipv6 = match word(layer3 - 2) {
            0x0800 => false,
            0x86dd => true,
            _ => return Err(vec![Verdict::NotUdp]),
        };
        let layer4 = layer3 + if ipv6 { 40 } else { 20 };
        if bytes.len() < layer4 + 8 || bytes[layer3] >> 4 != if ipv6 { 6 } else { 4 } {
            return Err(vec![Verdict::NotUdp]);
        }

        let mut reasons = Vec::new();
        let udp_length = word(layer4 + 4);
        let mut frame = if ipv6 {
            match bytes[layer3 + 6] {
                17 => {}
                44 => return Err(vec![Verdict::Fragment]),
                _ => return Err(vec![Verdict::NotUdp]),
            }
            if word(layer3 + 4) != udp_length || word(layer4 + 6) == 0 {
                reasons.push(Verdict::NotUdp);
            }
            let address = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes");
            let port = |at: usize| word(layer4 + at);
            let source = SocketAddr::from((address(layer3 + 8), port(0)));
            let mut frame = Self::new(source, (address(layer3 + 24), port(2)).into(), []);
            frame.traffic_class = (word(layer3) >> 4) as u8;
            frame.flow_label = u32::from(word(layer3) & 15) << 16 | u32::from(word(layer3 + 2));
            frame.hop_limit = bytes[layer3 + 7];
            frame
        } else {
            if bytes[layer3] & 15 != 5 {
                reasons.push(Verdict::IpOptions);
            }
            if word(layer3 + 6) & 0x3fff != 0 {
                reasons.push(Verdict::Fragment);
            }
            let header: Vec<u16> = (layer3..layer4).step_by(2).map(word).collect();
            let fits = bytes[layer3 + 9] == 17 && u32::from(word(layer3 + 2)) == 20 + u32::from(udp_length);
            if !fits || ones_sum(&header) != 0xffff {
                reasons.push(Verdict::NotUdp);
            }
            let address = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four bytes");
            let source = SocketAddr::from((address(layer3 + 12), word(layer4)));
            let mut frame = Self::new(source, (address(layer3 + 16), word(layer4 + 2)).into(), []);
            frame.traffic_class = bytes[layer3 + 1];
            frame.identification = word(layer3 + 4);
            frame.dont_fragment = word(layer3 + 6) & 0x4000 != 0;
            frame.hop_limit = bytes[layer3 + 8];
            frame.checksum = word(layer4 + 6) != 0;
            frame
        };
        let end = layer4 + usize::from(udp_length);
        if udp_length < 8 || bytes.len() < end {
            reasons.push(Verdict::NotUdp);
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let link = |at: usize| <[u8; 6]>::try_from(&bytes[at..at + 6]).expect("six bytes");
        frame.link = (link(0), link(6));
        frame.vlan = vlan;
        frame.payload = bytes[layer4 + 8..end].to_vec();
        frame.trailing = bytes[end..].to_vec();
        if frame.checksum {
            let right = frame.bytes();
            let right = u16::from_be_bytes([right[layer4 + 6], right[layer4 + 7]]);
            // All ones are zero, too.
            frame.damage = ones_sum(&[word(layer4 + 6), !right]) % 0xffff;
        }
        Ok(frame)
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

/// The one's complement sum of words; zero only if all of them are.
fn ones_sum(words: &[u16]) -> u16 {
    let mut sum: u32 = words.iter().copied().map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Makes an IPv4 header's checksum right again after a test changed the header.
pub fn repair_ipv4(bytes: &mut [u8], layer3: usize) {
    let header = usize::from(bytes[layer3] & 0xf) * 4;
    bytes[layer3 + 10..layer3 + 12].fill(0);
    let words: Vec<u16> =
        bytes[layer3..layer3 + header].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    bytes[layer3 + 10..layer3 + 12].copy_from_slice(&(!ones_sum(&words)).to_be_bytes());
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
