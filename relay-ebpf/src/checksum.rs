//! Sums of headers, 32 bits at a time; what they mean is in [`hairpin_common::checksum`].

/// A one's complement sum of 32-bit wire words: up to 2^32 of them before a carry could be lost.
#[derive(Clone, Copy)]
pub(crate) struct Sum32(u64);

impl Sum32 {
    /// The empty sum.
    pub(crate) const ZERO: Self = Self(0);

    /// Adds two wire words at once.
    #[inline(always)]
    pub(crate) const fn add(self, words: u32) -> Self {
        Self(self.0 + words as u64)
    }

    /// Adds four.
    #[inline(always)]
    pub(crate) const fn add_long(self, words: u64) -> Self {
        Self(self.0 + (words & 0xffff_ffff) + (words >> 32))
    }

    /// Adds another sum.
    #[inline(always)]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// The sum as one wire word. Good for a header, whose sum has far fewer than 2^16 carries.
#[inline(always)]
pub(crate) const fn fold(sum: Sum32) -> u16 {
    let words = (sum.0 & 0xffff) + (sum.0 >> 16 & 0xffff) + (sum.0 >> 32);
    let once = (words & 0xffff) + (words >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}
