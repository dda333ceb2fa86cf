//! The few STUN messages that the program reads and writes (RFC 8489, RFC 8656): numbers, lengths, and the CRC of
//! FINGERPRINT.

use crate::wire::STUN_LEN;

/// Message type of a Binding request.
pub const BINDING_REQUEST: u16 = 0x0001;
/// Message type of a Binding success response.
pub const BINDING_SUCCESS: u16 = 0x0101;
/// Message type of a Send indication.
pub const SEND_INDICATION: u16 = 0x0016;
/// Message type of a Data indication.
pub const DATA_INDICATION: u16 = 0x0017;

/// Attribute XOR-PEER-ADDRESS (RFC 8656 section 18.3).
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
/// Attribute DATA (RFC 8656 section 18.4).
pub const DATA: u16 = 0x0013;
/// Attribute DONT-FRAGMENT (RFC 8656 section 18.9).
pub const DONT_FRAGMENT: u16 = 0x001a;
/// Attribute XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Attribute FINGERPRINT (RFC 8489 section 14.7).
pub const FINGERPRINT: u16 = 0x8028;

/// Length of an attribute's header, in bytes: type, then length of the value.
pub const ATTRIBUTE_LEN: usize = 4;
/// Length of the attribute FINGERPRINT, in bytes.
pub const FINGERPRINT_LEN: usize = ATTRIBUTE_LEN + 4;
/// What FINGERPRINT's CRC is combined with (RFC 8489 section 14.7).
pub const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Family in an address attribute: IPv4.
pub const FAMILY_IPV4: u8 = 1;
/// Family in an address attribute: IPv6.
pub const FAMILY_IPV6: u8 = 2;

/// Length of the value of an address attribute, in bytes: zero, family, port, address.
#[inline(always)]
pub const fn address_len(is_ipv6: bool) -> usize {
    if is_ipv6 { 20 } else { 8 }
}

/// How many bytes a Data indication has in front of the data of a peer (RFC 8656 section 11.3).
#[inline(always)]
pub const fn data_indication_len(is_ipv6: bool) -> usize {
    STUN_LEN + ATTRIBUTE_LEN + address_len(is_ipv6) + ATTRIBUTE_LEN
}

/// How many bytes of padding follow a value (RFC 8489 section 14).
#[inline(always)]
pub const fn padding(length: u16) -> u16 {
    length.wrapping_neg() & 3
}

/// Tables to take four bytes of a CRC at once: the first for the last byte of them.
pub type CrcTables = [[u32; 256]; 4];

/// The tables of the CRC-32 of ITU-T V.42, which FINGERPRINT uses.
pub const CRC_TABLES: CrcTables = crc_tables();

const fn crc_tables() -> CrcTables {
    /// The polynomial, lowest power first.
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 4 {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[table - 1][byte];
            tables[table][byte] = (shorter >> 8) ^ tables[0][(shorter & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// A CRC under way.
#[derive(Clone, Copy, Debug)]
pub struct Crc(u32);

impl Crc {
    /// Of nothing.
    pub const START: Self = Self(u32::MAX);

    /// Goes on with four bytes, as they stand in memory.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, tables: &CrcTables, word: u32) -> Self {
        let mixed = self.0 ^ word.to_le();
        let [first, second, third, fourth] = mixed.to_le_bytes();
        Self(
            tables[3][first as usize]
                ^ tables[2][second as usize]
                ^ tables[1][third as usize]
                ^ tables[0][fourth as usize],
        )
    }

    /// The value of FINGERPRINT, as a number.
    #[inline(always)]
    pub const fn fingerprint(self) -> u32 {
        !self.0 ^ FINGERPRINT_XOR
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn the_crc_is_that_of_itu_t_v42() {
        // The check value of this CRC is that of the digits 1 to 9; four bytes at once leave 12345678.
        let crc = [*b"1234", *b"5678"]
            .into_iter()
            .fold(Crc::START, |crc, word| crc.add(&CRC_TABLES, u32::from_ne_bytes(word)));
        let last = (crc.0 >> 8) ^ CRC_TABLES[0][((crc.0 ^ u32::from(b'9')) & 0xff) as usize];
        assert_eq!(!last, 0xcbf4_3926);
    }

    #[test]
    fn lengths_are_those_of_the_rfc() {
        assert_eq!((data_indication_len(false), data_indication_len(true)), (36, 48));
        assert_eq!([0, 1, 2, 3, 4, 65_535].map(padding), [0, 3, 2, 1, 0, 1]);
    }
}
