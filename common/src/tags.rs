//! One byte of the hash of each key in a bucket of the flow table, all of them in one word: what is looked at before any
//! slot is.
//!
//! With many flows a slot comes from memory, and takes longer than all the rest of a packet's way. The tags of all slots
//! are so few bytes that they stay in the processor's caches, and they say which slot it is, or that there is none: one
//! time in fifty they name a slot too many, whose key then says no.

use crate::slot::BUCKET_SLOTS;

/// How many slots of a bucket may have the same tag: to look at more would make the program longer than the verifier likes.
pub const MOST_ALIKE: usize = 2;

/// A one in each byte.
const ONES: u64 = u64::MAX / 0xff;
/// A byte for each place, of the first the highest.
const PLACES: u64 = 0x0001_0203_0405_0607;
/// All bits of each byte but the highest.
const LOWS: u64 = ONES * 0x7f;

/// The tags of one bucket: the lowest byte is that of the first slot. An empty slot has 0, which is no key's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tags(pub u64);

/// Places in a bucket where a key may be.
#[derive(Clone, Copy, Debug)]
pub struct Candidates(u64);

impl Tags {
    /// The same with the tag of one place replaced.
    #[must_use]
    pub const fn with(self, place: usize, tag: u8) -> Self {
        let shift = 8 * (place % BUCKET_SLOTS) as u32;
        Self((self.0 & !(0xff << shift)) | ((tag as u64) << shift))
    }

    /// All places with a tag.
    #[inline(always)]
    pub const fn places_of(self, tag: u8) -> Candidates {
        let difference = self.0 ^ (ONES * tag as u64);
        // The sum carries into the highest bit of each byte that has any lower one, and never into the next byte. What is
        // left are the highest bits of those bytes that have none at all.
        Candidates(!(((difference & LOWS) + LOWS) | difference | LOWS))
    }
}

impl Candidates {
    /// How many there are.
    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Takes the first place out. It is below [`BUCKET_SLOTS`], in a way that the kernel's verifier sees.
    #[inline(always)]
    pub const fn take_first(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        // There is no instruction that counts zeros; but there are only eight such bits, and the product with one of
        // them moves the byte that says which to the top.
        let lowest = self.0 & self.0.wrapping_neg();
        self.0 ^= lowest;
        Some(((lowest >> 7).wrapping_mul(PLACES) >> 56) as usize & (BUCKET_SLOTS - 1))
    }
}

const _: () = assert!(BUCKET_SLOTS == 8, "a word has eight bytes");

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn places(mut candidates: Candidates) -> Vec<usize> {
        core::iter::from_fn(|| candidates.take_first()).collect()
    }

    proptest! {
        #[test]
        fn every_place_of_a_tag_is_found_in_order(tags in prop::array::uniform8(0..4_u8), tag in 1..4_u8) {
            let word = tags.iter().enumerate().fold(Tags::default(), |word, (place, tag)| word.with(place, *tag));
            let expected: Vec<_> = (0..BUCKET_SLOTS).filter(|place| tags[*place] == tag).collect();
            prop_assert_eq!(word.places_of(tag).count(), expected.len(), "{:x}", word.0);
            prop_assert_eq!(places(word.places_of(tag)), expected, "{:x}", word.0);
        }

        #[test]
        fn no_other_place_is(tags: [u8; 8], tag: u8) {
            let word = tags.iter().enumerate().fold(Tags::default(), |word, (place, tag)| word.with(place, *tag));
            prop_assert!(places(word.places_of(tag)).iter().all(|place| tags[*place] == tag), "{:x}", word.0);
        }
    }

    #[test]
    fn a_tag_that_is_replaced_is_gone() {
        let mut tags = Tags::default();
        for place in 0..BUCKET_SLOTS {
            tags = tags.with(place, 0xff);
            assert_eq!(places(tags.places_of(0xff)), (0..=place).collect::<Vec<_>>());
        }
        tags = tags.with(3, 1).with(5, 0);
        assert_eq!(places(tags.places_of(0xff)), [0, 1, 2, 4, 6, 7]);
        assert_eq!(places(tags.places_of(1)), [3]);
    }
}
