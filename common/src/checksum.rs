//! One's complement sums and their incremental update (RFC 1071, RFC 1624).
//!
//! An Internet checksum is the complement of a sum of 16-bit words in which carries wrap around. That sum has two
//! properties this module lives on:
//!
//! - It is indifferent to byte order, as long as all words are read the same way and the result is stored that way. A
//!   *wire word* here is therefore a `u16` with the same bytes in memory as on the wire (`u16::from_ne_bytes`), and no
//!   word is ever swapped. Numbers (lengths) become wire words by [`word`].
//! - Taking a word out is adding its complement. So when a relay replaces addresses, ports and framing but not the
//!   payload, the new checksum follows from the old one and the difference of what was replaced: the payload is not read.

/// The wire word of a number, such as a length field.
#[inline(always)]
pub const fn word(number: u16) -> u16 {
    number.to_be()
}

/// A running one's complement sum of wire words.
///
/// Holds up to 65,535 words before a carry could be lost, far more than any header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u32);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds one wire word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u16) -> Self {
        Self(self.0 + word as u32)
    }

    /// Takes one wire word out.
    #[inline(always)]
    #[must_use]
    pub const fn sub(self, word: u16) -> Self {
        Self(self.0 + !word as u32)
    }

    /// Adds bytes that start at an even offset of the summed data; an odd last byte is padded with zero, as RFC 1071
    /// asks, so only the last call of a sum may pass an odd number of bytes.
    #[inline(always)]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self;
        let (words, odd) = bytes.as_chunks::<2>();
        for pair in words {
            sum = sum.add(u16::from_ne_bytes(*pair));
        }
        if let [last] = odd {
            sum = sum.add(u16::from_ne_bytes([*last, 0]));
        }
        sum
    }

    /// Takes bytes out that were added by [`Sum::add_bytes`] at an even offset.
    #[inline(always)]
    #[must_use]
    pub fn sub_bytes(self, bytes: &[u8]) -> Self {
        self.sub(Self::ZERO.add_bytes(bytes).fold())
    }

    /// The sum as one wire word.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        let twice = (once & 0xffff) + (once >> 16);
        twice as u16
    }

    /// The checksum field that makes the whole sum come out right.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// The UDP checksum field after `delta` was added to the data it covers.
///
/// `old` and the result are wire words as they stand in the UDP header. `old` must be a real checksum: zero means that
/// the sender computed none, and then there is nothing to update. A result of zero is sent as 0xFFFF (RFC 768).
#[inline(always)]
pub const fn update_udp(old: u16, delta: Sum) -> u16 {
    let new = Sum(delta.0).add(!old).checksum();
    if new == 0 { 0xffff } else { new }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checksum_of(bytes: &[u8]) -> u16 {
        Sum::ZERO.add_bytes(bytes).checksum()
    }

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        let sum = Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 section 4: checksum 0xdd2f, a word changes from 0x5555 to 0x3285, and the result is 0x0000.
        let old = u16::from_ne_bytes([0xdd, 0x2f]);
        let delta = Sum::ZERO.sub(u16::from_ne_bytes([0x55, 0x55])).add(u16::from_ne_bytes([0x32, 0x85]));
        assert_eq!(delta.add(!old).checksum(), 0x0000);
        assert_eq!(update_udp(old, delta), 0xffff);
    }

    proptest! {
        #[test]
        fn an_incremental_update_equals_a_new_checksum(
            before in proptest::collection::vec(any::<u8>(), 0..64),
            after in proptest::collection::vec(any::<u8>(), 0..64),
            payload in proptest::collection::vec(any::<u8>(), 1..128),
        ) {
            let even = |bytes: &[u8]| bytes[..bytes.len() & !1].to_vec();
            let (before, after) = (even(&before), even(&after));
            let whole = |head: &[u8]| [head, &payload].concat();
            let old = match checksum_of(&whole(&before)) { 0 => 0xffff, old => old };
            let new = match checksum_of(&whole(&after)) { 0 => 0xffff, new => new };
            let delta = Sum::ZERO.sub_bytes(&before).add_bytes(&after);
            prop_assert_eq!(update_udp(old, delta), new);
        }
    }
}
