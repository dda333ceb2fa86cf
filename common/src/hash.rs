//! The hash of the table of flows: where a key's buckets are, and its tag.

use crate::maps::FlowKey;

/// Where the two buckets of a key are: a universal hash, so that nobody who does not know the seed can aim collisions.
///
/// Each 64-bit word of the key adds one product of its two halves, each moved by a half of the seed's word (NH of UMAC,
/// RFC 4418 section 5.2.2). For any two keys, 2^-32 of all seeds let the sums collide. The products do not wait for each
/// other, as the rounds of a chained hash would.
#[derive(Clone, Copy, Debug)]
pub struct FlowHash(u64);

/// Random words, one for each word of a key.
pub type Seed = [u64; size_of::<FlowKey>() / 8];

impl FlowHash {
    /// The hash of nothing.
    pub const EMPTY: Self = Self(0);

    /// Goes on with a word of the key, and the seed's word of the same index.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u64, seed: u64) -> Self {
        let low = (word as u32).wrapping_add(seed as u32);
        let high = ((word >> 32) as u32).wrapping_add((seed >> 32) as u32);
        Self(self.0.wrapping_add(low as u64 * high as u64))
    }

    /// Indices of both buckets in a table of this many.
    #[inline(always)]
    pub const fn buckets(self, count: u32) -> [u32; 2] {
        let mixed = self.mixed();
        [scale(mixed >> 32, count), scale((mixed ^ mixed >> 39) & 0xffff_ffff, count)]
    }

    /// What stands for the key among the [`tags`](crate::tags) of its bucket: anything but 0. Of bits that the buckets
    /// hardly depend on.
    #[inline(always)]
    pub const fn tag(self) -> u8 {
        let byte = self.mixed() >> 32 & 0xff;
        // Without a branch: only 0 has something to borrow.
        (byte + (byte.wrapping_sub(1) >> 63)) as u8
    }

    /// The hash with all of its bits equally random; of the sum of products, the lowest are the least.
    #[inline(always)]
    pub const fn mixed(self) -> u64 {
        (self.0 ^ self.0 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The hash of a key from its [words](FlowKey::words). What an IPv4 key has is in two words as well as in five.
    #[inline(always)]
    pub const fn of([a, b, c, d, last]: [u64; 5], is_ipv4: bool, seed: Seed) -> Self {
        let last = Self::EMPTY.add(last, seed[4]);
        if is_ipv4 {
            return last.add(a | c.rotate_left(32), seed[0]);
        }
        last.add(a, seed[0]).add(b, seed[1]).add(c, seed[2]).add(d, seed[3])
    }

    /// The same.
    pub fn of_key(key: &FlowKey, seed: Seed) -> Self {
        Self::of(key.words(), key.family == 4, seed)
    }
}

/// Maps 32 random bits to a number below `count`, by their highest bits.
#[inline(always)]
pub const fn scale(random: u64, count: u32) -> u32 {
    ((random * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::slot::tests::key;

    proptest! {
        #[test]
        fn keys_that_hardly_differ_spread_over_all_buckets(
            base in key(), seed: Seed, place in 0..40_usize, count in 1500..3000_u32,
        ) {
            // 4096 keys whose only difference is two bytes anywhere: on average two in each of 2048 buckets.
            let mut counts = vec![[0_u32; 2]; count as usize];
            let mut pairs = 0;
            for number in 0..4096_u16 {
                let mut words = base.words();
                for (offset, value) in number.to_be_bytes().into_iter().enumerate() {
                    // Of IPv4, only places that a key has something in.
                    let parts = if base.family == 4 { [0..4, 16..20, 32..40] } else { [0..16, 16..32, 32..40] };
                    let places: vec::Vec<_> = parts.into_iter().flatten().collect();
                    let place = places[(place + offset) % places.len()];
                    let mut bytes = words[place / 8].to_ne_bytes();
                    bytes[place % 8] ^= value;
                    words[place / 8] = u64::from_ne_bytes(bytes);
                }
                let [first, second] = FlowHash::of(words, base.family == 4, seed).buckets(count);
                counts[first as usize][0] += 1;
                counts[second as usize][1] += 1;
                pairs += u32::from(first == second);
            }
            for which in 0..2 {
                // A chance of 10^-8 for each bucket of a random function; a bad one has hundreds in some.
                let most = counts.iter().map(|count| count[which]).max();
                prop_assert!(most < Some(26), "{most:?} keys in one bucket");
                let empty = counts.iter().filter(|count| count[which] == 0).count();
                prop_assert!(empty < 1000, "{empty} of {count} buckets are empty");
            }
            prop_assert!(pairs < 40, "{pairs} keys have one bucket instead of two");
        }
    }

    #[test]
    fn tags_of_the_keys_of_one_bucket_are_random_and_never_zero() {
        let seed = [0x0123_4567_89ab_cdef; 5].map(|word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut counts = [0_u32; 256];
        let mut keys = 0;
        for number in 0..1_000_000_u64 {
            let hash = FlowHash::EMPTY.add(number, seed[0]).add(number << 7, seed[1]);
            if hash.buckets(40)[0] == 7 {
                counts[usize::from(hash.tag())] += 1;
                keys += 1;
            }
        }
        assert_eq!(counts[0], 0);
        let most = counts.iter().max().copied();
        // Of some 25,000 keys each tag has 98; 1 has those of 0, too.
        assert!(keys > 24_000 && most < Some(250), "{most:?} of {keys}");
        assert!(counts[1..].iter().all(|count| *count > 40), "{counts:?}");
    }
}
