//! The flow table: an array of buckets that the daemon writes through shared memory while the program reads it.
//!
//! A key hashes to two buckets of two slots, and its record is in one of these four. Most often it is in the first, so a
//! packet costs one cache line of IPv4 and two neighbouring ones of IPv6; that is why the table is not one of the
//! kernel's hashes, which go from a chain's head to an element of three lines.
//!
//! A slot is a sequence lock. Its generation is odd while the daemon writes the rest, and another one afterwards; who
//! reads the same even generation before and after everything else has read one whole record.

use crate::maps::{FlowKey, Rewrite};

/// Most 64-bit words of a slot.
pub const MOST_WORDS: usize = size_of::<Slot<16>>() / 8;

/// Slots in each bucket.
pub const BUCKET_SLOTS: usize = 2;

/// A record and its key: one cache line of IPv4, two of IPv6.
///
/// An empty slot is all zeros but for its generation. No packet has such a key, because port 0 never has a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Slot<const N: usize> {
    /// What the packet must arrive with.
    pub key: FlowKey<N>,
    /// All of the record that has the same length in both IP versions.
    pub order: Order,
    /// Source address to send from.
    pub source: [u8; N],
    /// Destination address to send to.
    pub destination: [u8; N],
}

/// What a record says besides addresses. All of it is as in [`Rewrite`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Order {
    /// Odd while the slot is being written; no two writes leave the same.
    pub generation: u32,
    /// The first [`tick`](crate::maps::tick) at which the record is no longer valid.
    pub expires: u32,
    /// Index of the allocation's counters.
    pub allocation: u32,
    /// Index of the next hop.
    pub next_hop: u16,
    /// IP version to send: 4 or 6.
    pub family: u8,
    /// Always zero in this version.
    pub flags: u8,
    /// UDP source port to send from.
    pub source_port: [u8; 2],
    /// UDP destination port to send to.
    pub destination_port: [u8; 2],
    /// Channel to wrap the payload in, or 0.
    pub channel: [u8; 2],
    /// Difference to the UDP checksum.
    pub delta: [u8; 2],
}

/// The slots of one bucket.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Bucket<const N: usize>(pub [Slot<N>; BUCKET_SLOTS]);

impl<const N: usize> Slot<N> {
    /// Its size in 64-bit words.
    pub const WORDS: usize = size_of::<Self>() / 8;
    /// The word that starts with the generation.
    pub const GENERATION_WORD: usize = size_of::<FlowKey<N>>() / 8;

    /// A key and its record, with generation 0.
    pub fn new(key: FlowKey<N>, rewrite: &Rewrite) -> Self {
        let address = |whole: [u8; 16]| {
            let mut address = [0; N];
            address.copy_from_slice(&whole[..N]);
            address
        };
        let Rewrite {
            expires, allocation, next_hop, family, flags, source_port, destination_port, channel, delta, ..
        } = *rewrite;
        let order = Order {
            generation: 0,
            expires,
            allocation,
            next_hop,
            family,
            flags,
            source_port,
            destination_port,
            channel,
            delta,
        };
        Self { key, order, source: address(rewrite.source), destination: address(rewrite.destination) }
    }

    /// Its memory, in 64-bit words; those that it does not have are zero.
    pub fn words(&self) -> [u64; MOST_WORDS] {
        let order = &self.order;
        let mut words = [0; MOST_WORDS];
        words[..5].copy_from_slice(&self.key.words());
        let rest = [
            &[0; 8][..],
            &order.allocation.to_ne_bytes(),
            &order.next_hop.to_ne_bytes(),
            &[order.family, order.flags],
            &order.source_port,
            &order.destination_port,
            &order.channel,
            &order.delta,
            &self.source,
            &self.destination,
        ];
        for (index, byte) in rest.into_iter().flatten().enumerate() {
            let word = &mut words[Self::GENERATION_WORD + index / 8];
            let mut bytes = word.to_ne_bytes();
            bytes[index % 8] = *byte;
            *word = u64::from_ne_bytes(bytes);
        }
        words[Self::GENERATION_WORD] = generation_word(order.generation, order.expires);
        words
    }

    /// The record.
    pub fn rewrite(&self) -> Rewrite {
        let address = |short: [u8; N]| {
            let mut address = [0; 16];
            address[..N].copy_from_slice(&short);
            address
        };
        let Order {
            expires, allocation, next_hop, family, flags, source_port, destination_port, channel, delta, ..
        } = self.order;
        Rewrite {
            expires,
            allocation,
            source: address(self.source),
            destination: address(self.destination),
            source_port,
            destination_port,
            channel,
            delta,
            next_hop,
            family,
            flags,
        }
    }
}

/// Bits to shift [`Order::generation`] and [`Order::expires`] by in the word that holds both.
const HALVES: [u32; 2] = if cfg!(target_endian = "little") { [0, 32] } else { [32, 0] };

/// The word of a slot that holds [`Order::generation`] and [`Order::expires`].
pub const fn generation_word(generation: u32, expires: u32) -> u64 {
    (generation as u64) << HALVES[0] | (expires as u64) << HALVES[1]
}

/// [`Order::generation`] in a [`generation_word`].
pub const fn generation_of(generation_word: u64) -> u32 {
    (generation_word >> HALVES[0]) as u32
}

/// [`Order::expires`] in a [`generation_word`].
pub const fn expires_of(generation_word: u64) -> u32 {
    (generation_word >> HALVES[1]) as u32
}

/// Where the two buckets of a key are: a universal hash, so that nobody who does not know the seed can aim collisions.
///
/// Each 64-bit word of the key adds one product of its two halves, each moved by a half of the seed's word (NH of UMAC,
/// RFC 4418 section 5.2.2). For any two keys, 2^-32 of all seeds let the sums collide. The products do not wait for each
/// other, as the rounds of a chained hash would.
#[derive(Clone, Copy, Debug)]
pub struct FlowHash(u64);

/// Random words, one for each word of the longest key.
pub type Seed = [u64; size_of::<FlowKey<16>>() / 8];

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

    /// Indices of both buckets in a table of `mask + 1`, which is a power of two up to 2^31.
    #[inline(always)]
    pub const fn buckets(self, mask: u32) -> [u32; 2] {
        // The lowest bits of a sum of products are the least random, so the high half is mixed in before and after.
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [(mixed >> 32) as u32 & mask, (mixed ^ mixed >> 39) as u32 & mask]
    }

    /// The same for a key in whole.
    pub fn of<const N: usize>(key: &FlowKey<N>, seed: &Seed) -> Self {
        let words = key.words();
        let words = words.iter().zip(seed).take(size_of::<FlowKey<N>>() / 8);
        words.fold(Self::EMPTY, |hash, (word, seed)| hash.add(*word, *seed))
    }
}

/// How many buckets, a power of two, a table needs to take this many records: at most half of its slots are ever used.
pub const fn buckets_for(records: u32) -> u32 {
    /// Few enough records could fill all four places of one more of them by chance alone.
    const LEAST: u32 = 32;
    // Two slots for each record, two slots in each bucket.
    let buckets = if records < LEAST { LEAST } else { records };
    match buckets.checked_next_power_of_two() {
        Some(buckets) => buckets,
        None => 1 << 31,
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Slot<4>>() == 64 && size_of::<Slot<16>>() == 128);
    assert!(size_of::<Order>() == 24);
    // What is read as words is aligned for it, and of IPv6 only the addresses are in the second line.
    assert!(offset_of!(Slot<4>, order) == 16 && offset_of!(Slot<16>, order) == 40);
    assert!(offset_of!(Slot<4>, source) == 40 && offset_of!(Slot<16>, source) == 64);
};

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    fn key<const N: usize>() -> impl Strategy<Value = FlowKey<N>> {
        any::<([u8; 16], [u8; 16], [u8; 2], [u8; 2], [u8; 2])>().prop_map(
            |(source, destination, source_port, destination_port, channel)| {
                let [mut from, mut to] = [[0; N]; 2];
                from.copy_from_slice(&source[..N]);
                to.copy_from_slice(&destination[..N]);
                FlowKey { source: from, destination: to, source_port, destination_port, channel, zero: [0; 2] }
            },
        )
    }

    fn rewrite() -> impl Strategy<Value = Rewrite> {
        let addresses = any::<([u8; 16], [u8; 16])>();
        let words = any::<([u8; 2], [u8; 2], [u8; 2], [u8; 2])>();
        (any::<(u32, u32, u16, u8, u8)>(), addresses, words).prop_map(
            |((expires, allocation, next_hop, family, flags), (source, destination), words)| {
                let (source_port, destination_port, channel, delta) = words;
                Rewrite {
                    expires,
                    allocation,
                    source,
                    destination,
                    source_port,
                    destination_port,
                    channel,
                    delta,
                    next_hop,
                    family,
                    flags,
                }
            },
        )
    }

    /// What a slot's fields would be if its words were its memory, as they are for the program.
    fn is_memory_of<const N: usize>(slot: &Slot<N>) -> Result<(), TestCaseError> {
        use core::mem::offset_of;
        let words = slot.words();
        let byte = |at: usize| words[at / 8].to_ne_bytes()[at % 8];
        let bytes = |at: usize, length: usize| (at..at + length).map(byte).collect::<vec::Vec<_>>();
        let order = |field: usize| offset_of!(Slot<N>, order) + field;
        prop_assert_eq!(bytes(offset_of!(FlowKey<N>, source), N), slot.key.source);
        prop_assert_eq!(bytes(offset_of!(FlowKey<N>, destination), N), slot.key.destination);
        prop_assert_eq!(bytes(offset_of!(FlowKey<N>, source_port), 2), slot.key.source_port);
        prop_assert_eq!(bytes(offset_of!(FlowKey<N>, destination_port), 2), slot.key.destination_port);
        prop_assert_eq!(bytes(offset_of!(FlowKey<N>, channel), 2), slot.key.channel);
        let Order { generation, expires, allocation, next_hop, family, flags, .. } = slot.order;
        prop_assert_eq!(bytes(order(offset_of!(Order, generation)), 4), generation.to_ne_bytes());
        prop_assert_eq!(bytes(order(offset_of!(Order, expires)), 4), expires.to_ne_bytes());
        prop_assert_eq!(bytes(order(offset_of!(Order, allocation)), 4), allocation.to_ne_bytes());
        prop_assert_eq!(bytes(order(offset_of!(Order, next_hop)), 2), next_hop.to_ne_bytes());
        prop_assert_eq!((byte(order(14)), byte(order(15))), (family, flags));
        prop_assert_eq!(bytes(order(offset_of!(Order, source_port)), 2), slot.order.source_port);
        prop_assert_eq!(bytes(order(offset_of!(Order, destination_port)), 2), slot.order.destination_port);
        prop_assert_eq!(bytes(order(offset_of!(Order, channel)), 2), slot.order.channel);
        prop_assert_eq!(bytes(order(offset_of!(Order, delta)), 2), slot.order.delta);
        prop_assert_eq!(bytes(offset_of!(Slot<N>, source), N), slot.source);
        prop_assert_eq!(bytes(offset_of!(Slot<N>, destination), N), slot.destination);
        prop_assert_eq!(
            words[0..Slot::<N>::GENERATION_WORD].to_vec(),
            slot.key.words()[..Slot::<N>::GENERATION_WORD].to_vec()
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn words_are_the_memory_of_a_slot(v4 in key::<4>(), v6 in key::<16>(), rewrite in rewrite(), generation: u32) {
            let mut slot = Slot::new(v4, &rewrite);
            slot.order.generation = generation;
            is_memory_of(&slot)?;
            let mut slot = Slot::new(v6, &rewrite);
            slot.order.generation = generation;
            is_memory_of(&slot)?;
            prop_assert_eq!(slot.rewrite(), rewrite);
        }

        #[test]
        fn keys_that_hardly_differ_spread_over_all_buckets(base in key::<16>(), seed: Seed, place in 0..40_usize) {
            // 4096 keys whose only difference is two bytes anywhere: on average two in each of 2048 buckets.
            let mut counts = vec![[0_u32; 2]; 2048];
            let mut pairs = 0;
            for number in 0..4096_u16 {
                let mut hash = FlowHash::EMPTY;
                for (index, (word, seed)) in base.words().iter().zip(&seed).enumerate() {
                    let mut bytes = word.to_ne_bytes();
                    for (offset, value) in number.to_be_bytes().into_iter().enumerate() {
                        if (place + offset) % 40 / 8 == index {
                            bytes[(place + offset) % 8] ^= value;
                        }
                    }
                    hash = hash.add(u64::from_ne_bytes(bytes), *seed);
                }
                let [first, second] = hash.buckets(2047);
                counts[first as usize][0] += 1;
                counts[second as usize][1] += 1;
                pairs += u32::from(first == second);
            }
            for which in 0..2 {
                // A chance of 10^-8 for each bucket of a random function; a bad one has hundreds in some.
                let most = counts.iter().map(|count| count[which]).max();
                prop_assert!(most < Some(24), "{most:?} keys in one bucket");
                let empty = counts.iter().filter(|count| count[which] == 0).count();
                prop_assert!(empty < 600, "{empty} of 2048 buckets are empty");
            }
            prop_assert!(pairs < 40, "{pairs} keys have one bucket instead of two");
        }
    }

    #[test]
    fn a_table_is_at_most_half_full() {
        for records in [1, 31, 32, 33, 1000, 1 << 20, (1 << 20) + 1, u32::MAX] {
            let buckets = buckets_for(records);
            assert!(buckets.is_power_of_two());
            assert!(records > 1 << 31 || u64::from(buckets) >= u64::from(records), "{buckets} for {records}");
        }
    }
}
