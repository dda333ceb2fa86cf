//! Where the fields of a packet are, and what a datagram is by its first byte.

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_LEN: usize = 14;
/// Length of one IEEE 802.1Q tag, in bytes.
pub const VLAN_TAG_LEN: usize = 4;
/// Length of an IPv4 header without options, in bytes (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Length of the fixed IPv6 header, in bytes (RFC 8200).
pub const IPV6_LEN: usize = 40;
/// Length of a UDP header, in bytes (RFC 768).
pub const UDP_LEN: usize = 8;
/// Length of a ChannelData header, in bytes: channel number, then length (RFC 8656 section 12.4).
pub const CHANNEL_DATA_LEN: usize = 4;
/// Length of a STUN message header, in bytes (RFC 8489 section 5).
pub const STUN_LEN: usize = 20;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an IEEE 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// The fixed value in bytes 4 to 8 of every STUN header (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;

/// Lowest channel number (RFC 8656 section 12).
pub const CHANNEL_MIN: u16 = 0x4000;
/// Highest channel number that is accepted.
///
/// RFC 8656 section 12 ends at 0x4FFF. RFC 5766 ended at 0x7FFF, and clients of its time still pick from all of it, so
/// the old range stays valid; RFC 7983 leaves first bytes 80 to 127 to nobody else.
pub const CHANNEL_MAX: u16 = 0x7fff;

/// What a datagram is by its first byte (RFC 7983, as far as TURN needs it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// First byte 0 to 3.
    Stun,
    /// First byte 64 to 127, see [`CHANNEL_MAX`].
    ChannelData,
    /// Anything else: not for a TURN server.
    Other,
}

impl Datagram {
    /// Tells the kinds apart.
    #[inline(always)]
    pub const fn of(first_byte: u8) -> Self {
        match first_byte {
            0..=3 => Self::Stun,
            64..=127 => Self::ChannelData,
            _ => Self::Other,
        }
    }
}

/// A ChannelData header (RFC 8656 section 12.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDataHeader {
    /// The channel number; not yet checked against its range.
    pub channel: u16,
    /// Length of the application data, in bytes, without padding.
    pub length: u16,
}

impl ChannelDataHeader {
    /// Reads the header from the first four bytes of a datagram.
    #[inline(always)]
    pub const fn parse(bytes: [u8; CHANNEL_DATA_LEN]) -> Self {
        Self { channel: u16::from_be_bytes([bytes[0], bytes[1]]), length: u16::from_be_bytes([bytes[2], bytes[3]]) }
    }

    /// The header as it goes on the wire.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; CHANNEL_DATA_LEN] {
        let channel = self.channel.to_be_bytes();
        let length = self.length.to_be_bytes();
        [channel[0], channel[1], length[0], length[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_decides_what_a_datagram_is() {
        for byte in 0..=255_u8 {
            let expected = if byte < 4 {
                Datagram::Stun
            } else if (64..128).contains(&byte) {
                Datagram::ChannelData
            } else {
                Datagram::Other
            };
            assert_eq!(Datagram::of(byte), expected, "first byte {byte}");
        }
        assert_eq!(Datagram::of(CHANNEL_MIN.to_be_bytes()[0]), Datagram::ChannelData);
        assert_eq!(Datagram::of(CHANNEL_MAX.to_be_bytes()[0]), Datagram::ChannelData);
    }

    #[test]
    fn channel_data_header_keeps_its_bytes() {
        let bytes = [0x40, 0x01, 0x04, 0xd2];
        let header = ChannelDataHeader::parse(bytes);
        assert_eq!(header, ChannelDataHeader { channel: 0x4001, length: 1234 });
        assert_eq!(header.to_bytes(), bytes);
    }
}
